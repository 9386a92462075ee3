//! What holds for every rendering, whatever the values.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_proxy::program::ProxyLimits;
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Container, Object, Pod};
use larder_test_chart::repository;
use serde_json::{Value, json};

use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] = &[("invariants", invariants), ("hooks", hooks), ("flags", flags)];

/// All kinds that the chart may ever send: nothing that has the API server ask somebody before it takes a request (its own policies are about our own objects alone), and nothing that gives a right but those of the cluster cache
/// (`cluster_cache.rs`), of the controller (`controller.rs`) and the one by which OpenShift lets our own Pods in (`openshift.rs`).
const KINDS: [&str; 23] = [
    "Certificate",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Lease",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodMonitor",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
    "SecurityContextConstraints",
    "Service",
    "ServiceAccount",
    "ServiceMonitor",
    "StatefulSet",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Those of the whole cluster, which are in no namespace.
const OF_THE_CLUSTER: [&str; 6] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "SecurityContextConstraints",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

fn invariants(helm: &Helm, case: &Golden) -> Result<()> {
    let mut selectors = BTreeSet::new();
    for object in case.objects(helm)? {
        let name = format!("{} {}", object.kind(), object.name());
        ensure!(KINDS.contains(&object.kind()), "{name} is of a kind that the chart must not send");
        match object.kind() {
            "ClusterRole" if object.name() == "larder-node" => {
                ensure!(object.0["rules"] == json!([]), "{name} gives rights");
            }
            "ServiceAccount" => ensure!(object.0["automountServiceAccountToken"] == json!(false), "{name}: a token"),
            "DaemonSet" => {
                daemonset(&object).with_context(|| name.clone())?;
                ensure!(
                    selectors.insert(object.0["spec"]["selector"].to_string()),
                    "{name} selects another one's Pods"
                );
            }
            _ => {}
        }
        if !OF_THE_CLUSTER.contains(&object.kind()) {
            ensure!(object.text("/metadata/namespace") == "larder-system", "{name} is in no namespace of ours");
        }
    }
    ensure!(!selectors.is_empty(), "there is no DaemonSet");
    Ok(())
}

/// What `helm test` starts has no right at all, stays nowhere, and selects nobody else's Pods.
fn hooks(helm: &Helm, case: &Golden) -> Result<()> {
    let hooks = case.hooks(helm)?;
    ensure!(hooks.iter().any(|hook| hook.kind() == "Pod"), "helm test has no Pod to wait for");
    for hook in &hooks {
        let name = format!("{} {}", hook.kind(), hook.name());
        ensure!(
            ["DaemonSet", "Pod", "Service"].contains(&hook.kind()),
            "{name} is of a kind that helm test must not send"
        );
        let policy = hook.text("/metadata/annotations/helm.sh~1hook-delete-policy");
        ensure!(policy == "before-hook-creation,hook-succeeded", "{name} stays: {policy}");
        let Some(pod) = hook.pod().filter(|_| hook.kind() != "Service") else { continue };
        ensure!(pod.0["automountServiceAccountToken"] == json!(false), "{name}: a token");
        ensure!(pod.0.get("hostPID").is_none() && pod.volumes().is_empty(), "{name} sees something of the node");
        ensure!(pod.0["securityContext"]["runAsNonRoot"] == json!(true), "{name} may be root");
        for container in pod.containers() {
            ensure!(
                container.get("/securityContext/capabilities") == &json!({"drop": ["ALL"]})
                    && container.get("/securityContext/allowPrivilegeEscalation") == &json!(false),
                "{name}: {} has rights",
                container.name()
            );
        }
    }
    let selectors = hooks.iter().filter(|hook| hook.kind() == "DaemonSet").map(|hook| &hook.0["spec"]["selector"]);
    let others: Vec<_> = case.objects(helm)?.into_iter().filter(|object| object.kind() == "DaemonSet").collect();
    for selector in selectors {
        ensure!(others.iter().all(|other| other.0["spec"]["selector"] != *selector), "two DaemonSets, one selector");
    }
    Ok(())
}

fn daemonset(object: &Object) -> Result<()> {
    let pod = object.pod().context("no Pod")?;
    let spec = pod.0;
    for (key, expected) in [
        ("automountServiceAccountToken", json!(false)),
        ("hostNetwork", json!(true)),
        ("hostPID", json!(true)),
        ("dnsPolicy", json!("Default")),
    ] {
        ensure!(spec[key] == expected, "{key} is {}", spec[key]);
    }
    let grace = spec["terminationGracePeriodSeconds"].as_u64().context("no grace")?;
    ensure!(grace >= longest_stop().as_secs(), "a stop that takes its time is cut off after {grace} s");
    let strategy = &object.0["spec"]["updateStrategy"]["rollingUpdate"];
    ensure!(strategy["maxSurge"] == json!(0), "two Pods would want the same port of a node");
    let labels = object.0["spec"]["template"]["metadata"]["labels"].as_object().context("no labels")?;
    for (key, value) in object.0["spec"]["selector"]["matchLabels"].as_object().context("no selector")? {
        ensure!(labels.get(key) == Some(value), "the Pods are not selected by {key}");
    }

    let mut paths = pod.volumes().iter().filter(|volume| volume.get("hostPath").is_some());
    ensure!(paths.all(|volume| volume["name"] == "store"), "a path of the node that is not the store's");
    let mut projected = pod.volumes().iter().filter(|volume| volume.get("projected").is_some());
    let known = |volume: &Value| volume["name"] == "cluster-cache" || volume["name"] == "kubernetes";
    ensure!(projected.all(known), "a token that is neither for the cluster cache nor the agent's");
    // The proxy faces the network. What it could show the API server is not in its container.
    let speaks = !pod.container("agent")?.flag("--kubernetes").is_empty();
    for container in pod.containers() {
        let mounts = container.get("/volumeMounts").to_string();
        let has = mounts.contains("serviceaccount") || mounts.contains("\"kubernetes\"");
        ensure!(has == (speaks && container.name() == "agent"), "{}: a token for the API server", container.name());
    }
    // Addresses of Services are of use for whoever names one, and for nobody else.
    let by_variable = pod.container("proxy")?.flag("--cache-address").iter().any(|address| address.starts_with("$("));
    ensure!(spec["enableServiceLinks"] == json!(by_variable), "enableServiceLinks is {}", spec["enableServiceLinks"]);

    let images: BTreeSet<&str> = pod.containers().iter().filter_map(|one| one.get("/image").as_str()).collect();
    ensure!(images.len() == 1, "containers of different images: {images:?}");
    for container in pod.containers() {
        let what = container.name();
        ensure!(container.get("/securityContext/readOnlyRootFilesystem") == &json!(true), "{what} writes to its image");
        ensure!(container.get("/startupProbe").is_null(), "{what}: a probe that the next container would wait for");
        ensure!(container.get("/resources/limits/cpu").is_null(), "{what} may be throttled");
    }
    for container in pod.containers() {
        let user = container.flag("--user");
        ensure!(user == [PROXY_USER.to_string()], "{}: the proxy is user {user:?} for it", container.name());
        let variables = container.get("/env").as_array().into_iter().flatten();
        let names: Vec<&Value> = variables.map(|variable| &variable["name"]).collect();
        let distinct: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        ensure!(distinct.len() == names.len(), "{}: a variable stands twice in {names:?}", container.name());
    }
    proxy(pod.container("proxy")?)?;
    agent(pod.container("agent")?)?;
    ports(pod)
}

/// How long a planned stop may take: the agent's part (3 s to withdraw, files and a reload, 5 s for its last answers), the proxy's drain, in
/// which images that CRI-O has the manifest of are finished, and the 5 s in which it closes what is left.
fn longest_stop() -> Duration {
    Duration::from_secs(3 + 5 + 5) + ProxyLimits::default().drain
}

/// The proxy's user on the node, whom nobody else is likely to be: not 65532, as which many other operators' Pods run.
const PROXY_USER: u64 = 60_739;

/// It faces the network.
fn proxy(proxy: Container<'_>) -> Result<()> {
    for (pointer, expected) in [
        ("/restartPolicy", json!("Always")),
        ("/securityContext/runAsUser", json!(PROXY_USER)),
        ("/securityContext/runAsGroup", json!(PROXY_USER)),
        ("/securityContext/runAsNonRoot", json!(true)),
        ("/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/securityContext/capabilities", json!({"drop": ["ALL"]})),
        ("/securityContext/privileged", Value::Null),
        ("/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ("/livenessProbe/terminationGracePeriodSeconds", json!(1)),
    ] {
        ensure!(proxy.get(pointer) == &expected, "proxy: {pointer} is {}", proxy.get(pointer));
    }
    // Certificates are no files of the node.
    let certificates = proxy.flag("--upstream-ca").first().map(|_| ("upstream-ca", true));
    let told = ["--cache-ca", "--cache-token-file"].iter().any(|flag| !proxy.flag(flag).is_empty());
    let cluster_cache = told.then_some(("cluster-cache", true));
    let mounts = [Some(("run", true)), certificates, cluster_cache, Some(("store", false))];
    ensure!(proxy.mounts().into_iter().eq(mounts.into_iter().flatten()), "proxy: mounts {:?}", proxy.mounts());
    Ok(())
}

/// It is privileged, so it faces nobody and keeps away from what the network brought.
fn agent(agent: Container<'_>) -> Result<()> {
    let expected: &[(&str, bool)] = &[("run", false), ("registries", true), ("kubernetes", true)];
    let without = usize::from(agent.flag("--kubernetes").is_empty());
    ensure!(agent.mounts() == expected[..3 - without], "agent: mounts {:?}", agent.mounts());
    if agent.get("/securityContext/privileged") == &json!(false) {
        ensure!(agent.get("/securityContext/capabilities/drop") == &json!(["ALL"]), "agent: default capabilities");
    }
    ensure!(agent.get("/livenessProbe/terminationGracePeriodSeconds") == &json!(1), "agent: a hung one stays");
    Ok(())
}

/// Both are in the node's network: no two want the same port, health is on loopback only, and probes ask where health is.
fn ports(pod: Pod<'_>) -> Result<()> {
    let (proxy, agent) = (pod.container("proxy")?, pod.container("agent")?);
    ensure!(proxy.flag("--listen") == agent.flag("--listen"), "the engine is told another address than the proxy's");
    let mirror = proxy.flag("--listen").first().copied().unwrap_or("127.0.0.1:7439");
    let admin = |container: Container<'_>| -> Result<String> {
        let all = container.flag("--admin");
        ensure!(all.len() == 1, "{}: --admin is there {} times", container.name(), all.len());
        let port = all[0].strip_prefix("127.0.0.1:").context("health is told to others than the node")?;
        for probe in ["livenessProbe", "readinessProbe"] {
            let asked = container.get(&format!("/{probe}/httpGet/port"));
            ensure!(
                asked.is_null() || asked.as_u64() == port.parse().ok(),
                "{}: {probe} asks port {asked}",
                container.name()
            );
        }
        Ok(all[0].to_owned())
    };
    let addresses: Vec<String> = [mirror.to_owned(), admin(proxy)?, admin(agent)?]
        .into_iter()
        .chain(proxy.flag("--metrics").into_iter().chain(agent.flag("--agent-metrics")).map(str::to_owned))
        .collect();
    let ports: BTreeSet<&str> = addresses.iter().filter_map(|address| Some(address.rsplit_once(':')?.1)).collect();
    ensure!(ports.len() == addresses.len(), "ports are not disjoint: {addresses:?}");
    Ok(())
}

/// Where the help of a program is, as snapshots, and how their names begin.
fn snapshots(program: &str) -> Result<(PathBuf, String)> {
    let folder = match program.rsplit('/').next().unwrap_or_default() {
        "larder-node" => "daemonset/src/args/snapshots",
        "larder-cache" => "proxy/cache/src/snapshots",
        "larder-controller" => "controller/src/snapshots",
        other => anyhow::bail!("{other} is no program of the image"),
    };
    let name = program.rsplit('/').next().unwrap_or_default().replace('-', "_");
    Ok((repository().join(folder), format!("{name}__args__tests__help-")))
}

/// Every flag is one that the program knows, by the snapshots of its help.
fn flags(helm: &Helm, case: &Golden) -> Result<()> {
    for object in case.objects(helm)?.into_iter().chain(case.hooks(helm)?) {
        let Some(pod) = object.pod() else { continue };
        for container in pod.containers() {
            let command = container.command();
            let (names, words): (Vec<&str>, Vec<&str>) =
                command.iter().skip(1).partition(|word| !word.starts_with("--"));
            let subcommand = names.join("-");
            let (folder, prefix) = snapshots(command.first().copied().unwrap_or_default())?;
            let snapshot = folder.join(format!("{prefix}{subcommand}.snap"));
            let known = fs::read_to_string(&snapshot).with_context(|| snapshot.display().to_string())?;
            for word in words {
                let (flag, value) = word.split_once('=').unwrap_or((word, ""));
                let said = known.split([' ', '=', '\n', '[', ',']).any(|one| one == flag);
                ensure!(said, "{}: {subcommand} has no flag {flag}", container.name());
                if let Some(choices) = choices(&known, flag) {
                    ensure!(
                        choices.iter().any(|one| one == value),
                        "{}: {flag} takes {choices:?} and not {value}",
                        container.name()
                    );
                }
            }
        }
    }
    Ok(())
}

/// The words that a flag takes, where its help lists them all.
fn choices(help: &str, flag: &str) -> Option<Vec<String>> {
    if flag == "--log-format" {
        // Parsed by hand, so its help says it in a sentence.
        return help.contains("text or json").then(|| vec!["text".to_owned(), "json".to_owned()]);
    }
    let about = help.split_once(&format!("{flag} <"))?.1;
    // Its help ends where the next flag's begins.
    let about = about.split("\n      --").next()?.split_whitespace().collect::<Vec<_>>().join(" ");
    let (listed, _) = about.split_once("[possible values: ")?.1.split_once(']')?;
    Some(listed.split(", ").map(str::to_owned).collect())
}

/// Without this a change of the help's form would make the check above pass for everything.
pub(crate) fn choices_are_found(_: &Helm) -> Result<()> {
    let snapshots = repository().join("daemonset/src/args/snapshots");
    let help = fs::read_to_string(snapshots.join("larder_node__args__tests__help-agent.snap"))?;
    for (flag, word) in [("--engine", "containerd"), ("--placement", "by-agent"), ("--log-format", "json")] {
        let found = choices(&help, flag).with_context(|| format!("the help lists no words of {flag}"))?;
        ensure!(found.iter().any(|one| one == word), "{flag}: {found:?}");
        ensure!(!found.iter().any(|one| one == "true"), "{flag}: {found:?} are another flag's words");
    }
    ensure!(choices(&help, "--user").is_none(), "--user takes any number");
    Ok(())
}

//! The cluster cache: its rights are the two that it needs, its Pod is restricted, and what nodes are told of it is what there is.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_proxy::program::ProxyLimits;
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Object, Pod};
use serde_json::{Value, json};

use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] = &[
    ("cache_pod", cache_pod),
    ("cache_rights", cache_rights),
    ("what_nodes_are_told", what_nodes_are_told),
    ("control_api", control_api),
];

fn of_kind<'a>(objects: &'a [Object], kind: &str) -> Vec<&'a Object> {
    objects.iter().filter(|object| object.kind() == kind).collect()
}

/// What is not the controller's, and of rights those of the cache alone: whose the others are, and which, is in `rights.rs`.
fn of_the_cache(objects: Vec<Object>) -> Vec<Object> {
    let is_right = |object: &Object| object.kind().contains("Role");
    let is_meant = |object: &Object| component(object) == "cache" || !is_right(object);
    objects.into_iter().filter(|object| component(object) != "controller" && is_meant(object)).collect()
}

pub(crate) fn component(object: &Object) -> &str {
    object.text("/metadata/labels/app.kubernetes.io~1component")
}

fn cache_pod(helm: &Helm, case: &Golden) -> Result<()> {
    let objects = of_the_cache(case.objects(helm)?);
    for set in of_kind(&objects, "StatefulSet") {
        let pod = set.pod().context("no Pod")?;
        restricted(pod)?;
        let grace = pod.0["terminationGracePeriodSeconds"].as_u64().context("no grace")?;
        ensure!(Duration::from_secs(grace) >= longest_stop(), "what is under way is cut off after {grace} s");
        let cache = pod.container("cache")?;
        ensure!(cache.get("/resources/limits/cpu").is_null(), "the cache may be throttled");
        let store = cache.flag("--store").into_iter().next().context("no store")?;
        let replicas = set.0["spec"]["replicas"].as_u64().context("no replicas")?;
        ensure!(replicas == 1 || store.starts_with("bucket:"), "{replicas} replicas of {store}");
        let selector = &set.0["spec"]["selector"];
        let nodes = of_kind(&objects, "DaemonSet");
        ensure!(nodes.iter().all(|other| other.0["spec"]["selector"] != *selector), "it selects the nodes' Pods");
        ensure!(of_kind(&objects, "PodDisruptionBudget").len() == usize::from(replicas > 1), "budgets");
        // Its own certificate, or somebody else's.
        let (own, files) = (cache.flag("--own-certificate"), cache.flag("--tls-certificate"));
        ensure!(own.len() + files.len() == 1, "certificates: {own:?} and {files:?}");
    }
    Ok(())
}

/// What the `restricted` Pod Security Standard asks for, and a file system that cannot be written.
pub(crate) fn restricted(pod: Pod<'_>) -> Result<()> {
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        ensure!(pod.0.get(key).is_none(), "{key}");
    }
    ensure!(pod.volumes().iter().all(|volume| volume.get("hostPath").is_none()), "a path of the node");
    for container in pod.containers() {
        for (pointer, expected) in [
            ("/securityContext/runAsNonRoot", json!(true)),
            ("/securityContext/readOnlyRootFilesystem", json!(true)),
            ("/securityContext/allowPrivilegeEscalation", json!(false)),
            ("/securityContext/capabilities", json!({"drop": ["ALL"]})),
            ("/securityContext/privileged", Value::Null),
            ("/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ] {
            ensure!(container.get(pointer) == &expected, "{}: {pointer}", container.name());
        }
    }
    Ok(())
}

/// The three seconds in which nodes turn elsewhere, what is under way, and the 5 s in which the rest is closed.
fn longest_stop() -> Duration {
    Duration::from_secs(3 + 5) + ProxyLimits::default().drain
}

/// Tokens are checked, one Secret and one `ConfigMap` of our own are written, and where nodes do it settings of registries are read. Nothing else, and by nobody else.
fn cache_rights(helm: &Helm, case: &Golden) -> Result<()> {
    let objects = of_the_cache(case.objects(helm)?);
    let sets = of_kind(&objects, "StatefulSet");
    let rights: Vec<_> =
        of_kind(&objects, "ClusterRole").into_iter().filter(|role| role.0["rules"] != json!([])).collect();
    ensure!(rights.len() == sets.len(), "{} roles for {} caches", rights.len(), sets.len());
    let Some(set) = sets.first() else {
        for kind in ["Role", "RoleBinding", "ClusterRoleBinding", "Secret", "NetworkPolicy", "PersistentVolumeClaim"] {
            ensure!(of_kind(&objects, kind).is_empty(), "there is no cache, and a {kind}");
        }
        return Ok(());
    };
    let mut rules = vec![
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}),
        json!({"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]}),
    ];
    let cache = set.pod().context("no Pod")?.container("cache")?;
    if !cache.flag("--kubernetes").is_empty() {
        rules.push(
            json!({"apiGroups": ["larder.dev"], "resources": ["upstreamregistries"], "verbs": ["list", "watch"]}),
        );
        let agents = of_kind(&objects, "DaemonSet").into_iter().filter_map(Object::pod);
        let mut agents = agents.filter_map(|pod| pod.container("agent").ok());
        ensure!(agents.any(|agent| !agent.flag("--kubernetes").is_empty()), "the cache reads what no node does");
    }
    ensure!(rights.iter().all(|role| role.0["rules"] == json!(rules)), "more rights than it needs, or less");
    for role in of_kind(&objects, "Role") {
        for rule in role.0["rules"].as_array().context("no rules")? {
            let resource = rule["resources"][0].as_str().unwrap_or_default();
            let flag = if resource == "secrets" { "--own-certificate" } else { "--authority-configmap" };
            let named = cache.flag(flag).into_iter().next().and_then(|name| name.rsplit('/').next());
            ensure!(rule["resourceNames"] == json!([named]), "{rule} is not for {named:?}");
            ensure!(rule["verbs"] == json!(["get", "patch"]), "{rule}");
        }
    }
    let account = set.0.pointer("/spec/template/spec/serviceAccountName").cloned().unwrap_or_default();
    for binding in of_kind(&objects, "RoleBinding").into_iter().chain(of_kind(&objects, "ClusterRoleBinding")) {
        let whom = json!([{"kind": "ServiceAccount", "name": account, "namespace": "larder-system"}]);
        ensure!(binding.0["subjects"] == whom, "{} is for {}", binding.name(), binding.0["subjects"]);
    }
    for node in of_kind(&objects, "DaemonSet") {
        ensure!(node.0.pointer("/spec/template/spec/serviceAccountName") != Some(&account), "nodes have its rights");
    }
    // The key never passes through helm.
    for secret in of_kind(&objects, "Secret") {
        ensure!(secret.0.get("data").is_none() && secret.0.get("stringData").is_none(), "{}", secret.name());
    }
    Ok(())
}

/// Its port is open where it is served, to whom a selector finds, and the nodes know nothing of it.
fn control_api(helm: &Helm, case: &Golden) -> Result<()> {
    let objects = case.objects(helm)?;
    let Some(set) = of_kind(&objects, "StatefulSet").into_iter().next() else { return Ok(()) };
    let cache = set.pod().context("no Pod")?.container("cache")?;
    let served = cache.flag("--control");
    ensure!(served.iter().all(|address| address.ends_with(":7445")) && served.len() < 2, "it is served on {served:?}");
    let listed = |list: &Value, key: &str| {
        list.as_array().into_iter().flatten().filter(|port| port[key].as_u64() == Some(7445)).count()
    };
    ensure!(listed(cache.get("/ports"), "containerPort") == served.len(), "the container's ports");
    let by_services: Vec<_> = of_kind(&objects, "Service")
        .into_iter()
        .filter(|service| listed(&service.0["spec"]["ports"], "port") > 0)
        .collect();
    ensure!(by_services.len() == served.len(), "{} Services lead to it", by_services.len());
    for policy in of_kind(&objects, "NetworkPolicy") {
        let rules = policy.0["spec"]["ingress"].as_array().context("no rules")?;
        let open: Vec<_> = rules.iter().filter(|rule| listed(&rule["ports"], "port") > 0).collect();
        ensure!(open.len() == served.len(), "{} rules about it", open.len());
        for rule in open {
            ensure!(rule["from"].as_array().is_some_and(|from| !from.is_empty()), "everybody reaches it: {rule}");
            ensure!(rule["ports"].as_array().is_some_and(|ports| ports.len() == 1), "with more than it: {rule}");
        }
    }
    if !served.is_empty() {
        let callers = ["--control-token-file", "--control-accounts"].map(|flag| cache.flag(flag).len());
        ensure!(callers != [0, 0], "nobody may use it");
        ensure!(cache.flag("--control-audience") != cache.flag("--token-audience"), "nodes may say what is kept");
    }
    Ok(())
}

fn what_nodes_are_told(helm: &Helm, case: &Golden) -> Result<()> {
    let objects = case.objects(helm)?;
    let services: BTreeSet<String> = of_kind(&objects, "Service")
        .into_iter()
        .filter(|service| service.0["spec"].get("clusterIP").is_none())
        .map(|service| format!("$({}_SERVICE_HOST):7443", service.name().to_uppercase().replace('-', "_")))
        .collect();
    let set = of_kind(&objects, "StatefulSet").into_iter().next();
    for node in of_kind(&objects, "DaemonSet") {
        let pod = node.pod().context("no Pod")?;
        let proxy = pod.container("proxy")?;
        let addresses = proxy.flag("--cache-address");
        let Some(set) = set else {
            ensure!(addresses.iter().all(|address| !address.starts_with('$')), "there is no such Service");
            continue;
        };
        let url = proxy.flag("--cache");
        ensure!(url == ["https://larder-cache.larder-system.svc:7443"] || case.name() == "names-and-labels", "{url:?}");
        let replicas = set.0["spec"]["replicas"].as_u64().context("no replicas")?;
        ensure!(addresses.len() as u64 == replicas, "{replicas} replicas at {addresses:?}");
        ensure!(addresses.iter().all(|address| services.contains(*address)), "{addresses:?} of {services:?}");
        let cache = set.pod().context("no Pod")?.container("cache")?;
        let volume = pod.volumes().iter().find(|volume| volume["name"] == "cluster-cache").context("no token")?;
        let audience = volume.pointer("/projected/sources/0/serviceAccountToken/audience").and_then(Value::as_str);
        ensure!(cache.flag("--token-audience").into_iter().next() == audience, "a token for {audience:?}");
        let account = pod.0["serviceAccountName"].as_str().unwrap_or_default();
        ensure!(cache.flag("--accounts") == [format!("larder-system/{account}")], "nodes are {account}");
        if let Some(names) = cache.flag("--own-certificate-names").first() {
            let host = url.first().and_then(|url| url.strip_prefix("https://")?.strip_suffix(":7443"));
            ensure!(names.split(',').any(|name| Some(name) == host), "{host:?} is not among {names}");
            let map = cache.flag("--authority-configmap").concat();
            let told = volume.pointer("/projected/sources/1/configMap/name").and_then(Value::as_str);
            ensure!(
                told == map.rsplit('/').next() && told.is_some(),
                "the authority is in {map}, and read from {told:?}"
            );
        }
    }
    Ok(())
}

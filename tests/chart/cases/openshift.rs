//! What the `SecurityContextConstraints` allow is what our Pods ask for, no less and no more, and it is for our account alone.
//!
//! OpenShift itself is not among the parts; this compares the two objects by the rules of its documentation.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Object, Pod};
use serde_json::{Value, json};

use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] = &[("openshift", openshift)];

type Words = BTreeSet<String>;

/// All that constraints can allow as a whole.
const FLAGS: [&str; 7] = [
    "allowHostDirVolumePlugin",
    "allowHostIPC",
    "allowHostNetwork",
    "allowHostPID",
    "allowHostPorts",
    "allowPrivilegeEscalation",
    "allowPrivilegedContainer",
];

/// What Pods ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// By the keys that allow them.
    flags: BTreeSet<&'static str>,
    capabilities: Words,
    volumes: Words,
    profiles: Words,
}

impl Asked {
    fn add(&mut self, pod: Pod<'_>) -> Result<()> {
        let node_network = pod.0["hostNetwork"] == json!(true);
        self.flag("allowHostNetwork", node_network);
        self.flag("allowHostPID", pod.0["hostPID"] == json!(true));
        self.flag("allowHostIPC", pod.0["hostIPC"] == json!(true));
        self.flag("allowHostDirVolumePlugin", pod.volumes().iter().any(|volume| volume.get("hostPath").is_some()));
        for volume in pod.volumes() {
            let kinds = volume.as_object().context("a volume that is no map")?.keys().filter(|key| *key != "name");
            self.volumes.extend(kinds.cloned());
        }
        for container in pod.containers() {
            let context = |key: &str| container.get(&format!("/securityContext/{key}"));
            ensure!(context("readOnlyRootFilesystem") == &json!(true), "{} writes to its image", container.name());
            // A port that a container in the node's network declares is a port of the node.
            self.flag("allowHostPorts", node_network && !container.get("/ports").is_null());
            self.flag("allowPrivilegedContainer", context("privileged") == &json!(true));
            self.flag("allowPrivilegeEscalation", context("allowPrivilegeEscalation") != &json!(false));
            self.capabilities.extend(words(context("capabilities/add")));
            let file = context("seccompProfile/localhostProfile").as_str().unwrap_or_default();
            self.profiles.extend(context("seccompProfile/type").as_str().map(|kind| match kind {
                "RuntimeDefault" => "runtime/default".to_owned(),
                "Unconfined" => "unconfined".to_owned(),
                _ => format!("localhost/{file}"),
            }));
        }
        Ok(())
    }

    fn flag(&mut self, key: &'static str, is_asked: bool) {
        if is_asked {
            self.flags.insert(key);
        }
    }
}

fn words(list: &Value) -> Words {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn allowed(constraints: &Value) -> Asked {
    Asked {
        flags: FLAGS.into_iter().filter(|key| constraints[*key] == json!(true)).collect(),
        capabilities: words(&constraints["allowedCapabilities"]),
        volumes: words(&constraints["volumes"]),
        profiles: words(&constraints["seccompProfiles"]),
    }
}

fn openshift(helm: &Helm, case: &Golden) -> Result<()> {
    let (objects, hooks) = (case.objects(helm)?, case.hooks(helm)?);
    let all: Vec<&Object> = objects.iter().filter(|one| one.kind() == "SecurityContextConstraints").collect();
    if !case.name().starts_with("openshift") {
        ensure!(all.is_empty(), "nobody asked for it");
        return Ok(());
    }
    let [constraints] = all.as_slice() else { anyhow::bail!("{} of them", all.len()) };
    let (mut asked, mut accounts) = (Asked::default(), BTreeSet::new());
    for object in objects.iter().chain(&hooks) {
        let Some(pod) = object.pod().filter(|_| ["DaemonSet", "Pod"].contains(&object.kind())) else { continue };
        asked.add(pod).with_context(|| object.name().to_owned())?;
        accounts.insert(format!(
            "system:serviceaccount:larder-system:{}",
            pod.0["serviceAccountName"].as_str().context("no account")?
        ));
    }
    let constraints = &constraints.0;
    ensure!(allowed(constraints) == asked, "allowed is {:#?}\nasked is {asked:#?}", allowed(constraints));
    ensure!(
        words(&constraints["users"]) == accounts,
        "it is for {}, the Pods are of {accounts:?}",
        constraints["users"]
    );
    ensure!(constraints["groups"] == json!([]), "it is for whole groups");
    ensure!(constraints["readOnlyRootFilesystem"] == json!(true), "a container may write to its image");
    // Root and the proxy's user, spc_t and nothing named: no narrower rule lets both in.
    for key in ["runAsUser", "seLinuxContext"] {
        ensure!(constraints[key]["type"] == json!("RunAsAny"), "{key}");
    }
    Ok(())
}

//! The controller: its rights are those that its documentation lists, its Pod is restricted, and the cache knows it and nobody else by default.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Object, objects};
use larder_test_chart::{chart, repository};
use serde_json::{Value, json};

use crate::cluster_cache::{component, restricted};
use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] =
    &[("controller_pod", controller_pod), ("controller_rights", controller_rights), ("definitions", definitions)];

fn of_controller(objects: &[Object], kind: &str) -> Vec<Object> {
    objects.iter().filter(|object| object.kind() == kind && component(object) == "controller").cloned().collect()
}

fn controller_pod(helm: &Helm, case: &Golden) -> Result<()> {
    let all = case.objects(helm)?;
    let deployments = of_controller(&all, "Deployment");
    ensure!(all.iter().filter(|one| one.kind() == "Deployment").count() == deployments.len(), "whose Deployment?");
    let Some(deployment) = deployments.first() else {
        let left = all.iter().find(|one| component(one) == "controller");
        ensure!(left.is_none(), "there is no controller, and {:?}", left.map(Object::name));
        return Ok(());
    };
    let pod = deployment.pod().context("no Pod")?;
    restricted(pod)?;
    let controller = pod.container("controller")?;
    ensure!(controller.get("/resources/limits/cpu").is_null(), "the controller may be throttled");
    let replicas = deployment.0["spec"]["replicas"].as_u64().context("no replicas")?;
    ensure!(of_controller(&all, "PodDisruptionBudget").len() == usize::from(replicas > 1), "budgets");
    let selector = &deployment.0["spec"]["selector"];
    ensure!(
        all.iter().filter(|one| one.kind() != "Deployment").all(|other| other.0["spec"]["selector"] != *selector
            || ["PodDisruptionBudget", "PodMonitor"].contains(&other.kind())),
        "somebody else selects its Pods"
    );

    // Whom it asks is there, knows it by its account, and takes its token.
    let set = all.iter().find(|one| one.kind() == "StatefulSet").context("it has no cache")?;
    let cache = set.pod().context("no Pod")?.container("cache")?;
    let url = controller.flag("--cache").concat();
    let served = all.iter().any(|one| {
        let host = format!("https://{}.larder-system.svc:7445", one.name());
        one.kind() == "Service" && host == url && one.0["spec"]["ports"].to_string().contains("7445")
    });
    ensure!(served, "nobody serves {url}");
    let account = pod.0["serviceAccountName"].as_str().context("no account")?;
    let accounts = cache.flag("--control-accounts").concat();
    ensure!(accounts.split(',').any(|one| one == format!("larder-system/{account}")), "{account} of {accounts}");
    let own = format!("larder-system/{account}={}", controller.flag("--holder").concat());
    let holders = cache.flag("--control-holders").concat();
    ensure!(holders.split(',').any(|one| one == own), "{own} is not among {holders:?}");
    let volume = pod.volumes().iter().find(|volume| volume["name"] == "cache").context("no token")?;
    let audience = volume.pointer("/projected/sources/0/serviceAccountToken/audience").and_then(Value::as_str);
    ensure!(cache.flag("--control-audience").into_iter().next() == audience, "a token for {audience:?}");
    if let Some(map) = cache.flag("--authority-configmap").first() {
        let told = volume.pointer("/projected/sources/1/configMap/name").and_then(Value::as_str);
        ensure!(told == map.rsplit('/').next() && told.is_some(), "the authority is in {map}, and read from {told:?}");
    }
    for policy in all.iter().filter(|one| one.kind() == "NetworkPolicy") {
        let from = policy.0["spec"]["ingress"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|rule| rule["ports"].as_array().into_iter().flatten().any(|port| port["port"] == json!(7445)));
        let from = from.context("its port is closed")?["from"].as_array().context("everybody reaches it")?;
        ensure!(from.iter().any(|peer| peer["podSelector"] == *selector), "the controller does not reach it: {from:?}");
    }
    Ok(())
}

/// The rights are those of the file that the reconciler's own tests run with, and nobody else has them.
fn controller_rights(helm: &Helm, case: &Golden) -> Result<()> {
    let all = case.objects(helm)?;
    let Some(deployment) = of_controller(&all, "Deployment").into_iter().next() else { return Ok(()) };
    let text = fs::read_to_string(repository().join("docs/controller-rights.yaml"))?;
    let documented = objects(&text)?;
    for kind in ["ClusterRole", "Role"] {
        let rules = |list: &[Object]| -> Vec<Value> {
            let rules =
                list.iter().filter(|one| one.kind() == kind).filter_map(|one| one.0["rules"].as_array().cloned());
            let mut rules: Vec<Value> = rules.flatten().collect();
            rules.sort_by_key(Value::to_string);
            rules
        };
        let (asked, told) = (rules(&of_controller(&all, kind)), rules(&documented));
        // The lease is called as the release is.
        let name = Value::from(deployment.name());
        let told: Vec<Value> = told
            .into_iter()
            .map(|mut rule| {
                if let Some(names) = rule.get_mut("resourceNames") {
                    *names = json!([name]);
                }
                rule
            })
            .collect();
        ensure!(asked == told && !asked.is_empty(), "{kind}: {asked:?} are not the documented {told:?}");
    }
    let account = deployment.0.pointer("/spec/template/spec/serviceAccountName").cloned().unwrap_or_default();
    for binding in all.iter().filter(|one| one.kind().ends_with("RoleBinding")) {
        let is_its = binding.0["subjects"].to_string().contains(&format!("{account}"));
        ensure!(is_its == (component(binding) == "controller"), "{} is for {}", binding.name(), binding.0["subjects"]);
    }
    let lease = deployment.pod().context("no Pod")?.container("controller")?.flag("--lease").concat();
    ensure!(lease == format!("larder-system/{}", deployment.name()), "the lease is {lease}");
    let leases = of_controller(&all, "Lease");
    ensure!(leases.len() == 1 && leases[0].name() == deployment.name(), "no lease for the first one: {leases:?}");
    ensure!(leases[0].0["spec"] == json!({}), "the lease is somebody's, and an upgrade would take it away");
    Ok(())
}

/// What is sent is what was made from the program's own types; who may write it comes with it. Uninstalling takes along what nobody would miss, and nothing else.
fn definitions(helm: &Helm, case: &Golden) -> Result<()> {
    let all = case.objects(helm)?;
    let mut access = objects(&fs::read_to_string(chart().join("files/access.yaml"))?)?;
    access.retain(|one| {
        let sent = all.iter().find(|other| other.kind() == one.kind() && other.name() == one.name());
        sent.is_none_or(|sent| {
            let labels = one.0["metadata"]["labels"].as_object().into_iter().flatten();
            let labelled = labels.into_iter().all(|(name, value)| sent.0["metadata"]["labels"][name] == *value);
            !labelled || ["spec", "rules"].iter().any(|part| sent.0[*part] != one.0[*part])
        })
    });
    let sent: Vec<&Object> = all.iter().filter(|one| one.kind() == "CustomResourceDefinition").collect();
    if sent.is_empty() {
        ensure!(!all.iter().any(|one| one.kind().starts_with("Validating")), "a policy about nothing");
        return Ok(());
    }
    ensure!(
        access.is_empty(),
        "not sent as it is in files/access.yaml: {:?}",
        access.iter().map(Object::name).collect::<Vec<_>>()
    );
    let kept = |one: &&&Object| !one.0["metadata"]["annotations"]["helm.sh/resource-policy"].is_null();
    let kept = sent.iter().filter(kept).map(|one| one.name()).collect::<Vec<_>>();
    let all_kept = ["cachedimages.larder.dev", "upstreamregistries.larder.dev"];
    ensure!(kept.is_empty() || kept == all_kept, "an uninstall leaves {kept:?}");
    let mut made = Vec::new();
    for entry in fs::read_dir(chart().join("files/crds"))? {
        made.extend(objects(&fs::read_to_string(entry?.path())?)?);
    }
    ensure!(made.len() == 3 && sent.len() == 3, "{} definitions made, {} sent", made.len(), sent.len());
    for definition in made {
        let found = sent.iter().find(|one| one.name() == definition.name()).context("one is not sent")?;
        ensure!(found.0["spec"] == definition.0["spec"], "{} is not what was made", definition.name());
    }
    Ok(())
}

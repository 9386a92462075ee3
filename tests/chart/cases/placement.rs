//! No node gets two Pods, whatever labels it has; and one without any label of a pool gets one.

use anyhow::{Context as _, Result, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::nodes::{Labels, Requirements, all_nodes};
use larder_test_chart::objects::Pod;

use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] = &[("placement", placement)];

fn placement(helm: &Helm, case: &Golden) -> Result<()> {
    let objects = case.objects(helm)?;
    let pods: Vec<(&str, Pod<'_>)> = objects
        .iter()
        .filter(|one| one.kind() == "DaemonSet")
        .filter_map(|one| Some((one.name(), one.pod()?)))
        .collect();
    let requirements: Vec<Requirements> =
        pods.iter().map(|(_, pod)| Requirements::of(*pod)).collect::<Result<_>>().context("which nodes")?;
    let nodes = all_nodes(&requirements);
    ensure!(nodes.len() > 16, "only {} different nodes", nodes.len());
    for node in &nodes {
        let here: Vec<&str> = pods
            .iter()
            .zip(&requirements)
            .filter(|(_, asked)| asked.hold_for(node))
            .map(|((name, _), _)| *name)
            .collect();
        ensure!(here.len() <= 1, "a node with {node:?} gets {here:?}");
        for (key, ours) in [("kubernetes.io/os", &["linux"][..]), ("kubernetes.io/arch", &["amd64", "arm64"])] {
            let fits = node.get(key).is_some_and(|label| ours.contains(&label.as_str()));
            ensure!(here.is_empty() || fits, "a node with {node:?} gets {here:?}");
        }
        ensure!(
            here.is_empty() || node.get("type").is_none_or(|kind| kind != "virtual-kubelet"),
            "{node:?} is no machine"
        );
    }
    // The default DaemonSet is rendered last, and is the one without a pool.
    let selective = pods.last().is_some_and(|(_, pod)| pod.0.get("nodeSelector").is_some());
    let plain: Labels = [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let here = requirements.iter().filter(|asked| asked.hold_for(&plain)).count();
    ensure!(selective || here == 1, "a plain node gets {here} Pods");
    Ok(())
}

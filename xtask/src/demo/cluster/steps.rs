//! The story, step by step. Each step says what it saw, and fails when that is not what it promises.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::Release;
use larder_test_kind::release::NAMESPACE;

use super::super::story::{Story, Told, seconds, short};
use super::stage::{KINDS, Stage};

pub(super) fn tell(story: &mut Story, stage: &Stage, keep: bool) -> Result<()> {
    story.step(
        "helm install, with the registry's own authority, and a controller that looks every five seconds",
        |told| install(stage, told),
    )?;
    story.step("An application starts; its image comes from the registry, through Larder, and is safe", |told| {
        start(stage, told)
    })?;
    story.step("The registry stops, and the Pod has to go to nodes that never had its image", |told| {
        lose(stage, told)
    })?;
    story.step("The registry is back, without the image: somebody deleted it", |told| deleted(stage, told))?;
    story.step("A new image is pushed under the same tag", |told| moved(stage, told))?;
    if !keep {
        story.step("helm uninstall", |told| uninstall(stage, told))?;
    }
    Ok(())
}

fn install(stage: &Stage, told: &Told) -> Result<()> {
    let values = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(values.path(), stage.values()?.to_string())?;
    let began = Instant::now();
    let file = values.path().display().to_string();
    told.note(format!("helm install larder ./chart -n {NAMESPACE} --create-namespace -f {file}"));
    let words =
        ["install", "larder", &Release::chart(), "--namespace", NAMESPACE, "--create-namespace", "--values", &file];
    stage.cluster.helm(&words)?;
    let rollout = ["rollout", "status", "daemonset/larder-node", "--namespace", NAMESPACE, "--timeout=120s"];
    stage.cluster.kubectl(&rollout)?;
    told.saw(format!(
        "{} nodes: each engine was seen to ask its proxy, {} after the install began",
        stage.cluster.nodes().len(),
        seconds(began.elapsed())
    ));
    Release::of(&stage.cluster).wait_for_cache()?;
    told.saw(format!("and the cluster cache has its certificate and its volume, {} after", seconds(began.elapsed())));
    let rollout = ["rollout", "status", "deployment/larder-controller", "--namespace", NAMESPACE, "--timeout=120s"];
    stage.cluster.kubectl(&rollout)?;
    let status = ["exec", "daemonset/larder-node", "--namespace", NAMESPACE, "--container", "agent", "--"];
    told.quote(&stage.cluster.kubectl(&[&status[..], &["/usr/local/bin/larder-node", "status"]].concat())?);
    Ok(())
}

fn start(stage: &Stage, told: &Told) -> Result<()> {
    let application = stage.application()?.to_string();
    stage.cluster.kubectl_with_input(&["apply", "--filename", "-"], application.as_bytes())?;
    stage.wait_for_application()?;
    let (node, _) = stage.running()?;
    told.saw(format!("{} runs on {} ({}), imagePullPolicy: Always", stage.reference()?, node.name(), node.engine()));
    let (larder, engines) = (stage.asked_by("larder/")?, stage.asked_by("containerd/")? + stage.asked_by("cri-o/")?);
    ensure!(larder > 0 && engines == 0, "the registry was asked {larder} times by larder, {engines} by engines");
    told.saw(format!("the registry was asked {larder} times, each time by larder"));
    stage.wait_until_image_is("Cached", "Complete")?;
    stage.wait_until_image_is("UpstreamAvailable", "Present")?;
    overview(stage, told)
}

fn lose(stage: &Stage, told: &Told) -> Result<()> {
    let (first, image) = stage.running()?;
    let asked = stage.asked_by("larder/")?;
    stage.cluster.origin()?.stop()?;
    told.saw("the registry's name does not even resolve any more");
    let moved = stage.cluster.workers().filter(|worker| *worker != first).try_for_each(|worker| {
        let began = Instant::now();
        stage.move_to(worker)?;
        ensure!(stage.running()?.1 == image, "it runs another image");
        told.saw(format!("the Pod is back on {} ({}), {}", worker.name(), worker.engine(), seconds(began.elapsed())));
        Ok(())
    });
    stage.open_all()?;
    moved?;
    ensure!(stage.asked_by("larder/")? == asked, "the registry was asked");
    told.saw("from the cluster cache, which had the image from when the first node pulled it");
    stage.wait_until_image_is("UpstreamAvailable", "Unreachable")?;
    overview(stage, told)
}

fn deleted(stage: &Stage, told: &Told) -> Result<()> {
    let (_, image) = stage.running()?;
    stage.cluster.origin()?.restart()?;
    stage.delete_upstream()?;
    stage.wait_until_image_is("UpstreamAvailable", "Gone")?;
    stage.cluster.kubectl(&["rollout", "restart", "deployment/shop"])?;
    stage.wait_for_application()?;
    ensure!(stage.running()?.1 == image, "it runs another image");
    told.saw("a new Pod starts all the same: what Pods use is kept, whatever becomes of it elsewhere");
    overview(stage, told)
}

/// What a person sees who asks whether he is safe.
fn overview(stage: &Stage, told: &Told) -> Result<()> {
    told.note(format!("kubectl get {KINDS}"));
    told.quote(&stage.overview()?);
    Ok(())
}

fn moved(stage: &Stage, told: &Told) -> Result<()> {
    let digest = stage.push("tomorrow's frontend")?;
    let began = Instant::now();
    // While the registry was away, and while the image was, the answer to that was believed for a while; it is asked again by itself.
    loop {
        stage.cluster.kubectl(&["rollout", "restart", "deployment/shop"])?;
        stage.wait_for_application()?;
        if stage.running()?.1 == digest {
            break;
        }
        ensure!(began.elapsed().as_secs() < 60, "a minute later Pods still start from the old image");
    }
    told.saw(format!("new Pods run {}, which is what the tag means now", short(&digest)));
    Ok(())
}

fn uninstall(stage: &Stage, told: &Told) -> Result<()> {
    stage.cluster.kubectl(&["delete", "deployment", "shop", "--wait"])?;
    stage.cluster.helm(&["uninstall", "larder", "--namespace", NAMESPACE, "--wait"])?;
    let pods = ["wait", "--for=delete", "pod", "--all", "--namespace", NAMESPACE, "--timeout=120s"];
    stage.cluster.kubectl(&pods)?;
    stage.must_be_as_before().context("helm uninstall left something behind")?;
    told.saw("every file below /etc of every node is byte for byte what it was");
    // What is left by helm: the claim with the images, as the nodes' stores are, and what people may have written.
    told.saw("the images, and the objects of kubectl get ci,upr, stay for whoever installs again; nothing holds up deleting them");
    stage.take_the_rest_away()?;
    Ok(())
}

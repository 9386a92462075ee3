//! What the page about the cluster cache shows to type, typed word for word: curl, skopeo and crane.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use larder_oci::{Algorithm, Digest};
use larder_test_node::cache::TOKEN;
use larder_test_node::cluster::{Cluster, NAME};
use larder_test_origin::ImageSpec;
use larder_test_parts::{CrioLine, Debian, EngineLine, Parts};

use crate::Case;

pub(crate) const CASES: &[Case] =
    &[Case::crio("the_page_of_the_cluster_cache_shows_what_works_with_curl_skopeo_and_crane", typed)];

const PAGE: &str = include_str!("../../../docs/cluster-cache.md");

fn typed(line: CrioLine) -> Result<()> {
    let parts = Parts::from_environment()?;
    let cluster = Cluster::of(EngineLine::Crio(line), 0, &ImageSpec::default())?;
    let repository = format!("{NAME}__{}/team/app", cluster.origin.address().port());
    let section = PAGE.split("## By hand, the client").nth(1).context("the page has no such section")?;
    let block = section.split("```").nth(1).context("the section shows nothing to type")?;
    let block = block
        .replace("HOST:7443", &cluster.cache.listen.to_string())
        .replace("docker.io/library/alpine:3", &format!("{repository}:v1"))
        .replace("docker.io/library/alpine", &repository)
        .replace("TOKEN", TOKEN);

    let here = cluster.folder.path().join("by-hand");
    std::fs::create_dir_all(&here)?;
    for name in ["ca.pem", "ca.crt"] {
        std::fs::copy(cluster.trust.authority(), here.join(name))?;
    }
    let crane = parts.crane()?;
    let (curl, skopeo) = (parts.debian(Debian::Curl)?, parts.debian(Debian::Skopeo)?);
    let folders = [&crane, &curl, &skopeo].map(|program| program.parent().unwrap_or(Path::new("/")).to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path)))?;
    let run = |script: &str| -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-euxc", script]).current_dir(&here).env("PATH", &path).env("HOME", &here);
        command.env_remove("DOCKER_CONFIG").env_remove("REGISTRY_AUTH_FILE");
        let output = command.output()?;
        ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let printed = run(&block)?;
    ensure!(printed.contains(r#""tags":["v1"]"#), "curl lists other tags: {printed}");
    ensure!(printed.lines().any(|line| line == "v1"), "crane lists other tags: {printed}");
    let copied = Digest::of(Algorithm::Sha256, &std::fs::read(here.join("alpine/manifest.json"))?);
    ensure!(copied == cluster.image.host_platform().manifest, "skopeo copied {copied}");
    let (_, index) = &cluster.image.manifests[&cluster.image.index];
    ensure!(printed.contains(std::str::from_utf8(index)?), "crane prints another index: {printed}");

    // All of it is refused to who has another token.
    for command in block.lines().filter(|line| line.contains(TOKEN) && !line.starts_with("crane")) {
        ensure!(run(&command.replace(TOKEN, "guessed")).is_err(), "a stranger may {command}");
    }
    ensure!(cluster.asked_by_engines() == 0, "{:#?}", cluster.origin.log());
    Ok(())
}

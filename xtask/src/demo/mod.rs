//! `cargo xtask demo`: one node's whole story, told with real programs, each step checked; with `--cluster` ([`cluster`]) a cluster's, with
//! `--cluster-cache` ([`cluster_cache`]) that of nodes with a cluster cache.
//!
//! Everything runs in a folder and on ports of its own; an engine that the machine already has is not touched. The steps are in
//! [`steps`], the same for every engine, with [`asides`] where one differs; what they share is a [`stage::Stage`], and [`story`] is how it
//! looks.

mod asides;
mod cluster;
mod cluster_cache;
mod registry;
mod stage;
mod steps;
mod story;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use larder_test_parts::{CrioLine, EngineLine, Line};

use stage::Stage;
use story::Story;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What pulls on the node
    #[arg(long, value_enum, default_value = "containerd", conflicts_with = "cluster")]
    engine: EngineArgument,

    /// The line of the engine, the newest unless named: 1.6, 1.7, 2.0, 2.1, 2.2, 2.3 or 2.4 of containerd, 1.34 of CRI-O
    #[arg(long, value_name = "LINE", conflicts_with = "cluster")]
    engine_version: Option<String>,

    /// The story of a cluster instead: kind, helm, an application whose registry goes away
    #[arg(long)]
    cluster: bool,

    /// The story of the cluster cache instead: three nodes, two replicas on a bucket, a registry that goes away; no Kubernetes
    #[arg(long, conflicts_with = "cluster")]
    cluster_cache: bool,

    /// Leave it running at the end, and print commands to play with
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum EngineArgument {
    Containerd,
    Crio,
}

impl EngineArgument {
    /// The line that is meant.
    fn line(self, version: Option<&str>) -> Result<EngineLine> {
        match (self, version) {
            (Self::Containerd, version) => format!("containerd-{}", version.unwrap_or(Line::V2_4.as_str())).parse(),
            (Self::Crio, version) => format!("crio-{}", version.unwrap_or(CrioLine::V1_34.as_str())).parse(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.cluster {
        return cluster::run(arguments.keep);
    }
    let line = arguments.engine.line(arguments.engine_version.as_deref())?;
    ensure!(is_root(), "engines need root: run `sudo -E cargo xtask demo`, or as root");
    if arguments.cluster_cache {
        return cluster_cache::run(line, arguments.keep);
    }
    let mut story = Story::begin("Larder on one node: images stay pullable when their registry is gone");
    let stage = story.step("Get the stage ready", |told| Stage::set(line, told))?;
    let told = steps::tell(&mut story, &stage, arguments.keep);
    if let Err(error) = told {
        story.failed(&error, &stage.logs());
        return Ok(ExitCode::FAILURE);
    }
    if arguments.keep {
        stage.play()?;
    }
    story.end();
    Ok(ExitCode::SUCCESS)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_goes_with_its_engine() {
        let (containerd, crio) = (EngineArgument::Containerd, EngineArgument::Crio);
        assert_eq!(containerd.line(None).unwrap(), EngineLine::Containerd(Line::V2_4));
        assert_eq!(containerd.line(Some("1.7")).unwrap(), EngineLine::Containerd(Line::V1_7));
        assert_eq!(crio.line(None).unwrap(), EngineLine::Crio(CrioLine::V1_34));
        for (engine, version) in [(containerd, "1.34"), (crio, "2.4")] {
            let error = engine.line(Some(version)).unwrap_err().to_string();
            assert!(error.contains(version), "{error}");
        }
    }
}

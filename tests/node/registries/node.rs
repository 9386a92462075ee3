//! A node's files in a folder, planned for as the agent does.

use std::fs;
use std::path::{Path, PathBuf};

use larder_node_agent::change::{Plan, Wanted};
use larder_node_agent::engine::crio::Crio;
use larder_node_agent::engine::{Desired, Engine as _, Observation, Proposal, Targets, Wish};
use larder_node_agent::host::RootedHost;
use larder_oci::Registry;

use crate::files::FileSet;

pub(crate) const MIRROR: &str = "127.0.0.1:7439";
const CONTAINERS: &str = "etc/containers";

pub(crate) struct Node {
    root: tempfile::TempDir,
    engine: Crio,
}

impl Node {
    pub(crate) fn with(set: &FileSet) -> Self {
        let node = Self { root: tempfile::tempdir().expect("a folder"), engine: Crio::at("1.34.0".parse().ok()) };
        fs::create_dir_all(node.directory()).expect("a folder");
        fs::write(node.main(), &set.main).expect("a file");
        for (name, text) in &set.drop_ins {
            fs::write(node.directory().join(name), text).expect("a file");
        }
        node
    }

    pub(crate) fn main(&self) -> PathBuf {
        self.root.path().join(CONTAINERS).join("registries.conf")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.path().join(CONTAINERS).join("registries.conf.d")
    }

    pub(crate) fn signatures(&self) -> PathBuf {
        self.root.path().join(CONTAINERS).join("registries.d")
    }

    fn observe(&self) -> Observation {
        let host = RootedHost::open(self.root.path()).expect("a root");
        self.engine.observe(&host).expect("an observation")
    }

    pub(crate) fn plan(&self, set: &FileSet) -> Proposal {
        self.plan_for(MIRROR, set)
    }

    pub(crate) fn plan_for(&self, mirror: &str, set: &FileSet) -> Proposal {
        let desired = Desired {
            mirror: format!("http://{mirror}"),
            registries: set
                .endpoints
                .iter()
                .map(|name| (registry(name), Wish { skip: false, endpoints: true }))
                .collect(),
            in_use: set.in_use.iter().map(|name| registry(name)).collect(),
            allow_engine_restart: false,
        };
        let targets = Targets::new("/run/larder").expect("a folder");
        self.engine.plan(&self.observe(), &desired, &targets).expect("a plan")
    }

    pub(crate) fn apply(&self, plan: &Plan) {
        for change in &plan.changes {
            let path = self.root.path().join(change.path.strip_prefix("/").unwrap_or(Path::new("")));
            match &change.after {
                Wanted::File { bytes, .. } => fs::write(path, bytes).expect("a file"),
                Wanted::Absent => fs::remove_file(path).expect("no file"),
                other => panic!("{other:?} is planned"),
            }
        }
    }

    pub(crate) fn remove(&self) {
        self.apply(&self.engine.removal(&self.observe()).expect("a removal").plan);
    }
}

fn registry(name: &str) -> Registry {
    Registry::parse(name).expect("a registry")
}

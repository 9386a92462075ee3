//! `registries.conf` and a drop-in beside it: reading never panics, and what is planned for them is a file that we read as it was
//! meant, that leads every reference where it was led before, and that changes nothing once it is there.
//!
//! The input: the main file, a zero byte, the drop-in.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use larder_node_agent::change::Wanted;
use larder_node_agent::engine::crio::document::{self, Form};
use larder_node_agent::engine::crio::{
    Authorities, Crio, Observation, OurFile, Paths, Policies, ReadFile, Settings, Signatures,
};
use larder_node_agent::engine::{self, Desired, Engine, Proposal, Targets};
use libfuzzer_sys::fuzz_target;

const DIRECTORY: &str = "/etc/containers/registries.conf.d";

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let forms =
        [("/etc/containers/registries.conf", Form::Main), ("/etc/containers/registries.conf.d/x.conf", Form::DropIn)];
    let mut files = Vec::new();
    for (path, form) in forms {
        let Some(bytes) = parts.next() else { continue };
        // Beside a malformed file nothing is planned.
        let Ok(document) = document::parse(bytes, form) else { return };
        files.push(ReadFile { path: PathBuf::from(path), document });
    }
    let mut observation = Observation {
        version: None,
        settings: Settings::default(),
        paths: Paths {
            main: PathBuf::from(forms[0].0),
            main_is_named: false,
            directories: vec![PathBuf::from(DIRECTORY)],
            is_home: false,
        },
        files,
        ours: Vec::new(),
        problems: Vec::new(),
        signatures: Signatures::default(),
        policies: Policies::default(),
        authorities: Authorities::default(),
    };
    let proposal = plan(&observation);
    let refused = proposal.report.conditions.iter().find(|condition| condition.kind == "SelfCheck");
    assert!(refused.is_none(), "{refused:?}");
    let [change] = proposal.plan.changes.as_slice() else { panic!("{:?}", proposal.plan) };
    let Wanted::File { bytes, .. } = &change.after else { panic!("{change:?}") };
    document::parse(bytes, Form::DropIn).expect("what we write is read");

    observation.ours.push(OurFile { path: change.path.clone(), bytes: bytes.clone().into(), edited: false });
    assert!(plan(&observation).plan.is_empty(), "a second plan is not empty");
});

fn plan(observation: &Observation) -> Proposal {
    let in_use = ["docker.io", "a.example", "a.example:5000"].map(|name| name.parse().expect("a registry"));
    let desired = Desired {
        mirror: "http://127.0.0.1:7439".to_owned(),
        registries: BTreeMap::new(),
        in_use: BTreeSet::from(in_use),
        allow_engine_restart: false,
    };
    let observation = engine::Observation::Crio(Box::new(observation.clone()));
    Crio::at(None).plan(&observation, &desired, &Targets::new("/run/larder").expect("a folder")).expect("a plan")
}

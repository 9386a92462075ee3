//! Every case of a cluster, on one cluster that all of them share ([`suite`]).
//!
//! The cluster is made when the first case wants it. Cases run side by side; those that take away what others need run alone. The order
//! of the list is that of the runs: what needs a cluster without Larder comes first, and what takes Larder away comes last.
#![expect(clippy::expect_used, reason = "test cases may fail loudly")]

mod agent;
mod cluster_cache;
mod control_plane;
mod controller;
mod images;
mod joining;
mod nodes;
mod outage;
mod proxy;
mod pulls;
mod removal;
mod renderings;
mod revisions;
mod strangers;
mod suite;
mod tags;
mod turns;
mod two_clusters;
mod values;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use larder_test_kind::{Cluster, Engine, machine};
use libtest_mimic::{Arguments, Trial};

use suite::{State, Suite};

/// As many cases side by side. Most of the time each of them waits for a kubelet.
const SIDE_BY_SIDE: usize = 6;

/// One case.
pub struct Case {
    name: &'static str,
    run: fn(&Cluster) -> Result<()>,
    alone: bool,
    state: Option<State>,
    of_containerd: bool,
    leaves_it_changed: bool,
}

impl Case {
    /// A case that leaves alone what it has not made, and does not care whether Larder is there.
    pub const fn new(name: &'static str, run: fn(&Cluster) -> Result<()>) -> Self {
        Self { name, run, alone: false, state: None, of_containerd: false, leaves_it_changed: false }
    }

    /// One that stops a registry, a node, or Larder.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// One that is about a cluster without Larder.
    #[must_use]
    pub const fn bare(self) -> Self {
        Self { state: Some(State::Bare), ..self }
    }

    /// One that is about a cluster with Larder and its cluster cache.
    #[must_use]
    pub const fn cached(self) -> Self {
        Self { state: Some(State::Cached), ..self }
    }

    /// One after which Larder is not what it was: the next one begins with a fresh installation.
    #[must_use]
    pub const fn leaves_it_changed(self) -> Self {
        Self { leaves_it_changed: true, ..self }
    }

    /// One that means nothing without a node with containerd.
    #[must_use]
    pub const fn of_containerd(self) -> Self {
        Self { of_containerd: true, ..self }
    }

    /// One that is about a cluster with Larder.
    #[must_use]
    pub const fn installed(self) -> Self {
        Self { state: Some(State::Installed), ..self }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let unfit = machine::unfit();
    if let Some(reason) = &unfit {
        eprintln!("no cluster can be made here: {reason}");
    }
    let suite = Arc::new(Suite::default());
    let lists = [
        nodes::BARE,
        pulls::CASES,
        renderings::CASES,
        tags::CASES,
        outage::CASES,
        proxy::CASES,
        agent::CASES,
        control_plane::CASES,
        strangers::INSTALLED,
        values::INSTALLED,
        revisions::CASES,
        joining::CASES,
        nodes::INSTALLED,
        cluster_cache::CASES,
        two_clusters::CASES,
        controller::CASES,
        joining::BARE,
        strangers::BARE,
        values::CASES,
        removal::CASES,
    ];
    let engines = Engine::of_workers().unwrap_or_default();
    let has_containerd = engines.is_empty() || engines.iter().any(|engine| engine.service() == "containerd");
    let trials = lists.into_iter().flatten().map(|case| {
        let suite = Arc::clone(&suite);
        let means_nothing = case.of_containerd && !has_containerd;
        Trial::test(format!("kind::{}", case.name), move || suite.run(case))
            .with_ignored_flag(unfit.is_some() || means_nothing)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The cluster ends here, not with the process, which would not wait for it.
    let suite = Arc::into_inner(suite).expect("no case holds it any more");
    suite.end(!conclusion.has_failed());
    conclusion.exit_code()
}

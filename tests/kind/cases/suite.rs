//! What all cases share: one cluster, and one release of Larder on it.
//!
//! Invariant: a case runs in the state that it asks for. Whoever needs another one than there is waits until nobody else runs, and changes
//! it. A case that fails alone may have left anything behind, as one may that says so, so the next one begins with a fresh installation.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use larder_test_kind::{Cluster, Machine, Release};
use larder_test_parts::Parts;
use libtest_mimic::Failed;
use serde_json::json;

use crate::Case;
use crate::turns::{Turn, Turns};

/// So many are told.
const SLOWEST: usize = 12;

/// Whether Larder is on the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not.
    Bare,
    /// It is, without a cluster cache, and with nothing but the values without which no case can work.
    Installed,
    /// It is, with the cluster cache that everybody gets.
    Cached,
}

/// The state that the cluster is in, and what could not be done.
#[derive(Default)]
struct Now {
    state: Option<State>,
    image_is_loaded: bool,
    no_release: Option<String>,
}

/// Everything that is shared.
#[derive(Default)]
pub(crate) struct Suite {
    cluster: Mutex<Option<Result<Arc<Cluster>, String>>>,
    turns: Turns,
    now: Mutex<Now>,
    /// How long each case took from when its turn came, with what had to be prepared for it.
    times: Mutex<Vec<(Duration, &'static str)>>,
}

impl Suite {
    /// Runs a case when its turn has come; everything that explains its failure is gathered before anybody else runs.
    pub(crate) fn run(&self, case: &Case) -> Result<(), Failed> {
        let turn = self.turns.take(case.alone);
        let cluster = self.cluster()?;
        let began = Instant::now();
        self.prepare(case, &turn, &cluster).map_err(|error| format!("{error:#}"))?;
        // A case that panics gets its evidence as well.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&cluster)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
        // Promised for all times, so looked for whatever the case was about.
        let outcome = outcome.and_then(|()| Release::of(&cluster).has_no_webhook());
        let failed = outcome.map_err(|error| {
            let evidence = match cluster.gather(case.name) {
                Ok(folder) => format!("what explains it is in {}", folder.display()),
                Err(error) => format!("and nothing could be gathered: {error:#}"),
            };
            Failed::from(format!("{error:#}\n{evidence}"))
        });
        if case.leaves_it_changed || (failed.is_err() && case.alone) {
            self.now().state = None;
        }
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), case.name));
        drop(turn);
        failed
    }

    /// Where the time went, for whoever has to make the suite shorter.
    fn tell_slowest(&self) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.sort_unstable_by(|one, other| other.cmp(one));
        let slowest = times.iter().take(SLOWEST).map(|(took, name)| format!("{name} {} s", took.as_secs()));
        eprintln!("the slowest cases: {}", slowest.collect::<Vec<_>>().join(", "));
    }

    /// Ends the cluster; one that is kept is left without Larder when all went well, so that the next run can use it again.
    pub(crate) fn end(self, all_went_well: bool) {
        self.tell_slowest();
        let cluster = self.cluster.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(cluster)) = cluster else { return };
        if cluster.is_kept() && all_went_well {
            let release = Release::of(&cluster);
            if let Err(error) = release.uninstall().and_then(|()| release.delete_namespace()) {
                eprintln!("{error:#}");
            }
        }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, String> {
        let mut shared = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let program = Path::new(env!("CARGO_BIN_EXE_runc-within-bounds"));
            Cluster::start(Machine::take(Parts::from_environment()?, program)?)
        };
        shared.get_or_insert_with(|| start().map(Arc::new).map_err(|error| format!("no cluster: {error:#}"))).clone()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepare(&self, case: &Case, turn: &Turn<'_>, cluster: &Cluster) -> Result<()> {
        if self.is(case.state) {
            return Ok(());
        }
        turn.alone(true);
        if !self.is(case.state) {
            self.change(cluster, case.state.unwrap_or(State::Bare))?;
        }
        turn.alone(case.alone);
        Ok(())
    }

    fn is(&self, wanted: Option<State>) -> bool {
        let state = self.now().state;
        state.is_some() && (wanted.is_none() || wanted == state)
    }

    fn change(&self, cluster: &Cluster, wanted: State) -> Result<()> {
        let mut now = self.now();
        if let Some(reason) = now.no_release.as_ref().filter(|_| wanted != State::Bare) {
            anyhow::bail!("Larder could not be installed for an earlier case: {reason}");
        }
        let release = Release::of(cluster);
        if !now.image_is_loaded {
            release.load_image()?;
            now.image_is_loaded = true;
        }
        now.state = None;
        release.uninstall().context("could not uninstall what was there")?;
        let installed = match wanted {
            State::Bare => Ok(()),
            State::Installed => release.install(&json!({})),
            State::Cached => release
                .make_volume()
                .and_then(|()| release.install(&Release::with_cache()))
                .and_then(|()| release.wait_for_cache()),
        };
        if let Err(error) = installed.context("could not install Larder") {
            let evidence = cluster.gather("install").map(|folder| folder.display().to_string());
            let reason = format!("{error:#}\n{}", evidence.unwrap_or_else(|error| format!("{error:#}")));
            now.no_release = Some(reason.clone());
            anyhow::bail!(reason);
        }
        now.state = Some(wanted);
        Ok(())
    }
}

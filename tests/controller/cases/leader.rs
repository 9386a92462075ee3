//! Who leads, on a real API server: candidates whose way to it is cut, and ones that end well.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use larder_controller::leader::{self, Candidate, LeaseName, Times, Witness};
use larder_test_controller::{Cluster, Cut, until};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Shorter than in a cluster. Between the last two a machine that is busy may stop a thread, and with it the look at when work ended.
const TIMES: Times =
    Times { lease: Duration::from_secs(8), renew: Duration::from_secs(4), retry: Duration::from_millis(400) };

struct Nobody;

impl Witness for Nobody {
    fn leads(&self, _: bool) {}
    fn leader(&self, _: &str) {}
    fn word(&self, _: Option<&str>) {}
}

/// When each of them worked: who, from, until.
type Terms = Arc<Mutex<Vec<(usize, Instant, Option<Instant>)>>>;

/// Ends a term, however the work ends.
struct Term(Terms, usize);

impl Drop for Term {
    fn drop(&mut self) {
        if let Some(term) = self.0.lock().unwrap().get_mut(self.1) {
            term.2 = Some(Instant::now());
        }
    }
}

/// A candidate with a runtime of its own, as a process has.
struct Running {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(index: usize, kubeconfig: &Path, terms: &Terms) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = Kubeconfig::read_from(kubeconfig)?;
        let (terms, stop) = (Arc::clone(terms), CancellationToken::new());
        let shutdown = stop.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
                let client = kube::Client::try_from(config).unwrap();
                let name: LeaseName = "larder/larder-controller".parse().unwrap();
                let candidate = Candidate::new(client, name, format!("candidate-{index}"), TIMES, Arc::new(Nobody));
                let work = |leadership: leader::Leadership| {
                    let terms = Arc::clone(&terms);
                    async move {
                        let number = {
                            let mut terms = terms.lock().unwrap();
                            terms.push((index, Instant::now(), None));
                            terms.len() - 1
                        };
                        let _term = Term(terms, number);
                        leadership.over().await;
                        std::future::pending::<Result<(), std::convert::Infallible>>().await
                    }
                };
                let _ = leader::lead(candidate, shutdown, work).await;
            });
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn works(terms: &Terms) -> Option<usize> {
    terms.lock().unwrap().iter().find(|(_, _, until)| until.is_none()).map(|(index, ..)| *index)
}

fn until_it_works(terms: &Terms, who: impl Fn(usize) -> bool) -> Result<usize> {
    until("one of them leads", || works(terms).filter(|&index| who(index)).context("none does"))
}

/// What the lease says.
fn lease(cluster: &Cluster) -> Result<Value> {
    let words = ["get", "lease", "larder-controller", "--namespace=larder", "--output=json"];
    let lease: Value = serde_json::from_str(&cluster.plane.kubectl(&words, "")?)?;
    lease.get("spec").cloned().context("it says nothing")
}

pub(crate) fn never_two_write() -> Result<()> {
    let cluster = Cluster::start()?;
    let ways = [Cut::to(cluster.plane.address())?, Cut::to(cluster.plane.address())?];
    let terms = Terms::default();
    let start = |index: usize, way: &Cut| -> Result<Running> {
        Running::start(index, &cluster.plane.kubeconfig_of("controller", Some(way.address()))?, &terms)
    };
    let first = start(0, &ways[0])?;
    // A lease that is nobody's is taken without waiting.
    until_it_works(&terms, |index| index == 0)?;
    // It is his since he took it, however often he renews it.
    let taken = lease(&cluster)?;
    until("it is renewed", || {
        let renewed = lease(&cluster)?;
        ensure!(renewed["renewTime"] != taken["renewTime"], "{renewed}");
        Ok(renewed)
    })
    .and_then(|renewed| {
        ensure!(
            renewed["acquireTime"] == taken["acquireTime"] && taken["acquireTime"].is_string(),
            "{renewed} {taken}"
        );
        Ok(())
    })?;
    let second = start(1, &ways[1])?;
    // The leader's way is cut: its work ends by itself, and the other one takes over.
    ways[0].cut();
    until_it_works(&terms, |index| index == 1)?;
    // What was on its way arrives late, and is refused.
    ways[0].mend();
    // The other way round.
    ways[1].cut();
    until_it_works(&terms, |index| index == 0)?;
    ways[1].mend();
    // Somebody deletes the lease: whoever makes the new one holds it a while before it leads, unless it led.
    cluster.plane.kubectl(&["delete", "lease", "larder-controller", "--namespace=larder"], "")?;
    until("there is one again", || {
        cluster.plane.kubectl(&["get", "lease", "larder-controller", "--namespace=larder"], "")
    })?;
    let leader = until_it_works(&terms, |_| true)?;
    // A planned end hands it over before it would run out.
    let (ends, stays) = if leader == 0 { (first, second) } else { (second, first) };
    ends.stop();
    until_it_works(&terms, |index| index != leader)?;
    stays.stop();
    let terms = terms.lock().unwrap();
    ensure!(terms.len() >= 4, "{terms:?}");
    for pair in terms.windows(2) {
        if let [(_, _, Some(until)), (_, from, _)] = pair {
            ensure!(until <= from, "two worked at once: {terms:?}");
        }
    }
    ensure!(terms.iter().all(|(_, _, until)| until.is_some()), "the work outlived its end: {terms:?}");
    let lease =
        cluster.plane.kubectl(&["get", "lease", "larder-controller", "--namespace=larder", "--output=json"], "")?;
    ensure!(!lease.contains("holderIdentity"), "it was not given back: {lease}");
    Ok(())
}

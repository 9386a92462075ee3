//! The thread that watches over the proxy: probes it, announces and withdraws, starts it, kills it, closes its sockets.
//!
//! Invariant: nothing here waits for anything but a bounded probe. It has a thread of its own and no part in the
//! runtime, so a disk that hangs or an engine that does not answer cannot keep it from withdrawing. What to do is decided
//! by [`larder_node_agent::liveness`]; what it did is told through a [`View`].

use crate::child::{News, ProxyProcess};
use crate::probe::probe;
use anyhow::Context as _;
use larder_node_agent::listener::{self, sockets};
use larder_node_agent::liveness::{Action, Event, Health, Limits, Liveness, Probe};
use larder_node_agent::placement::Announcer;
use larder_proxy::server::probe::ProbeKey;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How soon the end of the child is noticed. Engines notice it by themselves: nobody listens any more.
const LOOK: Duration = Duration::from_millis(100);

/// What it watches over.
pub(crate) struct Settings {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) mirror: SocketAddr,
    pub(crate) key: ProbeKey,
    pub(crate) process: ProxyProcess,
    pub(crate) announcer: Announcer,
    pub(crate) limits: Limits,
}

/// What it knows, for conditions, metrics and the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) health: Health,
    pub(crate) announced: bool,
    pub(crate) pid: Option<u32>,
    /// Starts of the child, the first one included.
    pub(crate) starts: u64,
    pub(crate) kills: u64,
    /// What could not be done, if the last attempt failed.
    pub(crate) problem: Option<String>,
}

enum Order {
    Withdraw(Sender<()>),
    Stop { drain: Duration },
}

/// The running thread.
pub(crate) struct Supervisor {
    orders: Sender<Order>,
    view: watch::Receiver<View>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    pub(crate) fn start(settings: Settings) -> anyhow::Result<Self> {
        let (orders, received) = channel();
        let first = View { health: Health::Starting, announced: false, pid: None, starts: 0, kills: 0, problem: None };
        let (told, view) = watch::channel(first);
        let liveness = Liveness::new(settings.limits, Instant::now());
        let watch = Watch { settings, liveness, told };
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || watch.run(&received))
            .context("start the supervising thread")?;
        Ok(Self { orders, view, thread })
    }

    /// What it knows; closed when the thread ended.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Nothing is announced any more, for good. Returns when that is done.
    pub(crate) fn withdraw(&self) {
        let (done, wait) = channel();
        // A thread that has ended has withdrawn already, or the kernel will with this process.
        if self.orders.send(Order::Withdraw(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(3));
        }
    }

    /// Stops the proxy, which may take `drain` to end what it began, and the thread.
    pub(crate) fn stop(self, drain: Duration) {
        drop(self.orders.send(Order::Stop { drain }));
        drop(self.thread.join());
    }
}

struct Watch {
    settings: Settings,
    liveness: Liveness,
    told: watch::Sender<View>,
}

impl Watch {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut next_probe = Instant::now();
        loop {
            self.look_after_the_process();
            if Instant::now() >= next_probe {
                let found = self.probe();
                self.step(Event::Probe(found));
                // A child that ended at the probe is seen to, and a killed one reaped, before the next.
                next_probe = Instant::now() + self.liveness.wait(Instant::now());
            } else {
                self.step(Event::Tick);
            }
            let wait = next_probe.saturating_duration_since(Instant::now()).min(LOOK);
            match orders.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Withdraw(done)) => {
                    self.step(Event::Stop);
                    let _ = done.send(());
                }
                Ok(Order::Stop { drain }) => {
                    self.step(Event::Stop);
                    self.settings.process.stop(drain);
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.step(Event::Stop);
                    return;
                }
            }
        }
    }

    fn probe(&mut self) -> Probe {
        let address = self.settings.mirror;
        match probe(address, &self.settings.key, self.settings.limits.probe_limit) {
            found @ Probe::Ours { .. } => {
                self.settings.process.proved();
                found
            }
            // No process of ours has it, so whoever keeps silent there is not to be killed but named.
            Probe::Missed { .. } if self.settings.process.pid().is_none() => {
                Probe::Missed { by: listener::owner(address).map(|holder| holder.to_string()) }
            }
            found => found,
        }
    }

    fn look_after_the_process(&mut self) {
        let stopping = *self.liveness.health() == Health::Stopping;
        if stopping {
            return;
        }
        match self.settings.process.look(Instant::now()) {
            None => {}
            Some(News::Started(pid)) => {
                tracing::info!(pid, "proxy started");
                self.told.send_modify(|view| view.starts += 1);
                self.step(Event::Started);
            }
            Some(News::Exited(status)) => {
                tracing::warn!(%status, "proxy ended");
                self.step(Event::Exited);
                self.look_for_a_stranger();
            }
            Some(News::FailedToStart(reason)) => {
                tracing::error!(reason, "proxy not started");
                self.told.send_modify(|view| view.problem = Some(format!("proxy not started: {reason}")));
            }
        }
    }

    /// Our own proxy has just ended, so whoever listens now is somebody else. An engine that keeps what it read goes on asking for as long
    /// as he is not found out, and he need not answer a probe.
    fn look_for_a_stranger(&mut self) {
        if let (ProxyProcess::Own(_), Some(holder)) = (&self.settings.process, listener::owner(self.settings.mirror)) {
            self.step(Event::Probe(Probe::Stranger { who: holder.to_string() }));
        }
    }

    fn step(&mut self, event: Event) {
        let before = self.liveness.health().clone();
        let actions = self.liveness.step(Instant::now(), event);
        let mut first_problem = None;
        for action in &actions {
            let Err(error) = self.perform(*action) else { continue };
            let problem = format!("{error:#}");
            // What is tried again with each probe is told once.
            if self.told.borrow().problem.as_ref() != Some(&problem) {
                tracing::error!(?action, problem, "not done");
            }
            first_problem.get_or_insert(problem);
        }
        if !actions.is_empty() {
            self.told.send_if_modified(|view| {
                let news = view.problem != first_problem;
                view.problem = first_problem;
                news
            });
        }
        let health = self.liveness.health();
        if *health != before {
            tracing::info!(from = ?before, to = ?health, "proxy");
        }
        let (health, announced, pid) = (health.clone(), self.liveness.announced(), self.settings.process.pid());
        self.told.send_if_modified(|view| {
            let news = view.health != health || view.announced != announced || view.pid != pid;
            (view.health, view.announced, view.pid) = (health, announced, pid);
            news
        });
    }

    /// Whether a proxy of ours, and no stranger, has the address; unless that cannot be seen.
    fn holds_the_port(&self) -> bool {
        let of_ours = |pid| listener::owner(self.settings.mirror).is_none_or(|holder| holder.pid == pid);
        self.settings.process.pid().is_some_and(of_ours)
    }

    fn close_clients(&self) -> anyhow::Result<()> {
        let closed = sockets::close_clients(self.settings.mirror)
            .context("pulls that reached whoever has the proxy's address may wait for it")?;
        if closed > 0 {
            tracing::warn!(address = %self.settings.mirror, closed, "connections to somebody else than the proxy: closed");
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Announce => self.settings.announcer.turn(true).context("announce")?,
            Action::Withdraw => self.settings.announcer.turn(false).context("withdraw")?,
            Action::Kill => {
                let pid = self.settings.process.pid();
                self.settings.process.kill()?;
                tracing::warn!(pid, "the proxy does not answer: killed");
                self.told.send_modify(|view| view.kills += 1);
            }
            Action::CloseSockets if !self.holds_the_port() => self.close_clients()?,
            Action::CloseClients => self.close_clients()?,
            Action::CloseSockets => {
                for address in &self.settings.addresses {
                    let closed = sockets::close_all(*address)?;
                    tracing::warn!(%address, closed, "the killed proxy is still there: its sockets were closed");
                }
            }
            Action::HoldOff(until) => {
                tracing::info!(for_ = ?until.saturating_duration_since(Instant::now()), "not announced again before");
            }
        }
        Ok(())
    }
}

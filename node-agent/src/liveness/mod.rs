//! Decides when the engine is told to ask the proxy, and when it is told to leave it alone: a pure state machine.
//!
//! Invariant: entries are announced only while our own proxy answers. One refused connection, a stranger, or the end
//! of the child withdraws at once; two probes without an answer are a hang, which is withdrawn and killed. Withdrawing
//! alone frees no request that is already waiting, so what the kill leaves open has its sockets closed.
//! Probes, time and consequences belong to whoever drives it: values go in, [`Action`]s come out.

use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// The times by which [`Liveness`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From one answered probe to the next.
    pub probe_every: Duration,
    /// A probe without an answer for so long was missed; the next one follows at once.
    pub probe_limit: Duration,
    /// So many missed probes in a row are a hang.
    pub misses: u32,
    /// The runtime behind an answering front has not moved for so long: withdraw, it may only be busy.
    pub stalled: Duration,
    /// The same for so long is a hang.
    pub stalled_is_hung: Duration,
    /// A killed proxy that is still there after this has its sockets closed.
    pub close_sockets_after: Duration,
    /// A proxy that has never answered may take so long to start before it is taken for hung.
    pub start: Duration,
    /// The first hold-off after a kill; each further kill doubles it.
    pub hold_off: Duration,
    /// No hold-off is longer.
    pub longest_hold_off: Duration,
    /// So long without trouble and earlier kills no longer count.
    pub forgiven_after: Duration,
}

impl Default for Limits {
    /// A hang ends at most 0.5 + 0.7 + 0.7 + 0.3 = 2.2 seconds after it began; three are promised.
    fn default() -> Self {
        Self {
            probe_every: Duration::from_millis(500),
            probe_limit: Duration::from_millis(700),
            misses: 2,
            stalled: Duration::from_secs(2),
            stalled_is_hung: Duration::from_secs(15),
            close_sockets_after: Duration::from_millis(300),
            start: Duration::from_secs(10),
            hold_off: Duration::from_secs(2),
            longest_hold_off: Duration::from_mins(5),
            forgiven_after: Duration::from_mins(10),
        }
    }
}

/// What one probe of the proxy's address found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Our proxy, proved by the key. Its runtime last moved so long ago.
    Ours {
        /// Age of the runtime's last heartbeat.
        stalled: Duration,
    },
    /// Somebody answered who does not know the key.
    Stranger {
        /// Process id and command, as far as they could be found.
        who: String,
    },
    /// Nobody listens.
    Refused,
    /// Connected or not, there was no answer in time.
    Missed {
        /// Process id and command of whoever holds the address, when that is no process of ours.
        by: Option<String>,
    },
}

/// What happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A probe came back.
    Probe(Probe),
    /// The proxy's process was started.
    Started,
    /// The proxy's process ended.
    Exited,
    /// Time passed.
    Tick,
    /// A planned stop began. Nothing is announced any more.
    Stop,
}

/// What has to be done now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Put the target folder in place.
    Announce,
    /// Take the target folder away.
    Withdraw,
    /// SIGKILL the proxy.
    Kill,
    /// Close every TCP connection of the proxy's address (`SOCK_DESTROY`).
    CloseSockets,
    /// Close this node's connections *to* the proxy's address: whoever is there is not ours, and a pull may wait for it.
    CloseClients,
    /// Neither announced nor killed again before this instant.
    HoldOff(Instant),
}

/// Where the proxy stands, for conditions and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has not answered yet.
    Starting,
    /// Ours, answering, announced.
    Well,
    /// Its front answers, its runtime does not move.
    Stalled,
    /// Nobody listens.
    Dead,
    /// It was killed because it did not answer.
    Hung,
    /// It answers again, but hung shortly before.
    HeldOff,
    /// Somebody else has the address.
    Stranger(String),
    /// A planned stop.
    Stopping,
}

/// The state machine. See the module's comment.
#[derive(Debug)]
pub struct Liveness {
    limits: Limits,
    health: Health,
    announced: bool,
    /// Only then may a pull wait for whoever has the address because of us; else his clients are his.
    was_ever_announced: bool,
    misses: u32,
    /// When the running proxy was started, or this machine was: until it has answered it may be slow.
    started: Instant,
    answered: bool,
    kills: u32,
    killed: Option<Killed>,
    held_off_until: Option<Instant>,
    well_since: Option<Instant>,
}

/// A kill whose victim has not been seen to go.
#[derive(Debug)]
struct Killed {
    at: Instant,
    sockets_closed: bool,
}

impl Liveness {
    /// Nothing is announced at first.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            health: Health::Starting,
            announced: false,
            was_ever_announced: false,
            misses: 0,
            started: now,
            answered: false,
            kills: 0,
            killed: None,
            held_off_until: None,
            well_since: None,
        }
    }

    /// Whether the last word was [`Action::Announce`].
    pub fn announced(&self) -> bool {
        self.announced
    }

    /// Where the proxy stands.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How long to wait before the next probe. A missed one is repeated at once, for every moment counts; and one that may be
    /// starting is asked often, so that it is of use soon.
    pub fn wait(&self, now: Instant) -> Duration {
        match &self.killed {
            Some(killed) if !killed.sockets_closed => {
                (killed.at + self.limits.close_sockets_after).saturating_duration_since(now)
            }
            None if self.misses > 0 && self.misses < self.limits.misses => Duration::ZERO,
            None if matches!(self.health, Health::Starting | Health::Dead) => self.limits.probe_every / 5,
            _ => self.limits.probe_every,
        }
    }

    /// Takes in one event and says what has to be done.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.health == Health::Stopping {
            return actions;
        }
        match event {
            Event::Probe(Probe::Ours { stalled }) => self.answered(now, stalled, &mut actions),
            Event::Probe(Probe::Missed { by }) => self.missed(now, by, &mut actions),
            Event::Probe(Probe::Refused) => {
                // A proxy that is starting has not bound its address yet: that is no news.
                let health = if self.answered { Health::Dead } else { Health::Starting };
                self.gone(health, &mut actions);
            }
            Event::Probe(Probe::Stranger { who }) => {
                self.gone(Health::Stranger(who), &mut actions);
                // Each time: a pull that began before the withdrawal goes on asking.
                if self.was_ever_announced {
                    actions.push(Action::CloseClients);
                }
            }
            Event::Exited => {
                self.answered = false;
                let was_announced = self.announced;
                // One that fails to start beside a stranger is no sign that he has gone: nothing is put in force for him again.
                let health = match &self.health {
                    stranger @ Health::Stranger(_) => stranger.clone(),
                    _ => Health::Dead,
                };
                self.gone(health, &mut actions);
                if was_announced {
                    // Somebody may have taken the port in the moment in which it was free.
                    actions.push(Action::CloseClients);
                }
            }
            Event::Started => {
                self.started = now;
                self.answered = false;
                self.misses = 0;
            }
            Event::Tick => self.close_sockets_of_the_undead(now, &mut actions),
            Event::Stop => self.withdraw(Health::Stopping, &mut actions),
        }
        actions
    }

    fn answered(&mut self, now: Instant, stalled: Duration, actions: &mut Vec<Action>) {
        self.misses = 0;
        self.answered = true;
        self.killed = None;
        if stalled >= self.limits.stalled_is_hung {
            self.hung(now, None, actions);
        } else if stalled >= self.limits.stalled {
            self.withdraw(Health::Stalled, actions);
        } else if self.held_off(now) {
            self.withdraw(Health::HeldOff, actions);
        } else {
            let since = *self.well_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.limits.forgiven_after {
                self.kills = 0;
            }
            self.health = Health::Well;
            if !self.announced {
                self.announced = true;
                self.was_ever_announced = true;
                actions.push(Action::Announce);
            }
        }
    }

    fn missed(&mut self, now: Instant, by: Option<String>, actions: &mut Vec<Action>) {
        self.misses = self.misses.saturating_add(1);
        if self.killed.is_some() {
            self.close_sockets_of_the_undead(now, actions);
        } else if self.misses >= self.limits.misses {
            self.hung(now, by, actions);
        }
        if self.was_ever_announced && !self.answered && self.misses >= self.limits.misses {
            // Whoever holds the port in silence has never proved to be ours.
            actions.push(Action::CloseClients);
        }
    }

    /// Withdraws always; kills unless it is `somebody_else`, is only starting, or was killed a moment ago.
    fn hung(&mut self, now: Instant, somebody_else: Option<String>, actions: &mut Vec<Action>) {
        if let Some(who) = somebody_else {
            self.withdraw(Health::Stranger(who), actions);
            return;
        }
        let starting = !self.answered && now.saturating_duration_since(self.started) < self.limits.start;
        if starting {
            self.withdraw(Health::Starting, actions);
            return;
        }
        self.withdraw(Health::Hung, actions);
        if self.held_off(now) {
            return;
        }
        let until = now + self.next_hold_off();
        self.kills = self.kills.saturating_add(1);
        self.killed = Some(Killed { at: now, sockets_closed: false });
        self.held_off_until = Some(until);
        actions.push(Action::Kill);
        actions.push(Action::HoldOff(until));
    }

    fn next_hold_off(&self) -> Duration {
        let doubled = self.limits.hold_off.saturating_mul(1_u32.checked_shl(self.kills).unwrap_or(u32::MAX));
        doubled.min(self.limits.longest_hold_off)
    }

    fn held_off(&self, now: Instant) -> bool {
        self.held_off_until.is_some_and(|until| now < until)
    }

    fn close_sockets_of_the_undead(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let held_off = self.held_off(now);
        let Some(killed) = &mut self.killed else { return };
        let since = now.saturating_duration_since(killed.at);
        if !killed.sockets_closed && since >= self.limits.close_sockets_after {
            killed.sockets_closed = true;
            actions.push(Action::CloseSockets);
        } else if killed.sockets_closed && !held_off {
            // It outlived its hold-off: forget the kill, so that the next missed probes are a hang again.
            self.killed = None;
            self.misses = 0;
        }
    }

    /// Nobody of ours is there: no hang to be counted, no victim to wait for.
    fn gone(&mut self, health: Health, actions: &mut Vec<Action>) {
        self.misses = 0;
        self.killed = None;
        self.withdraw(health, actions);
    }

    fn withdraw(&mut self, health: Health, actions: &mut Vec<Action>) {
        self.health = health;
        self.well_since = None;
        if self.announced {
            self.announced = false;
            actions.push(Action::Withdraw);
        }
    }
}

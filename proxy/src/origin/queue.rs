//! Whose turn it is to ask a registry.
//!
//! A registry has two lanes: blobs, which hold their turn until the last byte, and everything else, so that a manifest or a HEAD
//! waits for no layer. Within a lane the turns are bounded, and whoever waits is served by shares: next is the repository that has the
//! fewest turns now, and none takes more than three quarters of a lane, so that one with five hundred layers leaves room for another's
//! first.
//!
//! The invariant: a queue delays and never refuses. Who has waited for [`QueueLimits::patience`] goes all the same, since whoever
//! waits behind it would only ask the registry from somewhere else (decision 25). For the same reason a blob that arrives slowly, or is
//! taken slowly, does not keep its turn for ever.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_oci::{Registry, Repository};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::observe::{Lane, Observer};

/// How much is asked of one registry at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Manifests, HEADs and lists.
    pub documents: usize,
    /// Blobs that arrive.
    pub blobs: usize,
    /// How long anybody waits for a turn. Less than what whoever asks waits for an answer: a node waits for nine seconds, of
    /// which its cluster cache has seven eighths.
    pub patience: Duration,
    /// After so long a turn is over, whether its blob is there or not.
    pub longest: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { documents: 16, blobs: 32, patience: Duration::from_secs(4), longest: Duration::from_mins(1) }
    }
}

/// One lane of one registry.
pub(super) struct Queue {
    registry: Registry,
    lane: Lane,
    patience: Duration,
    observer: Arc<dyn Observer>,
    line: Mutex<Line<oneshot::Sender<()>>>,
}

/// A turn; it ends when this is dropped.
pub(crate) struct Turn {
    queue: Arc<Queue>,
    ticket: u64,
}

impl Queue {
    pub(super) fn new(registry: &Registry, lane: Lane, limits: &QueueLimits, observer: &Arc<dyn Observer>) -> Self {
        let most = match lane {
            Lane::Document => limits.documents,
            Lane::Blob => limits.blobs,
        };
        Self {
            registry: registry.clone(),
            lane,
            patience: limits.patience,
            observer: Arc::clone(observer),
            line: Mutex::new(Line::new(most, limits.longest)),
        }
    }

    /// Waits for a turn: until one is free, until patience or half of the time until `deadline` is over, whichever comes first.
    pub(super) async fn turn(self: &Arc<Self>, repository: &Repository, deadline: Instant) -> Turn {
        let began = Instant::now();
        let mut waiting = match self.enter(repository, began) {
            Entered::Begun(turn) => {
                self.observer.waited(&self.registry, self.lane, Duration::ZERO, false);
                return turn;
            }
            Entered::Waits(waiting) => waiting,
        };
        let until = began + self.patience.min(deadline.saturating_duration_since(began) / 2);
        let is_granted = timeout_at(until, &mut waiting.granted).await.is_ok();
        let turn = waiting.begin();
        self.observer.waited(&self.registry, self.lane, began.elapsed(), !is_granted);
        turn
    }

    fn enter(self: &Arc<Self>, repository: &Repository, now: Instant) -> Entered {
        let mut line = self.line();
        let (queue, ticket) = (Arc::clone(self), line.ticket());
        if line.may_begin(repository, now) {
            line.begin(ticket, repository, now);
            return Entered::Begun(Turn { queue, ticket });
        }
        let (grant, granted) = oneshot::channel();
        line.wait(ticket, repository, grant);
        self.tell(&line);
        Entered::Waits(Waiting { queue, repository: repository.clone(), ticket, granted, is_over: false })
    }

    fn end(&self, ticket: u64) {
        let (mut line, now) = (self.line(), Instant::now());
        line.end(ticket);
        while let Some((ticket, grant)) = line.next(now) {
            // Whoever has gone meanwhile gives the turn back.
            if grant.send(()).is_err() {
                line.end(ticket);
            }
        }
        self.tell(&line);
    }

    fn tell(&self, line: &Line<oneshot::Sender<()>>) {
        self.observer.queue(&self.registry, self.lane, line.waiting.len());
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<()>>> {
        // Nothing that holds it can panic half-way through a change.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.end(self.ticket);
    }
}

enum Entered {
    Begun(Turn),
    Waits(Waiting),
}

/// Somebody in the queue; whoever is not polled any more leaves it.
struct Waiting {
    queue: Arc<Queue>,
    repository: Repository,
    ticket: u64,
    granted: oneshot::Receiver<()>,
    is_over: bool,
}

impl Waiting {
    /// The turn, whether it was granted or not.
    fn begin(mut self) -> Turn {
        self.is_over = true;
        let mut line = self.queue.line();
        if line.leave(self.ticket) {
            line.begin(self.ticket, &self.repository, Instant::now());
            self.queue.tell(&line);
        }
        drop(line);
        Turn { queue: Arc::clone(&self.queue), ticket: self.ticket }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut line = self.queue.line();
        let has_waited = line.leave(self.ticket);
        self.queue.tell(&line);
        drop(line);
        if !has_waited {
            // It was granted, and nobody has taken it.
            self.queue.end(self.ticket);
        }
    }
}

/// Who has a turn and who waits. Pure.
struct Line<T> {
    most: usize,
    longest: Duration,
    turns: BTreeMap<u64, (Repository, Instant)>,
    waiting: VecDeque<(u64, Repository, T)>,
    tickets: u64,
}

impl<T> Line<T> {
    fn new(most: usize, longest: Duration) -> Self {
        Self { most: most.max(1), longest, turns: BTreeMap::new(), waiting: VecDeque::new(), tickets: 0 }
    }

    /// A number that nobody has.
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// The most that one repository has.
    fn share(&self) -> usize {
        self.most - self.most / 4
    }

    /// How many turns each repository has; those that took too long are over.
    fn turns(&mut self, now: Instant) -> HashMap<&Repository, usize> {
        let longest = self.longest;
        self.turns.retain(|_, (_, began)| now.saturating_duration_since(*began) < longest);
        let mut counted = HashMap::new();
        for (repository, _) in self.turns.values() {
            *counted.entry(repository).or_default() += 1;
        }
        counted
    }

    fn may_begin(&mut self, repository: &Repository, now: Instant) -> bool {
        let (most, share) = (self.most, self.share());
        let turns = self.turns(now);
        turns.values().sum::<usize>() < most && turns.get(repository).copied().unwrap_or_default() < share
    }

    fn begin(&mut self, ticket: u64, repository: &Repository, now: Instant) {
        self.turns.insert(ticket, (repository.clone(), now));
    }

    fn end(&mut self, ticket: u64) {
        self.turns.remove(&ticket);
    }

    fn wait(&mut self, ticket: u64, repository: &Repository, who: T) {
        self.waiting.push_back((ticket, repository.clone(), who));
    }

    /// Whether he was still waiting.
    fn leave(&mut self, ticket: u64) -> bool {
        let place = self.waiting.iter().position(|(waiting, _, _)| *waiting == ticket);
        place.and_then(|place| self.waiting.remove(place)).is_some()
    }

    /// Takes whoever is next out of the line, with his turn begun: of the repository with the fewest turns, who came first.
    fn next(&mut self, now: Instant) -> Option<(u64, T)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (most, share) = (self.most, self.share());
        let waiting = std::mem::take(&mut self.waiting);
        let turns = self.turns(now);
        let turns_of = |repository| turns.get(repository).copied().unwrap_or_default();
        let fewest = waiting.iter().enumerate().map(|(place, (_, repository, _))| (turns_of(repository), place)).min();
        let has_room = turns.values().sum::<usize>() < most;
        self.waiting = waiting;
        let (_, place) = fewest.filter(|(turns, _)| has_room && *turns < share)?;
        let (ticket, repository, who) = self.waiting.remove(place)?;
        self.begin(ticket, &repository, now);
        Some((ticket, who))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Unobserved;

    fn repository(name: &str) -> Repository {
        Repository::parse(name).unwrap()
    }

    fn queue(blobs: usize) -> Arc<Queue> {
        let limits = QueueLimits { blobs, ..QueueLimits::default() };
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        Arc::new(Queue::new(&Registry::parse("reg.example.com").unwrap(), Lane::Blob, &limits, &observer))
    }

    /// How many wait, how many have a turn.
    fn lengths(queue: &Queue) -> (usize, usize) {
        let line = queue.line();
        (line.waiting.len(), line.turns.len())
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test(start_paused = true)]
    async fn the_repository_with_the_fewest_turns_is_next_and_none_takes_all() {
        let (big, small, third) = (repository("big"), repository("small"), repository("third"));
        let now = Instant::now();
        let mut line: Line<&str> = Line::new(4, Duration::from_mins(1));
        for ticket in 1..=3 {
            assert!(line.may_begin(&big, now));
            line.begin(ticket, &big, now);
        }
        assert!(!line.may_begin(&big, now), "three quarters");
        line.wait(11, &big, "big 1");
        line.wait(12, &big, "big 2");
        assert!(line.may_begin(&small, now));
        line.begin(4, &small, now);
        line.wait(21, &small, "small 2");
        line.wait(31, &third, "third 1");
        assert_eq!(line.next(now), None, "all turns are taken");
        line.end(1);
        assert_eq!(line.next(now), Some((31, "third 1")));
        line.end(2);
        // All have one now, and big came first.
        assert_eq!(line.next(now), Some((11, "big 1")));
        line.end(31);
        assert_eq!(line.next(now), Some((21, "small 2")));
        line.end(4);
        line.end(21);
        assert_eq!(line.next(now), Some((12, "big 2")));
        assert_eq!(line.next(now), None);
        // And what takes for ever is over.
        assert!(!line.may_begin(&big, now + Duration::from_secs(59)));
        assert!(line.may_begin(&big, now + Duration::from_mins(1)));
        assert!(line.turns.is_empty() && line.waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_long_enough_goes_all_the_same() {
        let queue = queue(1);
        let (one, other) = (repository("one"), repository("other"));
        let held = queue.turn(&one, later()).await;
        let began = Instant::now();
        let hurried = queue.turn(&other, later()).await;
        assert_eq!(began.elapsed(), Duration::from_secs(4));
        // Half of what is left for who has less.
        let began = Instant::now();
        let soon = queue.turn(&other, began + Duration::from_secs(2)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        // Only when all three have ended is there room again.
        drop((hurried, held));
        let next = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.turn(&repository("next"), later()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.line().waiting.len(), 1);
        let began = Instant::now();
        drop(soon);
        drop(next.await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(queue.line().turns.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_away_leaves_neither_his_place_nor_a_turn_behind() {
        let queue = queue(1);
        let one = repository("one");
        for granted in [false, true] {
            let held = queue.turn(&one, later()).await;
            let Entered::Waits(waiting) = queue.enter(&one, Instant::now()) else { panic!("there is one turn") };
            if granted {
                drop(held);
                assert_eq!(lengths(&queue), (0, 1));
            }
            drop(waiting);
            assert_eq!(lengths(&queue), (0, usize::from(!granted)));
        }
        assert!(queue.line().turns.is_empty());
    }
}

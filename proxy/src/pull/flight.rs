//! One question to the origin for all who ask it at the same time.
//!
//! A flight runs as a task of its own and to its end, whoever stops waiting for it: an answer that comes too late for a client
//! is still worth writing down.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How many of one question may be under way beside each other.
const BESIDE: usize = 3;

/// Questions that are being asked.
pub(super) struct Flights<K, V> {
    running: Running<K, V>,
    next: AtomicU64,
}

type Running<K, V> = Arc<Mutex<HashMap<K, Route<V>>>>;

/// All flights of one question, the newest last.
struct Route<V> {
    flights: Vec<(u64, Flight<V>)>,
    /// The newest that had something to say.
    told: Arc<AtomicU64>,
}

/// A question that was asked.
#[derive(Clone)]
pub(super) struct Flight<V> {
    /// When it was asked.
    pub(super) since: Instant,
    /// Somebody else had asked it.
    pub(super) joined: bool,
    answer: watch::Receiver<Option<V>>,
}

/// Which of several flights of one question it is.
pub(super) struct Ticket {
    number: u64,
    told: Arc<AtomicU64>,
}

/// Takes a flight off the list, also when its task is ended.
struct Landing<K: Eq + Hash, V> {
    running: Running<K, V>,
    key: K,
    number: u64,
}

impl Ticket {
    /// Whether no question that was asked later has been answered before this one: an answer from before would undo it.
    pub(super) fn is_newest_word(&self) -> bool {
        self.told.fetch_max(self.number, Ordering::Relaxed) <= self.number
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { running: Arc::default(), next: AtomicU64::new(1) }
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = running.get_mut(&self.key) {
            route.flights.retain(|(number, _)| *number != self.number);
            if route.flights.is_empty() {
                running.remove(&self.key);
            }
        }
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight of `key`, or starts it with `question`.
    pub(super) fn join<F>(&self, key: K, question: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.join_within(key, None, |_| question())
    }

    /// Joins the newest flight of `key` if it is not older than `age`, or starts one, beside those that are, as long as these
    /// are not too many. One question that is stuck so holds up nobody who asks later.
    pub(super) fn join_within<F>(&self, key: K, age: Option<Duration>, question: impl FnOnce(Ticket) -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let route = running.entry(key.clone()).or_insert_with(|| Route { flights: Vec::new(), told: Arc::default() });
        if let Some((_, flight)) = route.flights.last()
            && (route.flights.len() >= BESIDE || age.is_none_or(|age| flight.since.elapsed() < age))
        {
            return Flight { joined: true, ..flight.clone() };
        }
        let (sender, answer) = watch::channel(None);
        let flight = Flight { since: Instant::now(), joined: false, answer };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        route.flights.push((number, flight.clone()));
        let ticket = Ticket { number, told: Arc::clone(&route.told) };
        drop(running);
        let landing = Landing { running: Arc::clone(&self.running), key, number };
        let question = question(ticket);
        tokio::spawn(async move {
            let answer = question.await;
            drop(landing);
            sender.send_replace(Some(answer));
        });
        flight
    }
}

impl<V: Clone> Flight<V> {
    /// The answer, or `None` if there is none by `deadline`.
    pub(super) async fn answer(&mut self, deadline: Instant) -> Option<V> {
        match timeout_at(deadline, self.answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_at_the_same_time_share_one_question_that_nobody_can_stop() {
        let flights = Flights::<&str, u32>::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(5)).await;
                7
            }
        };
        let mut first = flights.join("a", ask);
        let mut second = flights.join("a", ask);
        assert!(!first.joined && second.joined);
        assert_eq!(first.answer(Instant::now() + Duration::from_secs(1)).await, None);
        drop(first);
        assert_eq!(second.answer(Instant::now() + Duration::from_secs(10)).await, Some(7));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(!flights.join("a", ask).joined);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_stuck_is_asked_again_beside_it_a_few_times() {
        let flights = Flights::<&str, bool>::default();
        let second = Duration::from_secs(1);
        let ask = |after: Duration| {
            flights.join_within("a", Some(second), move |ticket| async move {
                tokio::time::sleep(after).await;
                ticket.is_newest_word()
            })
        };
        let mut stuck = ask(10 * second);
        assert!(ask(second).joined);
        tokio::time::advance(second).await;
        let mut beside = ask(second / 2);
        assert!(!beside.joined);
        assert_eq!(beside.answer(Instant::now() + second).await, Some(true));
        assert_eq!(stuck.answer(Instant::now() + 20 * second).await, Some(false), "what it says is older");
        assert!(flights.running.lock().unwrap().is_empty());
        for number in 0..10 {
            assert_eq!(ask(100 * second).joined, number >= BESIDE);
            tokio::time::advance(second).await;
        }
    }
}

//! Objects that are no more, for as long as an answer may still be on its way that says otherwise: what was written is answered beside the watch, and an object
//! that is made and deleted at once would be taken for one that is there, and stay.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Longer than anybody waits for an answer.
const REMEMBERED: Duration = Duration::from_mins(1);

/// A watch that goes on has said by then that an object is gone, and how.
const TOLD: Duration = Duration::from_secs(5);

/// Longer than it takes until something that could not be written is written again.
const MISSED: Duration = Duration::from_mins(10);

/// By `metadata.uid`, which no other object ever has.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    uids: HashSet<String>,
    by_age: VecDeque<(Instant, String)>,
    /// Not there, as the API server said to a write, since then; nobody has told that they went.
    missed: HashMap<String, Instant>,
}

impl Gone {
    /// It was deleted.
    pub(crate) fn insert(&mut self, uid: &str, now: Instant) {
        while self.by_age.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > REMEMBERED) {
            if let Some((_, old)) = self.by_age.pop_front() {
                self.uids.remove(&old);
            }
        }
        self.missed.remove(uid);
        if self.uids.insert(uid.to_owned()) {
            self.by_age.push_back((now, uid.to_owned()));
        }
    }

    /// Whether it was, lately.
    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    /// The API server says to a write that there is no such object: whether it is taken for gone. As a rule the watch tells so in a moment, and it is better
    /// heard from it; an object that is known by an answer alone, and went before the next list, nobody else ever tells of.
    pub(crate) fn is_missed(&mut self, uid: &str, now: Instant) -> bool {
        self.missed.retain(|_, since| now.saturating_duration_since(*since) <= MISSED);
        let since = *self.missed.entry(uid.to_owned()).or_insert(now);
        now.saturating_duration_since(since) >= TOLD
    }

    /// A list has it: an etcd was put back to what it was before.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.missed.remove(uid);
        if self.uids.remove(uid) {
            self.by_age.retain(|(_, known)| known != uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_as_long_as_an_answer_may_take() {
        let (mut gone, start) = (Gone::default(), Instant::now());
        gone.insert("a", start);
        gone.insert("a", start + REMEMBERED);
        gone.insert("b", start + REMEMBERED);
        assert!(gone.contains("a") && gone.contains("b"));
        gone.insert("c", start + REMEMBERED + Duration::from_secs(1));
        assert!(!gone.contains("a") && gone.contains("b"));
        gone.forget("b");
        assert!(!gone.contains("b"));
        gone.insert("b", start + REMEMBERED * 3);
        assert!(gone.contains("b") && gone.by_age.len() == 1);
    }

    #[test]
    fn what_the_api_server_does_not_find_is_gone_once_nobody_tells_how_it_went() {
        let (mut gone, start) = (Gone::default(), Instant::now());
        assert!(!gone.is_missed("a", start));
        assert!(!gone.is_missed("a", start + TOLD / 2));
        assert!(gone.is_missed("a", start + TOLD));
        // It was told.
        gone.insert("a", start + TOLD);
        assert!(gone.missed.is_empty());
        // An old word is none.
        assert!(!gone.is_missed("b", start));
        assert!(!gone.is_missed("b", start + MISSED + TOLD));
    }
}

//! Objects that are no more, for as long as an answer may still be on its way that says otherwise: what was written is answered beside the watch, and an object
//! that is made and deleted at once would be taken for one that is there, and stay.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Longer than anybody waits for an answer.
const REMEMBERED: Duration = Duration::from_mins(1);

/// By `metadata.uid`, which no other object ever has.
#[derive(Debug, Default)]
pub(super) struct Gone {
    uids: HashSet<String>,
    by_age: VecDeque<(Instant, String)>,
}

impl Gone {
    /// It was deleted.
    pub(super) fn insert(&mut self, uid: &str, now: Instant) {
        while self.by_age.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > REMEMBERED) {
            if let Some((_, old)) = self.by_age.pop_front() {
                self.uids.remove(&old);
            }
        }
        if self.uids.insert(uid.to_owned()) {
            self.by_age.push_back((now, uid.to_owned()));
        }
    }

    /// Whether it was, lately.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    /// A list has it: an etcd was put back to what it was before.
    pub(super) fn forget(&mut self, uid: &str) {
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
}

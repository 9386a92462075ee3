//! Objects that are no more, for as long as an answer may still be on its way that says otherwise: what was written is answered beside the watch, and an object
//! that is made and deleted at once would be taken for one that is there, and stay.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::{Source, is_newer};

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

/// A state of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State<'a> {
    /// `metadata.uid`
    pub(crate) uid: &'a str,
    /// `metadata.resourceVersion`
    pub(crate) version: &'a str,
}

impl Gone {
    /// Whether a state is newer than what is known, `known` being the one of that name; `false`: it is of before. No mere question: where that one is another
    /// object, it is remembered as gone.
    pub(crate) fn is_news(&mut self, state: State<'_>, known: Option<State<'_>>, source: Source, now: Instant) -> bool {
        match source {
            Source::List => self.forget(state.uid),
            Source::Watch | Source::Answer => {
                let is_older = |known: State<'_>| known.uid == state.uid && !is_newer(state.version, known.version);
                if self.contains(state.uid) || known.is_some_and(is_older) {
                    return false;
                }
            }
        }
        // There is one of a name: whatever is still said of the other is of before.
        if let Some(other) = known.filter(|known| known.uid != state.uid) {
            self.insert(other.uid, now);
        }
        true
    }

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
    fn contains(&self, uid: &str) -> bool {
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
    fn forget(&mut self, uid: &str) {
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
    fn a_list_says_what_there_is_and_others_what_is_newer() {
        let (mut gone, now) = (Gone::default(), Instant::now());
        let state = |uid, version| State { uid, version };
        let known = Some(state("a", "7"));
        for (version, watch, list) in [("6", false, true), ("7", false, true), ("8", true, true)] {
            for source in [Source::Watch, Source::Answer] {
                assert_eq!(gone.is_news(state("a", version), known, source, now), watch, "{version}");
            }
            assert_eq!(gone.is_news(state("a", version), known, Source::List, now), list, "{version}");
        }
        // Another one of that name: what is said of the first from now on is of before, unless a list has it again.
        assert!(gone.is_news(state("b", "3"), known, Source::Watch, now));
        assert!(!gone.is_news(state("a", "9"), Some(state("b", "3")), Source::Answer, now));
        assert!(gone.is_news(state("a", "9"), Some(state("b", "3")), Source::List, now));
        assert!(!gone.is_news(state("b", "10"), Some(state("a", "9")), Source::Watch, now));
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

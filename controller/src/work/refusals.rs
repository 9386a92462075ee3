//! What the API server refuses, so that the log has it once and not once of each image: while a definition is being deleted that is every one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// What goes on being refused is said again after this.
const AGAIN: Duration = Duration::from_mins(10);

/// Kinds of words that are told apart. Whoever words everything differently is in `/readyz`.
const KINDS: usize = 16;

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: BTreeMap<String, Instant>,
}

impl Refusals {
    /// Whether nothing of this kind was said lately.
    pub(super) fn is_news(&mut self, words: &str, now: Instant) -> bool {
        self.said.retain(|_, at| *at + AGAIN > now);
        let kind = without_names(words);
        let is_news = self.said.len() < KINDS && !self.said.contains_key(&kind);
        if is_news {
            self.said.insert(kind, now);
        }
        is_news
    }
}

/// The API server quotes what is of the one object that it speaks of.
fn without_names(words: &str) -> String {
    words.split('"').step_by(2).collect::<Vec<_>>().join("…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminating(name: &str) -> String {
        format!(
            "the API server refuses (403): cachedimages.larder.dev \"{name}\" is forbidden: create not allowed while custom resource definition is terminating"
        )
    }

    #[test]
    fn what_every_image_is_refused_for_is_said_once() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(refusals.is_news(&terminating("nginx-1"), start));
        assert!((2..900).all(|number| !refusals.is_news(&terminating(&format!("nginx-{number}")), after(1))));
        assert!(refusals.is_news("the API server does not answer in time", after(2)), "something else is");
        assert!(!refusals.is_news(&terminating("nginx-1"), after(599)));
        assert!(refusals.is_news(&terminating("nginx-1"), after(600)), "it goes on");
    }

    #[test]
    fn however_many_kinds_there_are_the_log_has_few() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let said = (0..100).filter(|number| refusals.is_news(&format!("error {number}"), now)).count();
        assert_eq!(said, KINDS);
    }
}

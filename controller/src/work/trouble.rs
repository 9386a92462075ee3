//! Whether the cluster cache can be asked, and since when it cannot.
//!
//! That it cannot is said of every image, once it has been so for a while. Before that nothing changes for any of them: one that is started anew, or one
//! time-out of a hundred, is no reason to look at all.

use std::time::Duration;

use tokio::time::Instant;

/// How long the cache is away before every image says so.
const SAID: Duration = Duration::from_secs(30);

/// Why the cache cannot be asked now, if it cannot.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    words: Option<(String, Instant)>,
    /// Images were looked at because of it.
    is_said: bool,
}

impl Trouble {
    /// It cannot be asked, in these words: whether that is new.
    pub(super) fn begins(&mut self, words: String, now: Instant) -> bool {
        let since = self.words.take().map(|(_, since)| since);
        self.words = Some((words, since.unwrap_or(now)));
        since.is_none()
    }

    /// It answers: whether images say otherwise, perhaps.
    pub(super) fn ends(&mut self, now: Instant) -> bool {
        let is_said = self.words(now).is_some();
        *self = Self::default();
        is_said
    }

    /// Whether it cannot be asked.
    pub(super) fn is_some(&self) -> bool {
        self.words.is_some()
    }

    /// What is said of every image.
    pub(super) fn words(&self, now: Instant) -> Option<&str> {
        let (words, since) = self.words.as_ref()?;
        (now.saturating_duration_since(*since) >= SAID).then_some(words)
    }

    /// When every image is looked at because of it.
    pub(super) fn said_at(&self) -> Option<Instant> {
        let (_, since) = self.words.as_ref().filter(|_| !self.is_said)?;
        Some(*since + SAID)
    }

    /// Whether that is now, once.
    pub(super) fn is_to_be_said(&mut self, now: Instant) -> bool {
        let is_now = self.said_at().is_some_and(|at| at <= now);
        self.is_said |= is_now;
        is_now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_before_it_is_said_is_no_news_of_any_image() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!trouble.ends(start), "nothing was");
        assert!(trouble.begins("a time-out".to_owned(), start));
        assert!(!trouble.begins("refused".to_owned(), after(9)));
        assert!(trouble.is_some() && trouble.words(after(29)).is_none() && !trouble.is_to_be_said(after(29)));
        assert!(!trouble.ends(after(29)));
        assert!(!trouble.is_some() && trouble.said_at().is_none());
    }

    #[test]
    fn what_is_said_is_said_once_and_taken_back() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        trouble.begins("a time-out".to_owned(), start);
        trouble.begins("refused".to_owned(), after(9));
        let at = trouble.said_at().unwrap();
        assert_eq!((at, trouble.words(at)), (after(30), Some("refused")), "whoever is looked at then says it");
        assert!(trouble.is_to_be_said(at) && !trouble.is_to_be_said(after(40)));
        assert!(trouble.said_at().is_none());
        assert!(trouble.ends(after(50)));
        // The next one begins anew.
        assert!(trouble.begins("again".to_owned(), after(60)) && trouble.said_at() == Some(after(90)));
    }
}

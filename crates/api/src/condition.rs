//! Conditions by the conventions of the Kubernetes API.
//!
//! A [`Reason`] says all of a condition but its message: its type and whether it is so. So no writer can say `True` with the reason of a
//! `False`, and the list of what a program can say is the enum.

use std::fmt;

use crate::{Condition, Time};

/// Whether a condition is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody can tell at the moment.
    Unknown,
}

impl Truth {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A reason of one type of condition.
pub trait Reason: Copy + fmt::Debug + Eq + 'static {
    /// The condition's type.
    const CONDITION: &'static str;
    /// What is so, or not, in a sentence.
    const ABOUT: &'static str;
    /// Every reason that there is.
    const ALL: &'static [Self];

    /// The word, in CamelCase.
    fn as_str(self) -> &'static str;
    /// What it means for the condition.
    fn truth(self) -> Truth;
    /// What it means, in a sentence.
    fn meaning(self) -> &'static str;
}

/// Declares the reasons of one condition: each with its truth, and a comment that says what it means.
macro_rules! reasons {
    (#[doc = $about:literal] $name:ident of $condition:literal { $(#[doc = $meaning:literal] $reason:ident = $truth:ident,)+ }) => {
        #[doc = $about]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = $meaning] $reason,)+
        }

        impl $crate::condition::Reason for $name {
            const CONDITION: &'static str = $condition;
            const ABOUT: &'static str = $about.trim_ascii();
            const ALL: &'static [Self] = &[$(Self::$reason),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)+
                }
            }

            fn truth(self) -> $crate::condition::Truth {
                match self {
                    $(Self::$reason => $crate::condition::Truth::$truth,)+
                }
            }

            fn meaning(self) -> &'static str {
                match self {
                    $(Self::$reason => $meaning.trim_ascii(),)+
                }
            }
        }
    };
}
pub(crate) use reasons;

/// The longest message that the API server takes, in characters.
pub const LONGEST_MESSAGE: usize = 2048;

/// Says that this is so. The time of the last transition stays where the truth stays; returns whether anything changed.
pub fn set<R: Reason>(
    conditions: &mut Vec<Condition>,
    reason: R,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) -> bool {
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    let status = reason.truth().as_str();
    let known = conditions.iter_mut().find(|condition| condition.type_ == R::CONDITION);
    let last_transition_time = match &known {
        Some(known) if known.status == status => known.last_transition_time.clone(),
        _ => now.clone(),
    };
    let condition = Condition {
        type_: R::CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time,
    };
    match known {
        Some(known) if *known == condition => return false,
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    true
}

/// The reason that is given at the moment, if it is one that this program knows.
pub fn get<R: Reason>(conditions: &[Condition]) -> Option<R> {
    let condition = conditions.iter().find(|condition| condition.type_ == R::CONDITION)?;
    R::ALL.iter().copied().find(|reason| reason.as_str() == condition.reason)
}

/// Whether a condition is so; a condition that nobody has set is not.
pub fn is_true<R: Reason>(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.type_ == R::CONDITION && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::cached_image::{Cached, UpToDate, UpstreamAvailable};
    use crate::node_mirror::{Configured, Conflict, Withdrawn};
    use crate::upstream_registry::{Accepted, AllCached, Reachable};

    #[test]
    fn the_transition_is_when_the_truth_changed() {
        let at = |seconds| crate::at(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, Cached::Queued, "a", Some(1), &at(1)));
        assert!(set(&mut conditions, Cached::Fetching, "b", Some(1), &at(2)));
        assert_eq!(conditions[0].last_transition_time, at(1), "still False");
        assert!(!set(&mut conditions, Cached::Fetching, "b", Some(1), &at(3)), "nothing new");
        assert!(set(&mut conditions, Cached::Fetching, "b", Some(2), &at(3)), "about another generation");
        assert!(set(&mut conditions, Cached::Complete, "", Some(2), &at(4)));
        assert!(set(&mut conditions, UpToDate::Same, "", Some(2), &at(5)));
        assert_eq!((conditions[0].last_transition_time.clone(), conditions.len()), (at(4), 2));
        assert_eq!(get::<Cached>(&conditions), Some(Cached::Complete));
        assert_eq!(get::<UpstreamAvailable>(&conditions), None);
        assert!(is_true::<Cached>(&conditions) && !is_true::<UpstreamAvailable>(&conditions));
        set(&mut conditions, Cached::Retrying, &"é".repeat(3000), None, &at(6));
        assert_eq!(conditions[0].message.chars().count(), LONGEST_MESSAGE);
    }

    fn check<R: Reason>() {
        assert!(R::ABOUT.starts_with("Whether ") && R::ABOUT.ends_with('.'), "{}", R::ABOUT);
        for reason in R::ALL {
            let word = reason.as_str();
            assert!(word.len() <= 64 && word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            assert!(reason.meaning().ends_with('.'), "{word}: {}", reason.meaning());
        }
        let words: std::collections::BTreeSet<_> = R::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), R::ALL.len());
    }

    #[test]
    fn reasons_are_by_the_conventions() {
        check::<Cached>();
        check::<UpstreamAvailable>();
        check::<UpToDate>();
        check::<Reachable>();
        check::<AllCached>();
        check::<Accepted>();
        check::<Configured>();
        check::<Withdrawn>();
        check::<Conflict>();
    }
}

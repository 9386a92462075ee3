//! What the origin says about something that we hold, and what is done then. Pure: the whole policy is this table.
//!
//! | the origin says | tag | digest |
//! |---|---|---|
//! | it has what we have | serve | serve |
//! | something else | follow it | serve, stale: content under a digest cannot change, the origin errs |
//! | 404 | serve, stale, unless `on-origin-404 = refuse` | the same |
//! | 401, 403 | serve, stale, if it was once given to anyone, unless `on-origin-denied = refuse` | the same |
//! | 429, 5xx, nothing in time, unreachable | serve, stale | serve, stale |
//!
//! What the deny list names is refused in every cell.

use crate::settings::{Policy, RegistrySettings};
use crate::source::Verdict;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A name that may mean something else tomorrow.
    Tag,
    /// Content.
    Digest,
}

/// What bears on the answer beside the origin's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// `allow` and `deny` let the repository be served.
    pub permitted: bool,
    /// The origin once gave it to someone without credentials.
    pub public: bool,
    /// `on-origin-404`.
    pub on_origin_404: Policy,
    /// `on-origin-denied`.
    pub on_origin_denied: Policy,
}

impl Conditions {
    /// As the settings of a registry have it.
    pub fn new(settings: &RegistrySettings, permitted: bool, public: bool) -> Self {
        Self {
            permitted: permitted && !settings.skip,
            public,
            on_origin_404: settings.on_origin_404,
            on_origin_denied: settings.on_origin_denied,
        }
    }

    /// Whether the origin's word can change anything for content that is asked for by digest.
    pub fn depend_on_origin(&self) -> bool {
        self.on_origin_404 == Policy::Refuse || self.on_origin_denied == Policy::Refuse
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Serve what we hold, confirmed.
    Serve,
    /// Serve what we hold, and say that it is not confirmed.
    ServeStale,
    /// Serve what the origin names now.
    Follow,
    /// Refuse with 404.
    Refuse,
}

/// The table.
pub fn decide(asked: Asked, said: Verdict, conditions: Conditions) -> Decision {
    if !conditions.permitted {
        return Decision::Refuse;
    }
    match (said, asked) {
        (Verdict::Ok, _) => Decision::Serve,
        (Verdict::Changed, Asked::Tag) => Decision::Follow,
        (Verdict::NotFound, _) => serve_if(conditions.on_origin_404 == Policy::Serve),
        (Verdict::Denied, _) => serve_if(conditions.public && conditions.on_origin_denied == Policy::Serve),
        (Verdict::Changed, Asked::Digest)
        | (Verdict::RateLimited | Verdict::ServerError | Verdict::Timeout | Verdict::Unreachable, _) => {
            Decision::ServeStale
        }
    }
}

fn serve_if(allowed: bool) -> Decision {
    if allowed { Decision::ServeStale } else { Decision::Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: Conditions =
        Conditions { permitted: true, public: true, on_origin_404: Policy::Serve, on_origin_denied: Policy::Serve };

    /// One line per column: what the origin says, the decision for a tag, the decision for a digest.
    const DEFAULTS: [(Verdict, Decision, Decision); 8] = [
        (Verdict::Ok, Decision::Serve, Decision::Serve),
        (Verdict::Changed, Decision::Follow, Decision::ServeStale),
        (Verdict::NotFound, Decision::ServeStale, Decision::ServeStale),
        (Verdict::Denied, Decision::ServeStale, Decision::ServeStale),
        (Verdict::RateLimited, Decision::ServeStale, Decision::ServeStale),
        (Verdict::ServerError, Decision::ServeStale, Decision::ServeStale),
        (Verdict::Timeout, Decision::ServeStale, Decision::ServeStale),
        (Verdict::Unreachable, Decision::ServeStale, Decision::ServeStale),
    ];

    /// Every cell as in [`DEFAULTS`], but for the columns in `refused`.
    fn check(conditions: Conditions, refused: &[Verdict]) {
        for (said, tag, digest) in DEFAULTS {
            let expected = |decision| if refused.contains(&said) { Decision::Refuse } else { decision };
            assert_eq!(decide(Asked::Tag, said, conditions), expected(tag), "tag, {said:?}, {conditions:?}");
            assert_eq!(decide(Asked::Digest, said, conditions), expected(digest), "digest, {said:?}, {conditions:?}");
        }
    }

    #[test]
    fn every_cell() {
        check(GIVEN, &[]);
        check(Conditions { on_origin_404: Policy::Refuse, ..GIVEN }, &[Verdict::NotFound]);
        check(Conditions { on_origin_denied: Policy::Refuse, ..GIVEN }, &[Verdict::Denied]);
        check(Conditions { public: false, ..GIVEN }, &[Verdict::Denied]);
        check(
            Conditions { public: false, on_origin_404: Policy::Refuse, ..GIVEN },
            &[Verdict::NotFound, Verdict::Denied],
        );
        check(Conditions { permitted: false, ..GIVEN }, &DEFAULTS.map(|(said, ..)| said));
    }
}

//! Tells a repair from a fight: somebody who undoes the same entry again and again is not out-shouted.
//!
//! Invariant: one path is repaired at most [`REPAIRS`] times within [`WINDOW`]; then it is left for a time that doubles
//! with each further round, and that is a condition, not a log line a second.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many repairs of one path…
const REPAIRS: usize = 5;
/// …within this are a fight.
const WINDOW: Duration = Duration::from_mins(10);
/// The first time that a path is left alone.
const FIRST_REST: Duration = Duration::from_mins(1);
const LONGEST_REST: Duration = Duration::from_hours(1);
/// Rested so long without being undone, and it is forgotten.
const FORGOTTEN: Duration = Duration::from_hours(6);

/// Repairs so far, by path.
#[derive(Debug, Default)]
pub struct Fights {
    paths: BTreeMap<PathBuf, History>,
}

#[derive(Debug)]
struct History {
    repairs: VecDeque<Instant>,
    rounds: u32,
    rest_until: Option<Instant>,
}

/// A path that is left alone for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fight {
    /// Absolute as the engine sees it.
    pub path: PathBuf,
    /// It is repaired again after this instant.
    pub until: Instant,
}

impl Fights {
    /// Whether `path` may be repaired now.
    pub fn permits(&self, now: Instant, path: &Path) -> bool {
        self.paths.get(path).and_then(|history| history.rest_until).is_none_or(|until| now >= until)
    }

    /// `path` was repaired.
    pub fn repaired(&mut self, now: Instant, path: &Path) {
        let history = self.paths.entry(path.to_owned()).or_insert_with(|| History {
            repairs: VecDeque::new(),
            rounds: 0,
            rest_until: None,
        });
        history.repairs.push_back(now);
        history.repairs.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if history.repairs.len() >= REPAIRS {
            let rest = FIRST_REST.saturating_mul(1_u32.checked_shl(history.rounds).unwrap_or(u32::MAX));
            history.rest_until = Some(now + rest.min(LONGEST_REST));
            history.rounds = history.rounds.saturating_add(1);
            history.repairs.clear();
        }
        self.paths.retain(|_, history| {
            let last = history.rest_until.into_iter().chain(history.repairs.back().copied()).max();
            last.is_some_and(|last| now.saturating_duration_since(last) < FORGOTTEN)
        });
    }

    /// What is left alone now.
    pub fn under_way(&self, now: Instant) -> Vec<Fight> {
        let resting = |(path, history): (&PathBuf, &History)| {
            let until = history.rest_until.filter(|until| now < *until)?;
            Some(Fight { path: path.clone(), until })
        };
        self.paths.iter().filter_map(resting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_REST, Fights, LONGEST_REST, REPAIRS, WINDOW};
    use std::path::Path;
    use std::time::{Duration, Instant};

    #[test]
    fn a_repair_now_and_then_is_no_fight() {
        let (mut fights, mut now) = (Fights::default(), Instant::now());
        for _ in 0..100 {
            assert!(fights.permits(now, Path::new("/a")));
            fights.repaired(now, Path::new("/a"));
            now += WINDOW / u32::try_from(REPAIRS - 1).unwrap();
        }
        assert!(fights.under_way(now).is_empty());
    }

    #[test]
    fn a_fight_ends_in_longer_and_longer_rests_of_that_path_only() {
        let (mut fights, mut now) = (Fights::default(), Instant::now());
        let mut last = Duration::ZERO;
        for round in 0..10 {
            for _ in 0..REPAIRS {
                assert!(fights.permits(now, Path::new("/a")), "round {round}");
                fights.repaired(now, Path::new("/a"));
                now += Duration::from_secs(1);
            }
            assert!(!fights.permits(now, Path::new("/a")));
            assert!(fights.permits(now, Path::new("/b")));
            let fight = fights.under_way(now).pop().unwrap();
            assert_eq!(fight.path, Path::new("/a"));
            let rest = fight.until - now;
            assert!(rest + Duration::from_secs(1) >= FIRST_REST && rest <= LONGEST_REST);
            assert!(rest + Duration::from_secs(1) >= last.min(LONGEST_REST), "{rest:?} after {last:?}");
            last = rest;
            now = fight.until;
        }
        assert!(last + Duration::from_secs(2) >= LONGEST_REST);
    }
}

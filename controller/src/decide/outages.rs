//! When an outage of a registry is told of who does not look. The object says how a registry is within seconds, however often that changes; an event is for
//! whoever hears of it by itself, and one that comes and goes is not told of each time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From the beginning of an outage that was told of to that of the next one. One that lasts that long is told of late rather than never.
pub const APART: Duration = Duration::from_mins(10);

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It cannot be reached.
    Away,
    /// It answers again. After how long, where this process has seen its beginning.
    Back(Option<Duration>),
}

#[derive(Debug, Default)]
struct Outage {
    /// It was told of, and its end was not.
    is_told: bool,
    began: Option<Instant>,
}

/// Of all registries.
#[derive(Debug, Default)]
pub struct Outages(BTreeMap<Box<str>, Outage>);

impl Outages {
    /// How its object says that it is: whether it answers, or nothing. What is to be told of that, if anything.
    ///
    /// What a registry was when it was first seen was told by whoever led before.
    pub fn see(&mut self, registry: &str, answers: Option<bool>, now: Instant) -> Option<Told> {
        let Some(outage) = self.0.get_mut(registry) else {
            self.0.insert(registry.into(), Outage { is_told: answers == Some(false), began: None });
            return None;
        };
        match answers? {
            true if outage.is_told => {
                outage.is_told = false;
                Some(Told::Back(outage.began.map(|began| now.saturating_duration_since(began))))
            }
            false if !outage.is_told && outage.began.is_none_or(|began| now >= began + APART) => {
                *outage = Outage { is_told: true, began: Some(now) };
                Some(Told::Away)
            }
            _ => None,
        }
    }

    /// Nothing is remembered of others.
    pub fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|registry, _| is_there(registry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of `ghcr.io`, which is so at these seconds.
    fn told(states: &[(u64, Option<bool>)]) -> Vec<(u64, Told)> {
        let (mut outages, begin) = (Outages::default(), Instant::now());
        let mut told = Vec::new();
        for (at, answers) in states {
            told.extend(outages.see("ghcr.io", *answers, begin + Duration::from_secs(*at)).map(|what| (*at, what)));
        }
        told
    }

    fn back(seconds: u64) -> Told {
        Told::Back(Some(Duration::from_secs(seconds)))
    }

    #[test]
    fn an_outage_and_its_end_are_told_once() {
        let all =
            [(0, None), (2, Some(true)), (10, Some(false)), (12, Some(false)), (70, Some(true)), (72, Some(true))];
        assert_eq!(told(&all), [(10, Told::Away), (70, back(60))]);
        // One that nobody has ever reached.
        assert_eq!(told(&[(0, None), (2, Some(false)), (4, Some(false))]), [(2, Told::Away)]);
        // Nobody asks it meanwhile.
        assert_eq!(
            told(&[(0, Some(true)), (2, Some(false)), (4, None), (9, Some(true))]),
            [(2, Told::Away), (9, back(7))]
        );
    }

    #[test]
    fn what_whoever_led_before_has_told_is_not_told_again() {
        assert_eq!(told(&[(0, Some(false)), (2, Some(false))]), []);
        assert_eq!(told(&[(0, Some(false)), (9, Some(true))]), [(9, Told::Back(None))]);
        assert_eq!(told(&[(0, Some(true)), (9, Some(true))]), []);
    }

    #[test]
    fn one_that_comes_and_goes_is_told_of_once_in_a_while() {
        let flapping: Vec<_> = (0..1_800).step_by(30).map(|at| (at, Some(at % 60 == 0))).collect();
        let told_of = told(&flapping);
        assert_eq!(
            told_of,
            [
                (30, Told::Away),
                (60, back(30)),
                (630, Told::Away),
                (660, back(30)),
                (1_230, Told::Away),
                (1_260, back(30))
            ]
        );
        // The second one lasts: it is told of as soon as that may be.
        let lasting = [
            (0, Some(true)),
            (10, Some(false)),
            (20, Some(true)),
            (30, Some(false)),
            (609, Some(false)),
            (610, Some(false)),
        ];
        assert_eq!(told(&lasting), [(10, Told::Away), (20, back(10)), (610, Told::Away)]);
    }

    #[test]
    fn of_what_is_gone_nothing_is_remembered() {
        let (mut outages, now) = (Outages::default(), Instant::now());
        outages.see("ghcr.io", Some(true), now);
        outages.see("quay.io", Some(true), now);
        outages.keep_only(|registry| registry == "ghcr.io");
        assert_eq!(outages.0.keys().map(|name| &**name).collect::<Vec<_>>(), ["ghcr.io"]);
    }
}

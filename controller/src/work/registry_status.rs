//! What an `UpstreamRegistry`'s status says. Pure: from what is known to the object's status, and whether that is worth a write.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_api::condition::{Reason as _, get, set};
use larder_api::upstream_registry::{Accepted, AllCached, ImageCounts, Quota, Reachable, UpstreamError};
use larder_api::{Time, UpstreamRegistryStatus};

use super::telling::Worth;
use crate::decide::health;
use crate::decide::outages::Told;
use crate::decide::standing::{self, SILENT, Standing, Why};
use crate::decide::{Image, Moment};
use crate::events::Note;
use crate::registries::Upstream;
use crate::world::{Tally, moment};

/// Images that are named in a message.
const NAMED: usize = 3;

/// What is only a little otherwise than before is written this often.
const REFRESH: Duration = Duration::from_mins(10);

/// A latency that differs by less than this is the same.
const LATENCY: i64 = 20;

/// The longest words that the API takes.
const LONGEST_ENDPOINT: usize = 512;
const LONGEST_MESSAGE: usize = 1024;

/// Everything that a status is made of.
pub(super) struct Facts<'a> {
    pub(super) object: &'a Upstream,
    /// `None`: they were not counted yet.
    pub(super) counts: Option<&'a Tally>,
    pub(super) standing: Option<&'a Standing>,
    /// Whether the caches have said what they met, since this process leads.
    pub(super) has_heard: bool,
    pub(super) now: Moment,
}

impl Facts<'_> {
    /// No image of it is wanted, so it is not asked by itself: there is no question but for an image. And nobody pulled from it lately.
    fn is_left_alone(&self) -> bool {
        let Self { object, counts, standing, has_heard, now } = self;
        let is_limited = standing.and_then(|standing| standing.peace).is_some_and(|until| until > *now);
        let heard = standing.and_then(Standing::heard).max(object.status.last_checked.as_ref().map(moment));
        *has_heard
            && !is_limited
            && counts.is_some_and(|counts| counts.known == 0)
            && heard.is_none_or(|heard| now.since(heard) >= SILENT)
    }
}

fn as_time(moment: Moment) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(moment.seconds()).unwrap_or_default())
}

fn number<T: TryFrom<u64>>(value: u64, most: T) -> T {
    T::try_from(value).unwrap_or(most)
}

/// The status as it should be.
pub(super) fn status(facts: &Facts<'_>) -> UpstreamRegistryStatus {
    let Facts { object, counts, standing, now, .. } = facts;
    let (generation, time) = (object.generation, as_time(*now));
    let before = &object.status;
    let mut conditions = before.conditions.clone();
    let (accepted, words) = &object.accepted;
    set(&mut conditions, *accepted, words, generation, &time);
    if !object.counts() {
        return UpstreamRegistryStatus {
            observed_generation: generation,
            conditions: conditions.into_iter().filter(|condition| condition.type_ == Accepted::CONDITION).collect(),
            ..UpstreamRegistryStatus::default()
        };
    }
    let host = object.spec.registry.as_str();
    let reachable = reachable(facts);
    if let Some((reason, words)) = &reachable {
        set(&mut conditions, *reason, words, generation, &time);
    }
    if let Some((reason, words)) = all_cached(object, *counts, host) {
        set(&mut conditions, reason, &words, generation, &time);
    }
    let reachable_since = match reachable {
        // What was said before holds.
        None => before.reachable_since.clone(),
        Some((Reachable::Answers | Reachable::RateLimited, _)) => {
            let since = standing.and_then(|standing| match standing.reachable() {
                health::Reachable::Since(at) => Some(at),
                health::Reachable::Unknown | health::Reachable::Not(_) => None,
            });
            let went_on = before.reachable_since.as_ref().map(moment);
            since.map(|since| as_time(went_on.map_or(since, |earlier| earlier.min(since))))
        }
        Some(_) => None,
    };
    let heard = standing.and_then(Standing::heard).map(as_time);
    let latency = standing.and_then(|standing| standing.latency);
    UpstreamRegistryStatus {
        observed_generation: generation,
        reachable_since,
        last_checked: heard.or_else(|| before.last_checked.clone()),
        latency_milliseconds: latency
            .map(|latency| i64::try_from(latency.as_millis()).unwrap_or(i64::MAX))
            .or(before.latency_milliseconds),
        quota: standing.and_then(|standing| standing.quota).and_then(quota).or_else(|| before.quota.clone()),
        images: counts.map_or_else(
            || before.images.clone(),
            |counts| {
                Some(ImageCounts {
                    known: number(counts.known as u64, i32::MAX),
                    cached: number(counts.cached() as u64, i32::MAX),
                    missing_upstream: number(counts.missing_upstream as u64, i32::MAX),
                })
            },
        ),
        last_errors: match standing {
            Some(standing) if !standing.errors.is_empty() => errors(standing, &before.last_errors),
            _ => before.last_errors.clone(),
        },
        conditions,
    }
}

/// Whether it can be reached; `None`: what was said before is the best that is known.
fn reachable(facts: &Facts<'_>) -> Option<(Reachable, String)> {
    let Facts { object, counts, standing, now, .. } = *facts;
    let host = &object.spec.registry;
    if object.spec.skip {
        return Some((Reachable::Skipped, "skip is set: nobody of Larder asks it".to_owned()));
    }
    if facts.is_left_alone() {
        return Some((Reachable::NotAsked, format!("no image of {host} is wanted, so nobody asks it")));
    }
    let known = standing.map(Standing::reachable).unwrap_or_default();
    match (known, standing) {
        (health::Reachable::Not(_), Some(standing)) => {
            let error =
                standing.errors.front().map(|last| format!("{}: {}", last.failure.endpoint, last.failure.error));
            let error = error.unwrap_or_else(|| "it does not answer".to_owned());
            Some(match standing.why() {
                Why::Unreachable => (
                    Reachable::Unreachable,
                    format!(
                        "{error}; what is cached is served, and nothing new of {host} can be pulled until it is back"
                    ),
                ),
                Why::Untrusted => (
                    Reachable::Untrusted,
                    format!("{error}; name the authority of {host} in spec.ca, or have its certificate renewed"),
                ),
                Why::Failing => {
                    (Reachable::Failing, format!("{error}; what is cached is served, and it is asked again by itself"))
                }
            })
        }
        (health::Reachable::Since(_), Some(Standing { peace: Some(until), .. })) if *until > now => Some((
            Reachable::RateLimited,
            format!(
                "{host} answers that it is asked too much (429): it is left in peace, and what is cached is served"
            ),
        )),
        (health::Reachable::Since(_), _) => Some((Reachable::Answers, "it answers".to_owned())),
        _ => match get::<Reachable>(&object.status.conditions) {
            None | Some(Reachable::Skipped) => Some((Reachable::NotAsked, "nobody has asked it yet".to_owned())),
            Some(Reachable::NotAsked) if counts.is_some_and(|counts| counts.known > 0) => {
                Some((Reachable::NotAsked, "nobody has asked it yet: it is asked soon".to_owned()))
            }
            Some(_) => None,
        },
    }
}

fn all_cached(object: &Upstream, counts: Option<&Tally>, host: &str) -> Option<(AllCached, String)> {
    if object.spec.skip {
        return Some((
            AllCached::Skipped,
            "skip is set: it is left to the engines, and what is cached of it is let go".to_owned(),
        ));
    }
    let Some(counts) = counts else {
        let is_known = get::<AllCached>(&object.status.conditions).is_some_and(|reason| reason != AllCached::Skipped);
        return (!is_known).then(|| (AllCached::NotCounted, "they are counted soon".to_owned()));
    };
    let Tally { known, not_cached, .. } = counts;
    Some(match not_cached.len() {
        0 if *known == 0 => (AllCached::NoImages, format!("no image of {host} is wanted")),
        0 => (AllCached::EveryImage, format!("all {known} can be pulled while {host} is away")),
        missing => {
            let names: Vec<&str> = not_cached.iter().take(NAMED).map(Image::as_str).collect();
            let names = names.join(", ");
            let more = if missing > NAMED { ", …" } else { "" };
            (
                AllCached::SomeMissing,
                format!("{missing} of {known} are not in the cache: {names}{more}; their CachedImages say why"),
            )
        }
    })
}

/// What is said of its quota, if that is a number at all.
fn quota(said: standing::Quota) -> Option<Quota> {
    let resets_at = said.resets_at();
    let standing::Quota { limit, remaining, window, reset: _, at } = said;
    let remaining = remaining?;
    Some(Quota {
        limit: number(limit.unwrap_or(remaining), i64::MAX),
        remaining: number(remaining, i64::MAX),
        window_seconds: window.map(|window| number(window.as_secs(), i64::MAX)),
        resets_at: resets_at.map(as_time),
        seen_at: as_time(at),
    })
}

/// Those that this process knows, and behind them those of before.
fn errors(standing: &Standing, before: &[UpstreamError]) -> Vec<UpstreamError> {
    let cut = |text: &str, longest: usize| text.chars().take(longest).collect::<String>();
    let mut errors: Vec<UpstreamError> = standing
        .errors
        .iter()
        .map(|error| UpstreamError {
            at: as_time(error.at),
            endpoint: Some(cut(&error.failure.endpoint, LONGEST_ENDPOINT)),
            message: cut(&error.failure.error, LONGEST_MESSAGE),
            count: number(error.count, i32::MAX).max(1),
        })
        .collect();
    let oldest = errors.last().map(|error| error.at.clone());
    let older = before.iter().filter(|error| {
        Some(&error.at) < oldest.as_ref() && !errors.iter().any(|known| known.message == error.message)
    });
    let older: Vec<UpstreamError> = older.cloned().collect();
    errors.extend(older);
    errors.truncate(larder_api::upstream_registry::MOST_ERRORS);
    errors
}

/// Whether it says that its registry answers; `None`: nobody knows, or it is skipped. One that wants to be left in peace has answered.
pub(super) fn answers(status: &UpstreamRegistryStatus) -> Option<bool> {
    match get::<Reachable>(&status.conditions)? {
        Reachable::Answers | Reachable::RateLimited => Some(true),
        Reachable::Unreachable | Reachable::Untrusted | Reachable::Failing => Some(false),
        Reachable::Skipped | Reachable::NotAsked => None,
    }
}

/// What is told of an outage.
pub(super) fn note(outage: Told, registry: &str, status: &UpstreamRegistryStatus) -> Option<Note> {
    let condition = status.conditions.iter().find(|known| known.type_ == Reachable::CONDITION)?;
    let reason = get::<Reachable>(&status.conditions)?;
    Some(match outage {
        Told::Away => Note::warning(reason.as_str(), condition.message.clone()),
        Told::Back(None) => Note::news(Reachable::Answers.as_str(), format!("{registry} answers again")),
        Told::Back(Some(after)) => {
            let after = match after.as_secs() {
                seconds @ 0..120 => format!("{seconds} seconds"),
                seconds => format!("{} minutes", seconds / 60),
            };
            Note::news(Reachable::Answers.as_str(), format!("{registry} answers again, after {after}"))
        }
    })
}

/// The reasons that it gives, for whoever counts.
pub(super) fn count(status: &UpstreamRegistryStatus, reasons: &mut BTreeMap<(&'static str, &'static str), usize>) {
    let conditions = &status.conditions;
    let reachable = get::<Reachable>(conditions).map(|reason| (Reachable::CONDITION, reason.as_str()));
    let all_cached = get::<AllCached>(conditions).map(|reason| (AllCached::CONDITION, reason.as_str()));
    let accepted = get::<Accepted>(conditions).map(|reason| (Accepted::CONDITION, reason.as_str()));
    for reason in [reachable, all_cached, accepted].into_iter().flatten() {
        *reasons.entry(reason).or_default() += 1;
    }
}

/// Whether a status says something that the object's does not.
pub(super) fn worth(before: &UpstreamRegistryStatus, after: &UpstreamRegistryStatus, now: Moment) -> Worth {
    let said = |status: &UpstreamRegistryStatus| -> Vec<(String, String)> {
        status.conditions.iter().map(|known| (known.type_.clone(), known.reason.clone())).collect()
    };
    if said(before) != said(after) || before.observed_generation != after.observed_generation {
        return Worth::News;
    }
    if settled(before, after, now) == *before { Worth::Nothing } else { Worth::Detail }
}

/// The new status without what only wiggles: what is a little otherwise stays as it was, until it is that for long.
fn settled(before: &UpstreamRegistryStatus, after: &UpstreamRegistryStatus, now: Moment) -> UpstreamRegistryStatus {
    let mut settled = after.clone();
    let is_old = |time: Option<&Time>| time.is_none_or(|time| now.since(moment(time)) >= REFRESH);
    if before.last_checked.is_some() && !is_old(before.last_checked.as_ref()) {
        settled.last_checked.clone_from(&before.last_checked);
    }
    if let (Some(was), Some(is)) = (before.latency_milliseconds, after.latency_milliseconds)
        && ((was - is).abs() < LATENCY || (is < was.saturating_mul(2) && was < is.saturating_mul(2)))
    {
        settled.latency_milliseconds = Some(was);
    }
    if let (Some(was), Some(is)) = (&before.quota, &after.quota)
        && was.limit == is.limit
        && was.window_seconds == is.window_seconds
        && (was.remaining == 0) == (is.remaining == 0)
        && (was.remaining - is.remaining).abs() < (is.limit / 10).max(1)
        && !is_old(Some(&was.seen_at))
    {
        settled.quota = Some(was.clone());
    }
    let same = |(was, is): (&UpstreamError, &UpstreamError)| was.message == is.message && was.endpoint == is.endpoint;
    if before.last_errors.len() == after.last_errors.len()
        && before.last_errors.iter().zip(&after.last_errors).all(same)
        && before
            .last_errors
            .first()
            .zip(after.last_errors.first())
            .is_none_or(|(was, is)| moment(&is.at).since(moment(&was.at)) < REFRESH)
    {
        settled.last_errors.clone_from(&before.last_errors);
    }
    settled
}

#[cfg(test)]
mod tests;

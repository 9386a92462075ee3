//! What a `CachedImage`'s status says. Pure: from what is known to the object's status, and whether that is worth a write.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_api::cached_image::{
    Cached, HeldDigest, Kept, MOST_NAMESPACES, Progress, UpToDate, UpstreamAvailable, UsedBy,
};
use larder_api::condition::{Reason, get, set};
use larder_api::{CachedImageStatus, Time};
use larder_oci::Digest;

use crate::cluster_cache::{Code, Pin, PinState};
use crate::decide::conditions::{self, Beside, Had, NotPinned, Said, Upstream};
use crate::decide::expiry::{self, Rules, Until};
use crate::decide::health::Reachable;
use crate::decide::index::Wanted;
use crate::decide::platforms::Platforms;
use crate::decide::{Image, Moment};
use crate::world::{Object, moment};

/// While an image is used its last use is written this often, not with every look.
pub(super) const LAST_USE: Duration = Duration::from_hours(1);

/// That a registry was asked once more, and said the same, is written this often.
const LAST_CHECK: Duration = Duration::from_hours(1);

/// That it was pulled once more is written this often, as its last use is.
const LAST_PULL: Duration = Duration::from_hours(1);

/// Pods that are named.
const NAMED: usize = 10;

/// Everything that a status is made of.
pub(super) struct Facts<'a> {
    pub(super) object: &'a Object,
    pub(super) wanted: Option<&'a Wanted>,
    /// The reference's own pin, or why it is not known.
    pub(super) pin: Result<Option<&'a Pin>, &'a str>,
    /// Those of digests that are kept beside it.
    pub(super) digests: &'a BTreeMap<Digest, bool>,
    pub(super) not_pinned: Option<NotPinned>,
    /// What the spec says that nobody can do, although the API server let it through.
    pub(super) ignored: Option<String>,
    /// What the cache said to the last wish for the reference, if it did not take it.
    pub(super) refused: Option<&'a str>,
    pub(super) upstream: &'a Upstream,
    /// Whether its registry can be reached, by all that is asked of it.
    pub(super) registry: Reachable,
    pub(super) checked: Option<Moment>,
    /// Whether its registry is asked about it now and then.
    pub(super) is_watched: bool,
    pub(super) platforms: &'a Platforms,
    /// Whether what its tag means is fetched again when it has moved.
    pub(super) follows: bool,
    pub(super) rules: &'a Rules,
    pub(super) now: Moment,
}

fn as_time(moment: Moment) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(moment.seconds()).unwrap_or_default())
}

fn number<T: TryFrom<u64>>(value: u64, most: T) -> T {
    T::try_from(value).unwrap_or(most)
}

/// As expiry takes an object.
pub(super) fn of_object(object: &Object, used: expiry::Use) -> expiry::Object {
    let last_used = object.status.last_used.as_ref().map(moment);
    let was_used = object.status.used_by.as_ref().is_some_and(|used| used.count > 0);
    // Who saw its last Pod go knows better than what was written before.
    let saw_the_end = used.last_used > last_used;
    expiry::Object {
        uid: object.uid.clone(),
        resource_version: object.resource_version.clone(),
        made_by: object.made_by,
        created: object.created,
        retain: object.spec.retain,
        expiry: object.spec.expiry().ok().flatten(),
        last_used,
        was_used: was_used && !saw_the_end,
        is_never_had: object.status.digest.is_none()
            && matches!(get(&object.status.conditions), Some(Cached::NotFound | Cached::Private | Cached::Refused)),
    }
}

/// As expiry takes what Pods say.
pub(super) fn use_of(wanted: Option<&Wanted>) -> expiry::Use {
    expiry::Use {
        is_used: wanted.is_some_and(Wanted::is_used),
        last_used: wanted.and_then(|wanted| wanted.last_used),
        has_ended: wanted.is_some_and(|wanted| wanted.ended > 0),
    }
}

/// The status as it should be.
pub(super) fn status(facts: &Facts<'_>) -> CachedImageStatus {
    let Facts { object, wanted, pin, not_pinned, registry, is_watched, platforms, rules, now, .. } = facts;
    let before = &object.status;
    let pinned = pin.ok().flatten();
    let (upstream, checked) = &heard(facts, pinned);
    let kept = pinned.and_then(|pin| pin.held().map(ToString::to_string)).or_else(|| match pin {
        // Nobody could be asked: what was is the best that is known.
        Err(_) => before.digest.clone(),
        Ok(_) => None,
    });
    let upstream_digest = match upstream {
        Upstream::Has(digest) => Some(digest.to_string()),
        _ => before.upstream_digest.clone(),
    };
    let used = use_of(*wanted);
    let as_object = of_object(object, used);
    let last = expiry::last_used(Some(&as_object), used, *now);
    let recorded = as_object.last_used;
    let last_used = match (recorded, last) {
        (Some(recorded), Some(last)) if used.is_used && last.since(recorded) < LAST_USE => Some(recorded),
        (_, last) => last,
    };
    let first_used = wanted.and_then(|wanted| wanted.first_used).map(as_time).or_else(|| before.first_used.clone());
    let (expires, keeps) = match expiry::until(&object.image, &as_object, used, rules, *now) {
        Until::Expires(at) => (Some(as_time(at)), None),
        Until::Used => (None, None),
        Until::Retained => (None, Some(Kept::Retained)),
        Until::Deleted => (None, Some(Kept::Applied)),
    };
    let mut status = CachedImageStatus {
        observed_generation: object.generation,
        digest: kept,
        upstream_digest,
        upstream_checked: checked.map(as_time).or_else(|| before.upstream_checked.clone()),
        digests: held_digests(facts, pinned),
        platforms: pinned.map_or_else(|| platforms.words(), |pin| pin.platforms.words()),
        size_bytes: match pinned {
            Some(pin) if pin.state == PinState::Complete => Some(number(pin.bytes.known, i64::MAX)),
            _ => before.size_bytes,
        },
        used_by: wanted.map(|wanted| UsedBy {
            count: number(wanted.used_by as u64, i32::MAX),
            pods: wanted.users.iter().take(NAMED).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect(),
        }),
        namespaces: match wanted.map(|wanted| &wanted.namespaces).filter(|namespaces| !namespaces.is_empty()) {
            Some(namespaces) => namespaces.iter().take(MOST_NAMESPACES).map(ToString::to_string).collect(),
            // Whoever used it last has it until it goes.
            None => before.namespaces.clone(),
        },
        first_used,
        last_used: last_used.map(as_time),
        last_pull: last_pull(before.last_pull.as_ref(), pinned, *now),
        expires_at: expires,
        kept: keeps,
        progress: pinned.filter(|pin| pin.state == PinState::Fetching).map(progress),
        conditions: before.conditions.clone(),
    };
    let time = as_time(*now);
    let said = cached(facts, pinned, not_pinned.as_ref(), keeps);
    write(&mut status, object, &said, &time);
    let held = status.digest.as_deref().and_then(|digest| Digest::parse(digest).ok());
    // Nobody asked since this process leads: what the registry said to the one before is the best that is known.
    let is_known_from_before = matches!(upstream, Upstream::NotAsked) && before.upstream_checked.is_some();
    let said_before = get::<UpstreamAvailable>(&before.conditions);
    // But not that there has never been what is there now.
    let is_refuted = said_before == Some(UpstreamAvailable::NotFound) && held.is_some();
    if !is_known_from_before || said_before.is_none() || is_refuted {
        let had = had(before, &status);
        let said = conditions::upstream_available(&object.image, upstream, *registry, had, *is_watched);
        write(&mut status, object, &said, &time);
    }
    let was_compared = matches!(get::<UpToDate>(&before.conditions), Some(UpToDate::Same | UpToDate::Moved));
    if !(is_known_from_before && was_compared && status.digest == before.digest) {
        let said = conditions::up_to_date(&object.image, held.as_ref(), upstream, facts.follows);
        write(&mut status, object, &said, &time);
    }
    status
}

/// What its registry said: when it was asked about it last, or else when the cache came to fetch it and got nothing. That was within minutes, for it goes on
/// trying; when exactly it was first is what matters.
fn heard(facts: &Facts<'_>, pinned: Option<&Pin>) -> (Upstream, Option<Moment>) {
    let Some(answer) = pinned.filter(|_| *facts.upstream == Upstream::NotAsked).and_then(refusal) else {
        return (facts.upstream.clone(), facts.checked);
    };
    let before = &facts.object.status;
    let was = match get::<UpstreamAvailable>(&before.conditions) {
        Some(UpstreamAvailable::Gone | UpstreamAvailable::NotFound) => Upstream::Gone,
        Some(UpstreamAvailable::Denied) => Upstream::Denied,
        _ => Upstream::NotAsked,
    };
    let checked = before.upstream_checked.as_ref().filter(|_| was == answer).map(moment);
    (answer, checked.or(Some(facts.now)))
}

/// What a registry said to whoever came to fetch, where it said what this is not: a blob that is missing says nothing of the whole.
pub(super) fn refusal(pin: &Pin) -> Option<Upstream> {
    let is_unknown = pin.digest.is_none() && pin.until_then.is_none();
    match (pin.state, pin.code) {
        (PinState::Waiting, Some(Code::NotFound)) if is_unknown => Some(Upstream::Gone),
        (PinState::Refused, Some(Code::Private)) if is_unknown => Some(Upstream::Denied),
        _ => None,
    }
}

/// Whether there is, or ever was, anything of it here.
fn had(before: &CachedImageStatus, now: &CachedImageStatus) -> Had {
    // The size stays when the image is gone.
    let was_somewhere = |status: &CachedImageStatus| {
        status.size_bytes.is_some()
            || status.digest.is_some()
            || status.upstream_digest.is_some()
            || !status.digests.is_empty()
    };
    match &now.digest {
        Some(_) => Had::Now,
        None if was_somewhere(before) || was_somewhere(now) => Had::Before,
        None => Had::Never,
    }
}

/// What the cache knows of it, which after its restart is nothing; so what was said holds, and a time is followed by later ones only. Its clock may be ahead.
fn last_pull(before: Option<&Time>, pinned: Option<&Pin>, now: Moment) -> Option<Time> {
    let known = pinned.and_then(|pin| pin.last_pull).map(|at| as_time(at.min(now)));
    known.max(before.cloned())
}

fn held_digests(facts: &Facts<'_>, pinned: Option<&Pin>) -> Vec<HeldDigest> {
    let before = &facts.object.status;
    let was_present = get::<UpstreamAvailable>(&before.conditions) == Some(UpstreamAvailable::Present);
    let from_before = before.upstream_digest.as_deref().filter(|_| was_present);
    let from_before = from_before.and_then(|digest| Digest::parse(digest).ok());
    let upstream = match facts.upstream {
        Upstream::Has(digest) => Some(digest),
        // What it said to the process before this one.
        Upstream::NotAsked => from_before.as_ref(),
        _ => None,
    };
    let none = BTreeMap::new();
    let running = facts.wanted.map_or(&none, |wanted| &wanted.digests);
    let held = pinned.and_then(Pin::held);
    let mut all: BTreeMap<&Digest, bool> = facts.digests.iter().map(|(digest, cached)| (digest, *cached)).collect();
    for digest in running.keys().chain(upstream) {
        all.entry(digest).or_insert(false);
    }
    if let Some(held) = held {
        all.insert(held, true);
    }
    // Those of Pods come first where there are too many.
    let mut held: Vec<HeldDigest> = all
        .into_iter()
        .map(|(digest, cached)| HeldDigest {
            digest: digest.to_string(),
            upstream: upstream == Some(digest),
            pods: running.get(digest).map_or(0, |count| number(*count as u64, i32::MAX)),
            cached,
        })
        .collect();
    held.sort_by(|a, b| b.pods.cmp(&a.pods).then(b.upstream.cmp(&a.upstream)).then(a.digest.cmp(&b.digest)));
    held.truncate(64);
    held
}

fn progress(pin: &Pin) -> Progress {
    Progress {
        bytes_known: number(pin.bytes.known, i64::MAX),
        bytes_fetched: number(pin.bytes.fetched, i64::MAX),
        blobs_known: number(pin.blobs.known, i32::MAX),
        blobs_fetched: number(pin.blobs.fetched, i32::MAX),
    }
}

fn write<R: Reason>(status: &mut CachedImageStatus, object: &Object, said: &Said<R>, time: &Time) {
    set(&mut status.conditions, said.reason, &said.message, object.generation, time);
}

fn cached(facts: &Facts<'_>, pinned: Option<&Pin>, not_pinned: Option<&NotPinned>, kept: Option<Kept>) -> Said<Cached> {
    let refused = facts.refused.map(str::to_owned);
    let pin = match (&facts.pin, pinned) {
        (Err(words), _) => conditions::Pin::NoAnswer((*words).to_owned()),
        (_, None) => refused.clone().map_or(conditions::Pin::None, conditions::Pin::Refused),
        (_, Some(pin)) => match (said_of(pin), &refused) {
            (done @ conditions::Pin::Complete(_), _) => done,
            (_, Some(words)) => conditions::Pin::Refused(words.clone()),
            (said, None) => said,
        },
    };
    let beside = Beside {
        missing_digests: facts.digests.values().filter(|cached| !**cached).count(),
        keeps_older: pinned.is_some_and(|pin| pin.until_then.is_some()),
        missing_platforms: pinned.map(|pin| facts.platforms.missing_in(&pin.platforms)).unwrap_or_default(),
        refused,
        ignored: facts.ignored.clone(),
        kept,
    };
    conditions::cached(&pin, &beside, not_pinned)
}

fn said_of(pin: &Pin) -> conditions::Pin {
    let words = pin.error.as_deref().unwrap_or("the cache does not say why").to_owned();
    match pin.state {
        PinState::Queued => conditions::Pin::Queued,
        PinState::Fetching => conditions::Pin::Fetching(pin.bytes.fetched, pin.bytes.known),
        PinState::Complete => conditions::Pin::Complete(pin.bytes.known),
        PinState::Waiting if pin.code == Some(Code::NotFound) && pin.until_then.is_none() => {
            conditions::Pin::NotFound(words)
        }
        PinState::Waiting => conditions::Pin::Waiting(words),
        PinState::Refused if pin.code == Some(Code::Private) => conditions::Pin::Private(words),
        PinState::Refused => conditions::Pin::Refused(words),
    }
}

/// Whether something of a pin is worth a look at its image. That it was pulled once more is seen by the look of the hour; that a cache does not know any more
/// when, for it was started anew, is nothing: all of them would be looked at.
pub(super) fn is_news(known: Option<&Pin>, pin: &Pin) -> bool {
    let Some(known) = known else { return true };
    let is_first = known.last_pull.is_none() && pin.last_pull.is_some();
    is_first || Pin { last_pull: pin.last_pull, ..known.clone() } != *pin
}

/// On the way to the cache every reason is only passed through.
const PASSING: [Cached; 4] = [Cached::Pending, Cached::QuotaKept, Cached::Queued, Cached::Fetching];

/// How soon a difference is worth a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// There is none.
    Nothing,
    /// How far a fetch is, who uses it: when there is room.
    Detail,
    /// What somebody waits for.
    News,
}

/// Whether a status says something that the object's does not. Its registry is asked once an `interval` as a rule.
pub(super) fn worth(before: &CachedImageStatus, after: &CachedImageStatus, interval: Duration) -> Worth {
    if before == after || settled(before, after, interval) == *before {
        return Worth::Nothing;
    }
    let truths = |status: &CachedImageStatus| -> Vec<(String, String, bool)> {
        let passing = |reason: &str| PASSING.iter().any(|passing| passing.as_str() == reason);
        let one = |c: &larder_api::Condition| (c.type_.clone(), c.status.clone(), passing(&c.reason));
        status.conditions.iter().map(one).collect()
    };
    let is_on_the_way = |status: &CachedImageStatus, reasons: &[Cached]| {
        get::<Cached>(&status.conditions).is_some_and(|reason| reasons.contains(&reason))
    };
    if before.conditions.is_empty() {
        // Its object was written only just now, which leaves one write for a minute: whatever is on the way would take the place of the word that it is there.
        // That Pods run a digest which comes right behind the tag is on the way as well.
        let waits = is_on_the_way(after, &PASSING) || is_on_the_way(after, &[Cached::Incomplete]);
        return if waits { Worth::Detail } else { Worth::News };
    }
    // Nor does what its registry says meanwhile take that place.
    if is_on_the_way(before, &PASSING) && is_on_the_way(after, &PASSING) {
        return Worth::Detail;
    }
    if truths(before) != truths(after) || before.digest != after.digest { Worth::News } else { Worth::Detail }
}

/// The new status without what only goes on with time: its registry said the same again (one that nobody pulls from is asked once a minute, always for the
/// same image, to see whether it answers), or it was pulled once more. A little later that is the same as before.
fn settled(before: &CachedImageStatus, after: &CachedImageStatus, interval: Duration) -> CachedImageStatus {
    let kept = |was: &Option<Time>, is: &Option<Time>, soon: Duration| match (was, is) {
        (Some(earlier), Some(later)) if earlier <= later && moment(later).since(moment(earlier)) < soon => was.clone(),
        _ => is.clone(),
    };
    CachedImageStatus {
        upstream_checked: kept(&before.upstream_checked, &after.upstream_checked, LAST_CHECK.min(interval / 2)),
        last_pull: kept(&before.last_pull, &after.last_pull, LAST_PULL),
        ..after.clone()
    }
}

/// The image of a status's object as it is in the control API.
pub(super) fn reference(image: &Image) -> Option<larder_oci::ImageReference> {
    image.reference().ok()
}

#[cfg(test)]
mod tests;

//! What a CachedImage's status says. Pure: from what is known to the object's status, and whether that is worth a write.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_api::cached_image::{Cached, HeldDigest, Progress, UpToDate, UpstreamAvailable, UsedBy};
use larder_api::condition::{Reason, set};
use larder_api::{CachedImageStatus, Time};
use larder_oci::Digest;

use crate::cluster_cache::{Pin, PinState};
use crate::decide::conditions::{self, Condition, NotPinned, Upstream};
use crate::decide::expiry::{self, Rules, Until};
use crate::decide::health::Reachable;
use crate::decide::index::Wanted;
use crate::decide::{Image, Moment, conditions as decided};
use crate::world::Object;

/// While an image is used its last use is written this often, not with every look.
const LAST_USE: Duration = Duration::from_hours(1);

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
    pub(super) upstream: &'a Upstream,
    pub(super) checked: Option<Moment>,
    pub(super) platforms: Vec<String>,
    pub(super) rules: &'a Rules,
    pub(super) now: Moment,
}

fn time(moment: Moment) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(moment.seconds()).unwrap_or_default())
}

fn number<T: TryFrom<u64>>(value: u64, most: T) -> T {
    T::try_from(value).unwrap_or(most)
}

/// As expiry takes an object.
pub(super) fn of_object(object: &Object) -> expiry::Object {
    let moment = |time: &Option<Time>| time.as_ref().map(|time| Moment::from_seconds(time.0.as_second()));
    expiry::Object {
        uid: object.uid.clone(),
        resource_version: object.resource_version.clone(),
        made_by: object.made_by,
        created: object.created,
        retain: object.spec.retain,
        expiry: object.spec.expiry().ok().flatten(),
        last_used: moment(&object.status.last_used),
        was_used: object.status.used_by.as_ref().is_some_and(|used| used.count > 0),
    }
}

/// As expiry takes what Pods say.
pub(super) fn use_of(wanted: Option<&Wanted>) -> expiry::Use {
    expiry::Use { is_used: wanted.is_some_and(Wanted::is_used), last_used: wanted.and_then(|wanted| wanted.last_used) }
}

/// The status as it should be.
pub(super) fn status(facts: &Facts<'_>) -> CachedImageStatus {
    let Facts { object, wanted, pin, digests, not_pinned, upstream, checked, platforms, rules, now } = facts;
    let before = &object.status;
    let pinned = pin.ok().flatten();
    let held = pinned.and_then(|pin| pin.held().map(ToString::to_string)).or_else(|| match pin {
        // Nobody could be asked: what was is the best that is known.
        Err(_) => before.digest.clone(),
        Ok(_) => None,
    });
    let upstream_digest = match upstream {
        Upstream::Has(digest) => Some(digest.to_string()),
        _ => before.upstream_digest.clone(),
    };
    let used = use_of(*wanted);
    let as_object = of_object(object);
    let last = expiry::last_used(Some(&as_object), used, *now);
    let recorded = as_object.last_used;
    let last_used = match (recorded, last) {
        (Some(recorded), Some(last)) if used.is_used && last.since(recorded) < LAST_USE => Some(recorded),
        (_, last) => last,
    };
    let first_used = wanted.and_then(|wanted| wanted.first_used).map(time).or_else(|| before.first_used.clone());
    let expires = match expiry::until(&object.image, &as_object, used, rules, *now) {
        Until::Expires(at) => Some(time(at)),
        Until::Used | Until::Retained | Until::Deleted => None,
    };
    let mut status = CachedImageStatus {
        observed_generation: object.generation,
        digest: held,
        upstream_digest,
        upstream_checked: checked.map(time).or_else(|| before.upstream_checked.clone()),
        digests: held_digests(facts, pinned),
        platforms: if pinned.is_some() {
            pinned.map(|pin| pin.platforms.clone()).unwrap_or_default()
        } else {
            platforms.clone()
        },
        size_bytes: match pinned {
            Some(pin) if pin.state == PinState::Complete => Some(number(pin.bytes.known, i64::MAX)),
            _ => before.size_bytes,
        },
        used_by: wanted.map(|wanted| UsedBy {
            count: number(wanted.used_by as u64, i32::MAX),
            pods: wanted.users.iter().take(NAMED).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect(),
        }),
        first_used,
        last_used: last_used.map(time),
        last_pull: before.last_pull.clone(),
        expires_at: expires,
        progress: pinned.filter(|pin| pin.state == PinState::Fetching).map(progress),
        conditions: before.conditions.clone(),
    };
    let (cached, message) = cached(facts, pinned, not_pinned.as_ref(), digests);
    let write = |status: &mut CachedImageStatus, message: &str| {
        set(&mut status.conditions, cached, message, object.generation, &time(*now));
    };
    write(&mut status, &message);
    let is_cached = cached == Cached::Complete || pinned.is_some_and(|pin| pin.held().is_some());
    let said = conditions::upstream_available(&object.image, upstream, Reachable::Unknown, is_cached);
    set(&mut status.conditions, available(&said), &said.message, object.generation, &time(*now));
    let follow = wanted.is_some_and(|wanted| wanted.is_always);
    let held = pinned.and_then(Pin::held);
    let said = conditions::up_to_date(&object.image, held, upstream, follow);
    set(&mut status.conditions, current(&said), &said.message, object.generation, &time(*now));
    status
}

fn held_digests(facts: &Facts<'_>, pinned: Option<&Pin>) -> Vec<HeldDigest> {
    let upstream = match facts.upstream {
        Upstream::Has(digest) => Some(digest),
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

fn cached(
    facts: &Facts<'_>,
    pinned: Option<&Pin>,
    not_pinned: Option<&NotPinned>,
    digests: &BTreeMap<Digest, bool>,
) -> (Cached, String) {
    let as_decided = match (&facts.pin, pinned) {
        (Err(words), _) => decided::Pin::NoAnswer((*words).to_owned()),
        (_, None) => decided::Pin::None,
        (_, Some(pin)) => {
            let words = || pin.error.clone().unwrap_or_else(|| "the cache does not say why".to_owned());
            match pin.state {
                PinState::Queued => decided::Pin::Queued,
                PinState::Fetching => decided::Pin::Fetching(pin.bytes.fetched, pin.bytes.known),
                PinState::Complete => decided::Pin::Complete(pin.bytes.known),
                PinState::Waiting => decided::Pin::Waiting(words()),
                PinState::Refused => decided::Pin::Refused(words()),
            }
        }
    };
    let said = decided::cached(&as_decided, not_pinned);
    let missing = digests.values().filter(|cached| !**cached).count();
    let reason = match (&as_decided, not_pinned) {
        (decided::Pin::Complete(_), _) if missing > 0 => {
            let message = format!("{missing} digests that Pods run are not there yet; {}", said.message);
            return (Cached::Incomplete, message);
        }
        (decided::Pin::Complete(_), _) => Cached::Complete,
        (decided::Pin::Queued | decided::Pin::Fetching(..) | decided::Pin::Waiting(_), _)
            if pinned.is_some_and(|pin| pin.until_then.is_some()) =>
        {
            return (
                Cached::Incomplete,
                format!("what was cached before stays until the new one is there: {}", said.message),
            );
        }
        (decided::Pin::None | decided::Pin::NoAnswer(_), Some(NotPinned::Observing)) => Cached::Observing,
        (decided::Pin::None | decided::Pin::NoAnswer(_), Some(NotPinned::LeftOut(_))) => Cached::Refused,
        (decided::Pin::None | decided::Pin::NoAnswer(_), Some(NotPinned::OverBound(_))) => Cached::OverLimit,
        (decided::Pin::NoAnswer(_), None) => Cached::CacheUnreachable,
        (decided::Pin::None, None) => Cached::Pending,
        (decided::Pin::Queued, _) => Cached::Queued,
        (decided::Pin::Fetching(..), _) => Cached::Fetching,
        (decided::Pin::Waiting(_), _) => Cached::Retrying,
        (decided::Pin::Refused(words), _) if words.contains("private images") => Cached::Private,
        (decided::Pin::Refused(_), _) => Cached::Refused,
    };
    (reason, said.message)
}

fn available(said: &Condition) -> UpstreamAvailable {
    match said.reason {
        "Found" => UpstreamAvailable::Present,
        "NotFound" => UpstreamAvailable::Gone,
        known => UpstreamAvailable::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == known)
            .unwrap_or(UpstreamAvailable::NotChecked),
    }
}

fn current(said: &Condition) -> UpToDate {
    match said.reason {
        "Digest" => UpToDate::ByDigest,
        "TagMoved" => UpToDate::Moved,
        known => UpToDate::ALL.iter().copied().find(|reason| reason.as_str() == known).unwrap_or(UpToDate::NotChecked),
    }
}

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

/// Whether a status says something that the object's does not.
pub(super) fn worth(before: &CachedImageStatus, after: &CachedImageStatus) -> Worth {
    if before == after {
        return Worth::Nothing;
    }
    let truths = |status: &CachedImageStatus| -> Vec<(String, String, bool)> {
        // On the way to the cache every reason is only passed through.
        let passing = |reason: &str| matches!(reason, "Pending" | "Queued" | "Fetching");
        let one = |c: &larder_api::Condition| (c.type_.clone(), c.status.clone(), passing(&c.reason));
        status.conditions.iter().map(one).collect()
    };
    let is_first = before.conditions.is_empty()
        && !after.conditions.iter().any(|c| matches!(c.reason.as_str(), "Pending" | "Queued" | "Fetching"));
    let is_news = !before.conditions.is_empty() && truths(before) != truths(after);
    if is_first || is_news || before.digest != after.digest { Worth::News } else { Worth::Detail }
}

/// The image of a status's object as it is in the control API.
pub(super) fn reference(image: &Image) -> Option<larder_oci::ImageReference> {
    image.reference().ok()
}

//! What a person reads of an image: the conditions `Cached`, `UpstreamAvailable` and `UpToDate`.

use std::fmt;

use larder_oci::Digest;

use super::Image;
use super::bounds::{Full, OverBound};
use super::filter::LeftOut;
use super::health::Reachable;

/// As conditions of the Kubernetes API have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

/// A condition without its times, which the shell keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `status`
    pub status: Status,
    /// `reason`, one word in `CamelCase`
    pub reason: &'static str,
    /// `message`, which says what to do where there is something to do
    pub message: String,
}

impl Condition {
    fn new(status: Status, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// What the cache says of an image's pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The cache could not be asked: in words.
    NoAnswer(String),
    /// None yet.
    None,
    /// Its turn comes.
    Queued,
    /// Under way; bytes fetched, and known.
    Fetching(u64, u64),
    /// Everything is there.
    Complete(u64),
    /// It failed and is tried again: why.
    Waiting(String),
    /// It is not to be had: why.
    Refused(String),
}

/// Why nobody asked for a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPinned {
    /// `--mode observe`
    Observing,
    /// A filter.
    LeftOut(LeftOut),
    /// A bound.
    OverBound(OverBound),
}

/// What the origin said, when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// Nobody asked yet.
    NotAsked,
    /// It has it; a tag means this digest.
    Has(Digest),
    /// 404
    Gone,
    /// 401 or 403
    Denied,
    /// 429
    Limited,
    /// It did not answer: why.
    NoAnswer(String),
}

/// Whether everything needed is in the cache, verified.
pub fn cached(pin: &Pin, not_pinned: Option<&NotPinned>) -> Condition {
    use Status::{False, True, Unknown};
    if let (Some(why), Pin::None | Pin::NoAnswer(_)) = (not_pinned, pin) {
        return match why {
            NotPinned::Observing => Condition::new(
                False,
                "Observing",
                "the controller only observes: start it without --mode observe to have this cached",
            ),
            NotPinned::LeftOut(left_out) => Condition::new(False, left_out.reason(), format!("not cached: {left_out}")),
            NotPinned::OverBound(over) => Condition::new(False, "OverBound", over.to_string()),
        };
    }
    match pin {
        Pin::NoAnswer(error) => Condition::new(
            Unknown,
            "CacheUnavailable",
            format!(
                "the cluster cache did not answer: {error}; see that its Pods run and that this controller may use its control API"
            ),
        ),
        Pin::None => Condition::new(False, "Pending", "the cluster cache has not been told yet: it waits for its turn"),
        Pin::Queued => Condition::new(False, "Queued", "the cluster cache fetches others first"),
        Pin::Fetching(fetched, known) => {
            Condition::new(False, "Fetching", format!("{} of {} are there", size(*fetched), size(*known)))
        }
        Pin::Complete(bytes) => Condition::new(True, "Complete", format!("{} are kept, verified", size(*bytes))),
        Pin::Waiting(error) => Condition::new(False, "FetchFailed", format!("{error}; it is tried again by itself")),
        Pin::Refused(error) => Condition::new(False, "Refused", error.clone()),
    }
}

/// Whether its origin has it.
pub fn upstream_available(image: &Image, upstream: &Upstream, registry: Reachable, is_cached: bool) -> Condition {
    use Status::{False, True, Unknown};
    let kept = if is_cached {
        "the cache keeps it"
    } else {
        "and the cache does not have it: Pods on other nodes will not start"
    };
    match (upstream, registry) {
        (Upstream::Gone, _) => Condition::new(
            False,
            "NotFound",
            format!(
                "{} has deleted it, or never had it; {kept}; move to another image, or keep this one with spec.retain",
                image.registry()
            ),
        ),
        (Upstream::Denied, _) => Condition::new(
            False,
            "Denied",
            format!("{} wants credentials for it, or has deleted it; {kept}", image.registry()),
        ),
        (Upstream::NoAnswer(error), _) => {
            Condition::new(False, "Unreachable", format!("{} does not answer: {error}; {kept}", image.registry()))
        }
        (Upstream::NotAsked | Upstream::Has(_) | Upstream::Limited, Reachable::Not(_)) => {
            Condition::new(False, "Unreachable", format!("{} does not answer; {kept}", image.registry()))
        }
        (Upstream::Has(_), _) => Condition::new(True, "Found", format!("{} has it", image.registry())),
        (Upstream::Limited, _) => Condition::new(
            Unknown,
            "RateLimited",
            format!("{} says that it is asked too much; it is asked again when its quota allows", image.registry()),
        ),
        (Upstream::NotAsked, _) => {
            Condition::new(Unknown, "NotChecked", "its turn to be checked comes within the interval")
        }
    }
}

/// Whether the cache has what the reference means at its origin.
pub fn up_to_date(image: &Image, cached: Option<&Digest>, upstream: &Upstream, follow: bool) -> Condition {
    use Status::{False, True, Unknown};
    match (cached, upstream) {
        (None, _) => Condition::new(Unknown, "NotCached", "there is nothing to compare: see Cached"),
        (Some(_), _) if image.is_digest() => Condition::new(True, "Digest", "a digest means the same for ever"),
        (Some(have), Upstream::Has(there)) if have == there => {
            Condition::new(True, "Same", "the tag means at its origin what is cached")
        }
        (Some(have), Upstream::Has(there)) => {
            let what = if follow {
                "it is being fetched"
            } else {
                "the cache serves the new one while its origin answers, and this one when it does not; set spec.follow to have the new one kept"
            };
            Condition::new(False, "TagMoved", format!("the tag now means {there}, cached is {have}: {what}"))
        }
        (
            Some(_),
            Upstream::NotAsked | Upstream::Gone | Upstream::Denied | Upstream::Limited | Upstream::NoAnswer(_),
        ) => Condition::new(
            Unknown,
            "UpstreamUnknown",
            "its origin does not say what it means now: see UpstreamAvailable",
        ),
    }
}

impl fmt::Display for OverBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, full } = self;
        match full {
            Full::Images(allowed) => write!(f, "namespace {namespace} has its {allowed} images already")?,
            Full::Bytes { allowed, taken, own } => write!(
                f,
                "namespace {namespace} has {} of its {} already, and this has {}",
                size(*taken),
                size(*allowed),
                size(*own)
            )?,
        }
        f.write_str(": older ones stay; raise the bound of the namespace, or delete what it does not need")
    }
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

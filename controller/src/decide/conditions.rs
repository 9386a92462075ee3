//! What a person reads of an image: the conditions `Cached`, `UpstreamAvailable` and `UpToDate`.
//!
//! The words of reasons are those of the custom resource (`larder_api::cached_image`), where each has one truth; a test
//! compares them. What is added here is which one holds, and a message on which a person can act.

use std::fmt;

use larder_oci::Digest;

use super::Image;
use super::bounds::{Full, OverBound};
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

/// What the cache says of the pin of an image's own reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The cache could not be asked: why.
    NoAnswer(String),
    /// None yet.
    None,
    /// Its turn comes.
    Queued,
    /// Under way; bytes fetched, and known.
    Fetching(u64, u64),
    /// Everything is there, so many bytes.
    Complete(u64),
    /// It failed and is tried again: why.
    Waiting(String),
    /// Nobody gets it without credentials: in the cache's words.
    Private(String),
    /// The registry does not have it, and the cache never had it: in the cache's words.
    NotFound(String),
    /// A rule forbids it, or there is none of the platforms: in the cache's words.
    Refused(String),
}

/// Why nobody asks for a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPinned {
    /// `--mode observe`
    Observing,
    /// A person says that its registry, or a part of it, is left alone: where.
    Skipped(String),
    /// A bound.
    OverBound(OverBound),
    /// The object says something that nobody can do: what.
    Invalid(String),
}

/// What is beside the reference's own pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beside {
    /// Digests that Pods run and the cache has not completely.
    pub missing_digests: usize,
    /// What was cached before stays until what the reference means now is there (`until_then` of the control API).
    pub keeps_older: bool,
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
    /// 5xx: in words.
    Failing(String),
    /// It did not answer: why.
    NoAnswer(String),
}

/// Whether everything needed is in the cache, verified.
pub fn cached(pin: &Pin, beside: Beside, not_pinned: Option<&NotPinned>) -> Condition {
    use Status::{False, Unknown};
    if let Some(NotPinned::Invalid(error)) = not_pinned {
        return Condition::new(False, "Invalid", error.clone());
    }
    if let (Some(why), Pin::None | Pin::NoAnswer(_)) = (not_pinned, pin) {
        return match why {
            NotPinned::Skipped(words) => Condition::new(False, "Refused", words.clone()),
            NotPinned::OverBound(over) => Condition::new(False, "OverLimit", over.to_string()),
            NotPinned::Observing | NotPinned::Invalid(_) => Condition::new(
                False,
                "Observing",
                "the controller only observes: start it without --mode observe to have this cached",
            ),
        };
    }
    let said = match pin {
        Pin::NoAnswer(error) => Condition::new(
            Unknown,
            "CacheUnreachable",
            format!(
                "the cluster cache does not answer: {error}; see that its Pods run, and that this controller may use its control API"
            ),
        ),
        Pin::None => {
            Condition::new(Unknown, "Pending", "the cluster cache has not been asked for it yet: others are first")
        }
        Pin::Queued => Condition::new(False, "Queued", "the cluster cache fetches others first"),
        Pin::Fetching(fetched, known) => {
            Condition::new(False, "Fetching", format!("{} of {} are there", size(*fetched), size(*known)))
        }
        Pin::Complete(bytes) => complete(*bytes, beside.missing_digests),
        Pin::Waiting(error) => Condition::new(False, "Retrying", format!("{error}; it is tried again by itself")),
        Pin::Private(error) => Condition::new(
            False,
            "Private",
            format!(
                "{error}; nodes pull it with the Pod's own credentials, as without a cache: keep a copy where no credentials are needed to have it cached"
            ),
        ),
        Pin::NotFound(error) => Condition::new(
            False,
            "NotFound",
            format!(
                "{error}; see whether the name is right, and whether somebody deleted it: Pods cannot start with it on a new node"
            ),
        ),
        Pin::Refused(error) => Condition::new(False, "Refused", error.clone()),
    };
    if beside.keeps_older && said.status == False {
        let message = format!("what was cached before stays until what the tag means now is there: {}", said.message);
        return Condition::new(False, "Incomplete", message);
    }
    said
}

fn complete(bytes: u64, missing_digests: usize) -> Condition {
    let kept = size(bytes);
    if missing_digests == 0 {
        return Condition::new(Status::True, "Complete", format!("{kept} are kept, verified"));
    }
    let message = format!(
        "{kept} are kept; of {missing_digests} digests that Pods run not everything is there yet: these Pods may not start on another node"
    );
    Condition::new(Status::False, "Incomplete", message)
}

/// Whether its registry has it.
pub fn upstream_available(image: &Image, upstream: &Upstream, registry: Reachable, is_cached: bool) -> Condition {
    use Status::{False, True, Unknown};
    let host = image.registry();
    let kept = if is_cached {
        "the cache keeps it"
    } else {
        "the cache does not have it either, so Pods cannot start on nodes that lack it"
    };
    let unreachable =
        |error: &str| Condition::new(False, "Unreachable", format!("{host} does not answer{error}; {kept}"));
    match (upstream, registry) {
        (Upstream::Gone, _) => Condition::new(
            False,
            "Gone",
            format!(
                "{host} says that it has no such image; {kept}; move to another one, or set spec.retain to keep this after its last Pod"
            ),
        ),
        (Upstream::Denied, _) => Condition::new(
            False,
            "Denied",
            format!(
                "{host} gives it to nobody without credentials, which is also what some say of what was deleted; {kept}"
            ),
        ),
        (Upstream::NoAnswer(error), _) => unreachable(&format!(": {error}")),
        (Upstream::NotAsked | Upstream::Has(_) | Upstream::Limited | Upstream::Failing(_), Reachable::Not(_)) => {
            unreachable("")
        }
        (Upstream::Failing(error), _) => {
            Condition::new(False, "Failing", format!("{host} answers with errors: {error}; {kept}"))
        }
        (Upstream::Has(_), _) => Condition::new(True, "Present", format!("{host} has it")),
        (Upstream::Limited, _) => Condition::new(
            Unknown,
            "RateLimited",
            format!("{host} says that it is asked too much; it is asked again when its quota allows"),
        ),
        (Upstream::NotAsked, _) => Condition::new(
            Unknown,
            "NotChecked",
            "nobody has asked its registry yet: its turn comes within the interval",
        ),
    }
}

/// Whether the cache has what the reference means at its registry.
pub fn up_to_date(image: &Image, cached: Option<&Digest>, upstream: &Upstream, follow: bool) -> Condition {
    use Status::{False, True, Unknown};
    match (cached, upstream) {
        (None, _) => Condition::new(False, "NotCached", "nothing of it is cached: see the condition Cached"),
        (Some(_), _) if image.is_digest() => Condition::new(True, "ByDigest", "a digest means the same for ever"),
        (Some(have), Upstream::Has(there)) if have == there => {
            Condition::new(True, "Same", "the tag means at its registry what is cached")
        }
        (Some(have), Upstream::Has(there)) => {
            let what = if follow {
                "it is being fetched"
            } else {
                "nodes get the new one while its registry answers, and the cached one while it does not"
            };
            Condition::new(False, "Moved", format!("the tag now means {there}, cached is {have}: {what}"))
        }
        (
            Some(_),
            Upstream::NotAsked
            | Upstream::Gone
            | Upstream::Denied
            | Upstream::Limited
            | Upstream::Failing(_)
            | Upstream::NoAnswer(_),
        ) => Condition::new(
            Unknown,
            "NotChecked",
            "its registry does not say what the tag means now: see the condition UpstreamAvailable",
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

#[cfg(test)]
mod tests;

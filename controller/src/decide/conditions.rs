//! What a person reads of an image: the conditions `Cached`, `UpstreamAvailable` and `UpToDate`.
//!
//! The words of reasons, and whether they are good news, are those of the custom resource (`larder_api::cached_image`), which has them once. What is
//! added here is which one holds, and a message on which a person can act.

use std::fmt;

use larder_api::cached_image::{Cached, Kept, UpToDate, UpstreamAvailable};
use larder_api::condition::{Reason as _, Truth};
use larder_oci::Digest;

use super::Image;
use super::bounds::{Full, OverBound};
use super::health::Reachable;

/// A condition without its times, which the shell keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<R> {
    /// `reason`, and with it `status`
    pub reason: R,
    /// `message`, which says what to do where there is something to do
    pub message: String,
}

impl<R> Said<R> {
    fn new(reason: R, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
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
    /// A rule forbids it, there is none of the platforms, or the cache takes no such pin: in the cache's words.
    Refused(String),
}

impl Pin {
    /// Whether the cache has all of it, or is about to.
    fn is_there(&self) -> bool {
        matches!(self, Self::Complete(_))
    }
}

/// Why nobody asks for a pin, or not now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPinned {
    /// A person says that its registry, or a part of it, is left alone: where.
    Skipped(String),
    /// A bound.
    OverBound(OverBound),
    /// What is left of its registry's quota is kept for pulls: in words.
    QuotaKept(String),
}

/// What is beside the reference's own pin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// Digests that Pods run and the cache has not completely.
    pub missing_digests: usize,
    /// What was cached before stays until what the reference means now is there (`until_then` of the control API).
    pub keeps_older: bool,
    /// Platforms that are wanted and that the pin is not for.
    pub missing_platforms: Vec<String>,
    /// What the cache said to the last wish for it, if it did not take it.
    pub refused: Option<String>,
    /// What the spec says that nobody can do.
    pub ignored: Option<String>,
    /// What keeps it although no Pod uses it.
    pub kept: Option<Kept>,
}

/// What the origin said, when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// Nobody asked yet.
    NotAsked,
    /// It has it; a tag means this digest.
    Has(Digest),
    /// 404: it is gone, or has never been.
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

/// What there is, or was, of an image here: in the cache, or where Pods ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Had {
    /// The cache has it.
    Now,
    /// It had it, or somebody once said which digest it was.
    Before,
    /// Neither is known of it.
    Never,
}

/// Whether everything needed is in the cache, verified. What nobody can do of a spec keeps the rest of it from nothing, and is said beside.
pub fn cached(pin: &Pin, beside: &Beside, not_pinned: Option<&NotPinned>) -> Said<Cached> {
    let Said { reason, mut message } = of_what_is_pinned(pin, beside, not_pinned);
    match beside.kept {
        None => {}
        Some(Kept::Retained) => message.push_str("; no Pod uses it, and it stays until spec.retain is false"),
        Some(Kept::Applied) => message.push_str(
            "; no Pod uses it, and it stays because somebody made or applies this object: delete it there, or set spec.expiry",
        ),
    }
    if let Some(ignored) = &beside.ignored {
        message = format!("{message}; ignored, until it is corrected: {ignored}");
    }
    Said { reason, message }
}

fn of_what_is_pinned(pin: &Pin, beside: &Beside, not_pinned: Option<&NotPinned>) -> Said<Cached> {
    match not_pinned {
        // What is there already is told of until it is let go.
        Some(NotPinned::OverBound(over)) if !pin.is_there() && !beside.keeps_older => {
            return Said::new(Cached::OverLimit, over.to_string());
        }
        Some(NotPinned::Skipped(words)) if matches!(pin, Pin::None | Pin::NoAnswer(_)) => {
            return Said::new(Cached::Refused, words.clone());
        }
        Some(NotPinned::QuotaKept(words)) if matches!(pin, Pin::None) => {
            return Said::new(Cached::QuotaKept, words.clone());
        }
        Some(NotPinned::OverBound(_) | NotPinned::Skipped(_) | NotPinned::QuotaKept(_)) | None => {}
    }
    let said = match pin {
        Pin::NoAnswer(error) => Said::new(
            Cached::CacheUnreachable,
            format!(
                "the cluster cache does not answer: {error}; see that its Pods run, and that this controller may use its control API"
            ),
        ),
        Pin::None => Said::new(Cached::Pending, "the cluster cache has not been asked for it yet: others are first"),
        Pin::Queued => Said::new(Cached::Queued, "the cluster cache fetches others first"),
        Pin::Fetching(fetched, known) => {
            Said::new(Cached::Fetching, format!("{} of {} are there", size(*fetched), size(*known)))
        }
        Pin::Complete(bytes) => complete(*bytes, beside, not_pinned),
        Pin::Waiting(error) => Said::new(Cached::Retrying, format!("{error}; it is tried again by itself")),
        Pin::Private(error) => Said::new(
            Cached::Private,
            format!(
                "{error}; nodes pull it with the Pod's own credentials, as without a cache: keep a copy where no credentials are needed to have it cached"
            ),
        ),
        Pin::NotFound(error) => Said::new(
            Cached::NotFound,
            format!(
                "{error}; see whether the name is right, and whether somebody deleted it: Pods cannot start with it on a new node. It is asked for again by itself"
            ),
        ),
        Pin::Refused(error) => Said::new(Cached::Refused, error.clone()),
    };
    if beside.keeps_older && matches!(said.reason.truth(), Truth::False) {
        let message = format!("what was cached before stays until what the tag means now is there: {}", said.message);
        return Said::new(Cached::Incomplete, message);
    }
    said
}

fn complete(bytes: u64, beside: &Beside, not_pinned: Option<&NotPinned>) -> Said<Cached> {
    let Beside { missing_digests, missing_platforms, refused, keeps_older: _, ignored: _, kept: _ } = beside;
    let kept = size(bytes);
    if !missing_platforms.is_empty() {
        let why = match (refused, not_pinned) {
            (Some(words), _) => format!("the cluster cache does not take the wish for it: {words}"),
            (None, Some(NotPinned::QuotaKept(words))) => words.clone(),
            (None, _) => "it is fetched when its turn comes".to_owned(),
        };
        let message = format!(
            "{kept} are kept, without {}: Pods may not start on such nodes while its registry is away; {why}",
            missing_platforms.join(", ")
        );
        return Said::new(Cached::Incomplete, message);
    }
    if *missing_digests == 0 {
        return Said::new(Cached::Complete, format!("{kept} are kept, verified"));
    }
    let message = format!(
        "{kept} are kept; of {missing_digests} digests that Pods run not everything is there yet: these Pods may not start on another node"
    );
    Said::new(Cached::Incomplete, message)
}

/// Whether its registry has it.
///
/// `is_watched`: its turn to be asked for comes within the interval.
pub fn upstream_available(
    image: &Image,
    upstream: &Upstream,
    registry: Reachable,
    had: Had,
    is_watched: bool,
) -> Said<UpstreamAvailable> {
    let host = image.registry();
    let kept = match had {
        Had::Now => "the cache keeps it",
        Had::Before | Had::Never => "the cache does not have it either, so Pods cannot start on nodes that lack it",
    };
    let unreachable =
        |error: &str| Said::new(UpstreamAvailable::Unreachable, format!("{host} does not answer{error}; {kept}"));
    match (upstream, registry) {
        (Upstream::Gone, _) if had == Had::Never => Said::new(
            UpstreamAvailable::NotFound,
            format!(
                "{host} says that it has no such image, and the cache has never had it either: see whether the name is right"
            ),
        ),
        (Upstream::Gone, _) => {
            let retain = if had == Had::Now { ", or set spec.retain to keep this after its last Pod" } else { "" };
            Said::new(
                UpstreamAvailable::Gone,
                format!("{host} says that it has no such image any more; {kept}; move to another one{retain}"),
            )
        }
        (Upstream::Denied, _) => Said::new(
            UpstreamAvailable::Denied,
            format!(
                "{host} gives it to nobody without credentials, which is also what some say of what was deleted; {}",
                if had == Had::Now { kept } else { "nothing of it is cached: Pods need credentials of their own" }
            ),
        ),
        (Upstream::NoAnswer(error), _) => unreachable(&format!(": {error}")),
        (Upstream::NotAsked | Upstream::Has(_) | Upstream::Limited | Upstream::Failing(_), Reachable::Not(_)) => {
            unreachable("")
        }
        (Upstream::Failing(error), _) => {
            Said::new(UpstreamAvailable::Failing, format!("{host} answers with errors: {error}; {kept}"))
        }
        (Upstream::Has(_), _) => Said::new(UpstreamAvailable::Present, format!("{host} has it")),
        (Upstream::Limited, _) => Said::new(
            UpstreamAvailable::RateLimited,
            format!("{host} says that it is asked too much; it is asked again when its quota allows"),
        ),
        (Upstream::NotAsked, _) if is_watched => Said::new(
            UpstreamAvailable::NotChecked,
            "nobody has asked its registry yet: its turn comes within the interval",
        ),
        (Upstream::NotAsked, _) => {
            Said::new(UpstreamAvailable::NotChecked, "its registry is not asked about it: it is left to the engines")
        }
    }
}

/// Whether the cache has what the reference means at its registry.
pub fn up_to_date(image: &Image, cached: Option<&Digest>, upstream: &Upstream, follow: bool) -> Said<UpToDate> {
    match (cached, upstream) {
        (None, _) => Said::new(UpToDate::NotCached, "nothing of it is cached: see the condition Cached"),
        (Some(_), _) if image.is_digest() => Said::new(UpToDate::ByDigest, "a digest means the same for ever"),
        (Some(have), Upstream::Has(there)) if have == there => {
            Said::new(UpToDate::Same, "the tag means at its registry what is cached")
        }
        (Some(have), Upstream::Has(there)) => {
            let what = if follow {
                "it is being fetched"
            } else {
                "nodes get the new one while its registry answers, and the cached one while it does not (spec.follow: true has it fetched)"
            };
            Said::new(UpToDate::Moved, format!("the tag now means {there}, cached is {have}: {what}"))
        }
        (
            Some(_),
            Upstream::NotAsked
            | Upstream::Gone
            | Upstream::Denied
            | Upstream::Limited
            | Upstream::Failing(_)
            | Upstream::NoAnswer(_),
        ) => Said::new(
            UpToDate::NotChecked,
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
        let part = match full {
            Full::Images(_) => "images",
            Full::Bytes { .. } => "bytes",
        };
        write!(
            f,
            ": older ones stay; raise controller.perNamespace.namespaces.{namespace}.{part} in the chart (--namespace-bound {namespace}={part}:…), or delete what it \
             does not need"
        )
    }
}

/// Bytes in words.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests;

use larder_api::condition::{Reason, Truth};
use larder_oci::Algorithm;

use super::*;
use crate::decide::Moment;

fn image() -> Image {
    Image::parse("ghcr.io/team/app:1").unwrap()
}

fn by_digest() -> Image {
    image().at(&digest("a"))
}

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn over(full: Full) -> NotPinned {
    NotPinned::OverBound(OverBound { namespace: "shop".into(), full })
}

fn every_cached() -> Vec<Condition> {
    let error = || "ghcr.io: it says so".to_owned();
    let beside = Beside::default();
    let mut all: Vec<Condition> = [
        Pin::NoAnswer("connection refused".into()),
        Pin::None,
        Pin::Queued,
        Pin::Fetching(5 << 20, 3 << 30),
        Pin::Complete(900),
        Pin::Waiting(error()),
        Pin::Private(error()),
        Pin::NotFound(error()),
        Pin::Refused(error()),
    ]
    .iter()
    .map(|pin| cached(pin, beside, None))
    .collect();
    let done = Pin::Complete(1 << 20);
    all.push(cached(&done, Beside { missing_digests: 2, keeps_older: false }, None));
    all.push(cached(&Pin::Fetching(1 << 20, 1 << 21), Beside { missing_digests: 0, keeps_older: true }, None));
    for why in [
        NotPinned::Observing,
        NotPinned::Skipped("skip is set in the UpstreamRegistry of ghcr.io: it is left to the engines".into()),
        NotPinned::Invalid("spec.platforms: linux".into()),
        over(Full::Images(20)),
        over(Full::Bytes { allowed: 10 << 30, taken: 9 << 30, own: 2 << 30 }),
    ] {
        all.push(cached(&Pin::None, beside, Some(&why)));
    }
    all
}

fn every_upstream() -> Vec<Upstream> {
    vec![
        Upstream::NotAsked,
        Upstream::Has(digest("a")),
        Upstream::Gone,
        Upstream::Denied,
        Upstream::Limited,
        Upstream::Failing("503 Service Unavailable".into()),
        Upstream::NoAnswer("no answer within 10 s".into()),
    ]
}

fn every_available() -> Vec<Condition> {
    let mut all = Vec::new();
    for registry in [Reachable::Unknown, Reachable::Not(Moment::default())] {
        for is_cached in [true, false] {
            all.extend(
                every_upstream().iter().map(|upstream| upstream_available(&image(), upstream, registry, is_cached)),
            );
        }
    }
    all
}

fn every_up_to_date() -> Vec<Condition> {
    let mut all = vec![
        up_to_date(&image(), None, &Upstream::NotAsked, false),
        up_to_date(&by_digest(), Some(&digest("a")), &Upstream::Gone, false),
        up_to_date(&image(), Some(&digest("b")), &Upstream::Has(digest("a")), true),
        up_to_date(&image(), Some(&digest("b")), &Upstream::Has(digest("a")), false),
    ];
    all.extend(every_upstream().iter().map(|upstream| up_to_date(&image(), Some(&digest("a")), upstream, false)));
    all
}

/// Each reason is a word of the custom resource, with the same truth, and each of its words can be said.
fn is_spoken<R: Reason>(conditions: &[Condition]) {
    for condition in conditions {
        let word = R::ALL.iter().find(|word| word.as_str() == condition.reason);
        let word = word.unwrap_or_else(|| panic!("{} has no reason {}", R::CONDITION, condition.reason));
        let truth = match condition.status {
            Status::True => Truth::True,
            Status::False => Truth::False,
            Status::Unknown => Truth::Unknown,
        };
        assert_eq!(word.truth(), truth, "{}", condition.reason);
    }
    for word in R::ALL {
        assert!(conditions.iter().any(|condition| condition.reason == word.as_str()), "nobody says {}", word.as_str());
    }
}

#[test]
fn words_are_those_of_the_custom_resource() {
    is_spoken::<larder_api::cached_image::Cached>(&every_cached());
    is_spoken::<larder_api::cached_image::UpstreamAvailable>(&every_available());
    is_spoken::<larder_api::cached_image::UpToDate>(&every_up_to_date());
}

#[test]
fn what_a_person_reads() {
    let mut read: Vec<String> = [every_cached(), every_available(), every_up_to_date()]
        .concat()
        .iter()
        .map(|Condition { status, reason, message }| format!("{status:?} {reason}: {message}"))
        .collect();
    read.dedup();
    insta::assert_snapshot!(read.join("\n"));
}

#[test]
fn a_pin_that_is_there_is_told_of_although_it_would_not_be_put_again() {
    let done = cached(&Pin::Complete(1), Beside::default(), Some(&over(Full::Images(1))));
    assert_eq!((done.status, done.reason), (Status::True, "Complete"));
}

#[test]
fn a_registry_that_is_down_is_told_at_once_and_what_it_said_of_the_image_before_that_stays() {
    let down = Reachable::Not(Moment::default());
    let of = |upstream: &Upstream| upstream_available(&image(), upstream, down, true).reason;
    assert_eq!(of(&Upstream::Has(digest("a"))), "Unreachable");
    assert_eq!(of(&Upstream::NotAsked), "Unreachable");
    assert_eq!(of(&Upstream::Gone), "Gone");
    assert_eq!(of(&Upstream::Denied), "Denied");
}

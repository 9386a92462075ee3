use larder_api::condition::Reason;
use larder_oci::Algorithm;

use super::*;
use crate::decide::Moment;
use crate::decide::quota::KeptQuota;

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

fn kept_for_pulls() -> NotPinned {
    let kept = KeptQuota { percent: 50, until: Moment::from_seconds(1_790_000_040) };
    NotPinned::QuotaKept(kept.words("ghcr.io"))
}

fn every_cached() -> Vec<Said<Cached>> {
    let error = || "ghcr.io: it says so".to_owned();
    let beside = Beside::default();
    let mut all: Vec<Said<Cached>> = [
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
    .map(|pin| cached(pin, &beside, None))
    .collect();
    let done = Pin::Complete(1 << 20);
    all.push(cached(&done, &Beside { missing_digests: 2, ..Beside::default() }, None));
    let odd = Beside { ignored: Some("spec.platforms: linux".into()), ..Beside::default() };
    all.extend([&done, &Pin::None].map(|pin| cached(pin, &odd, None)));
    all.push(cached(&Pin::Fetching(1 << 20, 1 << 21), &Beside { keeps_older: true, ..Beside::default() }, None));
    for kept in [Kept::Retained, Kept::Applied] {
        all.push(cached(&done, &Beside { kept: Some(kept), ..odd.clone() }, None));
    }
    let platforms = Beside { missing_platforms: vec!["linux/arm64".into(), "linux/s390x".into()], ..Beside::default() };
    all.push(cached(&done, &platforms, None));
    all.push(cached(&done, &Beside { refused: Some("400: no such platform".into()), ..platforms }, None));
    for why in [
        NotPinned::Skipped("skip is set in the UpstreamRegistry of ghcr.io: it is left to the engines".into()),
        kept_for_pulls(),
        over(Full::Images(20)),
        over(Full::Bytes { allowed: 10 << 30, taken: 9 << 30, own: 2 << 30 }),
    ] {
        all.push(cached(&Pin::None, &beside, Some(&why)));
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

fn every_available() -> Vec<Said<UpstreamAvailable>> {
    let mut all = Vec::new();
    for registry in [Reachable::Unknown, Reachable::Not(Moment::default())] {
        for had in [Had::Now, Had::Before, Had::Never] {
            all.extend(
                every_upstream().iter().map(|upstream| upstream_available(&image(), upstream, registry, had, true)),
            );
        }
    }
    all.push(upstream_available(&by_digest(), &Upstream::NotAsked, Reachable::Unknown, Had::Now, false));
    all
}

fn every_up_to_date() -> Vec<Said<UpToDate>> {
    let mut all = vec![
        up_to_date(&image(), None, &Upstream::NotAsked, false),
        up_to_date(&by_digest(), Some(&digest("a")), &Upstream::Gone, false),
        up_to_date(&image(), Some(&digest("b")), &Upstream::Has(digest("a")), true),
        up_to_date(&image(), Some(&digest("b")), &Upstream::Has(digest("a")), false),
    ];
    all.extend(every_upstream().iter().map(|upstream| up_to_date(&image(), Some(&digest("a")), upstream, false)));
    all
}

/// Whatever the custom resource can say is said by somebody.
fn is_spoken<R: Reason>(said: &[Said<R>]) {
    for word in R::ALL {
        assert!(said.iter().any(|said| said.reason == *word), "nobody says {}", word.as_str());
    }
}

#[test]
fn every_word_of_the_custom_resource_is_said() {
    is_spoken(&every_cached());
    is_spoken(&every_available());
    is_spoken(&every_up_to_date());
}

fn read<R: Reason>(said: &[Said<R>]) -> Vec<String> {
    said.iter()
        .map(|Said { reason, message }| format!("{} {}: {message}", reason.truth().as_str(), reason.as_str()))
        .collect()
}

#[test]
fn what_a_person_reads() {
    let mut read = [read(&every_cached()), read(&every_available()), read(&every_up_to_date())].concat();
    read.dedup();
    insta::assert_snapshot!(read.join("\n"));
}

/// The cache goes on by itself with what it was asked for; nobody else does, until the quota is back.
#[test]
fn only_what_the_cache_was_not_asked_for_yet_waits_for_a_quota() {
    let kept = kept_for_pulls();
    let of = |pin: &Pin, beside: &Beside| cached(pin, beside, Some(&kept));
    let none = Beside::default();
    assert_eq!(of(&Pin::None, &none).reason, Cached::QuotaKept);
    assert_eq!(of(&Pin::Complete(1), &none).reason, Cached::Complete);
    assert_eq!(of(&Pin::Fetching(1, 2), &none).reason, Cached::Fetching);
    assert_eq!(of(&Pin::Waiting("later".into()), &none).reason, Cached::Retrying);
    assert_eq!(of(&Pin::NoAnswer("nobody".into()), &none).reason, Cached::CacheUnreachable);
    let platforms = Beside { missing_platforms: vec!["linux/arm64".into()], ..Beside::default() };
    let said = of(&Pin::Complete(1), &platforms);
    assert!(said.reason == Cached::Incomplete && said.message.contains("keepQuotaPercent"), "{}", said.message);
}

#[test]
fn a_pin_that_is_there_is_told_of_although_it_would_not_be_put_again() {
    let over = over(Full::Images(1));
    let of = |pin: &Pin, beside: &Beside| cached(pin, beside, Some(&over)).reason;
    assert_eq!(of(&Pin::Complete(1), &Beside::default()), Cached::Complete);
    assert_eq!(of(&Pin::Waiting("later".into()), &Beside::default()), Cached::OverLimit);
    assert_eq!(
        of(&Pin::Waiting("later".into()), &Beside { keeps_older: true, ..Beside::default() }),
        Cached::Incomplete
    );
}

#[test]
fn a_registry_that_is_down_is_told_at_once_and_what_it_said_of_the_image_before_that_stays() {
    let down = Reachable::Not(Moment::default());
    let of = |upstream: &Upstream| upstream_available(&image(), upstream, down, Had::Now, true).reason;
    assert_eq!(of(&Upstream::Has(digest("a"))), UpstreamAvailable::Unreachable);
    assert_eq!(of(&Upstream::NotAsked), UpstreamAvailable::Unreachable);
    assert_eq!(of(&Upstream::Gone), UpstreamAvailable::Gone);
    assert_eq!(of(&Upstream::Denied), UpstreamAvailable::Denied);
}

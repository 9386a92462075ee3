use larder_oci::Algorithm;

use super::*;
use crate::cluster_cache::Amount;
use crate::decide::expiry::MadeBy;

fn image() -> Image {
    Image::parse("ghcr.io/team/app:1").unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn object(status: CachedImageStatus) -> Object {
    Object {
        name: "app".into(),
        uid: "1".into(),
        resource_version: "1".into(),
        generation: Some(1),
        created: Moment::from_seconds(0),
        made_by: MadeBy::Controller,
        image: image(),
        spec: larder_api::CachedImageSpec::default(),
        status,
    }
}

fn pin(state: PinState, error: Option<&str>) -> Pin {
    Pin {
        image: image(),
        platforms: Platforms::of_words(&["linux/amd64".to_owned()]),
        state,
        error: error.map(Into::into),
        code: None,
        digest: (state == PinState::Complete).then(|| digest("a")),
        until_then: None,
        bytes: Amount { known: 900, fetched: 900 },
        blobs: Amount { known: 3, fetched: 3 },
        put_at: Moment::default(),
        last_pull: None,
        confirmed_at: None,
    }
}

/// What is known, which is nothing, unless a test says so.
struct Given {
    before: CachedImageStatus,
    wanted: Option<Wanted>,
    pin: Result<Option<Pin>, &'static str>,
    refused: Option<&'static str>,
    upstream: Upstream,
    made_by: MadeBy,
    retain: bool,
    is_watched: bool,
    platforms: &'static [&'static str],
    now: Moment,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            before: CachedImageStatus::default(),
            wanted: None,
            pin: Ok(None),
            refused: None,
            upstream: Upstream::NotAsked,
            made_by: MadeBy::Controller,
            retain: false,
            is_watched: true,
            platforms: &["linux/amd64"],
            now: Moment::from_seconds(1_700_000_000),
        }
    }
}

fn told(given: Given) -> CachedImageStatus {
    let Given { before, wanted, pin, refused, upstream, made_by, retain, is_watched, platforms, now } = given;
    let spec = larder_api::CachedImageSpec { retain, ..larder_api::CachedImageSpec::default() };
    let platforms: Vec<String> = platforms.iter().map(|word| (*word).to_owned()).collect();
    status(&Facts {
        object: &Object { made_by, spec, ..object(before) },
        wanted: wanted.as_ref(),
        pin: pin.as_ref().map(Option::as_ref).map_err(|words| *words),
        digests: &BTreeMap::new(),
        not_pinned: None,
        ignored: None,
        refused,
        upstream: &upstream,
        registry: Reachable::Unknown,
        checked: (upstream != Upstream::NotAsked).then_some(now),
        is_watched,
        platforms: &Platforms::of_words(&platforms),
        follows: false,
        rules: &Rules::default(),
        now,
    })
}

fn reason(status: &CachedImageStatus) -> Cached {
    get(&status.conditions).unwrap()
}

fn message(status: &CachedImageStatus, condition: &str) -> String {
    status.conditions.iter().find(|known| known.type_ == condition).unwrap().message.clone()
}

#[test]
fn a_pin_is_told_in_the_words_of_the_resource() {
    for (state, code, error, is) in [
        (PinState::Queued, None, None, Cached::Queued),
        (PinState::Fetching, None, None, Cached::Fetching),
        (PinState::Complete, None, None, Cached::Complete),
        (PinState::Waiting, None, Some("ghcr.io cannot be reached for the manifest 1"), Cached::Retrying),
        (PinState::Waiting, Some(Code::NotFound), Some("ghcr.io does not have the manifest 1"), Cached::NotFound),
        (PinState::Refused, Some(Code::Private), Some("ghcr.io wants credentials"), Cached::Private),
        (PinState::Refused, None, Some("the settings do not allow it"), Cached::Refused),
        (PinState::Refused, None, None, Cached::Refused),
    ] {
        let pin = Pin { code, ..pin(state, error) };
        let status = told(Given { pin: Ok(Some(pin)), ..Given::default() });
        assert_eq!(reason(&status), is, "{state:?} {error:?}");
        assert!(message(&status, "Cached").contains(error.unwrap_or_default()), "{status:?}");
    }
    assert_eq!(reason(&told(Given::default())), Cached::Pending);
    let away = Given { pin: Err("nobody answers"), ..Given::default() };
    assert_eq!(reason(&told(away)), Cached::CacheUnreachable);
}

/// Whoever is turned away has no pin, and no turn that would change that.
#[test]
fn a_wish_that_the_cache_does_not_take_is_refused_and_not_pending() {
    let of = |pin| told(Given { pin: Ok(pin), refused: Some("no such platform"), ..Given::default() });
    let refused = of(None);
    assert_eq!((reason(&refused), message(&refused, "Cached").as_str()), (Cached::Refused, "no such platform"));
    assert_eq!(reason(&of(Some(pin(PinState::Waiting, Some("later"))))), Cached::Refused);
    let there = of(Some(pin(PinState::Complete, None)));
    assert_eq!(reason(&there), Cached::Complete, "what is there can be pulled, whatever was asked for since");
}

#[test]
fn a_pin_for_fewer_platforms_than_the_nodes_have_is_incomplete_and_says_which_is_missing() {
    let of = |pin| told(Given { pin: Ok(Some(pin)), platforms: &["linux/amd64", "linux/arm64"], ..Given::default() });
    let done = pin(PinState::Complete, None);
    let status = of(done.clone());
    assert_eq!(reason(&status), Cached::Incomplete);
    assert!(message(&status, "Cached").contains("without linux/arm64:"), "{}", message(&status, "Cached"));
    assert_eq!(status.platforms, ["linux/amd64"], "those that are kept");
    assert_eq!(reason(&of(Pin { platforms: Platforms::All, ..done })), Cached::Complete, "all of them are kept");
}

#[test]
fn nobody_is_promised_a_turn_that_does_not_come() {
    let promised = |is_watched| message(&told(Given { is_watched, ..Given::default() }), "UpstreamAvailable");
    assert!(promised(true).contains("its turn comes within the interval"));
    assert!(!promised(false).contains("its turn comes"), "{}", promised(false));
}

/// Time alone makes a difference of it, which is why an image is looked at now and then although nothing happened.
#[test]
fn while_an_image_is_used_its_last_use_is_told_once_an_hour() {
    let begin = Moment::from_seconds(1_700_000_000);
    let used = |at| Some(Wanted { used_by: 1, last_used: Some(at), ..Wanted::default() });
    let first = told(Given { wanted: used(begin), ..Given::default() });
    assert_eq!(first.last_used, Some(as_time(begin)));
    for (later, is) in [(LAST_USE / 2, Worth::Nothing), (LAST_USE, Worth::Detail)] {
        let now = begin.after(later);
        let again = told(Given { before: first.clone(), wanted: used(now), now, ..Given::default() });
        assert_eq!(worth(&first, &again, LAST_CHECK), is, "{later:?}");
    }
}

/// A registry of which nothing is heard otherwise is asked every minute, and most of the time there is nothing new.
#[test]
fn that_a_registry_says_the_same_again_is_written_once_an_hour() {
    let begin = Moment::from_seconds(1_700_000_000);
    let first = told(Given {
        before: CachedImageStatus { upstream_checked: Some(as_time(begin)), ..CachedImageStatus::default() },
        ..Given::default()
    });
    let asked = |later| CachedImageStatus { upstream_checked: Some(as_time(begin.after(later))), ..first.clone() };
    let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
    for (later, interval, is) in [
        (minute, 6 * hour, Worth::Nothing),
        (59 * minute, 6 * hour, Worth::Nothing),
        (hour, 6 * hour, Worth::Detail),
        // Whoever wants it more often has it so.
        (minute, 10 * minute, Worth::Nothing),
        (10 * minute, 10 * minute, Worth::Detail),
    ] {
        assert_eq!(worth(&first, &asked(later), interval), is, "{later:?} of {interval:?}");
    }
    let moved = CachedImageStatus { upstream_digest: Some("sha256:b".to_owned()), ..asked(minute) };
    assert_eq!(worth(&first, &moved, 6 * hour), Worth::Detail, "it says something else");
    // What was written by a clock that was ahead.
    assert_eq!(worth(&asked(hour * 9_000), &first, 6 * hour), Worth::Detail);
    let never = CachedImageStatus { upstream_checked: None, ..first.clone() };
    assert_eq!(worth(&never, &first, 6 * hour), Worth::Detail);
}

/// Of a pull nobody is told for its own sake more than once an hour, and what a cache has forgotten was so nevertheless.
#[test]
fn the_last_pull_goes_forward_only_and_is_written_once_an_hour() {
    let begin = Moment::from_seconds(1_700_000_000);
    let of = |before: &CachedImageStatus, last_pull: Option<Moment>, now| {
        let pin = Pin { last_pull, ..pin(PinState::Complete, None) };
        told(Given { before: before.clone(), pin: Ok(Some(pin)), now, ..Given::default() })
    };
    let never = of(&CachedImageStatus::default(), None, begin);
    assert_eq!(never.last_pull, None);
    let first = of(&never, Some(begin), begin);
    assert_eq!((first.last_pull.as_ref(), worth(&never, &first, LAST_CHECK)), (Some(&as_time(begin)), Worth::Detail));
    let (minute, day) = (Duration::from_mins(1), Duration::from_hours(24));
    for (later, is) in [(minute, Worth::Nothing), (59 * minute, Worth::Nothing), (60 * minute, Worth::Detail)] {
        let again = of(&first, Some(begin.after(later)), begin.after(day));
        assert_eq!(again.last_pull, Some(as_time(begin.after(later))));
        assert_eq!(worth(&first, &again, LAST_CHECK), is, "{later:?}");
        let with_more = CachedImageStatus { size_bytes: Some(1), ..again };
        assert_eq!(worth(&first, &with_more, LAST_CHECK), Worth::Detail, "with whatever else there is to say");
    }
    // Both go on at once, and neither is anything that happened.
    let asked = |at: Moment, last_pull| CachedImageStatus {
        upstream_checked: Some(as_time(at)),
        ..of(&first, Some(last_pull), begin.after(day))
    };
    let (before, after) = (asked(begin, begin), asked(begin.after(minute), begin.after(minute)));
    assert_eq!(worth(&before, &after, day), Worth::Nothing);
    for (what, known) in [("forgotten", None), ("another replica knows less", Some(begin.before(day)))] {
        assert_eq!(of(&first, known, begin.after(day)).last_pull, first.last_pull, "{what}");
    }
    let away = told(Given { before: first.clone(), pin: Err("nobody answers"), ..Given::default() });
    assert_eq!(away.last_pull, first.last_pull);
    let none = told(Given { before: first.clone(), ..Given::default() });
    assert_eq!(none.last_pull, first.last_pull, "the pin is gone");
    let ahead = of(&first, Some(begin.after(day * 9_000)), begin.after(day));
    assert_eq!(ahead.last_pull, Some(as_time(begin.after(day))), "a clock that is ahead");
}

#[test]
fn a_pin_is_news_when_it_is_other_than_before_and_not_for_when_it_was_pulled() {
    let (before, after) = (Some(Moment::from_seconds(1_700_000_000)), Some(Moment::from_seconds(1_700_000_060)));
    let pulled = |last_pull| Pin { last_pull, ..pin(PinState::Complete, None) };
    let cases = [
        ("unknown", None, pulled(None), true),
        ("the same", Some(pulled(before)), pulled(before), false),
        ("for the first time", Some(pulled(None)), pulled(before), true),
        ("once more", Some(pulled(before)), pulled(after), false),
        ("forgotten", Some(pulled(before)), pulled(None), false),
        ("lost meanwhile", Some(pulled(before)), Pin { last_pull: after, ..pin(PinState::Waiting, None) }, true),
        ("lost and forgotten", Some(pulled(before)), pin(PinState::Waiting, None), true),
    ];
    for (name, known, now, is) in cases {
        assert_eq!(is_news(known.as_ref(), &now), is, "{name}");
    }
}

/// An end, or why there is none, is in one column.
#[test]
fn what_keeps_an_image_without_a_pod_is_said() {
    use MadeBy::{Controller, Person};
    let used = || Some(Wanted { used_by: 1, ..Wanted::default() });
    for (what, made_by, retain, wanted, kept, words) in [
        ("used", Person, true, used(), None, None),
        ("the controller's", Controller, false, None, None, None),
        ("retained", Controller, true, None, Some(Kept::Retained), Some("until spec.retain is false")),
        ("a person's", Person, false, None, Some(Kept::Applied), Some("somebody made or applies this object")),
        ("a person's, retained", Person, true, None, Some(Kept::Retained), Some("until spec.retain is false")),
    ] {
        let pin = Ok(Some(pin(PinState::Complete, None)));
        let status = told(Given { made_by, retain, wanted: wanted.clone(), pin, ..Given::default() });
        let has_end = wanted.is_none() && kept.is_none();
        assert_eq!((status.kept, status.expires_at.is_some()), (kept, has_end), "{what}");
        let message = message(&status, "Cached");
        assert!(words.map_or(!message.contains("no Pod"), |words| message.contains(words)), "{what}: {message}");
    }
}

fn available(status: &CachedImageStatus) -> UpstreamAvailable {
    get(&status.conditions).unwrap()
}

/// What has never been cannot have been deleted.
#[test]
fn gone_is_what_was_there() {
    let with = |status: CachedImageStatus| Given { before: status, upstream: Upstream::Gone, ..Given::default() };
    let held = || Ok(Some(pin(PinState::Complete, None)));
    let digest = || Some(digest("a").to_string());
    let held_by_a_pod = HeldDigest { digest: digest().unwrap(), pods: 1, ..HeldDigest::default() };
    let nothing = CachedImageStatus::default;
    for (what, given, is) in [
        ("misspelt", with(nothing()), UpstreamAvailable::NotFound),
        ("cached", Given { pin: held(), ..with(nothing()) }, UpstreamAvailable::Gone),
        ("cached once", with(CachedImageStatus { digest: digest(), ..nothing() }), UpstreamAvailable::Gone),
        ("lost long ago", with(CachedImageStatus { size_bytes: Some(9), ..nothing() }), UpstreamAvailable::Gone),
        ("once there", with(CachedImageStatus { upstream_digest: digest(), ..nothing() }), UpstreamAvailable::Gone),
        ("it runs", with(CachedImageStatus { digests: vec![held_by_a_pod], ..nothing() }), UpstreamAvailable::Gone),
    ] {
        let status = told(given);
        assert_eq!(available(&status), is, "{what}");
        let words = message(&status, "UpstreamAvailable");
        assert_eq!(words.contains("spec.retain"), status.digest.is_some(), "{what}: {words}");
    }
}

/// Whoever fetches has asked.
#[test]
fn what_a_registry_said_to_whoever_fetched_is_its_word() {
    let begin = Moment::from_seconds(1_700_000_000);
    let coded = |state, code| Pin { code: Some(code), ..pin(state, Some("it says so")) };
    let missing = coded(PinState::Waiting, Code::NotFound);
    let of = |before: &CachedImageStatus, pin: &Pin, now| {
        told(Given { before: before.clone(), pin: Ok(Some(pin.clone())), now, ..Given::default() })
    };
    for (what, pin, is) in [
        ("not there", missing.clone(), UpstreamAvailable::NotFound),
        ("private", coded(PinState::Refused, Code::Private), UpstreamAvailable::Denied),
        ("on its way", pin(PinState::Fetching, None), UpstreamAvailable::NotChecked),
        ("a blob of it", Pin { digest: Some(digest("a")), ..missing.clone() }, UpstreamAvailable::NotChecked),
        ("not permitted", coded(PinState::Refused, Code::NotPermitted), UpstreamAvailable::NotChecked),
    ] {
        let status = of(&CachedImageStatus::default(), &pin, begin);
        assert_eq!(available(&status), is, "{what}");
        let is_said = is != UpstreamAvailable::NotChecked;
        assert_eq!(status.upstream_checked, is_said.then(|| as_time(begin)), "{what}");
    }
    // It is tried again and again.
    let first = of(&CachedImageStatus::default(), &missing, begin);
    let later = begin.after(Duration::from_mins(10));
    let again = of(&first, &missing, later);
    assert_eq!((&again.conditions, &again.upstream_checked), (&first.conditions, &first.upstream_checked));
    assert_eq!(available(&of(&first, &pin(PinState::Fetching, None), later)), UpstreamAvailable::NotFound);
    let there = of(&first, &pin(PinState::Complete, None), later);
    assert_eq!(available(&there), UpstreamAvailable::NotChecked, "it is there by now, and nobody has asked since");
    let said = Given { before: there, pin: Ok(Some(pin(PinState::Complete, None))), ..Given::default() };
    let said = told(Given { upstream: Upstream::Has(digest("a")), ..said });
    assert_eq!(available(&said), UpstreamAvailable::Present);
    // The process after this one has not asked itself.
    let after = of(&said, &pin(PinState::Complete, None), later);
    assert_eq!((&after.digests, after.digests.first().map(|held| held.upstream)), (&said.digests, Some(true)));
}

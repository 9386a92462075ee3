use std::collections::BTreeMap;

use super::*;
use crate::kubernetes::api_server::Bytes;
use crate::own_certificate::kept::{AUTHORITIES, AUTHORITY_KEYS, CERTIFICATE as TLS_CRT, CERTIFICATE_KEY, Unusable};

const DAY: Duration = Duration::from_hours(24);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn cache() -> BTreeSet<String> {
    names(&["cache.larder.svc", "10.0.0.7"])
}

/// What a replica finds that reads what another one wrote.
fn stored(kept: &Kept) -> Option<Kept> {
    Kept::read(&kept.data()).unwrap()
}

fn step(kept: Option<Kept>, now: SystemTime) -> (Kept, Vec<String>) {
    let Next { kept, why } = next(kept, &cache(), now).unwrap();
    // Whatever it is, it is whole, and there is nothing left to do.
    let again = next(stored(&kept), &cache(), now).unwrap();
    assert_eq!(again.why, Vec::<String>::new());
    assert_eq!(again.kept.data(), kept.data());
    assert_eq!(kept.serving.signed_by.as_ref(), Some(&kept.authorities[0].certificate));
    (kept, why)
}

#[test]
fn twelve_years_of_looking_every_day_and_whoever_trusts_what_was_published_a_day_ago_is_served() {
    let (mut kept, why) = step(None, start());
    assert_eq!(why, ["there is no authority yet"]);
    let (mut trusted, mut signers, mut renewals) = (vec![kept.published()], 1, 0);
    for day in 1..12 * 365 {
        let now = start() + day * DAY;
        let before = kept.clone();
        kept = step(stored(&kept), now).0;
        let serving = &kept.serving;
        assert!(serving.lasts.holds(now) && kept.authorities[0].lasts.holds(now), "day {day}");
        assert!(
            trusted.last().unwrap().contains(serving.signed_by.as_ref().unwrap()),
            "day {day}: nobody knows it yet"
        );
        // A node that reads the list only now still knows who signed what another replica shows for a moment longer.
        assert!(kept.published().contains(before.serving.signed_by.as_ref().unwrap()), "day {day}");
        signers += u32::from(kept.authorities[0].certificate != before.authorities[0].certificate);
        renewals += u32::from(serving.certificate != before.serving.certificate);
        assert!(kept.authorities.len() <= 2);
        trusted.push(kept.published());
    }
    assert_eq!((signers, kept.authorities.len()), (2, 1), "one change of authority, and the old one is forgotten");
    assert!((73..=74).contains(&renewals), "{renewals} renewals");
}

#[test]
fn however_an_address_is_written_the_certificate_is_for_it() {
    let wanted = names(&["cache.larder.svc", "FD00:0::7", "0:0:0:0:0:0:0:1", "::ffff:10.0.0.7"]);
    let kept = next(None, &wanted, start()).unwrap().kept;
    let again = next(stored(&kept), &wanted, start() + DAY).unwrap();
    assert_eq!(again.why, Vec::<String>::new());
    assert_eq!(again.kept.serving.names, names(&["cache.larder.svc", "fd00::7", "::1", "::ffff:10.0.0.7"]));
}

#[test]
fn the_next_authority_is_known_for_a_week_before_it_signs() {
    let (first, _) = step(None, start());
    let due = start() + 2434 * DAY;
    let (known, why) = step(stored(&first), due);
    assert!(why.iter().any(|why| why.contains("made known")), "{why:?}");
    assert_eq!(known.authorities.len(), 2);
    assert_eq!(known.authorities[0].certificate, first.authorities[0].certificate);
    let (waiting, _) = step(stored(&known), due + 6 * DAY);
    assert_eq!(waiting.authorities[0].certificate, first.authorities[0].certificate);
    let (signing, _) = step(stored(&waiting), due + 8 * DAY);
    assert_eq!(signing.authorities[0].certificate, known.authorities[1].certificate);
    assert_ne!(signing.serving.certificate, waiting.serving.certificate);
    assert!(signing.authorities[1].key.is_none(), "a key that signs nothing more is not kept");
}

#[test]
fn a_clock_that_jumps_leaves_something_that_holds() {
    let (first, _) = step(None, start());
    let (ahead, why) = step(stored(&first), start() + 30 * 365 * DAY);
    assert!(why[0].starts_with("the authority holds from") && why[0].ends_with("so not now"), "{why:?}");
    // And back again: everything is of the future.
    let (back, _) = step(stored(&ahead), start() + DAY);
    assert!(back.serving.lasts.holds(start() + DAY));
    let late = start() + 91 * DAY;
    let (_, why) = step(stored(&first), late);
    assert!(why[0].starts_with("the certificate holds from"), "{why:?}");
    let (_, why) = step(stored(&first), start() - DAY);
    assert!(why.len() == 2, "neither holds yet: {why:?}");
    assert!(next(None, &cache(), SystemTime::UNIX_EPOCH).is_ok(), "a machine without a clock");
}

#[test]
fn two_replicas_that_want_different_names_come_to_agree() {
    let (first, _) = step(None, start());
    let other = names(&["cache.other.svc"]);
    let wider = next(stored(&first), &other, start()).unwrap();
    assert_eq!(wider.why, ["the certificate is not for cache.other.svc"]);
    assert_eq!(wider.kept.serving.names, cache().union(&other).cloned().collect());
    for wanted in [&cache(), &other] {
        assert!(next(stored(&wider.kept), wanted, start()).unwrap().why.is_empty());
    }
    let (renewed, _) = step(stored(&wider.kept), start() + 61 * DAY);
    assert_eq!(renewed.serving.names, cache(), "what nobody wants any more goes with the next one");
}

fn with(kept: &Kept, key: &str, text: &str) -> BTreeMap<String, Bytes> {
    let mut data = kept.data();
    data.insert(key.to_owned(), Bytes::new(text.as_bytes()));
    data
}

#[test]
fn what_is_damaged_or_somebody_elses_is_left_alone() {
    let (kept, _) = step(None, start());
    let (another, _) = step(None, start());
    let theirs = larder_test_origin::private_certificate(&["cache.larder.svc"]);
    let (certificate, key) = (theirs.certificate, theirs.key);
    let manager = BTreeMap::from([
        ("ca.crt".to_owned(), Bytes::new(theirs.authority)),
        ("tls.crt".to_owned(), Bytes::new(certificate.clone())),
        ("tls.key".to_owned(), Bytes::new(key.clone())),
    ]);
    let password = BTreeMap::from([("password".to_owned(), Bytes::new("x"))]);
    for foreign in [manager, password, with(&kept, TLS_CRT, &certificate)] {
        assert!(matches!(Kept::read(&foreign), Err(Unusable::Foreign(_))), "{foreign:?}");
    }
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    for (name, value) in [
        (TLS_CRT, String::new()),
        (TLS_CRT, cut(&kept.serving.certificate)),
        (TLS_CRT, another.serving.certificate.clone()),
        (CERTIFICATE_KEY, key.clone()),
        (CERTIFICATE_KEY, "nonsense".to_owned()),
        (AUTHORITY_KEYS, String::new()),
        (AUTHORITY_KEYS, key.clone()),
        (AUTHORITY_KEYS, cut(kept.authorities[0].key.as_ref().unwrap().expose())),
        (AUTHORITIES, another.published()),
        (AUTHORITIES, cut(&kept.published())),
    ] {
        let error = Kept::read(&with(&kept, name, &value)).unwrap_err();
        assert!(matches!(&error, Unusable::Damaged(what) if !what.contains("PRIVATE")), "{name}: {error:?}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(kept.serving.key.expose().lines().nth(1).unwrap()), "{shown}");
    }
    let empty: BTreeMap<_, _> = ["tls.crt", "tls.key"].map(|key| (key.to_owned(), Bytes::default())).into();
    assert!(Kept::read(&empty).unwrap().is_none(), "as kubernetes.io/tls begins");
}

//! What every keeper of pins must do: one suite, run against each of them with [`pins_conformance_tests`], or from outside with [`cases`].
//!
//! The store that it is given keeps the same pins; a `bounded` one holds at most [`LIMIT`] bytes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
#![cfg_attr(not(test), expect(dead_code, reason = "no store with a bound is tested from outside"))]

mod again;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
#[cfg(feature = "testing")]
use futures_util::future::BoxFuture;
use larder_oci::{Algorithm, Digest, ImageReference};

use super::{AsOf, Content, Declared, Failed, Holder, Pin, PinName, Pins, Place, Platform, Platforms, Put};
use crate::store::Store;
pub use crate::store::conformance::LIMIT;
use crate::store::conformance::content;
pub(crate) use again::{
    records_of_what_is_complete_are_written_anew, what_an_older_image_loses_is_seen_and_said,
    what_is_complete_is_looked_at_again, what_is_protected_is_complete_once_it_is_put,
};

/// The pins under test, and the store that heeds them.
pub type Kept = (Arc<dyn Pins>, Arc<dyn Store>);

macro_rules! every_pins_case {
    ($then:ident; $($first:tt)*) => {
        $then! { $($first)*
            a_pin_is_got_as_it_was_put, what_is_missing_is_told_until_it_is_there, an_older_one_stays_until_its_successor_is_complete,
            an_older_wish_replaces_nothing, a_deleted_pin_is_gone, pins_are_listed_in_pages, a_listing_goes_on_where_pins_went,
            what_is_not_complete_is_found_again, a_holder_declares_what_is_complete, an_image_of_many_layers_is_one_pin,
            a_pin_that_reaches_too_much_is_refused, what_was_declared_is_taken_back, what_is_complete_is_looked_at_again,
            what_is_protected_is_complete_once_it_is_put, records_of_what_is_complete_are_written_anew,
            what_an_older_image_loses_is_seen_and_said,
        }
    };
}

/// Makes one test of each case. `$make` yields pins and their store, and whatever must outlive them.
#[cfg(test)]
macro_rules! pins_conformance_tests {
    (bounded; $make:expr) => {
        use $crate::pins::conformance::{every_pins_case, pins_test_of_each};
        every_pins_case! { pins_test_of_each; $make; pinned_content_is_not_evicted, what_was_pulled_gives_way_and_no_other_pin,
            what_comes_after_its_pin_is_kept, }
    };
    ($make:expr) => {
        use $crate::pins::conformance::{every_pins_case, pins_test_of_each};
        every_pins_case! { pins_test_of_each; $make; }
    };
}

#[cfg(test)]
macro_rules! pins_test_of_each {
    ($make:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (kept, _keep) = $make;
                $crate::pins::conformance::$case(kept).await;
            }
        )*
    };
}
#[cfg(test)]
pub(crate) use {every_pins_case, pins_conformance_tests, pins_test_of_each};

/// A case, for whoever has other means of running it.
#[cfg(feature = "testing")]
pub type Case = fn(Kept) -> BoxFuture<'static, ()>;

/// The cases, with their names, for a store without a bound.
#[cfg(feature = "testing")]
pub fn cases() -> Vec<(&'static str, Case)> {
    macro_rules! named {
        ($($case:ident),* $(,)?) => { vec![$((stringify!($case), |kept| Box::pin($case(kept)))),*] };
    }
    every_pins_case! { named; }
}

fn holder(text: &str) -> Holder {
    Holder::parse(text).unwrap()
}

fn named(by: &str, image: &str) -> PinName {
    PinName { holder: holder(by), image: ImageReference::parse(image).unwrap() }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Of yesterday: what was pulled long ago is let go of.
fn at(seconds: u64) -> SystemTime {
    static BEGUN: LazyLock<Duration> = LazyLock::new(|| SystemTime::UNIX_EPOCH.elapsed().unwrap());
    SystemTime::UNIX_EPOCH + Duration::from_secs(BEGUN.as_secs() - 86_400 + seconds)
}

/// A pin of blobs with these bytes, the first of which is the root.
fn pin(name: &PinName, put_at: SystemTime, blobs: &[&Bytes]) -> Pin {
    let digests: BTreeSet<Digest> = blobs.iter().map(|bytes| sha256(bytes)).collect();
    let bytes = blobs.iter().map(|bytes| bytes.len() as u64).sum();
    Pin {
        name: name.clone(),
        platforms: Platforms::All,
        put_at,
        content: Some(Content { root: sha256(blobs[0]), digests, bytes }),
    }
}

async fn store_bytes(store: &Arc<dyn Store>, bytes: &Bytes) {
    store.put_bytes(&sha256(bytes), bytes.clone()).await.unwrap();
}

/// All places, page by page.
async fn all(pins: &Arc<dyn Pins>, by: Option<&Holder>, limit: usize) -> Vec<Place> {
    let (mut places, mut after) = (Vec::new(), None);
    loop {
        let page = pins.list(by, after.as_ref(), limit).await.unwrap();
        assert!(page.pins.len() <= limit, "{} of {limit}", page.pins.len());
        places.extend(page.pins.iter().map(|kept| kept.pin.name.place()));
        after = page.next;
        if after.is_none() {
            return places;
        }
    }
}

pub(crate) async fn a_pin_is_got_as_it_was_put((pins, store): Kept) {
    let blob = content(1, 100);
    store_bytes(&store, &blob).await;
    let names = [
        named("me", "reg.example.com/a:1"),
        named("you", "reg.example.com/a:1"),
        named("me", "reg.example.com/a:2"),
        named("me", "reg.example.com:5000/a:1"),
        named("me", &format!("reg.example.com/{}:{}", vec!["a"; 120].join("/"), "t".repeat(128))),
        named("me", &format!("reg.example.com/a@{}", sha256(b"x"))),
        named("pull", "alpine"),
    ];
    for (number, name) in names.iter().enumerate() {
        assert_eq!(pins.get(name).await.unwrap(), None, "{name}");
        let only = Platforms::Only([Platform::parse(&format!("linux/a{number}")).unwrap()].into());
        let platforms = if number == 0 { Platforms::All } else { only };
        let wish = Pin { platforms, ..pin(name, at(number as u64), &[&blob]) };
        assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
        let kept = pins.get(name).await.unwrap().unwrap();
        assert_eq!((kept.pin, kept.complete, kept.older), (wish, true, None));
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(pins.get(name).await.unwrap().unwrap().pin.put_at, at(number as u64), "{name}");
    }
}

pub(crate) async fn what_is_missing_is_told_until_it_is_there((pins, store): Kept) {
    let (name, blobs) = (named("me", "a:1"), [content(2, 100), content(3, 100), content(4, 100)]);
    let wish = Pin { content: None, ..pin(&name, at(0), &[&blobs[0]]) };
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete([].into()));
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.pin, kept.complete), (wish, false));
    let known = pin(&name, at(0), &[&blobs[0], &blobs[1], &blobs[2]]);
    for present in 0..3 {
        let missing = blobs[present..].iter().map(|bytes| sha256(bytes)).collect();
        assert_eq!(pins.put(known.clone()).await.unwrap(), Put::Incomplete(missing));
        assert!(!pins.get(&name).await.unwrap().unwrap().complete);
        store_bytes(&store, &blobs[present]).await;
    }
    assert_eq!(pins.put(known.clone()).await.unwrap(), Put::Complete);
    assert_eq!(pins.put(known.clone()).await.unwrap(), Put::Complete, "as often as one likes");
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.pin, kept.complete, kept.older), (known, true, None));
}

pub(crate) async fn an_older_one_stays_until_its_successor_is_complete((pins, store): Kept) {
    let (name, blobs) = (named("me", "a:1"), [content(5, 100), content(6, 100), content(7, 100)]);
    store_bytes(&store, &blobs[0]).await;
    let old = pin(&name, at(0), &[&blobs[0]]);
    assert_eq!(pins.put(old.clone()).await.unwrap(), Put::Complete);
    let wish = Pin { content: None, ..pin(&name, at(1), &[&blobs[1]]) };
    assert_eq!(pins.put(wish).await.unwrap(), Put::Incomplete([].into()));
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert!(!kept.goes_on_as_planned(), "nobody knows yet what it is");
    assert_eq!(kept.older, old.content);
    let new = pin(&name, at(1), &[&blobs[1]]);
    assert_eq!(pins.put(new.clone()).await.unwrap(), Put::Incomplete([sha256(&blobs[1])].into()));
    // And the next one, before that was ever complete.
    let newer = pin(&name, at(2), &[&blobs[2]]);
    assert_eq!(pins.put(newer.clone()).await.unwrap(), Put::Incomplete([sha256(&blobs[2])].into()));
    assert_eq!(pins.get(&name).await.unwrap().unwrap().older, old.content);
    store_bytes(&store, &blobs[2]).await;
    assert_eq!(pins.put(newer.clone()).await.unwrap(), Put::Complete);
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.pin, kept.complete, kept.older), (newer, true, None));
}

pub(crate) async fn an_older_wish_replaces_nothing((pins, store): Kept) {
    let (name, blobs) = (named("me", "a:1"), [content(8, 100), content(9, 100)]);
    store_bytes(&store, &blobs[0]).await;
    let newer = pin(&name, at(5), &[&blobs[1]]);
    assert_eq!(pins.put(newer.clone()).await.unwrap(), Put::Incomplete([sha256(&blobs[1])].into()));
    assert_eq!(pins.put(pin(&name, at(4), &[&blobs[0]])).await.unwrap(), Put::Superseded);
    assert_eq!(pins.get(&name).await.unwrap().unwrap().pin, newer);
}

pub(crate) async fn a_deleted_pin_is_gone((pins, store): Kept) {
    let (name, other, blob) = (named("me", "a:1"), named("me", "a:2"), content(10, 100));
    store_bytes(&store, &blob).await;
    assert!(!pins.delete(&name).await.unwrap());
    for name in [&name, &other] {
        pins.put(pin(name, at(0), &[&blob])).await.unwrap();
    }
    assert!(pins.delete(&name).await.unwrap());
    assert!(!pins.delete(&name).await.unwrap());
    assert_eq!(pins.get(&name).await.unwrap(), None);
    assert!(pins.get(&other).await.unwrap().is_some());
    assert_eq!(all(&pins, None, 10).await, [other.place()]);
    assert_eq!(pins.put(pin(&name, at(0), &[&blob])).await.unwrap(), Put::Complete);
}

pub(crate) async fn pins_are_listed_in_pages((pins, store): Kept) {
    assert_eq!(all(&pins, None, 10).await, []);
    let blob = content(11, 100);
    store_bytes(&store, &blob).await;
    let mut places = Vec::new();
    for by in ["a", "b", "b.c", "c"] {
        for number in 0..if by == "b" { 40 } else { 5 } {
            let name = named(by, &format!("reg.example.com/image-{number}:1"));
            pins.put(pin(&name, at(0), &[&blob])).await.unwrap();
            places.push(name.place());
        }
    }
    places.sort();
    for limit in [1, 7, 1000] {
        assert_eq!(all(&pins, None, limit).await, places, "{limit} at a time");
        let of_b: Vec<Place> = places.iter().filter(|place| place.holder().as_str() == "b").cloned().collect();
        assert_eq!(all(&pins, Some(&holder("b")), limit).await, of_b, "{limit} at a time");
        assert_eq!(all(&pins, Some(&holder("bb")), limit).await, []);
    }
}

pub(crate) async fn a_listing_goes_on_where_pins_went((pins, store): Kept) {
    let blob = content(12, 100);
    store_bytes(&store, &blob).await;
    let mut names: Vec<PinName> = (0..20).map(|number| named("me", &format!("a:{number}"))).collect();
    names.sort_by_key(PinName::place);
    for name in &names {
        pins.put(pin(name, at(0), &[&blob])).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = pins.list(None, after.as_ref(), 5).await.unwrap();
        for kept in &page.pins {
            seen.push(kept.pin.name.clone());
            assert!(pins.delete(&kept.pin.name).await.unwrap());
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, names);
}

pub(crate) async fn what_is_not_complete_is_found_again((pins, store): Kept) {
    let (here, away) = (content(13, 100), content(14, 100));
    store_bytes(&store, &here).await;
    let mut wanted = BTreeSet::new();
    for number in 0..12 {
        let name = named(if number % 2 == 0 { "me" } else { "you" }, &format!("a:{number}"));
        let blobs: &[&Bytes] = if number % 3 == 0 { &[&here] } else { &[&here, &away] };
        let wish = pin(&name, at(0), blobs);
        pins.put(if number == 1 { Pin { content: None, ..wish } } else { wish }).await.unwrap();
        if number % 3 != 0 {
            wanted.insert(name.place());
        }
    }
    let found = |limit: usize| {
        let pins = Arc::clone(&pins);
        async move {
            let (mut places, mut after) = (Vec::new(), None);
            loop {
                let page = pins.incomplete(after.as_ref(), limit).await.unwrap();
                assert!(page.pins.iter().all(|kept| !kept.complete));
                places.extend(page.pins.iter().map(|kept| kept.pin.name.place()));
                after = page.next;
                if after.is_none() {
                    return places;
                }
            }
        }
    };
    assert_eq!(found(3).await, wanted.iter().cloned().collect::<Vec<_>>());
    store_bytes(&store, &away).await;
    for number in (0..12).filter(|number| number % 3 != 0 && *number != 7) {
        let name = named(if number % 2 == 0 { "me" } else { "you" }, &format!("a:{number}"));
        assert_eq!(pins.put(pin(&name, at(0), &[&here, &away])).await.unwrap(), Put::Complete);
    }
    assert_eq!(found(3).await, [named("you", "a:7").place()]);
    pins.delete(&named("you", "a:7")).await.unwrap();
    assert_eq!(found(3).await, []);
}

pub(crate) async fn a_holder_declares_what_is_complete((pins, store): Kept) {
    let (me, blob, none) = (holder("me"), content(15, 100), &Failed::default());
    assert_eq!(pins.declared(&me).await.unwrap(), None);
    let begun = pins.begin_declaration(&me).await.unwrap();
    let name = named("me", "a:1");
    let wish = pin(&name, at(0), &[&blob]);
    pins.put(wish.clone()).await.unwrap();
    assert_eq!(pins.declare(&me, begun, none).await.unwrap(), Declared::Incomplete(name.clone()));
    assert_eq!(pins.declared(&me).await.unwrap(), None);
    // One that failed stands in nobody's way, and others do.
    let failed = Failed::from_iter([(name.place(), wish.platforms.clone())]);
    let other = named("me", "b:1");
    pins.put(pin(&other, at(0), &[&blob])).await.unwrap();
    assert_eq!(pins.declare(&me, begun, &failed).await.unwrap(), Declared::Incomplete(other.clone()));
    pins.delete(&other).await.unwrap();
    // Nor does it say anything of what is wished for in its place.
    let corrected = Platforms::Only([Platform::parse("linux/amd64").unwrap()].into());
    let tried = Failed::from_iter([(name.place(), corrected)]);
    assert_eq!(pins.declare(&me, begun, &tried).await.unwrap(), Declared::Incomplete(name.clone()));
    assert_eq!(pins.declare(&me, begun, &failed).await.unwrap(), Declared::Done);
    pins.undeclare(&me).await.unwrap();
    assert_eq!(pins.declare(&holder("you"), begun, none).await.unwrap(), Declared::Done, "nobody else's matter");
    store_bytes(&store, &blob).await;
    assert_eq!(pins.put(wish).await.unwrap(), Put::Complete);
    assert_eq!(pins.declare(&me, AsOf(begun.0 + 1_000_000), none).await.unwrap(), Declared::Future);
    assert_eq!(pins.declare(&me, begun, none).await.unwrap(), Declared::Done);
    assert_eq!(pins.declared(&me).await.unwrap(), Some(begun));
    assert_eq!(pins.declare(&me, AsOf(begun.0 - 10), none).await.unwrap(), Declared::Done);
    assert_eq!(pins.declared(&me).await.unwrap(), Some(begun), "an older one says nothing new");
}

pub(crate) async fn what_was_declared_is_taken_back((pins, _): Kept) {
    let (me, you) = (holder("me"), holder("you"));
    pins.undeclare(&me).await.unwrap();
    for by in [&me, &you] {
        let begun = pins.begin_declaration(by).await.unwrap();
        assert_eq!(pins.declare(by, AsOf(begun.0 - 10), &Failed::default()).await.unwrap(), Declared::Done);
        assert_eq!(pins.declare(by, begun, &Failed::default()).await.unwrap(), Declared::Done);
    }
    for _ in 0..2 {
        pins.undeclare(&me).await.unwrap();
        assert_eq!(pins.declared(&me).await.unwrap(), None);
    }
    assert!(pins.declared(&you).await.unwrap().is_some(), "nobody else's matter");
    let begun = pins.begin_declaration(&me).await.unwrap();
    assert_eq!(pins.declare(&me, begun, &Failed::default()).await.unwrap(), Declared::Done);
    assert_eq!(pins.declared(&me).await.unwrap(), Some(begun), "it may come back");
}

pub(crate) async fn an_image_of_many_layers_is_one_pin((pins, store): Kept) {
    let (name, root) = (named("me", "a:1"), content(16, 100));
    store_bytes(&store, &root).await;
    let mut wish = pin(&name, at(0), &[&root]);
    let missing: BTreeSet<Digest> = (0..5000_u32).map(|number| sha256(&number.to_le_bytes())).collect();
    wish.content.as_mut().unwrap().digests.extend(missing.iter().cloned());
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete(missing));
    assert_eq!(pins.get(&name).await.unwrap().unwrap().pin, wish);
}

pub(crate) async fn a_pin_that_reaches_too_much_is_refused((pins, _): Kept) {
    let name = named("me", "a:1");
    let mut wish = pin(&name, at(0), &[&content(17, 10)]);
    let many = (0..=super::MAXIMUM_DIGESTS as u64).map(|number| sha256(&number.to_le_bytes()));
    wish.content.as_mut().unwrap().digests.extend(many);
    let refused = pins.put(wish).await;
    assert!(matches!(refused, Err(super::PinsError::TooLarge(_))), "{refused:?}");
    assert_eq!(pins.get(&name).await.unwrap(), None);
}

const EIGHTH: usize = 128 << 10;

/// Stores blobs until the store must have let go of everything that may go.
async fn flood(store: &Arc<dyn Store>, seed: u64) {
    for number in 0..12 {
        let bytes = content(seed + number, EIGHTH);
        // Full is an answer, too.
        let _ = store.put_bytes(&sha256(&bytes), bytes).await;
    }
}

async fn is_there(store: &Arc<dyn Store>, bytes: &Bytes) -> bool {
    store.keeps(&sha256(bytes)).await.unwrap()
}

pub(crate) async fn pinned_content_is_not_evicted((pins, store): Kept) {
    let (blobs, unpinned) = ([content(20, EIGHTH), content(21, EIGHTH), content(22, EIGHTH)], content(23, EIGHTH));
    for bytes in blobs.iter().chain([&unpinned]) {
        store_bytes(&store, bytes).await;
    }
    let name = named("me", "a:1");
    assert_eq!(pins.put(pin(&name, at(0), &[&blobs[0], &blobs[1], &blobs[2]])).await.unwrap(), Put::Complete);
    flood(&store, 1000).await;
    assert!(!is_there(&store, &unpinned).await, "something has to go");
    for bytes in &blobs {
        assert!(is_there(&store, bytes).await);
    }
    // A successor that is not complete yet keeps them, and what it reaches itself.
    let wish = pin(&name, at(1), &[&blobs[0], &content(24, EIGHTH)]);
    assert!(matches!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete(_)));
    flood(&store, 2000).await;
    for bytes in &blobs {
        assert!(is_there(&store, bytes).await);
    }
    store_bytes(&store, &content(24, EIGHTH)).await;
    assert_eq!(pins.put(wish).await.unwrap(), Put::Complete);
    flood(&store, 3000).await;
    assert!(is_there(&store, &blobs[0]).await && is_there(&store, &content(24, EIGHTH)).await);
    assert!(!is_there(&store, &blobs[1]).await && !is_there(&store, &blobs[2]).await, "nobody's any more");
    pins.delete(&name).await.unwrap();
    flood(&store, 4000).await;
    assert!(!is_there(&store, &blobs[0]).await);
}

pub(crate) async fn what_was_pulled_gives_way_and_no_other_pin((pins, store): Kept) {
    let (pulled, pinned) = ([content(30, EIGHTH), content(31, EIGHTH), content(32, EIGHTH)], content(33, EIGHTH));
    for bytes in pulled.iter().chain([&pinned]) {
        store_bytes(&store, bytes).await;
    }
    for (number, bytes) in pulled.iter().enumerate() {
        let name = named("pull", &format!("a@{}", sha256(bytes)));
        assert_eq!(pins.put(pin(&name, at(number as u64), &[bytes])).await.unwrap(), Put::Complete);
    }
    assert_eq!(pins.put(pin(&named("me", "a:1"), at(0), &[&pinned])).await.unwrap(), Put::Complete);
    // There is room for four more without them.
    for number in 0..20 {
        let bytes = content(5000 + number, EIGHTH);
        store.put_bytes(&sha256(&bytes), bytes).await.unwrap();
    }
    for bytes in pulled.iter().chain([&pinned]) {
        assert!(is_there(&store, bytes).await, "what nobody pinned goes first");
    }
    // Everything is pinned by `pull`, and still something comes.
    for number in 0..20 {
        let bytes = content(6000 + number, EIGHTH);
        store.put_bytes(&sha256(&bytes), bytes.clone()).await.expect("the cache goes on");
        let name = named("pull", &format!("b@{}", sha256(&bytes)));
        assert_eq!(pins.put(pin(&name, at(100 + number), &[&bytes])).await.unwrap(), Put::Complete);
    }
    for bytes in &pulled {
        assert!(!is_there(&store, bytes).await, "the oldest give way");
    }
    assert!(is_there(&store, &content(6019, EIGHTH)).await);
    assert!(is_there(&store, &pinned).await, "nobody else's does");
    assert_eq!(pins.get(&named("pull", &format!("a@{}", sha256(&pulled[0])))).await.unwrap(), None);
    // Full of what holders pinned: it says so, and what is there stays.
    for number in 6013..6019 {
        let bytes = content(number, EIGHTH);
        if is_there(&store, &bytes).await {
            pins.put(pin(&named("me", &format!("b:{number}")), at(0), &[&bytes])).await.unwrap();
        }
    }
    let mut refused = false;
    for number in 0..10 {
        let bytes = content(7000 + number, EIGHTH);
        let put = store.put_bytes(&sha256(&bytes), bytes.clone()).await;
        refused = refused || matches!(put, Err(crate::store::StoreError::Full { .. }));
        if put.is_ok() {
            pins.put(pin(&named("me", &format!("c:{number}")), at(0), &[&bytes])).await.unwrap();
        }
    }
    assert!(refused, "there is no room for ten more");
    assert!(is_there(&store, &pinned).await && is_there(&store, &content(7000, EIGHTH)).await);
}

pub(crate) async fn what_comes_after_its_pin_is_kept((pins, store): Kept) {
    let bytes = content(40, EIGHTH);
    let wish = pin(&named("me", "a:1"), at(0), &[&bytes]);
    assert!(matches!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete(_)));
    store_bytes(&store, &bytes).await;
    flood(&store, 8000).await;
    assert!(is_there(&store, &bytes).await);
    assert_eq!(pins.put(wish).await.unwrap(), Put::Complete);
}

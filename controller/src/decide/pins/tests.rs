use std::time::Duration;

use larder_oci::Algorithm;
use proptest::prelude::*;

use super::*;
use crate::decide::platforms::Platform;

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn on(platform: &str) -> Platforms {
    Platforms::These(BTreeSet::from([Platform::parse(platform).unwrap()]).into())
}

fn wish(text: &str) -> Wish {
    Wish { image: image(text), digests: BTreeSet::new(), platforms: on("linux/amd64"), follow: false, upstream: None }
}

fn complete(image: Image) -> CachePin {
    CachePin { image, platforms: on("linux/amd64"), digest: Some(digest("old")), is_complete: true, has_failed: false }
}

fn now() -> Moment {
    Moment::from_seconds(1_700_000_000)
}

const NONE: &BTreeSet<Image> = &BTreeSet::new();

fn listing(deleted: &BTreeSet<Image>) -> Listing<'_> {
    Listing { is_complete: true, deleted, word: None, let_go: NONE, untouched: NONE }
}

fn planned(wishes: &[Wish], cached: &[CachePin]) -> Plan {
    plan(wishes, cached, listing(NONE), &mut Brake::default(), now())
}

#[test]
fn a_tag_and_each_digest_that_pods_run_are_pinned() {
    let with_digests = Wish { digests: BTreeSet::from([digest("old"), digest("new")]), ..wish("nginx:1") };
    let expected = BTreeSet::from([
        image("nginx:1"),
        image(&format!("nginx@{}", digest("old"))),
        image(&format!("nginx@{}", digest("new"))),
    ]);
    assert_eq!(wanted(&[with_digests]).into_keys().collect::<BTreeSet<_>>(), expected);
    let by_digest = format!("nginx@{}", digest("old"));
    let itself = Wish { digests: BTreeSet::from([digest("old")]), ..wish(&by_digest) };
    assert_eq!(wanted(&[itself]).len(), 1);
}

#[test]
fn two_tags_of_one_digest_want_the_machines_of_both() {
    let one = Wish { digests: BTreeSet::from([digest("a")]), ..wish("x.io/y:1") };
    let two = Wish { digests: BTreeSet::from([digest("a")]), platforms: on("linux/arm64"), ..wish("x.io/y:2") };
    let pins = wanted(&[one, two]);
    assert_eq!(pins.len(), 3);
    assert_eq!(pins[&image("x.io/y").at(&digest("a"))], on("linux/amd64").and(&on("linux/arm64")));
}

#[test]
fn what_is_put_and_why() {
    let moved = |follow, upstream: Option<&str>| Wish { follow, upstream: upstream.map(digest), ..wish("a:1") };
    let other_machines = Wish { platforms: on("linux/arm64"), ..wish("a:1") };
    let incomplete = CachePin { is_complete: false, ..complete(image("a:1")) };
    let there = complete(image("a:1"));
    for (what, wish, cached, why) in [
        ("nothing there", wish("a:1"), None, Some(Why::New)),
        ("there", wish("a:1"), Some(&there), None),
        ("other machines", other_machines, Some(&there), Some(Why::Platforms)),
        ("moved", moved(true, Some("new")), Some(&there), Some(Why::TagMoved)),
        ("moved, not followed", moved(false, Some("new")), Some(&there), None),
        ("not moved", moved(true, Some("old")), Some(&there), None),
        ("not asked", moved(true, None), Some(&there), None),
        ("under way", moved(true, Some("new")), Some(&incomplete), None),
    ] {
        let cached: Vec<CachePin> = cached.into_iter().cloned().collect();
        let plan = planned(&[wish], &cached);
        assert_eq!(plan.put.first().map(|put| put.why), why, "{what}");
        assert_eq!(plan.unchanged, usize::from(why.is_none()), "{what}");
        assert_eq!(plan.delete, Vec::<Image>::new(), "{what}");
    }
}

#[test]
fn only_what_is_not_as_wanted_is_put_again() {
    let old = || Some(digest("old"));
    let [here, elsewhere] = ["linux/amd64", "linux/arm64"].map(on);
    let follows =
        |upstream: Option<&str>| Wish { follow: true, upstream: upstream.map(digest), ..wish("a.example/b:1") };
    let stays = |upstream: Option<&str>| Wish { follow: false, ..follows(upstream) };
    let by_digest = Wish { image: image("a.example/b:1").at(&digest("old")), ..follows(Some("new")) };
    // What is due of one that is not whole, and of one that is.
    let cases = [
        ("what it is now is not known", old(), &here, stays(None), ToDo::ByItself, ToDo::Nothing),
        ("its tag moved, and it does not follow", old(), &here, stays(Some("new")), ToDo::ByItself, ToDo::Nothing),
        ("it follows a tag of which nothing is known", old(), &here, follows(None), ToDo::ByItself, ToDo::Nothing),
        ("it follows, and is that", old(), &here, follows(Some("old")), ToDo::ByItself, ToDo::Nothing),
        ("it follows, and its tag moved", old(), &here, follows(Some("new")), ToDo::Put, ToDo::Put),
        ("a digest has nothing to follow", old(), &here, by_digest, ToDo::ByItself, ToDo::Nothing),
        ("for other machines", old(), &elsewhere, stays(None), ToDo::Put, ToDo::Put),
        ("nobody knows yet what it is", None, &here, stays(None), ToDo::Put, ToDo::Nothing),
    ];
    for (what, digest, platforms, wish, of_a_part, of_all) in cases {
        let whole = CachePin { digest, ..complete(image("a.example/b:1")) };
        let part = CachePin { is_complete: false, ..whole.clone() };
        assert_eq!(part.to_do(platforms, wish.followed()), of_a_part, "{what}");
        assert_eq!(whole.to_do(platforms, wish.followed()), of_all, "{what}");
    }
}

#[test]
fn an_image_whose_object_was_deleted_goes_with_its_digests_and_one_that_nobody_saw_go_stays() {
    let beside = image("nginx").at(&digest("a"));
    let cached = [complete(image("nginx:1")), complete(beside.clone())];
    let mut brake = Brake::default();
    let seen = BTreeSet::from([image("nginx:1")]);
    assert_eq!(plan(&[], &cached, listing(&seen), &mut brake, now()).delete, vec![image("nginx:1"), beside]);
    let held = plan(&[], &cached, listing(NONE), &mut brake, now());
    assert!(matches!(held.ruling, Ruling::Hold(_)));
    assert_eq!(held.delete, Vec::<Image>::new());
    let unlisted = Listing { is_complete: false, ..listing(&seen) };
    assert_eq!(plan(&[], &cached, unlisted, &mut brake, now()).delete, Vec::<Image>::new());
}

#[test]
fn what_expired_with_leave_asks_the_brake_no_more() {
    let images: Vec<Image> = (0..10).map(|n| image(&format!("a.io/b{n}:1"))).collect();
    let beside = image("a.io/b0").at(&digest("a"));
    let cached: Vec<CachePin> = images.iter().cloned().chain([beside.clone()]).map(complete).collect();
    let wishes: Vec<Wish> = images[8..].iter().map(|image| wish(image.as_str())).collect();
    let expired: BTreeSet<Image> = images[..8].iter().cloned().collect();
    let mut brake = Brake::default();
    let held = plan(&wishes, &cached, listing(&expired), &mut brake, now());
    assert!(matches!(held.ruling, Ruling::Hold(Hold { of: 11, to_go: 9, .. })), "{:?}", held.ruling);
    let with_leave = Listing { let_go: &expired, ..listing(&expired) };
    let done = plan(&wishes, &cached, with_leave, &mut brake, now());
    assert_eq!((&done.ruling, done.delete.len(), done.delete.contains(&beside)), (&Ruling::Go, 9, true));
    // Their definition is gone: nothing goes, with leave or without.
    let unlisted = Listing { is_complete: false, ..with_leave };
    assert!(plan(&wishes, &cached, unlisted, &mut brake, now()).delete.is_empty());
    // One that is wanted again stays.
    let again = [&wishes[..], &[wish("a.io/b0:1")]].concat();
    assert!(!plan(&again, &cached, with_leave, &mut brake, now()).delete.contains(&images[0]));
}

#[test]
fn a_word_is_not_asked_for_again_for_what_is_slow_to_go() {
    let cached: Vec<CachePin> = (0..10).map(|n| complete(image(&format!("a.io/b{n}:1")))).collect();
    let mut brake = Brake::default();
    let Ruling::Hold(Hold { word, .. }) = plan(&[], &cached, listing(NONE), &mut brake, now()).ruling else {
        panic!("it is held")
    };
    let said = Listing { word: word.as_deref(), ..listing(NONE) };
    let released = plan(&[], &cached, said, &mut brake, now());
    assert_eq!((released.delete.len(), released.let_go.len()), (10, 10));
    let rest = plan(&[], &cached[4..], Listing { let_go: &released.let_go, ..said }, &mut brake, now());
    assert_eq!((&rest.ruling, rest.delete.len(), rest.let_go.len()), (&Ruling::Go, 6, 6));
}

#[test]
fn what_is_pinned_of_an_object_that_cannot_be_read_stays() {
    let beside = image("nginx").at(&digest("a"));
    let cached = [complete(image("nginx:1")), complete(beside), complete(image("redis:1"))];
    let unreadable = BTreeSet::from([image("nginx:1")]);
    let seen = BTreeSet::from([image("redis:1")]);
    let plan = plan(&[], &cached, Listing { untouched: &unreadable, ..listing(&seen) }, &mut Brake::default(), now());
    assert_eq!(plan.delete, [image("redis:1")]);
}

#[test]
fn when_the_set_may_be_declared() {
    let there = planned(&[wish("a:1")], &[complete(image("a:1"))]);
    assert_eq!(may_declare(true, &there), Ok(()));
    assert_eq!(may_declare(false, &there), Err(NotYet::NotListed));
    let missing = planned(&[wish("a:1")], &[]);
    assert_eq!(may_declare(true, &missing), Err(NotYet::NotSettled));
    let too_many = planned(&[wish("a:1")], &[complete(image("a:1")), complete(image("b:1"))]);
    assert_eq!(may_declare(true, &too_many), Err(NotYet::NotSettled));
    let under_way = CachePin { is_complete: false, ..complete(image("a:1")) };
    assert_eq!(may_declare(true, &planned(&[wish("a:1")], &[under_way])), Err(NotYet::NotSettled));
    let held = planned(&[], &[complete(image("b:1"))]);
    assert_eq!(may_declare(true, &held), Err(NotYet::Held));
    assert_eq!(may_declare(true, &planned(&[], &[])), Ok(()));
}

#[test]
fn what_cannot_be_had_does_not_stand_in_the_way_of_a_declaration() {
    let wishes = [wish("nginx:1"), wish("ngnix:1")];
    let under_way = CachePin { is_complete: false, digest: None, ..complete(image("ngnix:1")) };
    let failed = CachePin { has_failed: true, ..under_way.clone() };
    for (pin, may) in [(under_way, Err(NotYet::NotSettled)), (failed, Ok(()))] {
        let plan = planned(&wishes, &[complete(image("nginx:1")), pin]);
        assert_eq!((plan.delete.len(), plan.put.len()), (0, 0));
        assert_eq!(may_declare(true, &plan), may);
    }
    // Its pin is asked for first.
    assert_eq!(may_declare(true, &planned(&wishes, &[complete(image("nginx:1"))])), Err(NotYet::NotSettled));
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let one =
        (0..8_u8, proptest::collection::btree_set(0..3_u8, 0..3), any::<bool>()).prop_map(|(name, digests, arm)| {
            Wish {
                digests: digests.into_iter().map(|n| digest(&n.to_string())).collect(),
                platforms: on(if arm { "linux/arm64" } else { "linux/amd64" }),
                ..wish(&format!("a.io/{}:{}", name / 2, name % 2))
            }
        });
    proptest::collection::vec(one, 0..12)
}

proptest! {
    /// Carried out, a plan leaves nothing to do, unless something is held back; and it never deletes what is wanted.
    #[test]
    fn a_plan_that_is_carried_out_is_done(before in wishes(), after in wishes()) {
        let deleted: BTreeSet<Image> = before.iter().map(|wish| wish.image.clone()).collect();
        let mut brake = Brake::default();
        let mut cached: Vec<CachePin> = wanted(&before)
            .into_iter()
            .map(|(image, platforms)| CachePin { platforms, ..complete(image) })
            .collect();
        let listing = listing(&deleted);
        let done = plan(&after, &cached, listing, &mut brake, now());
        let wanted = wanted(&after);
        prop_assert!(done.delete.iter().all(|image| !wanted.contains_key(image)));
        prop_assert_eq!(done.put.len() + done.unchanged, wanted.len());
        if matches!(done.ruling, Ruling::Hold(_)) {
            prop_assert_eq!(&done.delete, &Vec::<Image>::new());
            return Ok(());
        }
        cached.retain(|pin| !done.delete.contains(&pin.image) && !done.put.iter().any(|put| put.image == pin.image));
        cached.extend(done.put.iter().map(|put| CachePin { platforms: put.platforms.clone(), ..complete(put.image.clone()) }));
        let again = plan(&after, &cached, listing, &mut brake, now().after(Duration::from_secs(1)));
        prop_assert_eq!(&again.put, &Vec::new());
        prop_assert_eq!(&again.delete, &Vec::<Image>::new());
        prop_assert_eq!(again.unchanged, wanted.len());
        prop_assert!(again.is_settled);
    }
}

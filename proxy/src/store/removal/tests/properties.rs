//! What each rule says by itself, for values of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::setting::{START, Setting, digest, held, label, owner, pin_name};
use super::world::World;
use crate::store::removal::brake::{self, Before};
use crate::store::removal::decide::decide;
use crate::store::removal::holders;
use crate::store::removal::rules::Rules;
use crate::store::removal::{
    Act, Answer, Body, BucketTime, Declaration, Declared, Declarer, Forgetter, Forgotten, Key, Names, Operation,
    PinName, Policy, Reason, Reference, Step, View, Wait, Word,
};

fn names(seed: &str) -> Names {
    Names::new(seed).unwrap()
}

fn hours(hours: u64) -> BucketTime {
    BucketTime(1_000_000_000 + hours * 3600)
}

fn braked(before: Reference, words: &[Word], pins: u64, now: BucketTime) -> (bool, Option<Reference>) {
    let before = Before { own: Some(before), others: None, words };
    let (verdict, reference) = brake::check(pins, before, now, &Policy::default(), Rules::default());
    (verdict.is_err(), reference)
}

proptest! {
    #[test]
    fn the_brake_is_on_just_when_more_than_a_quarter_goes(before in 0_u64..500, pins in 0_u64..500, waited in 0_u64..100) {
        let reference = Reference { pins: before, since: hours(0) };
        let (on, written) = braked(reference, &[], pins, hours(waited));
        let drop = before.saturating_sub(pins);
        let sudden = drop * 4 > before && (drop > Policy::default().small || pins == 0);
        prop_assert_eq!(on, sudden);
        prop_assert!(!on || written.is_none(), "waiting alone must not release it");
        prop_assert!(pins <= before || written.is_some_and(|written| written.pins == pins), "it follows up at once");
    }

    #[test]
    fn within_a_day_no_row_of_small_steps_passes_the_brake(counts in prop::collection::vec(0_u64..200, 1..40)) {
        let mut reference = Reference { pins: 0, since: hours(0) };
        let mut most = 0;
        for (step, pins) in counts.into_iter().enumerate() {
            most = most.max(pins);
            let (on, written) = braked(reference, &[], pins, BucketTime(hours(0).0 + step as u64));
            let drop = most - pins;
            prop_assert!(on || drop * 4 <= most || (drop <= Policy::default().small && pins > 0));
            reference = written.unwrap_or(reference);
        }
    }

    #[test]
    fn a_word_is_good_for_what_it_names(before in 10_u64..500, down_to in 0_u64..500, pins in 0_u64..500, other in 1_u64..9) {
        let reference = Reference { pins: before, since: hours(0) };
        let meant = [Word { reference, down_to }];
        let another = [Word { reference: Reference { since: hours(other), ..reference }, down_to: 0 }];
        let without = braked(reference, &[], pins, hours(1)).0;
        prop_assert_eq!(braked(reference, &meant, pins, hours(1)).0, without && pins < down_to);
        prop_assert_eq!(braked(reference, &another, pins, hours(1)).0, without);
    }

    #[test]
    fn everybody_must_have_spoken_recently(
        clusters in prop::collection::btree_set("[abc]", 0..3),
        declared in prop::collection::btree_map("[abc]", 0_u64..200, 0..3),
        pinning in prop::collection::btree_set("[abc]", 0..3),
    ) {
        let now = BucketTime(hours(0).0);
        let policy = Policy { declared_within: Duration::from_secs(100), ..Policy::default() };
        let told = |ago: &u64| Declaration { as_of: BucketTime(now.0 - ago), modified: now };
        let said: BTreeMap<_, _> = declared.iter().map(|(cluster, ago)| (owner(cluster), told(ago))).collect();
        let known: BTreeSet<_> = clusters.iter().map(|cluster| label(cluster)).collect();
        let pins: BTreeSet<_> = pinning.iter().map(|cluster| owner(cluster)).collect();
        let passed = holders::check(&known, &said, &pins, now, &policy, Rules::default()).is_ok();
        let spoke = |cluster: &String| declared.contains_key(cluster);
        let all = clusters.iter().all(spoke) && pinning.iter().all(spoke) && declared.values().all(|ago| *ago < 100);
        prop_assert_eq!(passed, all && !clusters.is_empty());
    }

    #[test]
    fn keys_are_read_back_and_nothing_else_is(text in "[a-z0-9./-]{0,60}", seed in "[a-z0-9]{1,32}", number in 0_u64..1_000_000) {
        prop_assert!(Key::parse(&text).is_none_or(|key| key.to_string() == text));
        let (unique, time) = (names(&seed).take(), BucketTime(number));
        let reference = Reference { pins: number, since: time };
        for key in [
            Key::Blob(held("d", &seed)),
            Key::Mark(held("d", &seed)),
            Key::Pin(pin_name("a", "one"), unique.clone()),
            Key::Declaration(owner("a"), time, unique.clone()),
            Key::Clock(label("a"), unique.clone()),
            Key::Reference(label("a"), reference, unique),
            Key::Word(label("a"), Word { reference, down_to: number }),
        ] {
            prop_assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
    }
}

#[test]
fn keys_are_written_as_documented() {
    let unique = names("5eed").take();
    let hex = digest("d").hex().to_owned();
    let reference = Reference { pins: 40, since: BucketTime(1_700_000_000) };
    for (key, text) in [
        (Key::Blob(held("d", "5eed")), format!("blobs/sha256/{hex}/5eed.1")),
        (Key::Mark(held("d", "5eed")), format!("condemned/sha256/{hex}/5eed.1")),
        (Key::Pin(pin_name("a", "one"), unique.clone()), "clusters/a/pins/pull/one/5eed.1".into()),
        (
            Key::Declaration(owner("a"), BucketTime(1_700_000_000), unique.clone()),
            "clusters/a/holders/pull/1700000000-5eed.1".into(),
        ),
        (Key::Clock(label("a"), unique.clone()), "clusters/a/removal/clock/5eed.1".into()),
        (Key::Reference(label("a"), reference, unique), "clusters/a/removal/reference/1700000000-40-5eed.1".into()),
        (Key::Word(label("a"), Word { reference, down_to: 7 }), "clusters/a/removal/word/1700000000-40-7".into()),
    ] {
        assert_eq!(key.to_string(), text);
    }
}

/// Two clusters that declared, a pin, a blob that nothing pins.
fn seen() -> View {
    let declared = Declaration { as_of: hours(100), modified: hours(100) };
    View {
        clusters: [label("a")].into(),
        declared: [(owner("a"), declared)].into(),
        reference: Some((Reference { pins: 1, since: hours(0) }, hours(0))),
        pins: BTreeSet::<PinName>::from([pin_name("a", "one")]),
        kept: [digest("kept")].into(),
        blobs: [(held("kept", "g1"), hours(0)), (held("d", "g1"), hours(70))].into(),
        ..View::default()
    }
}

fn acts(view: &View) -> Vec<Act> {
    let decision = decide(view, hours(100), &Policy::default(), Rules::default());
    assert_eq!(decision.verdict, Ok(()));
    decision.acts
}

#[test]
fn what_nothing_pins_is_condemned_once_it_is_old_and_removed_after_the_grace() {
    let mut view = seen();
    let lone = held("d", "g1");
    assert_eq!(acts(&view), [Act::Condemn(lone.clone(), Reason::Unpinned)]);
    view.blobs.insert(lone.clone(), hours(90));
    assert_eq!(acts(&view), [], "a pull may be assembling it");
    for (marked, expected) in [(90, vec![]), (76, vec![Act::Remove(lone.clone(), Reason::Unpinned)])] {
        view.condemned = [(lone.clone(), hours(marked))].into();
        view.condemned_since = view.condemned.clone();
        assert_eq!(acts(&view), expected, "condemned at {marked}");
    }
}

#[test]
fn what_cannot_be_read_stops_everything() {
    let view = View { unreadable: true, ..seen() };
    let decision = decide(&view, hours(100), &Policy::default(), Rules::default());
    assert_eq!((decision.verdict, decision.acts), (Err(Wait::Unreadable), vec![]));
}

#[test]
fn the_first_run_of_a_cluster_compares_with_what_others_know() {
    let view = View { reference: None, others: Some(50), ..seen() };
    let decision = decide(&view, hours(100), &Policy::default(), Rules::default());
    assert_eq!((decision.verdict, decision.acts), (Err(Wait::NothingToCompare), vec![]));
    assert_eq!(decision.reference, Some(Reference { pins: 50, since: hours(100) }));
}

#[test]
fn a_run_does_not_do_more_than_it_may() {
    let mut view = seen();
    view.blobs.extend((0..50).map(|number| (held(&number.to_string(), "g1"), hours(0))));
    let policy = Policy { most: 20, ..Policy::default() };
    assert_eq!(decide(&view, hours(100), &policy, Rules::default()).acts.len(), 20);
}

/// Carries out what a machine wants until it is done, at most `most` operations.
fn run<T>(
    world: &mut World,
    setting: &Setting,
    most: usize,
    mut next: impl FnMut(Option<Answer>) -> Step<T>,
) -> Option<T> {
    let mut answer = None;
    for _ in 0..=most {
        match next(answer.take()) {
            Step::Do(operation) => answer = Some(world.carry_out(&operation, setting)),
            Step::Done(done) => return Some(done),
        }
    }
    None
}

#[test]
fn a_declaration_is_as_old_as_the_look_that_it_speaks_of() {
    let setting = Setting::new("declarer");
    let mut world = World::new(&setting);
    let mut declarer = Declarer::new(owner("a"), names("declarer"));
    let go = |world: &mut World, declarer: &mut Declarer| {
        run(world, &setting, 99, |answer| {
            if let Some(answer) = answer {
                declarer.feed(answer);
            }
            declarer.next()
        })
    };
    world.clock = START + 10;
    assert_eq!(go(&mut world, &mut declarer), Some(Declared::Look));
    world.clock = START + 5000;
    declarer.complete();
    assert_eq!(go(&mut world, &mut declarer), Some(Declared::Done));
    let of = |key: &&Key| matches!(key, Key::Declaration(of, ..) if *of == owner("a"));
    let left: Vec<_> = world.keys().filter(of).cloned().collect();
    assert!(matches!(left.as_slice(), [Key::Declaration(_, BucketTime(as_of), _)] if *as_of == START + 10), "{left:?}");
    assert!(world.keys().all(|key| !matches!(key, Key::Clock(..))), "its clock is left");
}

#[test]
fn a_cluster_that_lives_is_not_forgotten_and_a_dead_one_last_by_its_declarations() {
    let setting = Setting::new("forgetter");
    let forget = |world: &mut World, most| {
        let mut forgetter = Forgetter::new(label("b"), label("a"), setting.policy.clone(), names("forgetter"));
        run(world, &setting, most, |answer| {
            if let Some(answer) = answer {
                forgetter.feed(answer);
            }
            forgetter.next()
        })
    };
    let of = |key: &&Key| key.cluster() == Some(&label("a"));
    let mut world = World::new(&setting);
    let before = world.keys().filter(of).count();
    assert_eq!(forget(&mut world, 99), Some(Forgotten::Alive(BucketTime(START))));
    assert_eq!(world.keys().filter(of).count(), before);

    for killed_after in 0..99 {
        let mut world = World::new(&setting);
        world.clock = START + 1000;
        let late = Operation::Put(Key::Clock(label("a"), names("killed").take()), Body::Empty);
        world.carry_out(&late, &setting);
        let done = forget(&mut world, killed_after);
        let left: Vec<_> = world.keys().filter(of).collect();
        let declared = left.iter().any(|key| matches!(key, Key::Declaration(..)));
        assert!(left.is_empty() || declared, "killed after {killed_after}, and nobody is missed: {left:?}");
        if done == Some(Forgotten::Done) {
            assert!(left.is_empty(), "{left:?}");
            return;
        }
    }
    panic!("it was never done");
}

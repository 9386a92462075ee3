use proptest::prelude::*;

use super::super::brake::ALWAYS;
use super::*;

fn images(numbers: std::ops::Range<usize>) -> BTreeSet<Image> {
    numbers.map(|n| Image::parse(&format!("a.io/image-{n}")).unwrap()).collect()
}

fn minute(minute: i64) -> Moment {
    Moment::from_seconds(1_700_000_000 + minute * 60)
}

#[test]
fn a_clock_far_ahead_or_a_wrong_expiry_deletes_no_object() {
    let mut expiring = Expiring::new("this");
    let due = images(0..60);
    let (may_go, hold) = expiring.rule(100, &due, None, minute(0));
    assert!(may_go.is_empty());
    let hold = hold.unwrap();
    assert_eq!((hold.of, hold.to_go), (100, 60));
    assert!(
        expiring.is_under_way(),
        "whoever is due next, all of them are looked at: a look at none of them would end what somebody was told"
    );
    // All of them, if there are few: an empty cache is nobody's wish unless somebody says so.
    assert!(expiring.rule(5, &images(0..4), None, minute(70)).1.is_some());
    // Once the clock is right nothing is due, and nothing is held.
    assert_eq!(expiring.rule(100, &BTreeSet::new(), None, minute(200)), (&BTreeSet::new(), None));
    assert!(!expiring.is_under_way());
}

#[test]
fn what_another_one_held_is_held_on() {
    let mut expiring = Expiring::new("the next one");
    expiring.inherit();
    assert!(expiring.is_under_way(), "a look at a few of what is due would take those for all of it");
    let (may_go, hold) = expiring.rule(100, &images(0..20), None, minute(0));
    assert!(may_go.is_empty(), "less than a quarter, and part of more");
    let word = hold.unwrap().word;
    assert!(expiring.holds());
    assert_eq!(expiring.rule(100, &images(0..20), word.as_deref(), minute(1)), (&images(0..20), None));
    assert!(!expiring.holds());
}

#[test]
fn a_few_go_by_themselves() {
    let mut expiring = Expiring::new("this");
    let due = images(0..25);
    assert_eq!(expiring.rule(100, &due, None, minute(0)), (&due, None));
    // They are on their way: asked again they still may, and count no more.
    assert_eq!(expiring.rule(100, &due, None, minute(1)), (&due, None));
    // What follows within the hour adds up.
    assert!(expiring.rule(75, &images(25..30), None, minute(2)).1.is_some());
    assert!(expiring.rule(75, &images(25..30), None, minute(70)).1.is_none());
}

#[test]
fn a_word_lets_go_what_it_was_told_of_and_is_not_asked_for_again_on_the_way() {
    let mut expiring = Expiring::new("this");
    let due = images(0..60);
    let word = expiring.rule(100, &due, None, minute(0)).1.unwrap().word.unwrap();
    assert_ne!(word, Brake::new("this").word(&due), "the brake of pins has other words");
    // Two became due since, and one of those that were told of is used again.
    let now_due = images(1..62);
    let (may_go, held) = expiring.rule(100, &now_due, Some(&word), minute(1));
    assert_eq!((may_go, held), (&images(1..60), None));
    // Some are gone, some not yet.
    let rest = images(20..62);
    let (may_go, held) = expiring.rule(81, &rest, Some(&word), minute(2));
    assert_eq!((may_go, held), (&images(20..62), None), "two of forty-one that are left are no more than may go");
    // Nor is it a word for ever.
    let (may_go, held) = expiring.rule(81, &images(62..100), Some(&word), minute(3));
    assert!(may_go.is_empty() && held.is_some());
}

#[test]
fn what_is_used_again_is_not_let_go_any_more() {
    let mut expiring = Expiring::new("this");
    assert!(expiring.rule(100, &images(0..3), None, minute(0)).1.is_none());
    assert_eq!(expiring.rule(100, &images(1..3), None, minute(1)).0, &images(1..3));
    assert_eq!(expiring.rule(100, &images(1..3), None, minute(1)).0, &images(1..3));
}

#[test]
fn what_a_person_reads() {
    let hold = Hold { of: 100, to_go: 60, word: Some("0123456789abcdef".to_owned()) };
    insta::assert_snapshot!(message(&hold, "kubectl annotate … larder.dev/remove="));
}

proptest! {
    /// Whatever becomes due when, without a word never more than a quarter of the most goes within an hour, but a few.
    #[test]
    fn no_sequence_empties_the_list(start in 5_usize..120, steps in proptest::collection::vec((0_usize..40, 0_usize..20), 1..30)) {
        let mut expiring = Expiring::new("this");
        let mut there = images(0..start);
        for (at, (due, are_gone)) in (0_i64..).zip(steps) {
            let due: BTreeSet<Image> = there.iter().take(due).cloned().collect();
            let may_go = expiring.rule(there.len(), &due, None, minute(at)).0.clone();
            prop_assert!(may_go.is_subset(&due));
            for image in may_go.iter().take(are_gone) {
                there.remove(image);
            }
            prop_assert!(there.len() * 4 >= start * 3 || start - there.len() <= ALWAYS, "{} of {start}", there.len());
        }
    }
}

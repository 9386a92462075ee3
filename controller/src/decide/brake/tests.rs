use proptest::prelude::*;

use super::*;

fn images(numbers: std::ops::Range<usize>) -> Vec<Image> {
    numbers.map(|n| Image::parse(&format!("a.io/image-{n}")).unwrap()).collect()
}

fn with(cause: Cause, numbers: std::ops::Range<usize>) -> Vec<(Image, Cause)> {
    images(numbers).into_iter().map(|image| (image, cause)).collect()
}

fn minute(minute: i64) -> Moment {
    Moment::from_seconds(1_700_000_000 + minute * 60)
}

fn pass(before: usize, to_go: &[(Image, Cause)]) -> Pass<'_> {
    Pass { before, to_go, is_listed: true, word: None }
}

fn rule(before: usize, to_go: &[(Image, Cause)]) -> Ruling {
    Brake::default().rule(&pass(before, to_go), minute(0))
}

#[test]
fn a_quarter_may_go_and_no_more() {
    for (before, to_go, goes) in
        [(100, 25, true), (100, 26, false), (12, 3, true), (8, 3, true), (16, 4, true), (15, 4, false)]
    {
        let is = rule(before, &with(Cause::Missing, 0..to_go));
        assert_eq!(is == Ruling::Go, goes, "{to_go} of {before}: {is:?}");
    }
}

#[test]
fn an_empty_list_removes_nothing_but_what_was_seen_to_be_deleted() {
    assert!(matches!(rule(1, &with(Cause::Missing, 0..1)), Ruling::Hold(_)));
    assert!(matches!(rule(3, &with(Cause::Missing, 0..3)), Ruling::Hold(_)));
    assert_eq!(rule(1, &with(Cause::Deleted, 0..1)), Ruling::Go);
    assert_eq!(rule(3, &with(Cause::Deleted, 0..3)), Ruling::Go);
    // A definition that is deleted shows as that many deletions.
    assert!(matches!(rule(4, &with(Cause::Deleted, 0..4)), Ruling::Hold(_)));
    assert_eq!(rule(0, &[]), Ruling::Go);
}

#[test]
fn without_a_list_no_word_helps() {
    let to_go = with(Cause::Deleted, 0..1);
    let given = Brake::default().word(&images(0..1));
    let pass = Pass { is_listed: false, word: Some(&given), ..pass(100, &to_go) };
    assert_eq!(Brake::default().rule(&pass, minute(0)), Ruling::Hold(Hold { of: 100, to_go: 1, word: None }));
}

#[test]
fn the_word_is_for_exactly_the_set_that_was_seen() {
    let mut brake = Brake::default();
    let seen = with(Cause::Missing, 0..50);
    let Ruling::Hold(hold) = brake.rule(&pass(100, &seen), minute(0)) else { panic!("it is held") };
    let given = hold.word.unwrap();
    assert_eq!(given, brake.word(images(0..50).iter().rev()), "in any order");
    assert_ne!(given, Brake::new("another process").word(&images(0..50)));
    let more = with(Cause::Missing, 0..51);
    let said = |to_go| Pass { word: Some(&given), ..pass(100, to_go) };
    assert!(matches!(brake.rule(&said(&more), minute(1)), Ruling::Hold(_)));
    assert_eq!(brake.rule(&said(&seen), minute(2)), Ruling::Go);
    // What is left is what there is from then on.
    assert_eq!(brake.rule(&pass(50, &with(Cause::Missing, 50..60)), minute(3)), Ruling::Go);
    // Who said it once did not say it for ever.
    assert!(matches!(brake.rule(&said(&seen), minute(4)), Ruling::Hold(_)));
}

#[test]
fn small_steps_add_up_within_an_hour() {
    let mut brake = Brake::default();
    assert_eq!(brake.rule(&pass(100, &with(Cause::Missing, 0..20)), minute(0)), Ruling::Go);
    assert!(matches!(
        brake.rule(&pass(80, &with(Cause::Missing, 20..36)), minute(1)),
        Ruling::Hold(Hold { of: 100, .. })
    ));
    assert_eq!(brake.rule(&pass(80, &with(Cause::Missing, 20..36)), minute(62)), Ruling::Go);
}

#[test]
fn what_was_held_back_does_not_go_because_others_have_come() {
    let mut brake = Brake::default();
    let all = with(Cause::Deleted, 0..19);
    assert!(matches!(brake.rule(&pass(19, &all), minute(0)), Ruling::Hold(_)));
    // Pods have their objects again; what a person had made has not.
    let rest = with(Cause::Missing, 0..8);
    assert!(matches!(brake.rule(&pass(50, &rest), minute(1)), Ruling::Hold(Hold { to_go: 8, .. })));
    assert!(matches!(brake.rule(&pass(500, &with(Cause::Missing, 0..2)), minute(200)), Ruling::Hold(_)));
    // A word lets go exactly them, and no other waits for them.
    let Ruling::Hold(hold) = brake.rule(&pass(500, &with(Cause::Missing, 0..2)), minute(201)) else { panic!("held") };
    let said = with(Cause::Missing, 0..2);
    assert_eq!(brake.rule(&Pass { word: hold.word.as_deref(), ..pass(500, &said) }, minute(202)), Ruling::Go);
    assert_eq!(brake.rule(&pass(498, &with(Cause::Deleted, 20..40)), minute(203)), Ruling::Go);
    // What is wanted again is held no more.
    assert!(matches!(brake.rule(&pass(100, &with(Cause::Deleted, 0..60)), minute(300)), Ruling::Hold(_)));
    assert_eq!(brake.rule(&pass(100, &[]), minute(301)), Ruling::Go);
    assert_eq!(brake.rule(&pass(100, &with(Cause::Deleted, 0..10)), minute(302)), Ruling::Go);
}

#[test]
fn what_another_one_held_is_held_on() {
    let seen = with(Cause::Missing, 0..8);
    let mut brake = Brake::default();
    assert_eq!(brake.rule(&pass(36, &seen), minute(0)), Ruling::Go, "less than a quarter");
    let mut brake = Brake::new("the next one");
    brake.inherit();
    assert!(brake.holds());
    // Without a list nobody knows what it was.
    assert!(matches!(brake.rule(&Pass { is_listed: false, ..pass(36, &seen) }, minute(0)), Ruling::Hold(_)));
    assert!(matches!(brake.rule(&pass(36, &seen), minute(0)), Ruling::Hold(Hold { to_go: 8, .. })));
    let Ruling::Hold(hold) = brake.rule(&pass(500, &seen), minute(200)) else { panic!("held") };
    assert!(brake.holds());
    assert_eq!(brake.rule(&Pass { word: hold.word.as_deref(), ..pass(500, &seen) }, minute(201)), Ruling::Go);
    assert!(!brake.holds());
    // What is gone or wanted again by then is held by nobody, and nothing else is.
    let mut brake = Brake::default();
    brake.inherit();
    assert_eq!(brake.rule(&pass(36, &[]), minute(0)), Ruling::Go);
    assert!(!brake.holds());
    assert_eq!(brake.rule(&pass(36, &seen), minute(1)), Ruling::Go);
}

#[test]
fn what_was_let_go_before_counts_no_more() {
    let mut brake = Brake::default();
    assert_eq!(brake.rule(&pass(100, &[]), minute(0)), Ruling::Go);
    brake.forgive(images(0..60).into_iter().collect());
    assert_eq!(brake.rule(&pass(40, &with(Cause::Deleted, 60..70)), minute(1)), Ruling::Go);
    // Half of them are gone, the others not yet: nothing is forgiven twice.
    brake.forgive(images(30..60).into_iter().collect());
    assert!(matches!(
        brake.rule(&pass(30, &with(Cause::Deleted, 70..72)), minute(2)),
        Ruling::Hold(Hold { of: 40, .. })
    ));
}

#[test]
fn a_clock_that_was_ahead_does_not_hold_for_ever() {
    let mut brake = Brake::default();
    brake.rule(&pass(100, &[]), minute(1_000_000));
    assert!(matches!(brake.rule(&pass(60, &with(Cause::Missing, 0..10)), minute(0)), Ruling::Hold(_)));
    assert_eq!(brake.rule(&pass(60, &with(Cause::Missing, 0..10)), minute(62)), Ruling::Go);
}

#[test]
fn what_a_person_reads() {
    let Ruling::Hold(hold) = rule(4, &with(Cause::Missing, 0..4)) else { panic!("it is held") };
    let no_word = Hold { of: 4, to_go: 4, word: None };
    let read = [hold.message("kubectl annotate … larder.dev/release="), no_word.message("")];
    insta::assert_snapshot!(read.join("\n"));
}

proptest! {
    /// However it is spread over passes, without a word never more than a quarter of the most goes within an hour, but a
    /// few.
    #[test]
    fn no_sequence_empties_the_cache(start in 5_usize..200, steps in proptest::collection::vec(0_usize..40, 1..40)) {
        let mut brake = Brake::default();
        let mut there = start;
        for (at, step) in (0_i64..).zip(steps) {
            let to_go = with(Cause::Deleted, 0..step.min(there));
            if brake.rule(&pass(there, &to_go), minute(at)) == Ruling::Go {
                there -= to_go.len();
            }
            prop_assert!(there * 4 >= start * 3 || start - there <= ALWAYS, "{there} of {start}");
        }
    }
}

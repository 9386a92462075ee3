use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::from_millis(1_700_000_000_000 + millis)
}

fn failed() -> Outcome {
    Outcome::Failed("connection refused".into())
}

fn learn(health: &mut Health, outcomes: &[(u64, Outcome)]) {
    for (millis, outcome) in outcomes {
        health.learn(outcome.clone(), at(*millis));
    }
}

#[test]
fn three_failures_in_a_row_are_down_since_the_first() {
    let mut health = Health::default();
    assert_eq!(health.reachable(), Reachable::Unknown);
    assert!(health.learn(Outcome::Answered, at(0)));
    assert_eq!(health.reachable(), Reachable::Since(at(0)));
    assert!(!health.learn(failed(), at(1000)));
    assert!(!health.learn(failed(), at(1500)));
    assert!(health.learn(failed(), at(2000)));
    assert_eq!(health.reachable(), Reachable::Not(at(1000)));
    assert_eq!(health.last_error(), Some((at(2000), "connection refused")));
}

#[test]
fn two_answers_in_a_row_are_up_since_the_first() {
    let mut health = Health::default();
    learn(&mut health, &[(0, failed()), (1, failed()), (2, failed())]);
    assert!(!health.learn(Outcome::Answered, at(5000)));
    assert!(health.learn(Outcome::Answered, at(6000)));
    assert_eq!(health.reachable(), Reachable::Since(at(5000)));
}

#[test]
fn a_registry_that_is_asked_too_much_is_there() {
    let mut health = Health::default();
    learn(&mut health, &[(0, Outcome::Limited), (1, Outcome::Limited)]);
    assert_eq!(health.reachable(), Reachable::Since(at(0)));
    assert_eq!(health.limited_at(), Some(at(1)));
}

#[test]
fn one_that_goes_up_and_down_must_answer_for_longer() {
    let mut health = Health::default();
    learn(
        &mut health,
        &[(0, failed()), (1, failed()), (2, failed()), (1000, Outcome::Answered), (2000, Outcome::Answered)],
    );
    assert_eq!(health.reachable(), Reachable::Since(at(1000)));
    learn(
        &mut health,
        &[(3000, failed()), (3001, failed()), (3002, failed()), (4000, Outcome::Answered), (5000, Outcome::Answered)],
    );
    assert_eq!(health.reachable(), Reachable::Not(at(3000)));
    assert!(!health.learn(Outcome::Answered, at(33_999)));
    assert!(health.learn(Outcome::Answered, at(34_000)));
    assert_eq!(health.reachable(), Reachable::Since(at(4000)));
}

#[test]
fn what_comes_late_says_nothing_new_and_a_clock_set_back_does() {
    let mut health = Health::default();
    learn(&mut health, &[(3_600_000, Outcome::Answered)]);
    learn(&mut health, &[(3_599_000, failed()), (3_599_001, failed()), (3_599_002, failed())]);
    assert_eq!(health.reachable(), Reachable::Since(at(3_600_000)));
    learn(&mut health, &[(0, failed()), (1, failed()), (2, failed())]);
    assert_eq!(health.reachable(), Reachable::Not(at(0)));
}

proptest! {
    /// However it behaves, it is not said to change more often than once a minute or so, after a few times.
    #[test]
    fn it_does_not_flap(outcomes in proptest::collection::vec(any::<bool>(), 600)) {
        let mut health = Health::default();
        let mut changes = 0;
        for (second, answered) in (0_u64..).zip(outcomes) {
            let outcome = if answered { Outcome::Answered } else { failed() };
            changes += usize::from(health.learn(outcome, at(second * 1000)));
        }
        // Ten minutes: up and down with steps of 0, 30, 60, 90, 120, 150 seconds between, and the first.
        prop_assert!(changes <= 14, "{changes}");
    }

    /// Failures alone are down after three, answers alone up after the longest hold-off.
    #[test]
    fn it_is_right_in_the_end(before in proptest::collection::vec(any::<bool>(), 0..60), good in any::<bool>()) {
        let mut health = Health::default();
        let mut now = 0;
        for answered in before {
            now += 1000;
            health.learn(if answered { Outcome::Answered } else { failed() }, at(now));
        }
        for _ in 0..(if good { 302 } else { 3 }) {
            now += 1000;
            health.learn(if good { Outcome::Answered } else { failed() }, at(now));
        }
        prop_assert_eq!(matches!(health.reachable(), Reachable::Since(_)), good);
    }
}

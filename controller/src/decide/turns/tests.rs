use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn image(registry: usize, name: usize) -> Image {
    Image::parse(&format!("r{registry}.example.com/i{name}")).unwrap()
}

fn nodes(nodes: usize) -> Need {
    Need { nodes, ..Need::default() }
}

fn second(second: i64) -> Moment {
    Moment::from_seconds(1_700_000_000 + second)
}

fn turns(at_most: usize) -> Turns {
    Turns::new(at_most, Backoff::default(), "seed")
}

#[test]
fn what_most_nodes_need_goes_first_and_what_every_node_needs_before() {
    let mut turns = turns(1);
    turns.wait(&image(0, 1), nodes(3));
    turns.wait(&image(0, 2), nodes(7));
    turns.wait(&image(0, 3), Need { is_of_daemon_set: true, ..nodes(1) });
    let mut order = Vec::new();
    while let [next] = turns.next(second(0)).as_slice() {
        order.push(next.clone());
        turns.done(next);
    }
    assert_eq!(order, [image(0, 3), image(0, 2), image(0, 1)]);
    assert_eq!(turns.lengths(), (0, 0, 0));
}

#[test]
fn a_need_that_grows_moves_it_forward_and_it_keeps_its_age() {
    let mut turns = turns(1);
    turns.wait(&image(0, 1), nodes(3));
    turns.wait(&image(0, 2), nodes(2));
    turns.wait(&image(0, 2), nodes(9));
    assert_eq!(turns.next(second(0)), [image(0, 2)]);
    assert_eq!(turns.lengths(), (1, 0, 1));
}

#[test]
fn one_registry_has_no_more_than_half_of_the_places() {
    let mut turns = turns(4);
    for name in 0..9 {
        turns.wait(&image(0, name), nodes(100));
    }
    assert_eq!(turns.next(second(0)).len(), 2);
    turns.wait(&image(1, 0), nodes(1));
    turns.wait(&image(2, 0), nodes(1));
    turns.wait(&image(3, 0), nodes(1));
    assert_eq!(turns.next(second(0)), [image(1, 0), image(2, 0)]);
    assert_eq!(turns.next(second(0)), Vec::<Image>::new());
}

#[test]
fn a_registry_has_the_places_that_a_person_gives_it() {
    let mut turns = turns(4);
    for name in 0..9 {
        turns.wait(&image(0, name), nodes(100));
        turns.wait(&image(1, name), nodes(100));
    }
    turns.limit("r0.example.com", Limit { at_a_time: Some(1), not_before: None });
    turns.limit("r1.example.com", Limit { at_a_time: Some(9), not_before: None });
    let of = |next: &[Image], registry: &str| next.iter().filter(|image| image.registry() == registry).count();
    let next = turns.next(second(0));
    assert_eq!((of(&next, "r0.example.com"), of(&next, "r1.example.com")), (1, 3));
}

#[test]
fn what_is_left_to_pulls_is_not_fetched_until_then() {
    let mut turns = turns(4);
    turns.wait(&image(0, 1), nodes(1));
    turns.wait(&image(1, 1), nodes(1));
    turns.limit("r0.example.com", Limit { at_a_time: None, not_before: Some(second(30)) });
    assert_eq!(turns.next(second(0)), [image(1, 1)]);
    assert_eq!(turns.wakes_at(), Some(second(30)));
    assert_eq!(turns.next(second(30)), [image(0, 1)]);
    assert_eq!(turns.wakes_at(), None, "nobody wakes for what is over");
    turns.wait(&image(0, 2), nodes(1));
    turns.limit("r0.example.com", Limit { at_a_time: None, not_before: Some(second(60)) });
    turns.limit("r0.example.com", Limit::default());
    assert_eq!(turns.next(second(31)), [image(0, 2)], "its quota is back");
}

#[test]
fn what_failed_rests_and_longer_each_time() {
    let mut turns = turns(1);
    turns.wait(&image(0, 0), nodes(1));
    let mut now = second(0);
    let mut before = Duration::ZERO;
    for _ in 0..6 {
        let next = turns.next(now);
        assert_eq!(next, [image(0, 0)]);
        let at = turns.failed(&next[0], now).unwrap();
        assert_eq!(turns.wakes_at(), Some(at));
        assert!(at.since(now) > before.mul_f64(1.1), "{:?} after {before:?}", at.since(now));
        before = at.since(now);
        assert_eq!(turns.next(at.before(Duration::from_millis(1))), Vec::<Image>::new());
        now = at;
    }
}

#[test]
fn what_failed_is_known_to_have_while_it_is_tried_again() {
    let mut turns = turns(1);
    turns.wait(&image(0, 0), nodes(1));
    turns.next(second(0));
    assert!(!turns.has_failed(&image(0, 0)));
    let again = turns.failed(&image(0, 0), second(0)).unwrap();
    assert!(turns.has_failed(&image(0, 0)));
    assert_eq!(turns.next(again), [image(0, 0)]);
    assert!(turns.has_failed(&image(0, 0)));
    // For other platforms: that was not tried yet, and waits as what failed does.
    turns.is_wanted_otherwise(&image(0, 0));
    assert!(!turns.has_failed(&image(0, 0)));
    let later = turns.failed(&image(0, 0), again).unwrap();
    assert!(turns.has_failed(&image(0, 0)) && later.since(again) > again.since(second(0)));
    turns.next(later);
    turns.done(&image(0, 0));
    assert!(!turns.has_failed(&image(0, 0)));
}

#[test]
fn a_clock_that_is_set_back_lets_nothing_rest_for_ever() {
    let mut turns = turns(1);
    turns.wait(&image(0, 0), nodes(1));
    let ahead = second(1_000_000_000);
    turns.next(ahead);
    turns.failed(&image(0, 0), ahead);
    assert_eq!(turns.next(second(0)), Vec::<Image>::new());
    assert!(turns.wakes_at().unwrap() <= second(0).after(Backoff::default().longest * 2));
    assert_eq!(turns.next(turns.wakes_at().unwrap()), [image(0, 0)]);
}

#[test]
fn what_is_given_up_does_not_come_back() {
    let mut turns = turns(1);
    turns.wait(&image(0, 0), nodes(1));
    turns.wait(&image(0, 1), nodes(2));
    assert_eq!(turns.next(second(0)), [image(0, 1)]);
    turns.give_up(&image(0, 0));
    turns.give_up(&image(0, 1));
    assert_eq!(turns.failed(&image(0, 1), second(1)), None);
    assert_eq!(turns.lengths(), (0, 0, 0));
    // Unless it is wanted again meanwhile.
    turns.wait(&image(0, 1), nodes(2));
    turns.next(second(2));
    turns.give_up(&image(0, 1));
    turns.wait(&image(0, 1), nodes(2));
    assert!(turns.failed(&image(0, 1), second(3)).is_some());
}

#[test]
fn of_registries_that_are_named_no_more_nothing_is_kept() {
    let mut turns = turns(2);
    for registry in 0..50 {
        turns.wait(&image(registry, 0), nodes(1));
        turns.limit(&format!("r{registry}.example.com"), Limit { at_a_time: None, not_before: Some(second(5)) });
        turns.give_up(&image(registry, 0));
    }
    turns.limit("said.example.com", Limit { at_a_time: Some(1), not_before: None });
    turns.wait(&image(1, 1), nodes(1));
    assert_eq!(turns.next(second(5)), [image(1, 1)]);
    assert_eq!(turns.registries.len(), 2, "what is said holds, and what is under way is counted");
    turns.failed(&image(1, 1), second(5));
    turns.next(second(5));
    assert_eq!(turns.registries.len(), 1, "what rests comes back");
    turns.limit("said.example.com", Limit::default());
    assert_eq!(turns.next(second(3_600)), [image(1, 1)]);
    assert_eq!(turns.registries.len(), 1);
}

#[test]
fn a_registry_that_is_forgotten_in_between_does_not_come_before_those_that_wait() {
    let mut turns = turns(1);
    for registry in 0..4 {
        turns.wait(&image(registry, 0), nodes(1));
    }
    for registry in 0..4 {
        assert_eq!(turns.next(second(0)), [image(registry, 0)]);
        if registry == 1 {
            // The first one has had nothing for a while.
            turns.wait(&image(0, 1), nodes(9));
        }
        turns.done(&image(registry, 0));
    }
    assert_eq!(turns.next(second(0)), [image(0, 1)]);
}

#[test]
fn who_never_had_a_turn_changes_nothing() {
    let mut turns = turns(2);
    turns.done(&image(0, 0));
    assert_eq!(turns.failed(&image(0, 0), second(0)), None);
    turns.give_up(&image(0, 0));
    turns.wait(&image(0, 0), nodes(1));
    turns.done(&image(0, 0));
    assert_eq!(turns.lengths(), (1, 0, 0));
}

proptest! {
    /// The bound of the first comment, while more urgent ones keep coming and others keep failing.
    #[test]
    fn nobody_starves(
        ahead in 0_usize..6,
        coming in proptest::collection::vec((0_usize..3, 1_usize..50), 0..80),
        fails in proptest::collection::vec(any::<bool>(), 1..20),
        at_most in 1_usize..5,
    ) {
        let mut turns = turns(at_most);
        for name in 0..ahead {
            turns.wait(&image(0, name), nodes(100));
        }
        let patient = image(0, 999);
        turns.wait(&patient, Need::default());
        let mut coming = coming.into_iter().enumerate();
        let mut fails = fails.into_iter().cycle();
        let mut of_its_registry = 0;
        let mut now = second(0);
        'all: for _ in 0..1000 {
            if let Some((name, (registry, need))) = coming.next() {
                turns.wait(&image(registry, 1000 + name), nodes(need));
            }
            let next = turns.next(now);
            prop_assert!(turns.lengths().2 <= at_most);
            for one in &next {
                of_its_registry += usize::from(one.registry() == patient.registry());
                if *one == patient {
                    break 'all;
                }
            }
            for one in &next {
                if fails.next().unwrap() { turns.failed(one, now); } else { turns.done(one); }
            }
            now = now.after(Duration::from_secs(7));
        }
        prop_assert!(!turns.next(second(0)).contains(&patient) && turns.images.get(&patient).is_some_and(|state| state.place == At::UnderWay));
        prop_assert!(of_its_registry <= 4 * (ahead + 1), "{of_its_registry} turns before it");
    }

    /// A registry with one image gets it fetched although another has a thousand and hangs.
    #[test]
    fn a_registry_that_hangs_stands_in_nobodys_way(at_most in 2_usize..9, others in 1_usize..20) {
        let mut turns = turns(at_most);
        for name in 0..1000 {
            turns.wait(&image(0, name), nodes(1000));
        }
        turns.next(second(0));
        for other in 1..=others {
            turns.wait(&image(other, 0), nodes(1));
        }
        let mut fetched = 0;
        loop {
            let next = turns.next(second(1));
            if next.is_empty() {
                break;
            }
            for one in next.iter().filter(|one| one.registry() != "r0.example.com") {
                turns.done(one);
                fetched += 1;
            }
        }
        prop_assert_eq!(fetched, others);
    }
}

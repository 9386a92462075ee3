use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn image(n: usize) -> Image {
    Image::parse(&format!("r{}.example.com/i{n}", n % 3)).unwrap()
}

fn of_one(n: usize) -> Image {
    Image::parse(&format!("r.example.com/i{n}")).unwrap()
}

fn start() -> Moment {
    Moment::from_seconds(1_700_000_000)
}

/// How many are looked at in each minute from `from` on.
fn minutes(rounds: &mut Rounds, from: Moment, minutes: u64) -> Vec<usize> {
    (0..minutes)
        .map(|minute| {
            let begin = from.after(Duration::from_mins(minute));
            (0..60).map(|second| rounds.take(begin.after(Duration::from_secs(second))).len()).sum()
        })
        .collect()
}

#[test]
fn each_is_looked_at_once_in_an_interval_and_evenly() {
    let mut rounds = Rounds::default();
    for n in 0..1200 {
        rounds.watch(&image(n), HOUR, start());
    }
    let seen = minutes(&mut rounds, start().after(Duration::from_secs(1)), 60);
    assert_eq!(seen.iter().sum::<usize>(), 1200);
    // Twenty a minute; chance makes it a few more or less, and the names are always the same.
    assert!(seen.iter().all(|of_minute| (5..45).contains(of_minute)), "{seen:?}");
    let again = minutes(&mut rounds, start().after(HOUR + Duration::from_secs(1)), 60);
    assert_eq!(again.iter().sum::<usize>(), 1200);
}

#[test]
fn another_interval_makes_no_burst() {
    let mut rounds = Rounds::default();
    for n in 0..1200 {
        rounds.watch(&image(n), HOUR * 24, start());
    }
    minutes(&mut rounds, start(), 10);
    let later = start().after(Duration::from_mins(10));
    for n in 0..1200 {
        rounds.watch(&image(n), HOUR, later);
    }
    let seen = minutes(&mut rounds, later, 60);
    assert!(seen.iter().all(|of_minute| *of_minute < 45), "{seen:?}");
    assert!(seen.iter().sum::<usize>() >= 1199);
}

#[test]
fn saying_the_same_again_changes_nothing() {
    let mut rounds = Rounds::default();
    rounds.watch(&image(0), HOUR, start());
    let due = rounds.wakes_at().unwrap();
    rounds.watch(&image(0), HOUR, due.after(Duration::from_secs(9)));
    assert_eq!(rounds.wakes_at(), Some(due));
    assert_eq!(rounds.take(due), [image(0)]);
    assert_eq!(rounds.wakes_at(), Some(due.after(HOUR)));
    rounds.unwatch(&image(0));
    assert_eq!(rounds.wakes_at(), None);
    assert!(rounds.take(due.after(HOUR * 9)).is_empty());
}

#[test]
fn half_of_a_quota_is_used_evenly_and_the_rest_is_for_pulls() {
    let mut rounds = Rounds::default();
    for n in 0..600 {
        rounds.watch(&of_one(n), HOUR, start());
    }
    let reset = start().after(HOUR);
    rounds.quota("r.example.com", Quota { remaining: 100, reset, refill: None }, None);
    let seen = minutes(&mut rounds, start(), 60);
    let all: usize = seen.iter().sum();
    assert!((45..=50).contains(&all), "{all}");
    assert!(seen.iter().all(|of_minute| *of_minute <= 3), "{seen:?}");
}

#[test]
fn without_quota_there_is_nothing_until_the_reset() {
    let mut rounds = Rounds::default();
    for n in 0..60 {
        rounds.watch(&of_one(n), HOUR, start());
    }
    let reset = start().after(Duration::from_mins(30));
    rounds.quota("r.example.com", Quota { remaining: 1, reset, refill: None }, None);
    rounds.watch(&Image::parse("other.example.com/a").unwrap(), HOUR, start());
    let seen = minutes(&mut rounds, start(), 30);
    assert!(seen.iter().sum::<usize>() <= 1, "only the other registry's: {seen:?}");
    assert!(rounds.wakes_at().unwrap() >= reset.before(Duration::from_secs(1)));
    let seen = minutes(&mut rounds, reset, 30);
    assert!(seen.iter().sum::<usize>() >= 59, "{seen:?}");
    assert!(seen.iter().all(|of_minute| *of_minute <= 60 * A_SECOND as usize));
}

#[test]
fn what_is_kept_for_pulls_is_kept_and_what_comes_back_may_be_used() {
    let mut rounds = Rounds::default();
    for n in 0..600 {
        rounds.watch(&of_one(n), HOUR, start());
    }
    let reset = start().after(HOUR);
    rounds.quota("r.example.com", Quota { remaining: 100, reset, refill: None }, Some(90));
    let all: usize = minutes(&mut rounds, start(), 60).iter().sum();
    assert!((8..=10).contains(&all), "{all}");
    let (refill, reset) = (Some(Duration::from_mins(3)), start().after(HOUR * 2));
    rounds.quota("r.example.com", Quota { remaining: 3, reset, refill }, Some(90));
    let all: usize = minutes(&mut rounds, start().after(HOUR), 60).iter().sum();
    assert!((19..=21).contains(&all), "{all}");
}

#[test]
fn a_registry_that_wants_peace_is_left_in_peace_and_the_others_are_not() {
    let mut rounds = Rounds::default();
    let other = Image::parse("other.example.com/a").unwrap();
    let interval = Duration::from_mins(1);
    rounds.watch(&of_one(1), interval, start());
    rounds.watch(&other, interval, start());
    assert_eq!(rounds.soonest("r.example.com"), Some(&of_one(1)));
    let until = start().after(Duration::from_mins(5));
    rounds.rest("r.example.com", until);
    for second in 0..300 {
        assert!(!rounds.take(start().after(Duration::from_secs(second))).contains(&of_one(1)), "{second}");
    }
    let after: Vec<Image> = (0..61).flat_map(|second| rounds.take(until.after(Duration::from_secs(second)))).collect();
    assert!(after.contains(&of_one(1)) && after.contains(&other));
}

#[test]
fn where_there_is_not_room_for_all_no_registry_is_left_out() {
    let mut rounds = Rounds::default();
    let of = |registry: usize| Image::parse(&format!("r{registry}.example.com/app")).unwrap();
    let interval = Duration::from_secs(1);
    for registry in 0..5 {
        rounds.watch(&of(registry), interval, start());
    }
    let mut seen = std::collections::BTreeMap::new();
    for second in 1..=10 {
        let now = start().after(Duration::from_secs(second));
        assert!(rounds.take_at_most(0, now).is_empty());
        let taken = rounds.take_at_most(2, now);
        assert_eq!(taken.len(), 2, "the others stay due");
        for (image, _) in taken {
            *seen.entry(image).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [4; 5]);
}

#[test]
fn what_is_looked_at_early_has_its_own_turn_as_well() {
    let mut rounds = Rounds::default();
    rounds.watch(&image(0), HOUR, start());
    let own = next(&image(0), HOUR, start());
    let before = own.before(Duration::from_secs(10));
    for _ in 0..2 {
        rounds.soon(&image(0), before);
    }
    assert_eq!(rounds.take_at_most(9, before), [(image(0), false)]);
    assert_eq!(rounds.take_at_most(9, own), [(image(0), true)]);
    // It had to wait so long that its own has come meanwhile.
    let before = before.after(HOUR);
    rounds.soon(&image(0), before);
    assert_eq!(rounds.take_at_most(9, own.after(HOUR)), [(image(0), true)]);
    // One that is not looked at any more, and is again.
    rounds.soon(&image(0), before.after(HOUR));
    rounds.unwatch(&image(0));
    rounds.watch(&image(0), Duration::from_secs(1), before.after(HOUR));
    let sooner = next(&image(0), Duration::from_secs(1), before.after(HOUR));
    assert!(sooner < own.after(HOUR * 2));
    assert_eq!(rounds.take_at_most(9, sooner), [(image(0), true)]);
}

#[test]
fn of_registries_that_are_named_no_more_nothing_is_kept() {
    let mut rounds = Rounds::default();
    for n in 0..9 {
        rounds.watch(&image(n), HOUR, start());
        rounds.unwatch(&image(n));
    }
    rounds.quota("quota.example.com", Quota { remaining: 1, reset: start().after(HOUR), refill: None }, None);
    rounds.rest("peace.example.com", start().after(HOUR));
    rounds.take(start());
    assert_eq!(rounds.registries.len(), 2, "what they said holds");
    rounds.take(start().after(HOUR));
    assert!(rounds.registries.is_empty());
}

#[test]
fn a_clock_that_is_set_back_begins_anew() {
    let mut rounds = Rounds::default();
    let ahead = start().after(HOUR * 24 * 365);
    for n in 0..60 {
        rounds.watch(&image(n), HOUR, ahead);
    }
    rounds.take(ahead);
    rounds.take(start());
    assert_eq!(minutes(&mut rounds, start(), 61).iter().sum::<usize>(), 60);
}

proptest! {
    #[test]
    fn the_next_time_is_within_the_interval_and_its_own(n in 0_usize..5000, seconds in 1_u64..200_000, now in 0_u64..4_000_000_000) {
        let (interval, now) = (Duration::from_secs(seconds), Moment::from_millis(now * 1000));
        let at = next(&image(n), interval, now);
        prop_assert!(at > now && at <= now.after(interval));
        // Whoever asks a little later is told the same, until then.
        prop_assert_eq!(next(&image(n), interval, at.before(Duration::from_millis(1))), at);
        prop_assert_eq!(next(&image(n), interval, at), at.after(interval));
    }
}

/// Many at once that nobody has asked for yet are no burst either.
#[test]
fn what_is_asked_out_of_turn_goes_as_fast_as_its_registry_allows_and_has_its_own_turn_after_that() {
    let (begin, interval) = (Moment::from_seconds(1_700_000_000), Duration::from_hours(6));
    let mut rounds = Rounds::default();
    let images: Vec<Image> = (0..100).map(|n| Image::parse(&format!("reg.example.com/app:{n}")).unwrap()).collect();
    for image in &images {
        rounds.soon(image, begin);
        assert!(!rounds.watches(image), "what is not looked at is not looked at soon");
        rounds.watch(image, interval, begin);
        rounds.soon(image, begin);
    }
    assert_eq!(rounds.wakes_at(), Some(begin));
    let mut now = begin;
    let mut taken = Vec::new();
    while taken.len() < images.len() && now.since(begin) < Duration::from_mins(1) {
        let some = rounds.take(now);
        assert!(some.len() <= A_SECOND as usize + 1, "{} at once", some.len());
        taken.extend(some);
        now = now.after(Duration::from_secs(1));
    }
    let seconds = now.since(begin).as_secs();
    assert!((8..=11).contains(&seconds), "{seconds} s");
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), images.len(), "each of them once");
    assert_eq!(rounds.soonest("reg.example.com").map(|image| next(image, interval, now)), rounds.wakes_at());
}

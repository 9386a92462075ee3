use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn day(day: i64) -> Moment {
    Moment::from_seconds(1_700_000_000 + day * 86_400)
}

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn object() -> Object {
    Object {
        uid: "u".into(),
        resource_version: "7".into(),
        made_by: MadeBy::Controller,
        created: day(0),
        retain: false,
        expiry: None,
        last_used: Some(day(0)),
        was_used: false,
        is_never_had: false,
    }
}

#[test]
fn what_nobody_gives_goes_soon_unless_somebody_says_otherwise() {
    let (nginx, hour) = (image("nginx"), day(0).after(NEVER_HAD));
    let never = Object { is_never_had: true, ..object() };
    let ended = Use { has_ended: true, ..unused() };
    for (what, object, by, default, is) in [
        ("an hour", never.clone(), unused(), DAY, Until::Expires(hour)),
        (
            "a shorter default",
            never.clone(),
            unused(),
            Duration::from_secs(3),
            Until::Expires(day(0).after(Duration::from_secs(3))),
        ),
        ("it would come back", never.clone(), ended, DAY, Until::Expires(day(1))),
        ("its own", Object { expiry: Some(2 * DAY), ..never.clone() }, unused(), DAY, Until::Expires(day(2))),
        ("retained", Object { retain: true, ..never.clone() }, unused(), DAY, Until::Retained),
        ("a person's", Object { made_by: MadeBy::Person, ..never }, unused(), DAY, Until::Deleted),
    ] {
        let rules = Rules { default, ..Rules::default() };
        assert_eq!(until(&nginx, &object, by, &rules, day(0)), is, "{what}");
    }
}

fn unused() -> Use {
    Use::default()
}

#[test]
fn until_when_it_is_kept() {
    let nginx = image("nginx");
    let rules = Rules::default();
    let by_hand = Object { made_by: MadeBy::Person, last_used: None, ..object() };
    for (what, object, by, is) in [
        ("used", object(), Use { is_used: true, last_used: None, ..Use::default() }, Until::Used),
        (
            "used and retained",
            Object { retain: true, ..object() },
            Use { is_used: true, last_used: None, ..Use::default() },
            Until::Used,
        ),
        ("retained", Object { retain: true, ..object() }, unused(), Until::Retained),
        ("30 days", object(), unused(), Until::Expires(day(30))),
        ("its own", Object { expiry: Some(DAY), ..object() }, unused(), Until::Expires(day(1))),
        (
            "never used: from when it was made",
            Object { last_used: None, ..object() },
            unused(),
            Until::Expires(day(30)),
        ),
        (
            "used later than recorded",
            object(),
            Use { is_used: false, last_used: Some(day(3)), ..Use::default() },
            Until::Expires(day(33)),
        ),
        (
            "the record is later",
            Object { last_used: Some(day(5)), ..object() },
            Use { is_used: false, last_used: Some(day(3)), ..Use::default() },
            Until::Expires(day(35)),
        ),
        ("by hand", by_hand.clone(), unused(), Until::Deleted),
        ("by hand, with an end", Object { expiry: Some(DAY), ..by_hand.clone() }, unused(), Until::Expires(day(1))),
        (
            "by hand, and a Pod used it since",
            by_hand,
            Use { is_used: false, last_used: Some(day(3)), ..Use::default() },
            Until::Deleted,
        ),
        ("in the future", Object { last_used: Some(day(100)), ..object() }, unused(), Until::Expires(day(130))),
        // The controller was away when the last Pod went.
        ("used when that was written", Object { was_used: true, ..object() }, unused(), Until::Expires(day(40))),
        (
            "so, and a Job used it before",
            Object { was_used: true, ..object() },
            Use { is_used: false, last_used: Some(day(1)), ..Use::default() },
            Until::Expires(day(40)),
        ),
    ] {
        assert_eq!(until(&nginx, &object, by, &rules, day(10)), is, "{what}");
    }
}

#[test]
fn the_longest_prefix_counts_and_it_ends_where_names_end() {
    let prefixes = [("docker.io", 7), ("ghcr.io/team", 3), ("ghcr.io/team/app", 1), ("a.io:5000", 2)];
    let rules = Rules {
        default: DAY * 30,
        prefixes: prefixes.into_iter().map(|(prefix, days)| (prefix.to_owned(), DAY * days)).collect(),
    };
    for (text, days) in [
        ("nginx", 7),
        ("ghcr.io/team/app:1", 1),
        ("ghcr.io/team/app/sub", 1),
        ("ghcr.io/team/apple", 3),
        ("ghcr.io/teams/app", 30),
        ("ghcr.io/other/x", 30),
        ("a.io:5000/x:5", 2),
        ("a.io/x", 30),
    ] {
        assert_eq!(rules.of(&image(text)), DAY * days, "{text}");
    }
}

#[test]
fn what_is_due_is_deleted_as_it_was_looked_at_or_not_at_all() {
    let of = |now| due(&image("nginx"), &object(), unused(), &Rules::default(), now);
    assert_eq!(of(day(30).before(Duration::from_millis(1))), None);
    assert_eq!(of(day(30)), Some(Preconditions { uid: "u".into(), resource_version: "7".into() }));
}

#[test]
fn a_pod_that_ended_long_ago_makes_no_object_that_would_go_at_once() {
    let rules = Rules { default: DAY, prefixes: BTreeMap::new() };
    let ended = |at| Use { is_used: false, last_used: Some(at), ..Use::default() };
    assert!(wants_object(&image("a"), ended(day(0)), &rules, day(0)));
    assert!(!wants_object(&image("a"), ended(day(0)), &rules, day(1)));
    assert!(!wants_object(&image("a"), unused(), &rules, day(0)));
    let none = Rules { default: Duration::ZERO, prefixes: BTreeMap::new() };
    assert!(!wants_object(&image("a"), ended(day(0)), &none, day(0)));
    assert!(wants_object(&image("a"), Use { is_used: true, last_used: None, ..Use::default() }, &none, day(0)));
}

fn moments() -> impl Strategy<Value = Moment> {
    (0..200_i64).prop_map(day)
}

proptest! {
    /// Whatever the clocks say, what is deleted was made, and last used, at least its expiry ago.
    #[test]
    fn nothing_goes_early(
        created in moments(), recorded in proptest::option::of(moments()), seen in proptest::option::of(moments()), now in moments(),
        own in proptest::option::of(0_u32..60), flags in any::<[bool; 4]>(),
    ) {
        let [is_used, retain, was_used, by_person] = flags;
        let made_by = if by_person { MadeBy::Person } else { MadeBy::Controller };
        let expiry = own.map(|days| DAY * days);
        let object = Object { made_by, created, retain, expiry, last_used: recorded, was_used, ..object() };
        let by = Use { is_used, last_used: seen, ..Use::default() };
        let goes = due(&image("a"), &object, by, &Rules::default(), now).is_some();
        let length = expiry.unwrap_or(DEFAULT);
        let last = [Some(created), recorded, seen, was_used.then_some(now)].into_iter().flatten().max().unwrap();
        let may = !is_used && !retain && (!by_person || expiry.is_some()) && last.after(length) <= now;
        prop_assert_eq!(goes, may);
        // A clock that is set back lets nothing go that would have stayed.
        if !goes {
            prop_assert!(due(&image("a"), &object, by, &Rules::default(), now.before(DAY)).is_none());
        }
    }
}

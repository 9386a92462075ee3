//! The beginnings that are walked through, small enough to be walked through whole. Each has what it needs for one kind of
//! trouble; `everything` has it all, and is walked with `LARDER_EXPLORE=deep` only.

use std::time::{Duration, Instant};

use super::explorer::walk;
use super::setting::{START, Setting, digest, held, label, owner, pin_name};
use crate::store::removal::{Body, BucketTime, Key, Names, Operation, Reference, Unique, Word};

/// What one cluster lets go of the other wants at the same moment.
pub(super) fn handed_over() -> Setting {
    let mut setting = Setting::new("handed over");
    setting.blob("d", "g1");
    setting.pin("a", "one", &["d"]);
    setting.unpinner("a", "one");
    setting.pinner("b", "two", &["d"]);
    setting.collectors(&[("a", 2)]);
    setting.faults = 1;
    setting
}

/// A blob is condemned, unpinned and about to go when somebody wants it.
pub(super) fn condemned() -> Setting {
    let mut setting = Setting::new("condemned");
    setting.blob("d", "g1");
    setting.mark("d", "g1");
    setting.pinner("b", "two", &["d"]);
    setting.collectors(&[("a", 1), ("b", 1)]);
    setting.faults = 1;
    setting.pins_stay = true;
    setting
}

/// One run removes what another takes for a witness, and a third tidies up behind it.
pub(super) fn three_runs() -> Setting {
    let mut setting = Setting::new("three runs");
    setting.blob("d", "g1");
    setting.blob("d", "g2");
    setting.mark("d", "g2");
    setting.pinner("b", "two", &["d"]);
    setting.collectors(&[("a", 1), ("b", 2)]);
    setting.pins_stay = true;
    setting
}

/// Three generations of what is pinned, while it is read.
pub(super) fn read_meanwhile() -> Setting {
    let mut setting = Setting::new("read meanwhile");
    for generation in ["g1", "g2", "g3"] {
        setting.blob("d", generation);
    }
    setting.mark("d", "g1");
    setting.pin("a", "one", &["d"]);
    setting.collectors(&[("a", 1), ("b", 1)]);
    setting.reader("d");
    setting.faults = 1;
    setting.pins_stay = true;
    setting
}

/// Two replicas renew one pin at once.
pub(super) fn renewed() -> Setting {
    let mut setting = Setting::new("renewed");
    setting.blob("d", "g1");
    setting.pin("a", "one", &["d"]);
    setting.pinner("a", "one", &["d"]);
    setting.pinner("a", "one", &["d"]);
    setting.collectors(&[("b", 1)]);
    setting.faults = 1;
    setting
}

/// Two replicas go on with two pins of one name that nobody completed yet: each removes those that are lower, `older` says which.
fn continued(first_removes: &[&str], second_removes: &[&str]) -> Setting {
    let mut setting = Setting::new("continued");
    setting.blob("d", "g1");
    setting.mark("d", "g1");
    for seed in ["low", "lower"] {
        let key = Key::Pin(pin_name("a", "one"), Names::new(seed).unwrap().take());
        setting.put(key, Body::Pin([digest("d")].into()));
    }
    setting.continuer(("a", "one"), &["d"], "low", first_removes);
    setting.continuer(("a", "one"), &["d"], "lower", second_removes);
    setting.collectors(&[("b", 1)]);
    setting.faults = 1;
    setting
}

#[test]
fn without_an_order_those_who_go_on_remove_each_other() {
    let walked = walk(&Setting { looks_for: "has no pin", ..continued(&["lower"], &["low"]) }, 1_000_000);
    assert!(walked.violation.is_some());
}

/// An image is unpinned and pinned again by the same name.
pub(super) fn again() -> Setting {
    let mut setting = Setting::new("again");
    setting.blob("d", "g1");
    // As one would be called if pins had but one key each.
    let key = Key::Pin(pin_name("a", "one"), Unique::lowest());
    setting.put(key, Body::Pin([digest("d")].into()));
    setting.unpinner("a", "one");
    setting.pinner("a", "one", &["d"]);
    setting.collectors(&[("b", 2)]);
    setting.faults = 1;
    setting
}

/// A holder has been silent for too long, and what it said long ago arrives now.
pub(super) fn silent() -> Setting {
    let mut setting = Setting::new("silent");
    condemned_alone(&mut setting);
    let old = BucketTime(START - 600);
    setting.declared("b", old.0);
    let late = Key::Declaration(owner("b"), old, Names::new("late").unwrap().take());
    setting.late = vec![Operation::Put(late, Body::Empty)];
    setting.records_stay = false;
    setting
}

/// A holder has pins and never declared.
pub(super) fn undeclared() -> Setting {
    let mut setting = Setting::new("undeclared");
    condemned_alone(&mut setting);
    setting.pin("c", "one", &["other"]);
    setting
}

fn condemned_alone(setting: &mut Setting) {
    setting.blob("d", "g1");
    setting.mark("d", "g1");
    setting.collectors(&[("a", 2), ("b", 2)]);
    setting.faults = 1;
    setting.stays = vec![digest("d")];
    setting.settles = false;
}

/// Half of all pins go at once. There is a word of a person about something else, and an old number arrives late.
pub(super) fn emptied() -> Setting {
    let mut setting = Setting::new("emptied");
    setting.policy(|policy| policy.small = 0);
    for (image, blob) in [("one", "d"), ("two", "e")] {
        setting.blob(blob, "g1");
        let key = setting.pin("b", image, &[blob]);
        setting.mass.push(key);
    }
    setting.pin("b", "three", &["other"]);
    for cluster in ["a", "b"] {
        setting.reference(cluster, 4);
        let another = Reference { pins: 4, since: BucketTime(START - 300) };
        setting.put(Key::Word(label(cluster), Word { reference: another, down_to: 1 }), Body::Empty);
    }
    let old = Reference { pins: 1, since: BucketTime(START - 600) };
    let late = Key::Reference(label("a"), old, Names::new("late").unwrap().take());
    setting.late = vec![Operation::Put(late, Body::Empty)];
    setting.collectors(&[("a", 2), ("b", 1)]);
    setting.stays = vec![digest("d"), digest("e")];
    setting.records_stay = false;
    setting.settles = false;
    setting
}

/// Within the grace, what was let go of can be had again without its origin.
pub(super) fn in_grace() -> Setting {
    let mut setting = Setting { may_fetch: false, origin: false, ..handed_over() };
    setting.name = "in grace";
    setting.policy(|policy| policy.grace = Duration::from_secs(100));
    setting
}

/// Whatever a write of long ago and a delete do that arrive after everything seemed to be over.
pub(super) fn late() -> Setting {
    let mut setting = Setting::new("late");
    setting.blob("d", "g1");
    setting.mark("d", "g1");
    setting.late = vec![Operation::Fetch(held("d", "g1"))];
    setting.pinner("b", "two", &["d"]);
    setting.collectors(&[("a", 2)]);
    setting.faults = 1;
    setting.twice = true;
    setting.pins_stay = true;
    setting.policy(|policy| policy.tombstone = Duration::from_secs(10));
    setting.ticks = (1, 20);
    setting.records_stay = false;
    setting
}

/// Marks of runs that are long over arrive while listings come in pages of one.
pub(super) fn paged() -> Setting {
    let mut setting = Setting::new("paged");
    setting.blob("d", "g1");
    setting.blob("d", "g2");
    // In between and behind, so that a listing can pass the one before the other is marked.
    setting.mark("d", "g15");
    setting.mark("d", "g3");
    setting.policy(|policy| policy.tombstone = Duration::from_secs(100));
    setting.pin("a", "one", &["d"]);
    setting.late = ["g1", "g2"].map(|generation| Operation::Put(Key::Mark(held("d", generation)), Body::Empty)).into();
    setting.collectors(&[("a", 1), ("b", 1)]);
    setting.page = 1;
    setting.pins_stay = true;
    setting
}

/// Two clusters with a collector each, one of which runs twice, one who pins, one who unpins, one who reads, and a fault.
fn everything() -> Setting {
    let mut setting = handed_over();
    setting.name = "everything";
    setting.collectors(&[("b", 1)]);
    setting.reader("d");
    setting
}

/// Walks through all of it. `states`: how many there are, so that a change that makes the walk shorter is seen.
fn holds(setting: &Setting, states: usize) {
    let began = Instant::now();
    let walked = walk(setting, 30_000_000);
    println!("{}: {} states, {} ends, {:?}", setting.name, walked.states, walked.ends, began.elapsed());
    if let Some((what, way)) = walked.violation {
        panic!("{}: {what}\n{}", setting.name, way.join("\n"));
    }
    assert!(walked.ends > 0, "{}: nothing ever came to its end", setting.name);
    assert_eq!(walked.states, states, "{}: if that is meant, the decision names the number too", setting.name);
}

macro_rules! walks {
    ($($name:ident: $setting:expr, $states:literal;)*) => {$(
        #[test]
        fn $name() {
            holds(&$setting, $states);
        }
    )*};
}

walks! {
    what_is_handed_over_stays: handed_over(), 12_986;
    what_is_condemned_is_copied: condemned(), 34_714;
    three_runs_leave_what_is_pinned: three_runs(), 8_630;
    a_reader_finds_what_is_pinned: read_meanwhile(), 24_185;
    two_may_renew_a_pin: renewed(), 79_337;
    a_pin_may_come_back: again(), 83_879;
    two_may_go_on_with_what_is_there: continued(&["lower"], &[]), 7_192;
    nothing_goes_while_a_holder_is_silent: silent(), 44_625;
    nothing_goes_while_a_holder_never_declared: undeclared(), 1_139;
    nothing_goes_while_the_brake_is_on: emptied(), 7_573;
    grace_saves_the_origin: in_grace(), 11_482;
    late_writes_raise_nothing: late(), 112_549;
    two_listings_make_a_witness: paged(), 7_382;
}

/// Minutes in place of seconds: only with `LARDER_EXPLORE=deep`, which `cargo xtask test --all` sets.
fn holds_deep(setting: &Setting, states: usize) {
    if std::env::var("LARDER_EXPLORE").is_ok_and(|how| how == "deep") {
        holds(setting, states);
    } else {
        println!("{}: not walked", setting.name);
    }
}

fn one_fault_more(setting: Setting) -> Setting {
    Setting { faults: setting.faults + 1, ..setting }
}

macro_rules! deep_walks {
    ($($name:ident: $setting:expr, $states:literal;)*) => {$(
        #[test]
        fn $name() {
            holds_deep(&$setting, $states);
        }
    )*};
}

deep_walks! {
    deep_handed_over: one_fault_more(handed_over()), 181_394;
    deep_condemned: one_fault_more(condemned()), 795_431;
    deep_read_meanwhile: one_fault_more(read_meanwhile()), 322_758;
    deep_everything: everything(), 1_968_240;
}

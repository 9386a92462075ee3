use super::*;

fn set(texts: &[&str]) -> BTreeSet<Platform> {
    texts.iter().map(|text| Platform::parse(text).unwrap()).collect()
}

#[test]
fn platforms_are_written_as_they_are_read() {
    for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
        assert_eq!(Platform::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/amd 64", "linux//v7"] {
        assert!(Platform::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_node_is_what_its_labels_say_else_its_kubelet() {
    let linux = Some(Platform::parse("linux/arm64").unwrap());
    assert_eq!(Platform::of_node((Some("linux"), Some("arm64")), (Some("linux"), Some("amd64"))), linux);
    assert_eq!(Platform::of_node((None, None), (Some("linux"), Some("arm64"))), linux);
    assert_eq!(Platform::of_node((Some(""), Some("arm64")), (Some("linux"), None)), linux);
    assert_eq!(Platform::of_node((Some("linux"), None), (None, None)), None);
    assert_eq!(Platform::of_node((Some("a b"), Some("x")), (None, None)), None);
}

#[test]
fn its_own_come_first_and_nothing_known_means_all() {
    let nodes = set(&["linux/amd64", "linux/arm64"]);
    let own = set(&["linux/s390x"]);
    assert_eq!(Platforms::of(&own, &nodes), Platforms::These(own.clone().into()));
    assert_eq!(Platforms::of(&BTreeSet::new(), &nodes), Platforms::These(nodes.clone().into()));
    assert_eq!(Platforms::of(&BTreeSet::new(), &BTreeSet::new()), Platforms::All);
}

#[test]
fn both_means_the_machines_of_both() {
    let these = |texts| Platforms::These(set(texts).into());
    assert_eq!(these(&["linux/amd64"]).and(&these(&["linux/arm64"])), these(&["linux/amd64", "linux/arm64"]));
    assert_eq!(these(&["linux/amd64"]).and(&Platforms::All), Platforms::All);
}

#[test]
fn of_too_many_the_nodes_own_are_kept() {
    let odd: Vec<String> = (0..40).map(|number| format!("a/{number}")).collect();
    let asked = set(&odd.iter().map(String::as_str).chain(["linux/arm64"]).collect::<Vec<_>>());
    let Platforms::These(kept) =
        Platforms::These(asked.clone().into()).at_most(32, &set(&["linux/arm64", "linux/amd64"]))
    else {
        panic!("not all there are")
    };
    assert!(kept.len() == 32 && kept.contains(&Platform::parse("linux/arm64").unwrap()), "{kept:?}");
    assert_eq!(Platforms::These(asked.clone().into()).at_most(41, &BTreeSet::new()), Platforms::These(asked.into()));
    assert_eq!(Platforms::All.at_most(1, &BTreeSet::new()), Platforms::All);
}

#[test]
fn a_pool_that_is_scaled_to_nothing_is_remembered_for_a_week() {
    let (mut remembered, start) = (Remembered::default(), Instant::now());
    let arm = Platform::parse("linux/arm64").unwrap();
    let hours = |hours| start + Duration::from_hours(hours);
    remembered.left(arm.clone(), start);
    let all = |remembered: &Remembered, at| remembered.and(set(&["linux/amd64"]), at);
    assert_eq!(all(&remembered, hours(7 * 24 - 1)), set(&["linux/amd64", "linux/arm64"]));
    assert_eq!(all(&remembered, hours(7 * 24)), set(&["linux/amd64"]));
    // It came back, and went again.
    remembered.left(arm, hours(24));
    assert_eq!(all(&remembered, hours(7 * 24)), set(&["linux/amd64", "linux/arm64"]));
    // The list of nodes is empty: that is no reason to want every platform there is.
    assert_eq!(remembered.and(BTreeSet::new(), hours(48)), set(&["linux/arm64"]));
}

#[test]
fn what_was_pinned_before_counts_from_when_that_was_heard_of() {
    let (mut remembered, start) = (Remembered::default(), Instant::now());
    let hours = |hours| start + Duration::from_hours(hours);
    remembered.learn(set(&["linux/arm64"]), start);
    remembered.learn(set(&["linux/arm64", "linux/s390x"]), hours(24));
    assert_eq!(remembered.and(BTreeSet::new(), hours(7 * 24 - 1)), set(&["linux/arm64", "linux/s390x"]));
    assert_eq!(remembered.and(BTreeSet::new(), hours(7 * 24)), set(&["linux/s390x"]));
}

#[test]
fn what_is_missing_is_what_nothing_there_covers() {
    let of = |words: &[&str]| Platforms::of_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    for (wanted, there, missing) in [
        (&["linux/amd64", "linux/arm64"][..], &["linux/amd64"][..], &["linux/arm64"][..]),
        (&["linux/amd64"], &["linux/amd64", "linux/arm64"], &[]),
        (&["linux/amd64", "linux/arm64"], &[], &[]),
        (&["linux/arm/v7", "linux/arm/v6"], &["linux/arm"], &[]),
        (&["linux/arm"], &["linux/arm/v7"], &["linux/arm"]),
        (&["linux/amd64", "windows/amd64"], &["linux/arm64"], &["linux/amd64", "windows/amd64"]),
        (&[], &["linux/amd64"], &["its other platforms"]),
        (&[], &[], &[]),
    ] {
        assert_eq!(of(wanted).missing_in(&of(there)), missing, "{wanted:?} of {there:?}");
    }
    assert_eq!(of(&["linux/arm64", "linux/amd64"]).words(), ["linux/amd64", "linux/arm64"]);
}

#[test]
fn what_is_alike_is_one_in_memory_and_of_what_differs_nothing_is_lost() {
    let mut alike = Alike::default();
    let these = |text: &str| Platforms::of_words(&[text.to_owned()]);
    let Platforms::These(first) = alike.one(these("linux/amd64")) else { panic!("these") };
    let Platforms::These(second) = alike.one(these("linux/amd64")) else { panic!("these") };
    assert!(Arc::ptr_eq(&first, &second));
    // However many differ.
    for number in 0..40 {
        let text = format!("linux/odd{number}");
        assert_eq!(alike.one(these(&text)), these(&text));
    }
    assert_eq!(alike.one(Platforms::All), Platforms::All);
    assert!(alike.0.len() <= MOST_ALIKE);
}

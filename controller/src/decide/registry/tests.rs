use super::*;

const DAY: Duration = Duration::from_hours(24);

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn said() -> Registries {
    let part = |skip, hours: Option<u64>, days: Option<u32>| Part {
        follow: None,
        skip,
        interval: hours.map(Duration::from_hours),
        expiry: days.map(|days| DAY * days),
    };
    let hub = Said {
        expiry: Some(DAY * 60),
        interval: Some(Duration::from_hours(12)),
        prefixes: BTreeMap::from([
            ("library".to_owned(), part(None, Some(1), None)),
            ("team".to_owned(), part(Some(true), None, Some(7))),
            ("team/app".to_owned(), part(Some(false), None, None)),
        ]),
        ..Said::default()
    };
    let left_alone = Said {
        skip: true,
        prefixes: BTreeMap::from([("but/this".to_owned(), part(Some(false), None, Some(1)))]),
        ..Said::default()
    };
    Registries(BTreeMap::from([("docker.io".into(), hub), ("ghcr.io".into(), left_alone)]))
}

#[test]
fn the_longest_prefix_counts_whole_then_the_registry_then_the_settings() {
    let (said, usual) = (said(), Duration::from_hours(6));
    let rules = said.rules(DAY * 30);
    for (name, skipped, hours, days) in [
        ("nginx", false, 1, 60),
        ("team/tool:1", true, 12, 7),
        ("team/app:1", false, 12, 60),
        ("team/app/part:1", false, 12, 60),
        ("teams/app:1", false, 12, 60),
        ("ghcr.io/any/thing:1", true, 6, 30),
        ("ghcr.io/but/this:1", false, 6, 1),
        ("ghcr.io/but/thisx:1", true, 6, 30),
        ("quay.io/a/b:1", false, 6, 30),
    ] {
        let image = image(name);
        assert_eq!(said.skipped(&image).is_some(), skipped, "{name}");
        assert_eq!(said.interval(&image, usual), Duration::from_hours(hours), "{name}");
        assert_eq!(rules.of(&image), DAY * days, "{name}");
    }
}

#[test]
fn an_image_says_whether_it_follows_its_tag_then_its_pods_then_its_registry() {
    let (yes, no) = (Some(true), Some(false));
    let hub = Said {
        follow: yes,
        prefixes: BTreeMap::from([
            ("library".to_owned(), Part { follow: no, ..Part::default() }),
            ("team".to_owned(), Part { skip: no, ..Part::default() }),
        ]),
        ..Said::default()
    };
    let all = Registries(BTreeMap::from([("docker.io".into(), hub)]));
    for (name, usual, follows) in [
        ("nginx:1", true, false),
        ("team/app:1", false, true),
        ("other/app:1", false, true),
        ("ghcr.io/a/b:1", false, false),
        ("ghcr.io/a/b:1", true, true),
    ] {
        assert_eq!(all.follow(&image(name), usual), follows, "{name}, else {usual}");
    }
    for (said, is_always, of_registry, follows) in [
        (&[][..], false, false, false),
        (&[None], false, true, true),
        (&[None], true, false, true),
        (&[no], true, true, false),
        (&[yes], false, false, true),
        (&[yes, None], false, false, true),
        (&[yes, no], true, true, false),
    ] {
        assert_eq!(follow(said.iter().copied(), is_always, of_registry), follows, "{said:?} {is_always} {of_registry}");
    }
}

#[test]
fn why_it_is_skipped_says_where_that_is_written() {
    let words = said().skipped(&image("team/tool:1")).unwrap();
    assert!(words.contains("skip") && words.contains("team") && words.contains("docker.io"), "{words}");
    let words = said().skipped(&image("ghcr.io/any/thing:1")).unwrap();
    assert!(words.contains("UpstreamRegistry of ghcr.io"), "{words}");
}

#[test]
fn objects_are_made_of_what_served_and_not_without_end() {
    let cached = [("a.io", 1), ("b.io", 0), ("c.io", 5), ("d.io", 1)];
    assert_eq!(to_make(cached, |registry| registry == "d.io", (3, 0)), ["c.io", "a.io"]);
    assert_eq!(to_make(cached, |_| false, (MOST - 1, 0)), ["c.io"]);
    assert_eq!(to_make(cached, |_| false, (MOST - 6, 5)), ["c.io"], "those under way will be there");
    assert!(to_make(cached, |_| false, (MOST - 5, 5)).is_empty());
    assert!(to_make(cached, |_| false, (MOST + 7, 0)).is_empty());
}

#[test]
fn what_a_pod_only_names_is_not_asked_again_and_again() {
    let at = Moment::from_seconds;
    let asked = |registry, cached, has_object, last, due| Asked { registry, cached, has_object, last, due: at(due) };
    let all = [
        asked("named.io", 0, false, None, 0),
        asked("served.io", 3, false, Some(at(8)), 9),
        asked("said.io", 0, true, Some(at(5)), 9),
        asked("new.io", 1, false, None, 9),
        asked("later.io", 1, true, None, 11),
    ];
    assert_eq!(to_ask(all, at(10)), ["new.io", "said.io", "served.io"]);
}

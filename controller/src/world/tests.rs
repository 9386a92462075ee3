use serde_json::json;

use super::*;

fn object(name: &str, uid: &str, version: &str, image: &str) -> Object {
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "spec": { "image": image },
        "metadata": { "name": name, "uid": uid, "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:00Z" },
    });
    Object::of(serde_json::from_value(object).unwrap()).unwrap()
}

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn world() -> World {
    let world = World::new(Filters::default());
    world.is_worked_on(true);
    world
}

fn version(known: &Known, name: &str) -> Option<String> {
    known.objects.get(name).map(|object| object.resource_version.clone())
}

#[test]
fn an_answer_and_the_watch_come_in_any_order() {
    let world = world();
    let mut known = world.known();
    known.object(object("a", "u", "7", "nginx:1"), Source::Answer);
    known.object(object("a", "u", "5", "nginx:1"), Source::Watch);
    assert_eq!(version(&known, "a").as_deref(), Some("7"));
    known.object(object("a", "u", "8", "nginx:1"), Source::Watch);
    known.object(object("a", "u", "7", "nginx:1"), Source::Answer);
    assert_eq!(version(&known, "a").as_deref(), Some("8"));
}

#[test]
fn what_a_list_says_counts_after_an_etcd_was_put_back() {
    let world = world();
    let mut known = world.known();
    known.object(object("a", "u", "900", "nginx:1"), Source::Watch);
    known.changed.clear();
    known.object(object("a", "u", "900", "nginx:1"), Source::List);
    assert!(known.changed.is_empty(), "nothing is new");
    known.object(object("a", "u", "100", "nginx:1"), Source::List);
    assert_eq!((version(&known, "a").as_deref(), known.changed.len()), (Some("100"), 1));
    known.object(object("a", "u", "101", "nginx:1"), Source::Watch);
    assert_eq!(version(&known, "a").as_deref(), Some("101"));
    // One that was deleted is there again.
    known.object_gone("a", Some("u"), true);
    known.object(object("a", "u", "101", "nginx:1"), Source::List);
    known.object(object("a", "u", "102", "nginx:1"), Source::Watch);
    assert_eq!(version(&known, "a").as_deref(), Some("102"));
}

#[test]
fn an_object_that_was_made_and_deleted_at_once_is_no_ghost() {
    let world = world();
    let mut known = world.known();
    // The watch is faster than the answer.
    known.object(object("a", "u", "1", "nginx:1"), Source::Watch);
    known.object_gone("a", Some("u"), true);
    known.object(object("a", "u", "1", "nginx:1"), Source::Answer);
    assert!(known.objects.is_empty() && known.by_image.is_empty(), "{known:?}");
    assert!(known.deleted.contains(&image("nginx:1")));
    // Nor where only its end was seen, or where our own deletion is faster than the watch.
    known.object_gone("b", Some("v"), true);
    known.object(object("b", "v", "2", "nginx:1"), Source::Answer);
    known.object(object("c", "w", "3", "nginx:1"), Source::Watch);
    known.object_gone("c", Some("w"), true);
    known.object(object("c", "w", "4", "nginx:1"), Source::Watch);
    assert!(known.objects.is_empty());
    // Its follower of the same name is another.
    known.object(object("a", "x", "5", "nginx:1"), Source::Answer);
    assert_eq!(version(&known, "a").as_deref(), Some("5"));
}

#[test]
fn an_object_that_only_an_answer_told_of_goes_by_the_word_of_the_api_server() {
    let world = world();
    let (mut known, now) = (world.known(), Instant::now());
    known.object(object("a", "u", "1", "nginx:1"), Source::Answer);
    known.object_missing("a", "u", now);
    assert!(known.objects.get("a").is_some(), "the watch says in a moment how it went");
    known.object_missing("a", "u", now + std::time::Duration::from_mins(1));
    assert!(known.objects.is_empty() && known.by_image.is_empty());
    assert!(known.deleted.is_empty(), "nobody saw that it was deleted");
    // Of another one of its name that says nothing.
    known.object(object("a", "v", "2", "nginx:1"), Source::Watch);
    known.object_missing("a", "u", now + std::time::Duration::from_mins(2));
    assert!(known.objects.get("a").is_some());
}

#[test]
fn an_object_that_cannot_be_read_any_more_is_not_gone() {
    let world = world();
    let mut known = world.known();
    let nginx = image("nginx:1");
    known.object(object("a", "u", "1", "nginx:1"), Source::List);
    known.unreadable_object("a", Some("nginx:1"));
    assert!(known.by_image.is_empty() && known.deleted.is_empty() && known.unreadable.has(&nginx));
    // It can be read again.
    known.object(object("a", "u", "2", "nginx:1"), Source::Watch);
    assert!(known.by_image.contains_key(&nginx) && !known.unreadable.has(&nginx));
    // It goes without having been read.
    known.unreadable_object("a", Some("nginx:1"));
    known.object_gone("a", Some("u"), true);
    assert!(known.deleted.contains(&nginx) && !known.unreadable.has(&nginx));
}

#[test]
fn a_pool_of_nodes_that_is_gone_is_remembered() {
    let world = world();
    let mut known = world.known();
    let platform = |text| Platform::parse(text).unwrap();
    known.node("one", Some(platform("linux/amd64")));
    known.node("two", Some(platform("linux/arm64")));
    let both = BTreeSet::from([platform("linux/amd64"), platform("linux/arm64")]);
    known.node_gone("two");
    assert_eq!(known.platforms(Instant::now()), both);
    // A node of the same name is another machine.
    known.node("one", Some(platform("linux/s390x")));
    assert_eq!(known.platforms(Instant::now()).len(), 3);
    known.node_gone("one");
    assert_eq!(known.platforms(Instant::now()).len(), 3, "an empty list of nodes narrows nothing");
}

#[test]
fn what_is_said_of_a_registry_costs_its_own_images_and_nothing_costs_nothing() {
    let world = world();
    let mut known = world.known();
    for number in 0..30 {
        let image = format!("r{}.example.com/app:{number}", number % 3);
        known.object(object(&format!("o{number}"), &format!("u{number}"), "1", &image), Source::List);
    }
    known.objects.take_visited();
    let mut say = |name: &str, version: &str, skip: bool| {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
            "metadata": {"name": name, "uid": name, "resourceVersion": version}, "spec": {"registry": name, "skip": skip},
        });
        let object = crate::registries::Upstream::of(serde_json::from_value(object).unwrap()).unwrap();
        known.registry(object, Source::Watch);
        (known.objects.take_visited(), std::mem::take(&mut known.registries_changed).len())
    };
    for registry in ["r0.example.com", "r1.example.com", "r2.example.com"] {
        assert_eq!(say(registry, "1", false), (0, 0), "most say nothing");
    }
    // Those of it are not wanted, so none of them is looked at; then they are again.
    assert_eq!(say("r1.example.com", "2", true), (0, 1));
    assert_eq!(say("r1.example.com", "3", false), (10, 1));
    assert!(known.tallies.of("r1.example.com").is_some_and(|tally| tally.known == 10));
}

/// A pass over many images has it for seconds, in which a lease is to be renewed.
#[test]
fn who_waits_for_it_stands_in_no_other_tasks_way() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let world = Arc::new(world());
    let known = world.known();
    let waiting = Arc::clone(&world);
    let changed = runtime.spawn(async move { waiting.change(|known| known.listed.pods = true) });
    let waiting = Arc::clone(&world);
    let looked = runtime.spawn(async move { waiting.known().listed.nodes });
    let (sender, others) = std::sync::mpsc::channel();
    runtime.spawn(async move { sender.send(()) });
    let goes_on = others.recv_timeout(std::time::Duration::from_secs(30));
    drop(known);
    goes_on.expect("another task goes on");
    runtime.block_on(async {
        changed.await.unwrap();
        looked.await.unwrap();
    });
    assert!(world.known().listed.pods);
}

#[test]
fn how_many_give_which_reason_is_known_at_any_time() {
    let world = world();
    let mut known = world.known();
    let saying = |name: &str, version: &str, reason: Cached| {
        let mut object = object(name, name, version, "nginx:1");
        let time = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        larder_api::condition::set(&mut object.status.conditions, reason, "", None, &time);
        object
    };
    let count = |known: &Known, reason: &str| {
        let mut all = known.reasons.all();
        all.find(|((condition, known), _)| (*condition, *known) == ("Cached", reason)).map(|(_, count)| count)
    };
    assert_eq!(count(&known, "Complete"), Some(0), "a series is there from the beginning");
    assert!(known.reasons.take_news() && !known.reasons.take_news());
    known.object(saying("a", "1", Cached::Queued), Source::Watch);
    known.object(saying("b", "2", Cached::Complete), Source::Watch);
    assert_eq!((count(&known, "Queued"), count(&known, "Complete")), (Some(1), Some(1)));
    known.object(saying("a", "3", Cached::Complete), Source::Answer);
    known.object(saying("a", "3", Cached::Complete), Source::Watch);
    assert_eq!((count(&known, "Queued"), count(&known, "Complete")), (Some(0), Some(2)));
    assert!(known.reasons.take_news());
    known.object_gone("a", None, true);
    known.unreadable_object("b", Some("nginx:1"));
    assert_eq!(known.reasons, Reasons::default());
}

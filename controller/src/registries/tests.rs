use serde_json::{Value, json};

use super::*;
use crate::FIELD_MANAGER;
use crate::decide::Image;

fn of(registries: &[&str]) -> Changed {
    registries.iter().map(|registry| Box::from(*registry)).collect()
}

fn object(name: &str, spec: &Value) -> UpstreamRegistry {
    serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": spec,
    }))
    .unwrap()
}

fn upstream(name: &str, spec: &Value) -> Upstream {
    Upstream::of(object(name, spec)).unwrap()
}

#[test]
fn what_cannot_be_meant_is_said_with_what_to_write() {
    let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, spec, reason, part) in [
        ("docker.io", json!({"registry": "docker.io"}), Accepted::Valid, "in force"),
        ("ghcr.io", json!({"registry": "docker.io"}), Accepted::WrongName, "docker.io"),
        ("docker.io", json!({"registry": "docker.io", "ca": "x"}), Accepted::InvalidCertificates, "PEM"),
        ("docker.io", json!({"registry": "docker.io", "ca": ca}), Accepted::InvalidCertificates, "certificate 1"),
        ("docker.io", json!({"registry": "docker.io", "expiry": "soon"}), Accepted::Invalid, "spec.expiry"),
        ("docker.io", json!({"registry": "docker.io", "endpoints": ["http://a"]}), Accepted::Invalid, "insecure"),
        ("docker.io", json!({"registry": "docker.io", "endpoints": ["a.io"]}), Accepted::Invalid, "https://"),
        (
            "docker.io",
            json!({"registry": "docker.io", "prefixes": [{"prefix": "team", "monitoringInterval": "x"}]}),
            Accepted::Invalid,
            "team",
        ),
        (
            "docker.io",
            json!({"registry": "docker.io", "skip": true, "prefixes": [{"prefix": "library", "skip": false}]}),
            Accepted::Invalid,
            "library: it is below what is skipped",
        ),
        (
            "docker.io",
            json!({"registry": "docker.io", "prefixes": [{"prefix": "a", "skip": true}, {"prefix": "a/b", "skip": false}]}),
            Accepted::Invalid,
            "say skip: true of it",
        ),
    ] {
        let (said, words) = upstream(name, &spec).accepted;
        assert!(said == reason && words.contains(part), "{spec}: {said:?} {words}");
    }
}

#[test]
fn what_nobody_edited_is_ours_alone() {
    let by = |writers: &[(&str, &str, Option<&str>)]| {
        let fields: Vec<Value> = writers
            .iter()
            .map(|(manager, operation, subresource)| json!({"manager": manager, "operation": operation, "subresource": subresource}))
            .collect();
        let mut object = object("docker.io", &json!({"registry": "docker.io"}));
        object.metadata.managed_fields = serde_json::from_value(json!(fields)).unwrap();
        Upstream::of(object).unwrap().is_ours_alone
    };
    let ours = (FIELD_MANAGER, "Apply", None);
    assert!(by(&[ours]));
    assert!(by(&[ours, ("anybody", "Update", Some("status"))]));
    assert!(!by(&[ours, ("kubectl-edit", "Update", None)]));
    assert!(!by(&[("kubectl", "Apply", None)]));
    assert!(!by(&[]));
}

#[test]
fn what_they_say_is_looked_at_again_when_it_changes_and_only_then() {
    let mut all = Registries::default();
    let now = Instant::now();
    let skips = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
    assert_eq!(all.object(skips, Source::List, now), of(&["docker.io"]));
    let mut told = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
    told.status.latency_milliseconds = Some(9);
    told.resource_version = "2".into();
    assert_eq!(all.object(told.clone(), Source::Watch, now), of(&[]), "only its status");
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    // What a watch has said is not undone by an answer of before.
    told.status.latency_milliseconds = None;
    assert_eq!(all.object(told, Source::Answer, now), of(&[]));
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    let image = Image::parse("nginx").unwrap();
    assert!(all.rules.skipped(&image).is_some());
    // Another one's name says nothing.
    assert_eq!(all.object(upstream("odd", &json!({"registry": "docker.io"})), Source::Watch, now), of(&[]));
    assert!(all.rules.skipped(&image).is_some() && all.all().count() == 2);
    all.listed(true, now);
    assert_eq!(all.gone("docker.io", Some("docker.io"), now), of(&[]));
    assert!(all.rules.skipped(&image).is_some());
    assert_eq!(all.believe(now + Duration::from_secs(30)), of(&["docker.io"]));
    assert!(all.rules.skipped(&image).is_none());
    assert_eq!(all.gone("docker.io", Some("docker.io"), now), of(&[]));
    assert_eq!(all.believe(now + Duration::from_secs(90)), of(&[]));
    // One that says nothing, or other things than another one, is no news of that one.
    assert_eq!(all.object(upstream("b.io", &json!({"registry": "b.io"})), Source::Watch, now), of(&[]));
    let expires = upstream("a.io", &json!({"registry": "a.io", "expiry": "1d"}));
    assert_eq!(all.object(expires, Source::Watch, now), of(&["a.io"]));
    let mut says_nothing = upstream("a.io", &json!({"registry": "a.io"}));
    says_nothing.resource_version = "2".into();
    assert_eq!(all.object(says_nothing, Source::Watch, now), of(&["a.io"]), "what holds is what holds for all");
}

#[test]
fn an_object_that_is_deleted_while_its_status_is_written_is_no_ghost() {
    let (mut all, now) = (Registries::default(), Instant::now());
    let skipped = |uid: &str, version: &str| {
        let mut object = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
        (object.uid, object.resource_version) = (uid.into(), version.into());
        object
    };
    all.object(skipped("u", "1"), Source::List, now);
    all.listed(true, now);
    all.gone("docker.io", Some("u"), now);
    let now = now + Duration::from_secs(30);
    all.believe(now);
    // What was under way is answered late.
    assert_eq!(all.object(skipped("u", "2"), Source::Answer, now), of(&[]));
    assert!(all.of("docker.io").is_none() && all.rules.of("docker.io").is_none());
    // Its follower is another one, and so is what was said of the one before.
    assert_eq!(all.object(skipped("v", "5"), Source::Watch, now), of(&["docker.io"]));
    all.gone("docker.io", Some("u"), now);
    assert_eq!(all.all().count(), 1);
    all.object(skipped("w", "8"), Source::Watch, now);
    all.object(skipped("v", "7"), Source::Answer, now);
    assert_eq!(all.of("docker.io").map(|object| object.uid.as_str()), Some("w"));
    // An etcd that was put back has it again.
    all.object(skipped("u", "1"), Source::List, now);
    assert_eq!(all.of("docker.io").map(|object| object.uid.as_str()), Some("u"));
}

#[test]
fn an_object_that_only_an_answer_told_of_goes_by_the_word_of_the_api_server() {
    let (mut all, now) = (Registries::default(), Instant::now());
    let made = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
    all.object(made, Source::Answer, now);
    all.missing("docker.io", "docker.io", now);
    assert_eq!(all.all().count(), 1, "the watch says it in a moment");
    all.missing("docker.io", "docker.io", now + Duration::from_mins(1));
    assert_eq!((all.all().count(), all.going.contains("docker.io")), (0, true));
}

fn skipping(registry: &str) -> Upstream {
    upstream(registry, &json!({"registry": registry, "skip": true}))
}

#[test]
fn what_goes_is_believed_when_nothing_more_goes() {
    let (mut all, start) = (Registries::default(), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    for registry in ["a.io", "b.io", "c.io"] {
        all.object(skipping(registry), Source::List, start);
    }
    all.object(upstream("d.io", &json!({"registry": "d.io"})), Source::List, start);
    all.listed(true, start);
    all.gone("d.io", Some("d.io"), start);
    assert!(all.of("d.io").is_none(), "it said nothing");
    all.gone("a.io", Some("a.io"), start);
    assert!(all.all().all(|object| object.name != "a.io"), "nobody tells it anything any more");
    all.gone("b.io", Some("b.io"), after(20));
    assert_eq!(all.believe(after(35)), of(&[]), "perhaps all of them go");
    // It comes back.
    let mut again = skipping("b.io");
    again.uid = "another".into();
    assert_eq!(all.object(again, Source::Watch, after(40)), of(&[]));
    assert_eq!(all.believe(after(50)), of(&["a.io"]));
    assert!(all.rules.of("a.io").is_none() && all.rules.of("b.io").is_some() && all.rules.of("c.io").is_some());
}

#[test]
fn a_definition_that_is_deleted_ends_nothing_that_was_said() {
    let (mut all, start) = (Registries::default(), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    for registry in ["a.io", "b.io"] {
        all.object(skipping(registry), Source::List, start);
    }
    all.listed(true, start);
    // Its objects go first, and what is heard next is that there is no such kind.
    for registry in ["a.io", "b.io"] {
        all.gone(registry, Some(registry), after(1));
    }
    all.listed(false, after(2));
    assert_eq!(all.believe(after(100_000)), of(&[]));
    // It is made again, and one of them.
    let mut again = skipping("a.io");
    again.uid = "another".into();
    all.object(again, Source::List, after(100_000));
    all.listed(true, after(100_000));
    assert_eq!(all.believe(after(100_100)), of(&[]), "whoever makes them needs his time");
    assert_eq!(all.believe(after(104_000)), of(&["b.io"]));
    assert!(all.rules.of("a.io").is_some() && all.rules.of("b.io").is_none());
}

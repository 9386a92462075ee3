use serde_json::{Value, json};

use super::*;
use crate::decide::Image;

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
    assert!(all.object(upstream("docker.io", &json!({"registry": "docker.io", "skip": true})), Source::List, now));
    let mut told = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
    told.status.latency_milliseconds = Some(9);
    told.resource_version = "2".into();
    assert!(!all.object(told.clone(), Source::Watch, now), "only its status");
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    // What a watch has said is not undone by an answer of before.
    told.status.latency_milliseconds = None;
    assert!(!all.object(told, Source::Answer, now));
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    let image = Image::parse("nginx").unwrap();
    assert!(all.rules.skipped(&image).is_some());
    // Another one's name says nothing.
    assert!(!all.object(upstream("odd", &json!({"registry": "docker.io"})), Source::Watch, now));
    assert!(all.rules.skipped(&image).is_some() && all.all().len() == 2);
    assert!(all.gone("docker.io", Some("docker.io"), now) && all.rules.skipped(&image).is_none());
    assert!(!all.gone("docker.io", Some("docker.io"), now));
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
    all.gone("docker.io", Some("u"), now);
    // What was under way is answered late.
    assert!(!all.object(skipped("u", "2"), Source::Answer, now));
    assert!(all.of("docker.io").is_none() && all.rules.of("docker.io").is_none());
    // Its follower is another one, and so is what was said of the one before.
    assert!(all.object(skipped("v", "5"), Source::Watch, now));
    assert!(!all.gone("docker.io", Some("u"), now) && all.of("docker.io").is_some());
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
    assert!(!all.missing("docker.io", "docker.io", now), "the watch says it in a moment");
    assert!(all.missing("docker.io", "docker.io", now + Duration::from_mins(1)));
    assert!(all.of("docker.io").is_none());
}

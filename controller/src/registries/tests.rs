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
    assert!(all.object(upstream("docker.io", &json!({"registry": "docker.io", "skip": true})), false));
    let mut told = upstream("docker.io", &json!({"registry": "docker.io", "skip": true}));
    told.status.latency_milliseconds = Some(9);
    assert!(!all.object(told.clone(), false), "only its status");
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    // What a watch has said is not undone by an answer of before.
    told.status.latency_milliseconds = None;
    assert!(!all.object(told, true));
    assert_eq!(all.of("docker.io").and_then(|object| object.status.latency_milliseconds), Some(9));
    let image = Image::parse("nginx").unwrap();
    assert!(all.rules.skipped(&image).is_some());
    // Another one's name says nothing.
    assert!(!all.object(upstream("odd", &json!({"registry": "docker.io"})), false));
    assert!(all.rules.skipped(&image).is_some() && all.all().len() == 2);
    assert!(all.gone("docker.io") && all.rules.skipped(&image).is_none());
    assert!(!all.gone("docker.io"));
}

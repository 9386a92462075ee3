use super::*;
use crate::decide::Image;
use crate::decide::image_id::Running;

fn read(json: &str) -> Pod {
    pod(&serde_json::from_str::<ApiPod>(json).unwrap()).unwrap()
}

fn at(text: &str) -> Moment {
    let time: Time = serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap();
    moment(&time)
}

fn digests(pod: &Pod) -> Vec<Option<String>> {
    let digest = |used: &Use| used.running(&used.image().ok()?).digest().map(|digest| digest.to_string());
    pod.uses.iter().map(digest).collect()
}

#[test]
fn every_place_of_a_running_pod() {
    let pod = read(include_str!("running.json"));
    assert_eq!(
        (pod.namespace.as_str(), pod.name.as_str(), pod.node.as_deref()),
        ("shop", "web-6d4cf56db6-x7k2p", Some("worker-2"))
    );
    assert!(!pod.ignored && !pod.of_daemon_set && !pod.is_mirror);
    assert_eq!((pod.created, pod.ended), (Some(at("2026-03-02T08:15:04Z")), None));
    let uses: Vec<_> = pod.uses.iter().map(|used| (used.place, used.written.as_str(), used.policy)).collect();
    assert_eq!(
        uses,
        [
            (
                Place::InitContainer,
                "ghcr.io/shop/migrate@sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1",
                Some(PullPolicy::IfNotPresent)
            ),
            (Place::InitContainer, "fluent/fluent-bit", Some(PullPolicy::Always)),
            (Place::Container, "nginx:1.27", Some(PullPolicy::IfNotPresent)),
            (Place::EphemeralContainer, "busybox:1.36", Some(PullPolicy::IfNotPresent)),
            (Place::Volume, "quay.io/shop/assets:2026.3", Some(PullPolicy::IfNotPresent)),
        ]
    );
    assert_eq!(
        digests(&pod),
        [
            Some("sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1".to_owned()),
            None,
            Some("sha256:6784fb0834aa7dbbe12e3d7471e69c290df3e6ba810dc38b34ae33d3c1c05f7d".to_owned()),
            Some("sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7".to_owned()),
            None,
        ]
    );
    let fluent = Image::parse("fluent/fluent-bit").unwrap();
    assert_eq!(pod.uses[1].running(&fluent), Running::Configuration);
}

#[test]
fn a_mirror_pod_counts_as_any_other() {
    let pod = read(include_str!("mirror.json"));
    assert!(pod.is_mirror && !pod.of_daemon_set);
    assert_eq!(pod.node.as_deref(), Some("control-plane"));
    assert_eq!(pod.uses.len(), 1);
    assert!(digests(&pod)[0].is_some());
}

#[test]
fn a_pod_of_a_job_ended_with_its_last_container() {
    let pod = read(include_str!("ended.json"));
    assert_eq!(pod.ended, Some(Ended { at: Some(at("2026-03-02T02:00:31Z")) }));
    assert!(pod.ignored);
    assert_eq!(pod.uses.len(), 2);
}

#[test]
fn a_pod_that_was_just_made_and_one_that_says_nothing() {
    let made = read(
        r#"{"metadata": {"namespace": "a", "name": "b", "labels": {"larder.dev/ignore": "false"}, "deletionTimestamp": "2026-03-02T02:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "", "containers": [{"name": "c", "image": "Wrong"}, {"name": "empty", "image": ""}, {"name": "none"}]}}"#,
    );
    assert!(made.of_daemon_set && !made.ignored);
    assert_eq!((made.node, made.ended, made.uses.len()), (None, None, 1));
    assert!(made.uses[0].image().is_err());
    let none = read(r#"{"metadata": {"namespace": "a", "name": "b"}}"#);
    assert_eq!(none.uses, []);
    assert_eq!(super::pod(&ApiPod::default()), None);
}

#[test]
fn what_nobody_looks_at_is_read_over() {
    let pod: ApiPod = serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "shop", "generation": 3,
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:containers": {}}}}],
        },
        "spec": {"nodeName": null, "containers": null, "initContainers": null, "volumes": null, "tolerations": [{"key": "x"}]},
        "status": {"phase": "Pending", "containerStatuses": null, "conditions": [{"type": "Ready"}]},
    }))
    .unwrap();
    assert_eq!((pod.metadata.managed_fields.clone(), pod.metadata.generation), (None, None));
    assert!(super::pod(&pod).unwrap().uses.is_empty());
}

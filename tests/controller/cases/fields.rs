//! Fields: what is written comes back, what is not written has its default, and nothing grows without end.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use larder_api::cached_image::{self, Cached, HeldDigest, Kept, Progress, UsedBy};
use larder_api::condition;
use larder_api::node_mirror::{Configured, Conflict, Engine, LeftAlone, Placed, Proxy, Withdrawn};
use larder_api::upstream_registry::{AllCached, ImageCounts, Pacing, Policy, Prefix, Quota, Reachable, UpstreamError};
use larder_api::{
    CachedImage, CachedImageStatus, NodeMirror, NodeMirrorSpec, NodeMirrorStatus, Time, UpstreamRegistry,
    UpstreamRegistrySpec, UpstreamRegistryStatus, labels,
};
use larder_test_controller::{GROUP, World};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn at(seconds: u64) -> Time {
    larder_api::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds))
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

/// Every field, by name: a new one is not forgotten here.
fn image() -> CachedImage {
    let mut image = CachedImage::of(&"fields.example.com/a/b:1".parse().unwrap());
    image.metadata.labels = Some(BTreeMap::from([(labels::REGISTRY.to_owned(), "fields.example.com".to_owned())]));
    image.spec.retain = true;
    image.spec.platforms = vec!["linux/amd64".to_owned(), "linux/arm/v7".to_owned()];
    image.spec.expiry = Some("30d".to_owned());
    image.spec.follow = Some(true);
    let mut conditions = Vec::new();
    condition::set(&mut conditions, Cached::Complete, "all of it", Some(1), &at(0));
    condition::set(&mut conditions, cached_image::UpstreamAvailable::Gone, "404", Some(1), &at(1));
    condition::set(&mut conditions, cached_image::UpToDate::Moved, "", None, &at(2));
    image.status = Some(CachedImageStatus {
        observed_generation: Some(1),
        digest: Some(digest('a')),
        upstream_digest: Some(digest('b')),
        upstream_checked: Some(at(3)),
        digests: vec![
            HeldDigest { digest: digest('a'), upstream: false, pods: 2, cached: true },
            HeldDigest { digest: digest('b'), upstream: true, pods: 0, cached: false },
        ],
        platforms: vec!["linux/amd64".to_owned()],
        size_bytes: Some(1 << 40),
        used_by: Some(UsedBy { count: 2, pods: vec!["a/b".to_owned(), "c/d".to_owned()] }),
        namespaces: vec!["a".to_owned(), "c".to_owned()],
        first_used: Some(at(4)),
        last_used: Some(at(5)),
        last_pull: Some(at(6)),
        expires_at: Some(at(7)),
        kept: Some(Kept::Applied),
        progress: Some(Progress { bytes_known: 1 << 41, bytes_fetched: 1, blobs_known: 3, blobs_fetched: 0 }),
        conditions,
    });
    image
}

fn registry() -> UpstreamRegistry {
    let mut conditions = Vec::new();
    condition::set(&mut conditions, Reachable::Answers, "", Some(1), &at(0));
    condition::set(&mut conditions, AllCached::SomeMissing, "2 of 3", Some(1), &at(0));
    let mut registry = UpstreamRegistry::of(&"fields.example.com:5000".parse().unwrap());
    registry.spec = UpstreamRegistrySpec {
        registry: "fields.example.com:5000".to_owned(),
        endpoints: vec!["http://b.example.com/x".to_owned(), "https://a.example.com".to_owned()],
        ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        insecure: true,
        skip: false,
        on_origin_404: Policy::Refuse,
        on_origin_denied: Policy::Refuse,
        pacing: Some(Pacing { images_at_a_time: Some(2), keep_quota_percent: Some(0) }),
        monitoring_interval: Some("6h".to_owned()),
        expiry: Some("1d12h".to_owned()),
        follow: Some(true),
        prefixes: vec![Prefix {
            prefix: "team/app".to_owned(),
            skip: Some(false),
            monitoring_interval: Some("1h".to_owned()),
            expiry: Some("90d".to_owned()),
            follow: Some(false),
        }],
    };
    registry.status = Some(UpstreamRegistryStatus {
        observed_generation: Some(1),
        reachable_since: Some(at(0)),
        last_checked: Some(at(1)),
        latency_milliseconds: Some(12),
        quota: Some(Quota {
            limit: 100,
            remaining: 42,
            window_seconds: Some(21_600),
            resets_at: Some(at(2)),
            seen_at: at(3),
        }),
        images: Some(ImageCounts { known: 3, cached: 1, missing_upstream: 0 }),
        last_errors: vec![UpstreamError {
            at: at(4),
            endpoint: Some("https://a.example.com".to_owned()),
            message: "no answer".to_owned(),
            count: 3,
        }],
        conditions,
    });
    registry
}

fn mirror() -> NodeMirror {
    let mut conditions = Vec::new();
    condition::set(&mut conditions, Configured::Proved, "", None, &at(0));
    condition::set(&mut conditions, Withdrawn::Announced, "", None, &at(0));
    condition::set(&mut conditions, Conflict::Nobody, "", None, &at(0));
    let mut mirror = NodeMirror::new("fields", NodeMirrorSpec {});
    mirror.status = Some(NodeMirrorStatus {
        engine: Some(Engine {
            name: "containerd".to_owned(),
            version: "2.4.2".to_owned(),
            socket: Some("/run/containerd/containerd.sock".to_owned()),
        }),
        agent_version: Some("0.1.0".to_owned()),
        proxy: Some(Proxy {
            health: "well".to_owned(),
            address: "127.0.0.1:7439".to_owned(),
            detail: Some("x".to_owned()),
        }),
        seen_at: Some(at(5)),
        proved_at: Some(at(1)),
        placed: vec![
            Placed {
                registry: None,
                kind: "default-link".to_owned(),
                path: "/etc/containerd/certs.d/_default".to_owned(),
                proved_at: Some(at(2)),
                not_seen: None,
            },
            Placed {
                registry: Some("a.example.com".to_owned()),
                kind: "splice".to_owned(),
                path: "/etc/x".to_owned(),
                proved_at: None,
                not_seen: Some("the engine failed".to_owned()),
            },
        ],
        placed_count: 2,
        left_alone: vec![LeftAlone {
            registry: Some("b.example.com".to_owned()),
            path: "/etc/y".to_owned(),
            reason: "it is redirected".to_owned(),
        }],
        left_alone_count: 1,
        to_do: vec!["one".to_owned(), "one".to_owned()],
        conditions,
    });
    mirror
}

/// Applies an object and its status as the only writer, and looks for every field in what comes back. Applied again, nothing changes.
fn there_and_back<K>(world: &World, object: &K, writer: &str, parts: [fn(&K) -> Value; 2]) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(world.admin.clone());
    let name = object.meta().name.clone().unwrap();
    let parameters = PatchParams::apply(writer).validation_strict();
    let applied = || {
        world.runtime.block_on(async {
            api.patch(&name, &parameters, &Patch::Apply(object)).await?;
            api.patch_status(&name, &parameters, &Patch::Apply(object)).await
        })
    };
    let first = applied()?;
    for part in parts {
        ensure!(part(&first) == part(object), "{} is not {}", part(&first), part(object));
    }
    ensure!(parts[1](&first).as_object().is_some_and(|status| status.len() > 6), "{first:?}");
    let again = applied()?;
    ensure!(again.meta().resource_version == first.meta().resource_version, "what is the same was written again");
    let managers = again.meta().managed_fields.clone().unwrap_or_default();
    let alone = managers.iter().all(|manager| manager.manager.as_deref() == Some(writer));
    ensure!(!managers.is_empty() && alone, "{managers:?}");
    Ok(())
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

pub(crate) fn every_field_comes_back(world: &World) -> Result<()> {
    there_and_back(world, &image(), labels::CONTROLLER, [|image| value(&image.spec), |image| value(&image.status)])?;
    let parts: [fn(&UpstreamRegistry) -> Value; 2] =
        [|registry| value(&registry.spec), |registry| value(&registry.status)];
    there_and_back(world, &registry(), labels::CONTROLLER, parts)?;
    there_and_back(world, &mirror(), labels::NODE, [|_| Value::Null, |mirror| value(&mirror.status)])
}

pub(crate) fn defaults_and_unknown_fields(world: &World) -> Result<()> {
    let images = format!("{GROUP}/cachedimages");
    let object = |spec: Value| json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": { "name": "defaults" }, "spec": spec });
    let least = object(json!({ "image": "a.b/c:1", "retain": null, "expiry": null }));
    let made = world.post(&format!("{images}?dryRun=All"), &least)?.done()?;
    ensure!(made["spec"] == json!({ "image": "a.b/c:1", "retain": false }), "{made}");
    let unknown = object(json!({ "image": "a.b/c:1", "keep": true }));
    let strict = world.post(&format!("{images}?dryRun=All&fieldValidation=Strict"), &unknown)?;
    strict.refused(400, "unknown field \"spec.keep\"")?;
    let pruned = world.post(&format!("{images}?dryRun=All&fieldValidation=Warn"), &unknown)?;
    ensure!(pruned.warnings.iter().any(|warning| warning.contains("spec.keep")), "{:?}", pruned.warnings);
    ensure!(pruned.done()?["spec"] == json!({ "image": "a.b/c:1", "retain": false }), "it is pruned");

    let registry = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": "defaults.example.com" },
        "spec": { "registry": "defaults.example.com" },
    });
    let made = world.post(&format!("{GROUP}/upstreamregistries?dryRun=All"), &registry)?.done()?;
    let expected = json!({
        "registry": "defaults.example.com", "insecure": false, "skip": false, "onOrigin404": "serve", "onOriginDenied": "serve",
    });
    ensure!(made["spec"] == expected, "{made}");
    // A status comes by its own way only.
    let mut with_status = object(json!({ "image": "a.b/c:1" }));
    with_status["status"] = json!({ "sizeBytes": 1 });
    let made = world.post(&format!("{images}?dryRun=All"), &with_status)?.done()?;
    ensure!(made.get("status").is_none_or(|status| status == &json!({})), "{made}");
    Ok(())
}

pub(crate) fn a_status_has_bounds(world: &World) -> Result<()> {
    let image = CachedImage::of(&"bounds:1".parse()?);
    world.post(&format!("{GROUP}/cachedimages"), &value(&image))?.done()?;
    let path = format!("{GROUP}/cachedimages/{}/status", image.metadata.name.unwrap());
    let condition = |of: &str, message: &str, reason: &str| {
        json!({
            "type": of, "status": "True", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let digests: Vec<_> = (0..65).map(|number| json!({ "digest": format!("sha256:{number:064x}") })).collect();
    let pods: Vec<_> = (0..21).map(|number| format!("a/{number}")).collect();
    for (status, because) in [
        (json!({ "digests": digests }), "must have at most 64 items"),
        (json!({ "usedBy": { "count": 21, "pods": pods } }), "must have at most 20 items"),
        (json!({ "conditions": [condition("A", &"x".repeat(2049), "B")] }), "may not be more than 2048"),
        (json!({ "conditions": [condition("A", "", "two words")] }), "reason"),
        (json!({ "conditions": [condition("A", "", "B"), condition("A", "", "B")] }), "Duplicate value"),
        (json!({ "digest": "sha256:abc" }), "status.digest"),
        (json!({ "sizeBytes": -1 }), "greater than or equal to 0"),
        (json!({ "expiresAt": "tomorrow" }), "must be of type date-time"),
    ] {
        world.merge(&path, &json!({ "status": status }))?.refused(422, because)?;
    }
    world
        .merge(&path, &json!({ "status": { "digests": digests[1..], "usedBy": { "count": 21, "pods": pods[1..] } } }))?
        .done()?;
    Ok(())
}

/// An object that is not there is gone; of a kind that is not there nothing is.
pub(crate) fn what_is_not_there(world: &World) -> Result<()> {
    use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
    use larder_controller::api_server::is_no_such_object;

    // As the controller writes it.
    let told = |kind: &str, api: Api<DynamicObject>| {
        let patch = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": kind, "status": {},
            "metadata": { "name": "nobody", "uid": "0d2b6f52-2f4e-4c39-9a7e-3b1f0c1d2e3f", "resourceVersion": "1" },
        });
        let parameters = PatchParams::apply(labels::CONTROLLER).force();
        world.runtime.block_on(api.patch_status("nobody", &parameters, &Patch::Apply(&patch))).map(drop)
    };
    for (kind, plural, is) in [
        ("CachedImage", "cachedimages", true),
        ("UpstreamRegistry", "upstreamregistries", true),
        ("Nothing", "nothings", false),
    ] {
        let of = GroupVersionKind::gvk("larder.dev", "v1alpha1", kind);
        let of = ApiResource::from_gvk_with_plural(&of, plural);
        let Err(error) = told(kind, Api::all_with(world.admin.clone(), &of)) else { bail!("{kind} was written") };
        ensure!(is_no_such_object(&error) == is, "{kind}: {error:?}");
    }
    Ok(())
}

/// One writer's elements of a list stay when another applies his own, and a field of somebody else is not taken without force.
pub(crate) fn two_writers(world: &World) -> Result<()> {
    let mut image = CachedImage::of(&"writers:1".parse()?);
    let name = image.metadata.name.clone().unwrap();
    let path = |part: &str, writer: &str| format!("{GROUP}/cachedimages/{name}{part}?fieldManager={writer}");
    world.apply(&path("", labels::CONTROLLER), &value(&image).to_string())?.done()?;
    let status = |digests: Vec<Value>| {
        json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "status": { "digests": digests } })
            .to_string()
    };
    let held =
        |letter: char, pods: i32| json!({ "digest": digest(letter), "upstream": false, "pods": pods, "cached": false });
    let digests = |body: Value| body["status"]["digests"].as_array().map_or(0, Vec::len);
    world.apply(&path("/status", labels::CONTROLLER), &status(vec![held('a', 1), held('b', 1)]))?.done()?;
    let both = world.apply(&path("/status", "another"), &status(vec![held('c', 1)]))?.done()?;
    ensure!(digests(both) == 3);
    world.apply(&path("/status", "another"), &status(vec![held('a', 2)]))?.refused(409, "conflict")?;
    let fewer = world.apply(&path("/status", labels::CONTROLLER), &status(vec![held('b', 1)]))?.done()?;
    ensure!(digests(fewer) == 2, "what its writer no longer says is gone, and the other's is there");
    image.spec.retain = true;
    world.apply(&path("", "another"), &value(&image).to_string())?.refused(409, "conflict")
}

//! What the API server takes and refuses, and what it says: tables.

use anyhow::{Context as _, Result, ensure};
use larder_api::{CachedImage, UpstreamRegistry};
use larder_test_controller::{GROUP, World};
use serde_json::{Value, json};

/// What is asked without being done.
fn try_image(world: &World, spec: &Value) -> Result<larder_test_controller::Answer> {
    let object = json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": { "name": "tried" }, "spec": spec });
    world.post(&format!("{GROUP}/cachedimages?dryRun=All&fieldValidation=Strict"), &object)
}

fn try_registry(world: &World, name: &str, spec: &Value) -> Result<larder_test_controller::Answer> {
    let object = json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": { "name": name }, "spec": spec });
    world.post(&format!("{GROUP}/upstreamregistries?dryRun=All&fieldValidation=Strict"), &object)
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) fn what_is_wrong_of_an_image_is_refused(world: &World) -> Result<()> {
    let in_full = "write the image in full";
    for (image, because) in [
        ("alpine:3", "begin with the registry"),
        ("library/alpine:3", "begin with the registry"),
        ("docker.io/alpine:3", "docker.io/library/NAME"),
        ("index.docker.io/library/alpine:3", "Docker Hub is written docker.io"),
        ("registry-1.docker.io/library/alpine:3", "Docker Hub is written docker.io"),
        ("docker.io/library/alpine", "name a tag or a digest"),
        (&format!("docker.io/library/alpine:3@{DIGEST}"), "a digest says all"),
        ("reg.example.com:5000/alpine", "name a tag or a digest"),
        ("https://docker.io/library/alpine:3", in_full),
        ("docker.io/Library/alpine:3", in_full),
        ("Docker.io/library/alpine:3", in_full),
        ("docker.io/library/alpine:3 ", in_full),
        ("docker.io/library/alpine:3\n", in_full),
        ("docker.io/library//alpine:3", in_full),
        ("docker.io/library/alpine:-3", in_full),
        ("docker.io/library/alpine@sha256:abc", in_full),
        ("docker.io/library/alpine@md5:abc", in_full),
        ("reg.example.com:0/a:1", in_full),
        ("reg.example.com:65536/a:1", in_full),
        ("reg.example.com:05000/a:1", in_full),
        ("reg.example.com:5000/a___b:1", in_full),
        ("reg..example.com/a:1", in_full),
        ("-reg.example.com/a:1", in_full),
        ("", "should be at least 3 chars long"),
        (&format!("docker.io/library/{}:1", "a".repeat(800)), "may not be more than 782"),
    ] {
        try_image(world, &json!({ "image": image }))?.refused(422, because).context(format!("{image:?}"))?;
    }
    for (spec, because) in [
        (json!({}), "spec.image: Required value"),
        (json!({ "image": 1 }), "must be of type string"),
        (json!({ "image": "a.b/c:1", "expiry": "30" }), "write days, hours, minutes and seconds"),
        (json!({ "image": "a.b/c:1", "expiry": "0d" }), "write days, hours, minutes and seconds"),
        (json!({ "image": "a.b/c:1", "expiry": "1h1d" }), "write days, hours, minutes and seconds"),
        (json!({ "image": "a.b/c:1", "expiry": "1 day" }), "write days, hours, minutes and seconds"),
        (json!({ "image": "a.b/c:1", "platforms": ["amd64"] }), "write os/architecture"),
        (json!({ "image": "a.b/c:1", "platforms": ["linux/amd64/v1/x"] }), "write os/architecture"),
        (json!({ "image": "a.b/c:1", "platforms": ["linux/amd64", "linux/amd64"] }), "Duplicate value"),
        (json!({ "image": "a.b/c:1", "platforms": vec!["linux/amd64"; 33] }), "must have at most 32 items"),
        (json!({ "image": "a.b/c:1", "retain": "yes" }), "must be of type boolean"),
    ] {
        try_image(world, &spec)?.refused(422, because).context(spec.to_string())?;
    }
    Ok(())
}

pub(crate) fn what_is_wrong_of_a_registry_is_refused(world: &World) -> Result<()> {
    let name = "a.example.com";
    let (host, its_name) = ("write a host, or host:port", "the name has to be that of the registry");
    let with = |more: Value| {
        let mut spec = json!({ "registry": name });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    for (name, spec, because) in [
        (name, json!({}), "spec.registry: Required value"),
        (name, json!({ "registry": "https://a.example.com" }), host),
        (name, json!({ "registry": "a.example.com/team" }), host),
        (name, json!({ "registry": "A.example.com" }), host),
        (name, json!({ "registry": "a.example.com:0" }), host),
        (name, json!({ "registry": "a.example.com:99999" }), host),
        (name, json!({ "registry": "a b" }), host),
        ("index.docker.io", json!({ "registry": "index.docker.io" }), "Docker Hub is written docker.io"),
        ("mine", json!({ "registry": "a.example.com" }), its_name),
        ("a.example.com", json!({ "registry": "a.example.com:5000" }), its_name),
        ("a.example.com.port-5001", json!({ "registry": "a.example.com:5000" }), its_name),
        ("a.port-5000", json!({ "registry": "a.port-5000" }), its_name),
        ("my-registry", json!({ "registry": "my_registry" }), its_name),
        (name, with(json!({ "endpoints": ["a.example.com"] })), "write https://HOST"),
        (name, with(json!({ "endpoints": ["ftp://a.example.com"] })), "write https://HOST"),
        (name, with(json!({ "endpoints": ["https://me:secret@a.example.com"] })), "without credentials"),
        (name, with(json!({ "endpoints": ["https://a.example.com?x=1"] })), "write https://HOST"),
        (name, with(json!({ "endpoints": ["http://a.example.com"] })), "needs insecure: true"),
        (name, with(json!({ "endpoints": vec!["https://a.example.com"; 9] })), "must have at most 8 items"),
        (name, with(json!({ "skip": true, "endpoints": ["https://a.example.com"] })), "take endpoints away, or skip"),
        (name, with(json!({ "onOrigin404": "panic" })), "supported values: \"serve\", \"refuse\""),
        (name, with(json!({ "monitoringInterval": "often" })), "write days, hours, minutes and seconds"),
        (name, with(json!({ "pacing": { "imagesAtATime": 0 } })), "greater than or equal to 1"),
        (name, with(json!({ "pacing": { "keepQuotaPercent": 101 } })), "less than or equal to 100"),
        (name, with(json!({ "prefixes": [{ "prefix": "/team" }] })), "write the first segments of a repository"),
        (name, with(json!({ "prefixes": [{ "prefix": "team/" }] })), "write the first segments of a repository"),
        (name, with(json!({ "prefixes": [{ "prefix": "a" }, { "prefix": "a" }] })), "Duplicate value"),
        (
            name,
            with(json!({ "prefixes": [{ "prefix": "a", "expiry": "x1" }] })),
            "write days, hours, minutes and seconds",
        ),
    ] {
        try_registry(world, name, &spec)?.refused(422, because).context(format!("{name}: {spec}"))?;
    }
    Ok(())
}

pub(crate) fn what_is_right_is_taken(world: &World) -> Result<()> {
    let longest = format!("a.example.com/{}:1", ["a"; 128].join("/"));
    let sha512 = format!("a.example.com/a@sha512:{}", "0".repeat(128));
    for text in [
        "alpine",
        "alpine:3",
        "team/app:1.2_3-x",
        "localhost/a:1",
        "localhost:5000/a",
        "[::1]:5000/a:1",
        "10.0.0.1/a/b/c:1",
        "reg.example.com:65535/a_b/c__d/e---f:X",
        "my_registry.example.com/a:1",
        "registry:5000/a:1",
        &longest,
        &sha512,
        &format!("a.example.com/a:1@{DIGEST}"),
        &format!("ghcr.io/a/b@{DIGEST}"),
    ] {
        // What programs make is what the rules take.
        let image = CachedImage::of(&text.parse()?);
        let answer = world
            .post(&format!("{GROUP}/cachedimages?dryRun=All&fieldValidation=Strict"), &serde_json::to_value(&image)?)?;
        let made = answer.done().context(text.to_owned())?;
        ensure!(made["spec"]["image"] == image.spec.image, "{made}");
    }
    for spec in [
        json!({ "image": "a.b/c:1", "retain": true, "platforms": ["linux/amd64", "linux/arm/v7"], "expiry": "1d12h" }),
        json!({ "image": "a.b/c:1", "expiry": "90m" }),
    ] {
        try_image(world, &spec)?.done().context(spec.to_string())?;
    }
    for text in [
        "docker.io",
        "a.example.com:5000",
        "localhost",
        "10.0.0.1:1",
        "my_registry:5000",
        "[::1]:5000",
        "a.port-5000",
        "a.odd-1:2",
    ] {
        let registry = UpstreamRegistry::of(&text.parse()?);
        let answer = world.post(
            &format!("{GROUP}/upstreamregistries?dryRun=All&fieldValidation=Strict"),
            &serde_json::to_value(&registry)?,
        )?;
        answer.done().context(text.to_owned())?;
    }
    for more in [
        json!({ "endpoints": ["https://mirror.example.com/hub", "https://[::1]:5000"] }),
        json!({ "endpoints": ["http://a.example.com"], "insecure": true }),
        json!({ "skip": true }),
        json!({ "onOrigin404": "refuse", "onOriginDenied": "refuse", "monitoringInterval": "6h", "expiry": "30d" }),
        json!({ "prefixes": [{ "prefix": "library" }, { "prefix": "team/app", "skip": true, "expiry": "1d" }] }),
    ] {
        let mut spec = json!({ "registry": "a.example.com" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        try_registry(world, "a.example.com", &spec)?.done().context(spec.to_string())?;
    }
    Ok(())
}

pub(crate) fn what_an_object_is_of_cannot_change(world: &World) -> Result<()> {
    let image = CachedImage::of(&"immutable:1".parse()?);
    world.post(&format!("{GROUP}/cachedimages"), &serde_json::to_value(&image)?)?.done()?;
    let path = format!("{GROUP}/cachedimages/{}", image.metadata.name.unwrap());
    world
        .merge(&path, &json!({ "spec": { "image": "docker.io/library/immutable:2" } }))?
        .refused(422, "delete this one")?;
    world.merge(&path, &json!({ "spec": { "retain": true } }))?.done()?;
    let registry = UpstreamRegistry::of(&"immutable.example.com".parse()?);
    world.post(&format!("{GROUP}/upstreamregistries"), &serde_json::to_value(&registry)?)?.done()?;
    let path = format!("{GROUP}/upstreamregistries/immutable.example.com");
    world.merge(&path, &json!({ "spec": { "registry": "other.example.com" } }))?.refused(422, "delete this one")?;
    world.merge(&path, &json!({ "spec": { "skip": true } }))?.done().map(drop)
}

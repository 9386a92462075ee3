//! Registries: seen from what the cache sees of them, left alone where a person says so.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use larder_test_controller::{Cluster, condition_of, until};
use larder_test_origin::{Behaviour, Matcher};
use serde_json::{Value, json};

use crate::life::pins;

/// All objects of registries.
fn all(cluster: &Cluster) -> Result<Vec<Value>> {
    let all: Value =
        serde_json::from_str(&cluster.plane.kubectl(&["get", "upstreamregistries", "--output=json"], "")?)?;
    Ok(all.get("items").and_then(Value::as_array).context("a list")?.clone())
}

/// The origin's.
fn object(cluster: &Cluster) -> Result<Value> {
    let registry = json!(cluster.origin.registry().to_string());
    let mut of = all(cluster)?.into_iter().filter(|object| object.pointer("/spec/registry") == Some(&registry));
    of.next().context("there is none of the origin")
}

fn until_registry(cluster: &Cluster, condition: &str, reason: &str) -> Result<Value> {
    until(&format!("the registry's {condition} is {reason}"), || {
        let object = object(cluster)?;
        let found = condition_of(&object, condition);
        let said = found.and_then(|found| found.get("reason")).and_then(Value::as_str);
        ensure!(said == Some(reason), "{found:?}");
        Ok(object)
    })
}

/// What events say of objects of a kind: name, type, reason, in the order in which they were written of one object.
fn told(cluster: &Cluster, kind: &str) -> Result<Vec<[String; 3]>> {
    let all: Value =
        serde_json::from_str(&cluster.plane.kubectl(&["get", "events", "--namespace=default", "--output=json"], "")?)?;
    let all = all.get("items").and_then(Value::as_array).context("a list")?;
    let of_kind = all.iter().filter(|event| event.pointer("/involvedObject/kind") == Some(&json!(kind)));
    let of_kind = of_kind.map(|event| {
        // One that was repeated is another one.
        ensure!(event.get("series").is_none_or(Value::is_null), "{event:#}");
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok([text("/involvedObject/name"), text("/type"), text("/reason")])
    });
    of_kind.collect()
}

fn until_so(what: &str, cluster: &Cluster, is: impl Fn(&Value) -> bool) -> Result<Value> {
    until(what, || {
        let object = object(cluster)?;
        ensure!(is(&object), "{object:#}");
        Ok(object)
    })
}

pub(crate) fn from_traffic() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    cluster.run("web", &image)?;
    // Named, and never served.
    cluster.run("nobody", "registry.invalid/team/app:v1")?;
    let controller = cluster.controller(&["--monitoring-interval", "2s"])?;
    let up = until_registry(&cluster, "Reachable", "Answers")?;
    ensure!(up.pointer("/status/reachableSince").is_some(), "{up:#}");
    until_registry(&cluster, "Accepted", "Valid")?;
    until_registry(&cluster, "AllCached", "EveryImage")?;
    let counted = until_so("one image is counted", &cluster, |object| {
        object.pointer("/status/images") == Some(&json!({"known": 1, "cached": 1, "missingUpstream": 0}))
    })?;
    ensure!(counted.pointer("/status/latencyMilliseconds").is_some(), "{counted:#}");
    // Known with the status, and not with the next pass.
    let page = controller.page("/metrics")?;
    ensure!(page.contains("larder_controller_images{condition=\"Cached\",reason=\"Complete\"} 1\n"), "{page}");
    ensure!(counted.pointer("/spec") == up.pointer("/spec") && counted.pointer("/spec/skip") == Some(&json!(false)));
    // An outage and its end.
    cluster.origin.stop();
    let down = until_registry(&cluster, "Reachable", "Unreachable")?;
    ensure!(down.pointer("/status/reachableSince").is_none(), "{down:#}");
    let error = down.pointer("/status/lastErrors/0/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(!error.is_empty(), "{down:#}");
    ensure!(
        condition_of(&cluster.object(&image)?, "Cached").and_then(|cached| cached.get("status"))
            == Some(&json!("True"))
    );
    cluster.origin.start_again();
    until_registry(&cluster, "Reachable", "Answers")?;
    // Whoever does not look hears of both, and that there is something to fall back on.
    let [name, ..] = until("the outage is told", || {
        let told = told(&cluster, "UpstreamRegistry")?;
        let words: Vec<[&str; 2]> = told.iter().map(|[_, kind, reason]| [&**kind, &**reason]).collect();
        ensure!(words == [["Warning", "Unreachable"], ["Normal", "Answers"]], "{told:?}");
        told.into_iter().next().context("one")
    })?;
    ensure!(up.pointer("/metadata/name") == Some(&json!(name)), "{name}");
    let cached = told(&cluster, "CachedImage")?;
    let of_it = cached.iter().filter(|[.., kind, reason]| kind == "Normal" && reason == "Cached").count();
    ensure!(of_it == 1, "{cached:?}");
    let page = controller.page("/metrics")?;
    let line = "larder_controller_registries{condition=\"Reachable\",reason=\"Answers\"} 1";
    ensure!(page.contains(line), "{page}");
    // Too much.
    let said = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![
        said("retry-after", "120"),
        said("ratelimit-limit", "100;w=21600"),
        said("ratelimit-remaining", "0;w=21600"),
        said("ratelimit-reset", "900"),
    ];
    cluster.origin.behave(Matcher::all(), Behaviour::Status(429, headers));
    let limited = until_registry(&cluster, "Reachable", "RateLimited")?;
    let quota = |field: &str| limited.pointer(&format!("/status/quota/{field}")).and_then(Value::as_i64);
    ensure!(
        (quota("remaining"), quota("limit"), quota("windowSeconds")) == (Some(0), Some(100), Some(21600)),
        "{limited:#}"
    );
    let time = |field: &str| -> Result<i64> {
        let text = limited.pointer(&format!("/status/quota/{field}")).and_then(Value::as_str);
        Ok(text.with_context(|| format!("{limited:#}"))?.parse::<Timestamp>()?.as_second())
    };
    // Its own word, and not that of the window.
    let left = time("resetsAt")? - time("seenAt")?;
    ensure!((890..=910).contains(&left), "{limited:#}");
    ensure!(all(&cluster)?.len() == 1, "only of what served: {:#?}", all(&cluster)?);
    controller.terminate()
}

/// What waits because of a registry's quota says so, and what a person can do.
pub(crate) fn a_quota_is_kept() -> Result<()> {
    let cluster = Cluster::start()?;
    let (image, _) = cluster.push("team/app", 1);
    let name = cluster.origin.registry().to_string().replace(':', ".port-");
    let said = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": {"name": name},
        "spec": {"registry": cluster.origin.registry().to_string(), "insecure": true, "pacing": {"keepQuotaPercent": 50}},
    });
    cluster.plane.apply(&said.to_string())?;
    cluster.run("web", &image)?;
    let controller = cluster.controller(&[])?;
    cluster.until_reason(&image, "Cached", "Complete")?;
    // Only now: the first image might wait for it as well. A node's pull lets the cache hear it.
    for (header, value) in [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "40;w=21600")] {
        cluster.origin.behave(Matcher::all(), Behaviour::With(header, value.to_owned()));
    }
    let (pulled, _) = cluster.push("team/pulled", 3);
    cluster.cache.pull(&larder_oci::ImageReference::parse(&pulled)?)?;
    until_so("the quota is known", &cluster, |object| object.pointer("/status/quota/remaining") == Some(&json!(40)))?;
    let (late, content) = cluster.push("team/late", 2);
    // By a person, whose object takes none of what the controller may write.
    cluster.wish("late", &late)?;
    let object = cluster.until_reason(&late, "Cached", "QuotaKept")?;
    let words = condition_of(&object, "Cached").and_then(|cached| cached.get("message")).and_then(Value::as_str);
    let is_said =
        |words: &str| words.starts_with("50 % of the quota of ") && words.contains("lower pacing.keepQuotaPercent");
    ensure!(words.is_some_and(is_said), "{object:#}");
    ensure!(!pins(&cluster)?.contains(&late) && cluster.origin.blob_gets(&content.largest_layer()) == 0);
    // A person does that.
    let less = json!({"spec": {"pacing": {"keepQuotaPercent": 10}}}).to_string();
    cluster.plane.kubectl(&["patch", "upstreamregistry", &name, "--type=merge", "--patch", &less], "")?;
    cluster.until_reason(&late, "Cached", "Complete")?;
    controller.terminate()
}

pub(crate) fn as_people_say() -> Result<()> {
    let cluster = Cluster::start()?;
    let registry = cluster.origin.registry().to_string();
    let (tagged, content) = cluster.push("team/app", 1);
    let by_digest = format!("{registry}/team/app@{}", content.index);
    let (short, _) = cluster.push("short/app", 2);
    let (left, _) = cluster.push("left/app", 3);
    // Before the controller has ever seen the registry.
    let name = registry.replace(':', ".port-");
    let said = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": {"name": name},
        "spec": {
            "registry": registry, "insecure": true, "monitoringInterval": "2s", "pacing": {"imagesAtATime": 1},
            "prefixes": [{"prefix": "short", "expiry": "2s"}, {"prefix": "left", "skip": true}],
        },
    });
    cluster.plane.apply(&said.to_string())?;
    let quiet = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry", "metadata": {"name": "quiet.example.com"},
        "spec": {"registry": "quiet.example.com"},
    });
    cluster.plane.apply(&quiet.to_string())?;
    for (pod, image) in [("digest", &by_digest), ("tag", &tagged), ("short", &short), ("left", &left)] {
        cluster.run(pod, image)?;
    }
    let controller = cluster.controller(&[])?;
    for image in [&by_digest, &tagged, &short] {
        cluster.until_reason(image, "Cached", "Complete")?;
    }
    // Nobody asks one of which there is no image, and nobody says that it will be.
    until("it is said that nobody asks it", || {
        let all = all(&cluster)?;
        let quiet = all.iter().find(|object| object.pointer("/metadata/name") == Some(&json!("quiet.example.com")));
        let said = quiet.and_then(|quiet| condition_of(quiet, "Reachable")).context("it says nothing")?;
        let words = said.get("message").and_then(Value::as_str).unwrap_or_default();
        ensure!(said.get("reason") == Some(&json!("NotAsked")), "{said:#}");
        ensure!(words == "no image of quiet.example.com is wanted, so nobody asks it", "{said:#}");
        Ok(())
    })?;
    let refused = cluster.until_reason(&left, "Cached", "Refused")?;
    let words = condition_of(&refused, "Cached").and_then(|said| said.get("message")).and_then(Value::as_str);
    ensure!(words.is_some_and(|words| words.contains("skip")), "{refused:#}");
    // Deleted there, kept here. By the one who takes over, which has not used up what it may write of each.
    controller.terminate()?;
    cluster.stop("short")?;
    cluster.stop("tag")?;
    cluster.origin.delete("team/app");
    let controller = cluster.controller(&[])?;
    cluster.until_reason(&by_digest, "UpstreamAvailable", "Gone")?;
    ensure!(
        condition_of(&cluster.object(&by_digest)?, "Cached").and_then(|cached| cached.get("status"))
            == Some(&json!("True"))
    );
    until_so("what is gone is counted", &cluster, |object| {
        object.pointer("/status/images/missingUpstream").and_then(Value::as_i64).is_some_and(|gone| gone > 0)
    })?;
    cluster.until_gone(&short)?;
    ensure!(cluster.objects(&tagged)?.len() == 1, "its registry says nothing of how long it is kept");
    ensure!(
        !pins(&cluster)?.contains(&left) && !cluster.origin.log().iter().any(|asked| asked.path.contains("left/app"))
    );
    let after = object(&cluster)?;
    for field in ["monitoringInterval", "pacing", "prefixes", "insecure"] {
        let pointer = format!("/spec/{field}");
        ensure!(after.pointer(&pointer) == said.pointer(&pointer), "{field} is as a person wrote it: {after:#}");
    }
    // Not skipped any more.
    let changed = json!({"spec": {"prefixes": []}}).to_string();
    cluster.plane.kubectl(&["patch", "upstreamregistry", &name, "--type=merge", "--patch", &changed], "")?;
    cluster.until_reason(&left, "Cached", "Complete")?;
    // That each of them is safe was told once, whoever led.
    let cached = until("it is told", || {
        let mut told = told(&cluster, "CachedImage")?;
        told.retain(|[.., reason]| reason == "Cached");
        ensure!(told.len() >= 4, "{told:?}");
        Ok(told)
    })?;
    let names: BTreeSet<&str> = cached.iter().map(|[name, ..]| &**name).collect();
    ensure!(names.len() == cached.len(), "{cached:?}");
    // An API server that does not know the kind any more: what was said holds. Its objects went first.
    let changed = json!({"spec": {"prefixes": [{"prefix": "still", "skip": true}]}}).to_string();
    cluster.plane.kubectl(&["patch", "upstreamregistry", &name, "--type=merge", "--patch", &changed], "")?;
    let (still, _) = cluster.push("still/app", 5);
    cluster.run("still", &still)?;
    cluster.until_reason(&still, "Cached", "Refused")?;
    cluster.plane.kubectl(&["delete", "crd", "upstreamregistries.larder.dev"], "")?;
    controller.until_it_says("UpstreamRegistries")?;
    let (late, _) = cluster.push("team/late", 4);
    let (too, _) = cluster.push("still/too", 6);
    cluster.run("too", &too)?;
    cluster.until_reason(&too, "Cached", "Refused")?;
    cluster.run("late", &late)?;
    cluster.until_reason(&late, "Cached", "Complete")?;
    ensure!(!cluster.origin.log().iter().any(|asked| asked.path.contains("still/")), "{:?}", cluster.origin.log());
    controller.terminate()
}

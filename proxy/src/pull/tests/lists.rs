//! Lists are passed on, and tags are known while the origin is away.

use http::{Method, StatusCode};
use larder_oci::ManifestReference;

use super::{Stage, assert_refused, bytes, tag};
use crate::fetch::testing::{digest, name, until};
use crate::source::{SourceError, Unconfirmed, Verdict};
use crate::store::Store;

#[tokio::test]
async fn tags_are_the_origins_or_those_that_we_know() {
    let stage = Stage::new();
    stage.source.list(r#"{"name":"team/app","tags":["v1","v2"]}"#);
    let reply = stage.puller.tags(&name("team/app"), None, Method::GET).await;
    assert_eq!(bytes(reply).await.0, r#"{"name":"team/app","tags":["v1","v2"]}"#);
    stage.source.fail(Some(SourceError::Timeout));
    assert_refused(&stage.puller.tags(&name("team/app"), None, Method::GET).await, StatusCode::BAD_GATEWAY);
    stage.source.fail(None);
    stage.source.tag(&name("team/app"), "v1", "one");
    bytes(stage.tag(Method::GET).await).await;
    until(|| async { stage.store.tag(&name("team/app"), &tag()).await.unwrap().is_some() }).await;
    stage.source.fail(Some(SourceError::Timeout));
    let reply = stage.puller.tags(&name("team/app"), None, Method::GET).await;
    assert_eq!(reply.outcome.result, "stale");
    assert_eq!(bytes(reply).await.0, r#"{"name":"team/app","tags":["v1"]}"#);
    stage.source.fail(Some(SourceError::NotFound));
    assert_refused(&stage.puller.tags(&name("team/app"), None, Method::GET).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn referrers_of_what_we_do_not_hold_are_the_origins_or_nobodys() {
    let stage = Stage::new();
    let subject = digest(b"subject");
    stage.source.list(r#"{"manifests":[]}"#);
    let reply = stage.puller.referrers(&name("team/app"), &subject, None, Method::GET).await;
    assert_eq!(bytes(reply).await.0, r#"{"manifests":[]}"#);
    for (error, status) in
        [(SourceError::NotFound, StatusCode::NOT_FOUND), (SourceError::Timeout, StatusCode::BAD_GATEWAY)]
    {
        stage.source.fail(Some(error));
        assert_refused(&stage.puller.referrers(&name("team/app"), &subject, None, Method::GET).await, status);
    }
}

#[tokio::test]
async fn referrers_of_what_we_hold_are_kept_and_are_no_tag() {
    let stage = Stage::new();
    let (subject, _) = stage.source.tag(&name("team/app"), "v1", "one");
    bytes(stage.tag(Method::GET).await).await;
    let list = r#"{"schemaVersion":2,"manifests":[]}"#;
    stage.source.list(list);
    let ask = async |query: Option<&'static str>| {
        stage.puller.referrers(&name("team/app"), &subject, query, Method::GET).await
    };
    assert_eq!(bytes(ask(None).await).await.0, list);
    until(|| async { stage.store.tags(&name("team/app")).await.unwrap().len() == 2 }).await;
    stage.source.fail(Some(SourceError::Timeout));
    for query in [None, Some("artifactType=x")] {
        let reply = ask(query).await;
        assert_eq!(reply.outcome.result, "stale");
        assert_eq!(bytes(reply).await.0, list);
    }
    let tags = bytes(stage.puller.tags(&name("team/app"), None, Method::GET).await).await.0;
    assert_eq!(tags, r#"{"name":"team/app","tags":["v1"]}"#);
    for tag in stage.store.tags(&name("team/app")).await.unwrap() {
        let reply = stage.puller.manifest(&name("team/app"), &ManifestReference::Tag(tag.clone()), Method::GET).await;
        assert_eq!(reply.status == StatusCode::OK, tag.as_str() == "v1", "{tag}");
    }
    stage.source.fail(Some(SourceError::NotFound));
    assert_refused(&ask(None).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_that_the_cluster_cache_only_remembers_are_stale_here_too_and_are_not_kept() {
    let stage = Stage::new();
    let (subject, _) = stage.source.tag(&name("team/app"), "v1", "one");
    bytes(stage.tag(Method::GET).await).await;
    until(|| async { stage.store.tag(&name("team/app"), &tag()).await.unwrap().is_some() }).await;
    stage.source.list(r#"{"schemaVersion":2,"manifests":[]}"#);
    stage.source.unconfirmed(Some(Unconfirmed { said: Verdict::Timeout, age: None }));
    let tags = stage.puller.tags(&name("team/app"), None, Method::GET).await;
    let referrers = stage.puller.referrers(&name("team/app"), &subject, None, Method::GET).await;
    for reply in [tags, referrers] {
        assert_eq!((reply.status, reply.outcome.result), (StatusCode::OK, "stale"));
        assert_eq!(reply.headers["larder-origin"], "timeout");
    }
    // A list of the registry's own is kept; this one, asked for before it, was not.
    stage.source.unconfirmed(None);
    stage.source.fail(Some(SourceError::Timeout));
    let reply = stage.puller.referrers(&name("team/app"), &subject, None, Method::GET).await;
    assert_refused(&reply, StatusCode::BAD_GATEWAY);
}

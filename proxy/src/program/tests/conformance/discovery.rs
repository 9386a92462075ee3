//! Section "Content Discovery": "Listing Tags", "Listing Referrers", and the "Referrers Tag Schema" where a registry has no such list.

use larder_oci::media_type;
use larder_test_origin::{Behaviour, Matcher};
use serde_json::{Value, json};

use super::*;

const TAGS: [&str; 5] = ["latest", "v1", "v10", "v2", "v3"];

fn with_tags() -> Stage {
    let stage = Stage::start();
    for tag in TAGS {
        stage.origin.push(REPOSITORY, tag, &stage.image);
    }
    stage
}

fn tags(answer: &Exchanged) -> Vec<String> {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["name"], REPOSITORY);
    document["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// The target of `Link: <…>; rel="next"`, to be asked for as it is.
fn next(answer: &Exchanged) -> Option<String> {
    let (target, relation) = answer.header("link")?.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation, "; rel=\"next\"");
    Some(target.to_owned())
}

async fn assert_paged(way: Way<'_>) {
    assert_eq!(tags(&way.ask("GET", "tags/list").await), TAGS, "{way:?}");
    let head = way.ask("HEAD", "tags/list").await;
    assert_eq!((head.status, head.body.len()), (200, 0), "{way:?}");
    assert_eq!(tags(&way.ask("GET", "tags/list?last=v10").await), ["v2", "v3"], "{way:?}");
    assert_eq!(tags(&way.ask("GET", "tags/list?n=2&last=v1").await), ["v10", "v2"], "{way:?}");
    let none = way.ask("GET", "tags/list?n=0").await;
    assert_eq!((tags(&none).len(), next(&none)), (0, None), "{way:?}");
    let all = way.ask("GET", "tags/list?n=50").await;
    assert_eq!((tags(&all).len(), next(&all)), (5, None), "{way:?}");
    let mut seen = Vec::new();
    let mut target = Some(way.target(REPOSITORY, "tags/list?n=2"));
    while let Some(asked) = target {
        let page = way.ask_for("GET", &asked, "").await;
        let found = tags(&page);
        assert!(found.len() <= 2, "{way:?} {asked}");
        seen.extend(found);
        target = next(&page);
        assert!(seen.len() < 9, "{way:?}: round and round");
    }
    assert_eq!(seen, TAGS, "{way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_tags_no_more_than_n_after_last_in_order_and_each_link_leads_on_here() {
    let stage = with_tags();
    for way in stage.ways() {
        assert_paged(way).await;
        let absent = way.target("team/absent", "tags/list");
        assert_error(&way.ask_for("GET", &absent, "").await, 404, None);
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_tags_while_the_registry_is_away_by_the_same_rules() {
    let stage = with_tags();
    for way in stage.ways() {
        for tag in TAGS {
            assert_eq!(way.ask("GET", &format!("manifests/{tag}")).await.status, 200);
        }
    }
    stage.origin.behave(Matcher::all(), Behaviour::Status(503, vec![]));
    for way in stage.ways() {
        until("all tags are known", async || tags(&way.ask("GET", "tags/list").await).len() >= TAGS.len()).await;
        assert!(way.ask("GET", "tags/list").await.header("warning").is_some_and(|it| it.starts_with("299 - ")));
        assert_paged(way).await;
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_referrers_an_index_also_of_none_and_a_filter_that_was_applied_is_named() {
    let stage = Stage::start();
    let subject = stage.image.index.clone();
    let artifact = |kind: &str| {
        let subject = json!({"mediaType": media_type::OCI_INDEX, "digest": subject.as_str(), "size": 1});
        let document = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
            "config": {}, "layers": [], "subject": subject});
        stage.origin.push_manifest(REPOSITORY, None, media_type::OCI_MANIFEST, document.to_string().into())
    };
    let (signature, _) = (artifact("application/vnd.example.signature"), artifact("application/vnd.example.sbom"));
    let found = |answer: &Exchanged| -> Vec<Value> {
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type::OCI_INDEX)));
        let index: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(media_type::OCI_INDEX)));
        index["manifests"].as_array().unwrap().clone()
    };
    for way in stage.ways() {
        let all = way.ask("GET", &format!("referrers/{subject}")).await;
        assert_eq!((found(&all).len(), all.header("oci-filters-applied")), (2, None), "{way:?}");
        let filter = "artifactType=application%2Fvnd.example.signature";
        let filtered = way.ask("GET", &format!("referrers/{subject}?{filter}")).await;
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"), "{way:?}");
        let only = found(&filtered);
        assert_eq!((only.len(), &only[0]["digest"]), (1, &json!(signature.as_str())), "{way:?}");
        assert_eq!(way.ask("GET", &format!("manifests/{signature}")).await.status, 200, "{way:?}");
        let none = way.ask("GET", &format!("referrers/{signature}")).await;
        assert!(found(&none).is_empty(), "{way:?}");
        assert_error(&way.ask("GET", "referrers/sha256:short").await, 400, Some("DIGEST_INVALID"));
        assert_error(&way.ask("GET", "referrers/v1").await, 400, Some("DIGEST_INVALID"));
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn referrers_tag_schema_404_where_the_registry_has_no_list_and_the_tag_instead() {
    let stage = Stage::start();
    let subject = stage.image.index.clone();
    stage.origin.behave(Matcher::path("/referrers/"), Behaviour::Status(404, vec![]));
    let tag = format!("{}-{}", subject.algorithm().as_str(), subject.hex());
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}).to_string();
    stage.origin.push_manifest(REPOSITORY, Some(&tag), media_type::OCI_INDEX, index.clone().into());
    for way in stage.ways() {
        assert_error(&way.ask("GET", &format!("referrers/{subject}")).await, 404, None);
        let fallback = way.ask("GET", &format!("manifests/{tag}")).await;
        assert_eq!((fallback.status, fallback.header("content-type")), (200, Some(media_type::OCI_INDEX)), "{way:?}");
        assert!(fallback.body == index.as_bytes(), "{way:?}");
    }
    stage.end().await;
}

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{Layer as _, service_fn};

use super::*;

const DAY: Duration = Duration::from_hours(24);

/// An API server that has these Pods and says that it is this late, and what was deleted there.
async fn after(pods: Value, date: Option<SystemTime>, due: &[&str]) -> (Expired, Vec<String>) {
    let deleted: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&deleted);
    let answering = service_fn(move |request: Request<Body>| {
        let body = if request.method() == Method::DELETE {
            log.lock().unwrap().push(request.uri().path().rsplit('/').next().unwrap().to_owned());
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })
        } else {
            json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "9" }, "items": pods })
        };
        let response = Response::builder().header("content-type", "application/json");
        let date = date.map(httpdate::fmt_http_date);
        let response = date.into_iter().fold(response, |response, date| response.header("date", date));
        let answer = response.body(Body::from(body.to_string().into_bytes())).unwrap();
        std::future::ready(Ok::<_, std::io::Error>(answer))
    });
    let heard = Heard::default();
    let client = Client::new(heard.layer(answering), "default");
    let as_seen = || expiry::Preconditions { uid: "u".to_owned(), resource_version: "7".to_owned() };
    let one = |name: &&str| Due { image: Image::parse(name).unwrap(), name: (*name).to_owned(), as_seen: as_seen() };
    let expired = expire(Api::all(client.clone()), Api::all(client), heard, due.iter().map(one).collect()).await;
    let deleted = deleted.lock().unwrap().clone();
    (expired, deleted)
}

fn running(image: &str) -> Value {
    json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": { "containers": [{ "name": "main", "image": image }] } })
}

#[tokio::test]
async fn what_no_pod_uses_goes() {
    let (expired, deleted) = after(json!([running("nginx")]), Some(SystemTime::now()), &["nginx", "redis"]).await;
    assert_eq!(deleted, ["redis"]);
    assert_eq!((expired.gone.len(), expired.spared.len(), expired.off, expired.error), (1, 1, None, None));
}

#[tokio::test]
async fn by_a_clock_that_is_not_the_api_servers_nothing_does() {
    let now = SystemTime::now();
    for (date, is_ahead) in [(Some(now - 40 * DAY), Some(true)), (Some(now + DAY), Some(false)), (None, None)] {
        let (expired, deleted) = after(json!([]), date, &["redis"]).await;
        assert_eq!((deleted, expired.gone.len()), (Vec::new(), 0));
        let found = expired.off.unwrap();
        assert_eq!(
            is_ahead,
            match found {
                Off::Ahead(_) => Some(true),
                Off::Behind(_) => Some(false),
                Off::Unknown => None,
            }
        );
        // That is found out, too, while everything is held back.
        assert!(after(json!([]), date, &[]).await.0.off.is_some());
    }
}

#[tokio::test]
async fn nor_while_there_is_a_pod_of_which_nobody_knows_what_it_uses() {
    let odd = json!({ "metadata": { "name": "odd", "namespace": "shop" }, "spec": { "containers": "none" } });
    let (expired, deleted) = after(json!([odd]), Some(SystemTime::now()), &["redis"]).await;
    assert_eq!(deleted, Vec::<String>::new());
    assert!(matches!(expired.error, Some(Failed::Look(words)) if words.contains("shop/odd")));
}

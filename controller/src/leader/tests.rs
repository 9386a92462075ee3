use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tower::service_fn;

use super::*;

fn leading_for(time: Duration) -> (watch::Sender<Option<Instant>>, Leadership) {
    let (sender, until) = watch::channel(Some(Instant::now() + time));
    (sender, Leadership { until })
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_given_up_when_the_lead_is_over_and_not_begun_after_it() {
    let (_sender, leadership) = leading_for(Duration::from_secs(10));
    let written = AtomicUsize::new(0);
    let write = async |time| {
        tokio::time::sleep(Duration::from_secs(time)).await;
        written.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(leadership.writing(write(4)).await, Ok(()));
    let began = Instant::now();
    assert_eq!(leadership.writing(write(60)).await, Err(NotLeading));
    assert_eq!(began.elapsed(), Duration::from_secs(6));
    assert_eq!(leadership.writing(write(0)).await, Err(NotLeading));
    assert_eq!(written.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_goes_on_where_it_was() {
    let (sender, leadership) = leading_for(Duration::from_secs(10));
    let writing = tokio::spawn(async move { leadership.writing(tokio::time::sleep(Duration::from_secs(25))).await });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        sender.send_replace(Some(Instant::now() + Duration::from_secs(10)));
    }
    assert_eq!(writing.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn another_leader_ends_it_at_once() {
    let (sender, leadership) = leading_for(Duration::from_secs(10));
    let began = Instant::now();
    let writing = tokio::spawn(async move { leadership.writing(std::future::pending::<()>()).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    sender.send_replace(None);
    assert_eq!(writing.await.unwrap(), Err(NotLeading));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

struct Panics;

impl Witness for Panics {
    fn leads(&self, _: bool) {}
    fn leader(&self, _: &str) {
        panic!("of course");
    }
    fn word(&self, _: Option<&str>) {}
}

/// The process ends then (`tasks::the_end_of_any_part_ends_the_process_with_its_name`): one that waits for a lease that nobody asks for is worse than none.
#[tokio::test]
async fn whoever_cannot_renew_any_more_ends() {
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "it" }, "spec": { "holderIdentity": "another" } });
    let answering = service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, std::io::Error>(Response::new(Body::from(lease.to_string().into_bytes()))))
    });
    let client = Client::new(answering, "default");
    let name: LeaseName = "here/it".parse().unwrap();
    let candidate = Candidate::new(client, name, "this".to_owned(), Times::default(), Arc::new(Panics));
    let leading = lead(candidate, CancellationToken::new(), |_| std::future::pending::<Result<(), Infallible>>());
    let ended = tokio::time::timeout(Duration::from_mins(1), leading).await;
    assert_eq!(ended.expect("it ends"), Ok(()));
}

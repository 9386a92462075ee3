use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
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

struct Nobody;

impl Witness for Nobody {
    fn leads(&self, _: bool) {}
    fn leader(&self, _: &str) {}
    fn word(&self, _: Option<&str>) {}
}

/// An API server that has one Lease.
struct Leases {
    lease: Mutex<Value>,
    patches: AtomicUsize,
    /// That patch is taken and never answered, and the process is to stop.
    last: usize,
    stop: CancellationToken,
}

impl Leases {
    fn new(last: usize) -> Arc<Self> {
        let metadata = json!({ "name": "it", "resourceVersion": "1", "annotations": { "kept": "by somebody" } });
        let lease =
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {} });
        Arc::new(Self {
            lease: Mutex::new(lease),
            patches: AtomicUsize::default(),
            last,
            stop: CancellationToken::new(),
        })
    }

    fn lease(&self) -> Value {
        self.lease.lock().unwrap().clone()
    }

    async fn answer(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        let is_patch = request.method() == http::Method::PATCH;
        let body = request.into_body().collect_bytes().await.unwrap();
        let (status, answer) = if is_patch { self.patch(&body) } else { (200, self.lease()) };
        if is_patch && self.patches.fetch_add(1, Ordering::SeqCst) + 1 == self.last {
            self.stop.cancel();
            std::future::pending::<()>().await;
        }
        let answer = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
        Ok(answer.unwrap())
    }

    fn patch(&self, body: &[u8]) -> (u16, Value) {
        let change: Value = serde_json::from_slice(body).unwrap();
        let mut lease = self.lease.lock().unwrap();
        if change["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] {
            let status = json!({ "kind": "Status", "status": "Failure", "message": "another version", "reason": "Conflict", "code": 409 });
            return (409, status);
        }
        merge(&mut lease, &change);
        let version: u64 = lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        lease["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        (200, lease.clone())
    }
}

/// RFC 7396.
fn merge(target: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *target = change.clone();
        return;
    };
    for (key, value) in change {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            value => merge(&mut target[key], value),
        }
    }
}

/// Leads, says that, stops.
async fn leaves(leases: &Arc<Leases>, says: impl Fn(&Pen)) {
    let server = Arc::clone(leases);
    let client = Client::new(service_fn(move |request| Arc::clone(&server).answer(request)), "default");
    let note = Note::default();
    let name: LeaseName = "here/it".parse().unwrap();
    let candidate = Candidate::new(client, name, "this".to_owned(), Times::default(), Arc::new(Nobody));
    let work = |_: Leadership| {
        let (_, pen) = note.begin();
        says(&pen);
        async move {
            let never = std::future::pending::<Result<(), Infallible>>().await;
            drop(pen);
            never
        }
    };
    lead(candidate.with_note(note.clone()), leases.stop.clone(), work).await.unwrap();
}

/// Without another renewal.
#[tokio::test(start_paused = true)]
async fn what_the_work_has_said_last_goes_along_with_the_lease_that_is_given_back() {
    let leases = Leases::new(0);
    leaves(&leases, |pen| {
        pen.leave("brake".to_owned());
        leases.stop.cancel();
    })
    .await;
    let lease = leases.lease();
    assert_eq!(lease["metadata"]["annotations"], json!({ HELD: "brake", "kept": "by somebody" }));
    assert_eq!(lease["spec"]["holderIdentity"], Value::Null, "{lease}");
    assert_eq!(leases.patches.load(Ordering::SeqCst), 2, "taken, and given back");
}

#[tokio::test(start_paused = true)]
async fn it_does_so_when_a_renewal_was_under_way_that_nobody_waits_for_any_more() {
    let leases = Leases::new(2);
    leaves(&leases, |pen| pen.leave("brake".to_owned())).await;
    let lease = leases.lease();
    assert_eq!(lease["spec"]["holderIdentity"], Value::Null, "{lease}");
    assert_eq!(lease["metadata"]["annotations"][HELD], "brake");
}

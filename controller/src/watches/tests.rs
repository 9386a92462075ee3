use std::sync::Mutex;

use futures_util::stream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::*;
use crate::decide::filter::Filters;

type Events = UnboundedSender<watcher::Result<Event<Guarded>>>;

/// Longer than any pause before a watch is tried again. No time passes for it.
async fn settle() {
    tokio::time::sleep(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_not_there_is_listed_anew_before_it_counts_as_watched() {
    let (readiness, is_open) = (Readiness::new(), Arc::new(Notify::new()));
    let world = Arc::new(World::new(Filters::default()));
    let watch = Watch {
        kind: "CachedImages",
        is_open: Arc::clone(&is_open),
        is_optional: false,
        world: Arc::clone(&world),
        readiness: readiness.clone(),
        metrics: Arc::default(),
    };
    let watches: Arc<Mutex<Vec<Events>>> = Arc::default();
    let begin = {
        let watches = Arc::clone(&watches);
        move || {
            let (sender, receiver) = unbounded_channel();
            watches.lock().unwrap().push(sender);
            stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|event| (event, receiver)) })
        }
    };
    let following = tokio::spawn(watch.follow(begin, Names::of(image)));
    settle().await;
    let send = |watch: usize, event| watches.lock().unwrap()[watch].send(event).unwrap();
    let is_listed = || world.known().listed.images;
    let says = || readiness.told().contains_key("CachedImages");
    for event in [Event::Init, Event::InitDone] {
        send(0, Ok(event));
    }
    is_open.notify_one();
    settle().await;
    assert!(is_listed() && !says());
    let missing = serde_json::json!({"status": "Failure", "code": 404, "message": "404 page not found"});
    let missing = kube::Error::Api(Box::new(serde_json::from_value(missing).unwrap()));
    send(0, Err(watcher::Error::WatchStartFailed(missing)));
    settle().await;
    assert!(!is_listed() && says(), "nothing is known of it");
    // When the kind is there again etcd may be that of yesterday, and where this watch was is a version of tomorrow.
    assert_eq!(watches.lock().unwrap().len(), 2, "whoever waits for that version waits for long");
    send(1, Ok(Event::Init));
    settle().await;
    assert!(!is_listed() && says());
    send(1, Ok(Event::InitDone));
    settle().await;
    assert!(is_listed() && !says());
    is_open.notify_one();
    settle().await;
    assert_eq!(watches.lock().unwrap().len(), 2);
    following.abort();
}

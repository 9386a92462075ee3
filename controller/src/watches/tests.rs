use std::sync::Mutex;

use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::decide::filter::Filters;

/// Where the events of each watch that was begun are put.
type Scripts<K> = Arc<Mutex<Vec<UnboundedSender<watcher::Result<Event<K>>>>>>;

fn watch_of(kind: &'static str, world: &Arc<World>, readiness: &Readiness) -> Watch {
    Watch {
        kind,
        is_open: Arc::default(),
        after: None,
        is_listed: CancellationToken::new(),
        is_optional: false,
        world: Arc::clone(world),
        readiness: readiness.clone(),
        metrics: Arc::default(),
    }
}

/// Watches that see what a test says.
fn scripted<K: Send + 'static>() -> (Scripts<K>, impl Fn() -> BoxStream<'static, watcher::Result<Event<K>>> + Send) {
    let scripts = Scripts::<K>::default();
    let begin = {
        let scripts = Arc::clone(&scripts);
        move || {
            let (sender, receiver) = unbounded_channel();
            scripts.lock().unwrap().push(sender);
            let next =
                |mut receiver: UnboundedReceiver<_>| async { receiver.recv().await.map(|event| (event, receiver)) };
            stream::unfold(receiver, next).boxed()
        }
    };
    (scripts, begin)
}

/// Longer than any pause before a watch is tried again. No time passes for it.
async fn settle() {
    tokio::time::sleep(Duration::from_mins(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_not_there_is_listed_anew_before_it_counts_as_watched() {
    let (readiness, world) = (Readiness::new(), Arc::new(World::new(Filters::default())));
    let watch = watch_of("CachedImages", &world, &readiness);
    let is_open = Arc::clone(&watch.is_open);
    let (watches, begin) = scripted::<Guarded>();
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

#[tokio::test(start_paused = true)]
async fn pods_are_listed_after_the_labels_of_their_namespaces() {
    let (readiness, world) = (Readiness::new(), Arc::new(World::new(Filters::default())));
    let namespaces = watch_of("Namespaces", &world, &readiness);
    let pods = Watch { after: Some(namespaces.is_listed.clone()), ..watch_of("Pods", &world, &readiness) };
    let (of_pods, begin) = scripted();
    let following_pods = tokio::spawn(pods.follow(begin, pod));
    settle().await;
    let (of_namespaces, begin) = scripted();
    let following = tokio::spawn(namespaces.follow(begin, Names::of(namespace)));
    settle().await;
    of_namespaces.lock().unwrap()[0].send(Ok(Event::Init)).unwrap();
    settle().await;
    assert!(of_pods.lock().unwrap().is_empty(), "they were asked for before anybody knew the labels");
    let page = readiness.report().to_string();
    assert!(page.contains("waiting: Namespaces") && page.contains("waiting: Pods"), "{page}");
    of_namespaces.lock().unwrap()[0].send(Ok(Event::InitDone)).unwrap();
    settle().await;
    assert_eq!(of_pods.lock().unwrap().len(), 1);
    for event in [Event::Init, Event::InitDone] {
        of_pods.lock().unwrap()[0].send(Ok(event)).unwrap();
    }
    settle().await;
    assert!(world.known().listed.pods && world.known().listed.namespaces);
    following.abort();
    following_pods.abort();
}

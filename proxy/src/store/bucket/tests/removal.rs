//! The removal protocol carried out on a bucket in memory: what its machines want becomes requests, and what is theirs alone stays so.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use larder_oci::{Algorithm, Digest, ImageReference};
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::*;
use crate::pins::{Content, Declared, Failed, Holder, Pin, PinName, Platforms, Put};
use crate::store::CheckedRange;
use crate::store::bucket::keeping::BucketPins;
use crate::store::conformance::{content, rest};
use crate::store::removal::{Policy, Wait};

const LARGE: usize = 2 << 20;

/// A day is nothing here, and nobody runs by himself.
fn hasty(config: &mut BucketConfig) {
    config.copies.limit = None;
    let nothing = Duration::ZERO;
    let policy = Policy { grace: nothing, young: nothing, tombstone: nothing, sudden: nothing, ..Policy::default() };
    let never = Duration::from_hours(1000);
    config.removal = Removal { policy: Arc::new(policy), every: never, declare_every: never, ..Removal::default() };
}

async fn keys(remote: &InMemory, folder: &str) -> Vec<String> {
    let all: Vec<_> = remote.list(Some(&format!("larder/{folder}").as_str().into())).try_collect().await.unwrap();
    all.into_iter().map(|object| object.location.to_string()).collect()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn pin(holder: &Holder, blobs: &[&Bytes]) -> Pin {
    let image = ImageReference::parse("reg.example.com/app:1").unwrap();
    Pin {
        name: PinName { holder: holder.clone(), image },
        platforms: Platforms::All,
        put_at: std::time::SystemTime::now(),
        content: Some(Content {
            root: sha256(blobs[0]),
            digests: blobs.iter().map(|bytes| sha256(bytes)).collect(),
            bytes: 0,
        }),
    }
}

async fn declare(store: &BucketStore, holder: &Holder) {
    let pins = store.pins();
    let as_of = pins.begin_declaration(holder).await.unwrap();
    assert_eq!(pins.declare(holder, as_of, &Failed::default()).await.unwrap(), Declared::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_goes_with_its_checksums_and_what_is_pinned_stays() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let (wanted, unwanted) = (content(1, LARGE), content(2, LARGE));
    for bytes in [&wanted, &unwanted] {
        store.put_bytes(&sha256(bytes), bytes.clone()).await.unwrap();
    }
    let me = Holder::parse("me").unwrap();
    assert_eq!(store.pins().put(pin(&me, &[&wanted])).await.unwrap(), Put::Complete);
    // The holder `pull` speaks by itself.
    let shutdown = CancellationToken::new();
    store.spawn_keeping(&shutdown);
    until("`pull` declares", async || store.pins().declared(&Holder::pull()).await.unwrap().is_some()).await;
    assert!(
        matches!(store.collect().await.unwrap().verdict, Err(Wait::NeverDeclared(_))),
        "it has pins and said nothing"
    );
    declare(&store, &me).await;
    assert_eq!(store.collect().await.unwrap().verdict, Err(Wait::NothingToCompare));
    let run = store.collect().await.unwrap();
    assert_eq!((run.verdict, run.condemned, run.removed), (Ok(()), 1, 0));
    // It is still read, and nobody relies on it.
    assert!(!store.keeps(&sha256(&unwanted)).await.unwrap() && store.keeps(&sha256(&wanted)).await.unwrap());
    let run = store.collect().await.unwrap();
    assert_eq!((run.verdict, run.condemned, run.removed), (Ok(()), 0, 1));
    let hex = sha256(&wanted).hex().to_owned();
    for folder in ["blobs", "checksums"] {
        let keys = keys(&remote, folder).await;
        assert!(keys.len() == 1 && keys[0].contains(&hex), "{keys:?}");
    }
    // The mark stays until no late request can be under way any more.
    assert_eq!(keys(&remote, "condemned").await.len(), 1);
    store.collect().await.unwrap();
    assert_eq!(keys(&remote, "condemned").await, [""; 0]);
    let (fresh, _around) = store_on(remote as Arc<dyn Remote>, hasty).await;
    let blob = fresh.blob(&sha256(&wanted)).await.unwrap().unwrap();
    let (got, ended) = rest(CheckedRange::new(blob.clone(), 0..blob.len())).await;
    assert!(ended && got == wanted);
    let standing = store.standing();
    assert_eq!((standing.pins, standing.condemned, standing.removed), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pins_what_is_condemned_copies_it_to_a_new_generation() {
    let remote = Arc::new(InMemory::new());
    let (writer, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let bytes = content(3, LARGE);
    writer.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    let blobs = keys(&remote, "blobs").await;
    let mark = blobs[0].replacen("larder/blobs", "larder/condemned", 1);
    remote.put(&mark.as_str().into(), Bytes::new().into()).await.unwrap();
    // Another replica, which has nothing of its own, and no origin.
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    assert!(!store.keeps(&sha256(&bytes)).await.unwrap());
    assert_eq!(store.pins().put(pin(&Holder::pull(), &[&bytes])).await.unwrap(), Put::Complete);
    assert!(store.keeps(&sha256(&bytes)).await.unwrap());
    for folder in ["blobs", "checksums"] {
        assert_eq!(keys(&remote, folder).await.len(), 2, "{folder}");
    }
    // The condemned one goes, as there is another.
    declare(&store, &Holder::pull()).await;
    for _ in 0..2 {
        store.collect().await.unwrap();
    }
    let left = keys(&remote, "blobs").await;
    assert!(left.len() == 1 && left != blobs, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_what_is_condemned_uploads_it_anew() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let bytes = content(4, 5000);
    store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    let blobs = keys(&remote, "blobs").await;
    let mark = blobs[0].replacen("larder/blobs", "larder/condemned", 1);
    remote.put(&mark.as_str().into(), Bytes::new().into()).await.unwrap();
    let (another, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    another.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    assert_eq!(keys(&remote, "blobs").await.len(), 2);
    assert!(another.keeps(&sha256(&bytes)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_was_not_used_for_long_lets_go_and_is_declared() {
    let remote = Arc::new(InMemory::new());
    let (store, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, |config| {
        hasty(config);
        config.removal.declare_every = Duration::from_millis(100);
        config.removal.pull = Duration::from_secs(2);
    })
    .await;
    let shutdown = CancellationToken::new();
    store.spawn_keeping(&shutdown);
    let bytes = content(5, 100);
    store.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    let pins = store.pins();
    let wish = pin(&Holder::pull(), &[&bytes]);
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    let began = std::time::Instant::now();
    until("the pull is let go of", async || pins.get(&wish.name).await.unwrap().is_none()).await;
    assert!(began.elapsed() > Duration::from_secs(1), "the bucket counts whole seconds");
    until("`pull` declares", async || pins.declared(&Holder::pull()).await.unwrap().is_some()).await;
    assert_eq!(keys(&remote, "clusters/one/complete").await, [""; 0], "no note is left");
    assert_eq!(keys(&remote, "clusters/one/removal/clock").await, [""; 0], "no clock is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_knows_when_another_one_pinned_a_pull_without_asking_for_it() {
    let remote = Arc::new(InMemory::new());
    let (one, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let (other, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let bytes = content(7, 100);
    one.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    let image = ImageReference::parse(&format!("reg.example.com/app@{}", sha256(&bytes))).unwrap();
    let name = PinName { holder: Holder::pull(), image };
    let before = std::time::SystemTime::now() - Duration::from_secs(2);
    assert_eq!(one.pins().put(Pin { name, ..pin(&Holder::pull(), &[&bytes]) }).await.unwrap(), Put::Complete);
    let app = Name { registry: "reg.example.com".parse().unwrap(), repository: "app".parse().unwrap() };
    let asked = |name: &Name, bytes: &[u8]| other.pins().pulled_at(name, &sha256(bytes));
    assert_eq!(asked(&app, &bytes), None);
    BucketPins { shared: Arc::clone(&other.shared) }.hold_pulls().await.unwrap();
    assert!(asked(&app, &bytes).is_some_and(|at| at >= before && at <= std::time::SystemTime::now()));
    assert_eq!(asked(&app, b"another"), None);
    let another = Name { repository: "another".parse().unwrap(), ..app };
    assert_eq!(asked(&another, &bytes), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_another_replica_brings_now_is_not_let_go() {
    let remote = Arc::new(InMemory::new());
    let (bringing, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let (other, _around) = store_on(Arc::clone(&remote) as Arc<dyn Remote>, hasty).await;
    let bytes = content(6, 100);
    let wish = pin(&Holder::pull(), &[&bytes]);
    // The pin is written first.
    assert!(matches!(bringing.pins().put(wish.clone()).await.unwrap(), Put::Incomplete(_)));
    BucketPins { shared: Arc::clone(&other.shared) }.hold_pulls().await.unwrap();
    assert!(bringing.pins().get(&wish.name).await.unwrap().is_some(), "the other one took it away");
    assert_eq!(other.pins().declared(&Holder::pull()).await.unwrap(), None, "what is incomplete is not declared");
    bringing.put_bytes(&sha256(&bytes), bytes.clone()).await.unwrap();
    BucketPins { shared: Arc::clone(&other.shared) }.hold_pulls().await.unwrap();
    assert!(other.pins().get(&wish.name).await.unwrap().is_some_and(|kept| kept.complete));
}

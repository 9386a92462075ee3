//! What was used is pinned, whatever happens between the one and the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::pins::{AsOf, Declared, Failed, Holder, KeptPin, Overview, Page, Pin, PinName, Pins, PinsError, Place, Put};
use crate::pull::{KeepPulled, Keeping};
use crate::source::SourceError;
use crate::store::{Store as _, StoreHealth};

const SETTLE: Duration = Duration::from_secs(30);
const TIMES: KeepPulled = KeepPulled { settle: SETTLE, renew: Duration::from_hours(24) };

/// How often each image was pinned, on a bucket that may be away.
#[derive(Default)]
struct Bucket {
    is_away: Mutex<bool>,
    pinned: Mutex<BTreeMap<String, u32>>,
}

impl Bucket {
    fn away(&self, is_away: bool) {
        *self.is_away.lock().unwrap() = is_away;
    }

    fn pinned(&self, digest: &Digest) -> u32 {
        let name = format!("reg.example.com/team/app@{digest}");
        self.pinned.lock().unwrap().get(&name).copied().unwrap_or(0)
    }
}

impl Pins for Bucket {
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>> {
        let is_away = *self.is_away.lock().unwrap();
        if !is_away {
            *self.pinned.lock().unwrap().entry(pin.name.image.to_string()).or_default() += 1;
        }
        let put = if is_away { Err(PinsError::Unanswered("scripted".to_owned())) } else { Ok(Put::Complete) };
        Box::pin(std::future::ready(put))
    }

    fn protect(&self, _: Pin) -> BoxFuture<'_, Result<bool, PinsError>> {
        panic!("nobody asks for it")
    }

    fn get(&self, _: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>> {
        panic!("nobody asks for it")
    }

    fn list(&self, _: Option<&Holder>, _: Option<&Place>, _: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        panic!("nobody asks for it")
    }

    fn incomplete(&self, _: Option<&Place>, _: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        panic!("nobody asks for it")
    }

    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>> {
        panic!("nobody asks for it")
    }

    fn look_again(&self, _: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>> {
        panic!("nobody asks for it")
    }

    fn look_again_after(&self) -> Duration {
        panic!("nobody asks for it")
    }

    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>> {
        panic!("nobody asks for it")
    }

    fn delete(&self, _: &PinName) -> BoxFuture<'_, Result<bool, PinsError>> {
        panic!("nobody asks for it")
    }

    fn begin_declaration(&self, _: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>> {
        panic!("nobody asks for it")
    }

    fn declare(&self, _: &Holder, _: AsOf, _: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>> {
        panic!("nobody asks for it")
    }

    fn declared(&self, _: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>> {
        panic!("nobody asks for it")
    }

    fn undeclare(&self, _: &Holder) -> BoxFuture<'_, Result<(), PinsError>> {
        panic!("nobody asks for it")
    }
}

/// A process that pins what is pulled.
struct Process {
    stage: Stage,
    bucket: Arc<Bucket>,
    keeping: Arc<Keeping>,
    running: JoinHandle<()>,
}

impl Process {
    fn start(bucket: &Arc<Bucket>, journal: Option<&Path>) -> Self {
        let stage = Stage::new();
        let pins = Arc::clone(bucket) as Arc<dyn Pins>;
        let keeping = stage.puller.keep_pulled(pins, TIMES, journal.map(Path::to_owned));
        let running = tokio::spawn({
            let keeping = Arc::clone(&keeping);
            async move { keeping.run().await }
        });
        Self { stage, bucket: Arc::clone(bucket), keeping, running }
    }

    fn new() -> Self {
        Self::start(&Arc::default(), None)
    }

    async fn until_stored(&self, digest: &Digest) {
        let held = async {
            while self.stage.store.held(&name("team/app"), digest).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), held).await.expect("it is stored");
    }

    /// Pulls an image that is a manifest and nothing else.
    async fn pull(&self) -> Digest {
        let (digest, _) = self.stage.source.tag(&name("team/app"), "v1", "one");
        assert_eq!(self.stage.tag(Method::GET).await.status, StatusCode::OK);
        self.until_stored(&digest).await;
        digest
    }

    fn pinned(&self, digest: &Digest) -> u32 {
        self.bucket.pinned(digest)
    }

    /// A planned stop, as `program` does it.
    async fn stop(self) {
        self.running.abort();
        self.keeping.end(Instant::now() + Duration::from_secs(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_pulled_a_moment_before_a_stop_is_pinned() {
    let process = Process::new();
    let digest = process.pull().await;
    let bucket = Arc::clone(&process.bucket);
    process.stop().await;
    assert_eq!(bucket.pinned(&digest), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_does_not_take_is_kept_until_it_does() {
    let process = Process::new();
    process.bucket.away(true);
    let digest = process.pull().await;
    tokio::time::sleep(100 * SETTLE).await;
    process.bucket.away(false);
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.pinned(&digest), 1);
}

#[tokio::test]
async fn what_was_not_pinned_before_a_restart_is_pinned_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("uses");
    let bucket = Arc::<Bucket>::default();
    bucket.away(true);
    let digest = {
        let process = Process::start(&bucket, Some(&journal));
        let digest = process.pull().await;
        process.stop().await;
        digest
    };
    bucket.away(false);
    let process = Process::start(&bucket, Some(&journal));
    // The store is the same one, as far as this image goes.
    process.stage.source.tag(&name("team/app"), "v1", "one");
    process.stage.puller.find(&name("team/app"), &ManifestReference::Digest(digest.clone())).await.ok().unwrap();
    process.until_stored(&digest).await;
    // The file is read at once, in its own time.
    let pinned = async {
        while bucket.pinned(&digest) == 0 {
            process.keeping.end(Instant::now() + Duration::from_secs(2)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), pinned).await.expect("it is pinned after the restart");
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), "", "and it is known that it is");
}

#[tokio::test]
async fn a_stop_before_it_was_read_what_is_left_loses_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("uses");
    let bucket = Arc::<Bucket>::default();
    bucket.away(true);
    let process = Process::start(&bucket, Some(&journal));
    process.pull().await;
    process.stop().await;
    // But for how often it was looked at.
    let image = || std::fs::read_to_string(&journal).unwrap().split_once(' ').map(|(_, image)| image.to_owned());
    let left = image();
    assert!(left.is_some());
    let pins = Arc::clone(&bucket) as Arc<dyn Pins>;
    let stopped = Stage::new().puller.keep_pulled(pins, TIMES, Some(journal.clone()));
    stopped.end(Instant::now() + Duration::from_secs(2)).await;
    assert_eq!(image(), left);
}

#[tokio::test(start_paused = true)]
async fn heads_of_a_tag_are_uses_of_what_is_here_and_of_nothing_else() {
    let process = Process::new();
    let digest = process.pull().await;
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.pinned(&digest), 1);
    for day in 2..40 {
        tokio::time::sleep(TIMES.renew).await;
        assert_eq!(process.stage.tag(Method::HEAD).await.status, StatusCode::OK);
        tokio::time::sleep(2 * SETTLE).await;
        assert_eq!(process.pinned(&digest), day);
    }
    // By its digest whoever asks has it, or looks around.
    tokio::time::sleep(TIMES.renew).await;
    assert_eq!(process.stage.manifest(&digest, Method::HEAD).await.status, StatusCode::OK);
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.pinned(&digest), 39);
    // A tag that moved is another image, of which nothing is here.
    let (other, _) = process.stage.source.tag(&name("team/app"), "v1", "two");
    assert_eq!(process.stage.tag(Method::HEAD).await.status, StatusCode::OK);
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.stage.manifest(&other, Method::HEAD).await.status, StatusCode::OK);
    assert_eq!(process.pinned(&other), 0);
}

#[tokio::test(start_paused = true)]
async fn when_a_client_used_an_image_is_known_and_what_the_cache_does_by_itself_is_no_use() {
    let process = Process::new();
    let app = name("team/app");
    let (digest, _) = process.stage.source.tag(&app, "v1", "one");
    let (puller, tag) = (&process.stage.puller, ManifestReference::Tag("v1".parse().unwrap()));
    let last = |digest: &Digest| puller.last_pull(&app, digest);
    puller.find(&app, &tag).await.ok().unwrap();
    process.until_stored(&digest).await;
    puller.revalidate(&app, &tag).await.ok().unwrap();
    puller.revalidate(&app, &ManifestReference::Digest(digest.clone())).await.ok().unwrap();
    assert_eq!(last(&digest), None);
    // Whoever has it asks no more than what the tag means; by a digest one only looks around.
    process.stage.manifest(&digest, Method::HEAD).await;
    assert_eq!(last(&digest), None);
    let before = std::time::SystemTime::now() - Duration::from_secs(1);
    process.stage.tag(Method::HEAD).await;
    assert!(last(&digest).is_some_and(|at| at >= before));
    // What is given by its digest is pulled, also where the tag means something else by now.
    let (other, _) = process.stage.source.tag(&app, "v1", "two");
    assert_eq!(last(&other), None);
    assert_eq!(process.stage.manifest(&other, Method::GET).await.status, StatusCode::OK);
    assert!(last(&other).is_some_and(|at| at >= before));
    // A process that pins nothing that is pulled remembers none of it.
    let node = Stage::new();
    let (digest, _) = node.source.tag(&app, "v1", "one");
    assert_eq!(node.tag(Method::GET).await.status, StatusCode::OK);
    assert_eq!(node.puller.last_pull(&app, &digest), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_costs_no_look_and_what_never_comes_is_forgotten() {
    let process = Process::new();
    let layer = process.stage.source.add_blob(&Bytes::from_static(b"layer"));
    let digest = process.stage.source.tag_image(&name("team/app"), "v1", &[&layer]);
    assert_eq!(process.stage.tag(Method::GET).await.status, StatusCode::OK);
    process.until_stored(&digest).await;
    process.stage.store.set_health(Some(StoreHealth::Detached));
    tokio::time::sleep(100 * SETTLE).await;
    process.stage.store.set_health(None);
    bytes(process.stage.blob("team/app", &layer).await).await;
    process.until_stored(&layer).await;
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.pinned(&digest), 1);

    let away = process.stage.source.add_blob(&Bytes::from_static(b"another layer"));
    let never = process.stage.source.tag_image(&name("team/app"), "v1", &[&away]);
    assert_eq!(process.stage.tag(Method::GET).await.status, StatusCode::OK);
    tokio::time::sleep(100 * SETTLE).await;
    bytes(process.stage.blob("team/app", &away).await).await;
    process.until_stored(&away).await;
    process.stage.source.fail(Some(SourceError::CircuitOpen));
    tokio::time::sleep(2 * SETTLE).await;
    assert_eq!(process.pinned(&never), 0, "whoever uses it again has it pinned");
}

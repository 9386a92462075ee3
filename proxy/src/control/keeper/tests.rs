use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use larder_oci::{Algorithm, ImageReference};
use tokio::time::timeout;

use super::*;
use crate::fetch::testing::{ScriptedSource, limits};
use crate::metrics::Metrics;
use crate::origin::RateLimit;
use crate::pins::records::name_of;
use crate::pins::{AsOf, Content, Declared, Overview, Page, Platform};
use crate::pull::Limits;
use crate::settings::Settings;
use crate::store::Store as _;
use crate::store::memory::MemoryStore;

/// A bucket that uploads what a pin reaches for as long as it is held up, and writes the pin after.
struct Slow {
    pins: Arc<MemoryStore>,
    goes_on: Arc<Semaphore>,
    began: Arc<Semaphore>,
}

impl Pins for Slow {
    fn put(&self, pin: Pin) -> BoxFuture<'_, Result<Put, PinsError>> {
        Box::pin(async move {
            if pin.content.is_some() {
                self.began.add_permits(1);
                self.goes_on.acquire().await.unwrap().forget();
            }
            self.pins.put(pin).await
        })
    }

    fn protect(&self, pin: Pin) -> BoxFuture<'_, Result<bool, PinsError>> {
        self.pins.protect(pin)
    }

    fn get(&self, name: &PinName) -> BoxFuture<'_, Result<Option<KeptPin>, PinsError>> {
        self.pins.get(name)
    }

    fn list(&self, of: Option<&Holder>, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        Pins::list(&*self.pins, of, after, limit)
    }

    fn incomplete(&self, after: Option<&Place>, limit: usize) -> BoxFuture<'_, Result<Page, PinsError>> {
        self.pins.incomplete(after, limit)
    }

    fn overview(&self) -> BoxFuture<'_, Result<Option<Overview>, PinsError>> {
        self.pins.overview()
    }

    fn look_again(&self, name: &PinName) -> BoxFuture<'_, Result<Option<Put>, PinsError>> {
        self.pins.look_again(name)
    }

    fn look_again_after(&self) -> Duration {
        self.pins.look_again_after()
    }

    fn lost(&self) -> BoxFuture<'_, BTreeSet<Digest>> {
        self.pins.lost()
    }

    fn delete(&self, name: &PinName) -> BoxFuture<'_, Result<bool, PinsError>> {
        self.pins.delete(name)
    }

    fn begin_declaration(&self, holder: &Holder) -> BoxFuture<'_, Result<AsOf, PinsError>> {
        self.pins.begin_declaration(holder)
    }

    fn declare(&self, holder: &Holder, as_of: AsOf, failed: &Failed) -> BoxFuture<'_, Result<Declared, PinsError>> {
        self.pins.declare(holder, as_of, failed)
    }

    fn declared(&self, holder: &Holder) -> BoxFuture<'_, Result<Option<AsOf>, PinsError>> {
        self.pins.declared(holder)
    }

    fn undeclare(&self, holder: &Holder) -> BoxFuture<'_, Result<(), PinsError>> {
        self.pins.undeclare(holder)
    }
}

struct Stage {
    source: Arc<ScriptedSource>,
    keeper: Arc<Keeper>,
    goes_on: Arc<Semaphore>,
    began: Arc<Semaphore>,
    standings: Arc<Standings>,
    store: Arc<MemoryStore>,
}

const SOON: Duration = Duration::from_secs(10);

impl Stage {
    fn new() -> Self {
        let pins = MemoryStore::new(1 << 20);
        let (goes_on, began) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let slow = Slow { pins: Arc::clone(&pins), goes_on: Arc::clone(&goes_on), began: Arc::clone(&began) };
        let (source, metrics) = (Arc::new(ScriptedSource::default()), Arc::new(Metrics::new()));
        let limits = Limits { fetch: limits(), ..Limits::default() };
        let (store, standings) = (Arc::clone(&pins), Arc::<Standings>::default());
        let puller = Puller::new(pins, source.clone(), Settings::default().shared(), metrics, limits);
        let keeper = Keeper::new(Arc::new(slow), puller, Arc::clone(&standings));
        Self { source, keeper, goes_on, began, standings, store }
    }

    /// Works at it, and says whether it is whole. A blob is written by threads that go by the real time, which a paused one may overtake: then once more.
    async fn work(&self, name: &PinName) -> bool {
        for _ in 0..1_000 {
            assert_eq!(self.keeper.next().as_ref(), Some(name));
            self.keeper.work(name).await;
            match self.keeper.state(&name.place()) {
                Some((State::Waiting(reason), _)) if reason.code == Code::Store => {}
                _ => break,
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::time::advance(LONGEST).await;
        }
        self.keeper.pins.get(name).await.unwrap().unwrap().complete
    }

    /// Wishes for an image, and begins to write what it is, which takes its time.
    async fn under_way(&self, name: &PinName) -> tokio::task::JoinHandle<Result<Option<Put>, Unkept>> {
        self.keeper.wish(name, Platforms::All).await.unwrap();
        let (keeper, name) = (Arc::clone(&self.keeper), name.clone());
        let writing = tokio::spawn(async move {
            let kept = keeper.pins.get(&name).await.unwrap().unwrap();
            let root = Digest::of(Algorithm::Sha256, b"manifest");
            let content = Some(Content { root: root.clone(), digests: [root].into(), bytes: 8 });
            keeper.put(&kept, Pin { content, ..kept.pin.clone() }, &name.place()).await
        });
        timeout(SOON, self.began.acquire()).await.expect("it begins").unwrap().forget();
        writing
    }
}

fn name(image: &str) -> PinName {
    PinName { holder: Holder::parse("me").unwrap(), image: ImageReference::parse(image).unwrap() }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_its_time_makes_nobody_wait_and_what_was_deleted_stays_so() {
    let stage = Stage::new();
    let writing = stage.under_way(&name("a")).await;
    // So many that some of them would meet if names shared locks.
    for number in 0..200 {
        let other = name(&format!("b:{number}"));
        timeout(SOON, stage.keeper.wish(&other, Platforms::All)).await.expect("nobody waits for others").unwrap();
        timeout(SOON, stage.keeper.delete(&other)).await.expect("nobody waits for others").unwrap();
    }
    timeout(SOON, stage.keeper.delete(&name("a"))).await.expect("nor for what is under way").unwrap();
    assert_eq!(stage.keeper.pins.get(&name("a")).await.unwrap(), None);
    stage.goes_on.add_permits(1);
    let put = timeout(SOON, writing).await.expect("it ends").unwrap();
    assert_eq!(put.unwrap(), None, "it is nobody's wish any more");
    assert_eq!(stage.keeper.pins.get(&name("a")).await.unwrap(), None, "it does not come back");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_and_wished_for_again_is_there() {
    let stage = Stage::new();
    let writing = stage.under_way(&name("a")).await;
    timeout(SOON, stage.keeper.delete(&name("a"))).await.expect("it does not wait for what is under way").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    stage.keeper.wish(&name("a"), Platforms::All).await.unwrap();
    let wish = stage.keeper.pins.get(&name("a")).await.unwrap();
    stage.goes_on.add_permits(1);
    timeout(SOON, writing).await.expect("it ends").unwrap().unwrap();
    assert_eq!(stage.keeper.pins.get(&name("a")).await.unwrap(), wish, "the newer wish counts");
}

#[tokio::test(start_paused = true)]
async fn a_holder_is_forgotten_with_all_its_pins_and_nobody_else_is() {
    let stage = Stage::new();
    let (me, you) = (Holder::parse("me").unwrap(), Holder::parse("you").unwrap());
    for number in 0..5 {
        stage.keeper.wish(&name(&format!("a:{number}")), Platforms::All).await.unwrap();
    }
    let other = PinName { holder: you.clone(), image: name("a").image };
    stage.keeper.wish(&other, Platforms::All).await.unwrap();
    let pins = stage.keeper.pins();
    let begun = pins.begin_declaration(&you).await.unwrap();
    pins.delete(&other).await.unwrap();
    assert_eq!(pins.declare(&you, begun, &Failed::default()).await.unwrap(), Declared::Done);
    assert_eq!(stage.keeper.holders(10).await.unwrap(), std::slice::from_ref(&me), "the other one has declared only");
    for was_there in [true, false] {
        assert_eq!(stage.keeper.forget_holder(&me).await.unwrap(), was_there);
        assert!(pins.list(Some(&me), None, 10).await.unwrap().pins.is_empty());
        assert_eq!(pins.declared(&me).await.unwrap(), None);
    }
    assert_eq!(pins.declared(&you).await.unwrap(), Some(begun));
    assert!(stage.keeper.forget_holder(&you).await.unwrap(), "it had declared");
    assert_eq!(pins.declared(&you).await.unwrap(), None);
}

/// An origin that has nothing: nobody can tell what the image is.
#[tokio::test(start_paused = true)]
async fn what_has_failed_once_is_known_to_have_however_often_it_is_tried_again() {
    let stage = Stage::new();
    let (me, failing) = (Holder::parse("me").unwrap(), name("a"));
    stage.keeper.wish(&failing, Platforms::All).await.unwrap();
    assert!(stage.keeper.enqueue(&failing));
    assert_eq!(stage.keeper.failed(&me), Failed::default(), "it was not tried yet");
    stage.keeper.next().unwrap();
    stage.keeper.work(&failing).await;
    let failed = Failed::from_iter([(failing.place(), Platforms::All)]);
    assert_eq!(stage.keeper.failed(&me), failed);
    assert_eq!(stage.keeper.failed(&Holder::parse("you").unwrap()), Failed::default());
    // Asked for again, and under way.
    assert!(stage.keeper.enqueue(&failing));
    stage.keeper.next().unwrap();
    assert_eq!(stage.keeper.failed(&me), failed);
    let pins = stage.keeper.pins();
    let begun = pins.begin_declaration(&me).await.unwrap();
    let none = Failed::default();
    assert_eq!(pins.declare(&me, begun, &none).await.unwrap(), Declared::Incomplete(failing.clone()));
    assert_eq!(pins.declare(&me, begun, &failed).await.unwrap(), Declared::Done);
    // Somebody corrects the platforms while it is tried: what was tried is another wish.
    let corrected = Platforms::Only([Platform::parse("linux/amd64").unwrap()].into());
    stage.keeper.wish(&failing, corrected.clone()).await.unwrap();
    assert!(stage.keeper.enqueue(&failing));
    let failed = stage.keeper.failed(&me);
    assert_eq!(pins.declare(&me, begun, &failed).await.unwrap(), Declared::Incomplete(failing.clone()));
    stage.keeper.work(&failing).await;
    assert_eq!(stage.keeper.next(), Some(failing.clone()), "at once, and not when the former one is to be tried again");
    let failed = stage.keeper.failed(&me);
    assert_eq!(failed, Failed::from_iter([(failing.place(), corrected)]));
    assert_eq!(pins.declare(&me, begun, &failed).await.unwrap(), Declared::Done);
    // A new wish of the name is to be tried first.
    stage.keeper.delete(&failing).await.unwrap();
    stage.keeper.wish(&failing, Platforms::All).await.unwrap();
    assert_eq!(stage.keeper.failed(&me), none);
}

/// As after a restart, or for another replica on the same bucket: nobody remembers how it came to be incomplete.
#[tokio::test(start_paused = true)]
async fn whoever_goes_on_with_what_another_began_asks_no_tag_unless_it_is_wished_for_again() {
    let stage = Stage::new();
    stage.goes_on.add_permits(100);
    let (pinned, pins) = (name("reg.example.com/team/app:1"), stage.keeper.pins());
    let at = Name { registry: pinned.image.registry.clone(), repository: pinned.image.repository.clone() };
    let (planned, _) = stage.source.tag(&at, "1", "planned");
    let content = Content { root: planned.clone(), digests: [planned.clone()].into(), bytes: 0 };
    let (platforms, put_at) = (Platforms::All, SystemTime::now());
    let pin = Pin { name: pinned.clone(), platforms, put_at, content: Some(content) };
    assert_eq!(pins.put(pin).await.unwrap(), Put::Incomplete([planned.clone()].into()));
    let (moved, _) = stage.source.tag(&at, "1", "moved");
    let works = async || {
        assert_eq!(stage.keeper.next(), Some(pinned.clone()));
        stage.keeper.work(&pinned).await;
        let kept = stage.keeper.pins().get(&pinned).await.unwrap().unwrap();
        assert!(kept.complete, "{kept:?}");
        kept.pin.content.unwrap().root
    };
    timeout(Duration::from_secs(1), stage.keeper.look()).await.expect_err("it looks again and again");
    assert_eq!(works().await, planned);
    stage.keeper.wish(&pinned, Platforms::All).await.unwrap();
    assert!(stage.keeper.enqueue(&pinned));
    assert_eq!(works().await, moved);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_and_costs_pulls_waits_while_few_are_left_unless_somebody_puts_it_anew() {
    let stage = Stage::new();
    stage.goes_on.add_permits(100);
    let pinned = name("reg.example.com/team/app:1");
    let (at, pins) = (name_of(&pinned.image), stage.keeper.pins());
    let layer = stage.source.add_blob(&"a layer".into());
    let root = stage.source.tag_image(&at, "1", &[&layer]);
    let work = || stage.work(&pinned);
    stage.keeper.wish(&pinned, Platforms::All).await.unwrap();
    assert!(stage.keeper.enqueue(&pinned));
    assert!(work().await);
    let (limit, window) = (Some(100), Some(Duration::from_hours(6)));
    let said = |remaining| RateLimit { limit, remaining: Some(remaining), window, reset: None };
    let lose = async |digest: &Digest, remaining| {
        stage.standings.quota(&at.registry, said(remaining), Instant::now());
        stage.store.remove_damaged(digest).await.unwrap();
        let looked = pins.look_again(&pinned).await.unwrap();
        assert_eq!(looked, Some(Put::Incomplete([digest.clone()].into())));
        stage.source.forget();
        assert!(stage.keeper.enqueue_for(&pinned, true));
    };
    lose(&layer, 9).await;
    assert!(work().await, "a layer costs none");
    lose(&root, 10).await;
    assert!(work().await, "enough are left");
    lose(&root, 9).await;
    assert!(!work().await);
    assert_eq!(stage.source.asked(), [], "nobody is asked");
    let shown = stage.keeper.state(&pinned.place()).map(|(state, _)| state);
    assert!(matches!(&shown, Some(State::Waiting(reason)) if reason.code.as_str() == "rate_limited"), "{shown:?}");
    tokio::time::advance(Duration::from_hours(6)).await;
    assert!(work().await, "by then they are there again");
    lose(&root, 0).await;
    assert!(!work().await);
    assert!(stage.keeper.enqueue(&pinned));
    assert!(work().await, "who puts it anew means it");
}

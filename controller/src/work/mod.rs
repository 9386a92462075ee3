//! What a leader does: images that Pods want get an object, objects get a pin, and each object says how it is with its image.
//!
//! One future, which is dropped when the lead is lost: everything that is asked of others runs inside of it, and what is written asks the [`Leadership`]
//! first. It reacts to what [changed](crate::world) (an image at a time), and compares everything with everything in a pass once a minute, which is what
//! finally counts: it puts what is missing, deletes what nobody wants (held back by the [`brake`](crate::decide::brake)), and declares the set complete.
//!
//! `objects` makes and tells objects, `expire` deletes them, `pinning` and `pass` (with `survey`) are the cache's side, `monitoring` asks registries, of which `registries` has the objects;
//! `telling`, `registry_status` and `budget` decide what is written when; `jobs` is how others are asked.

mod beside;
mod bounding;
mod budget;
mod burst;
mod conditions;
mod expire;
mod held;
mod jobs;
mod listing;
mod looks;
mod monitoring;
mod notes;
mod objects;
mod pass;
mod pinning;
mod refusals;
mod registries;
mod registry_status;
mod report;
mod shared;
mod sizes;
mod survey;
mod telling;
mod trouble;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kube::Api;
use larder_api::CachedImage;
use larder_oci::ImageReference;
use tokio::time::{Instant, sleep_until};

use crate::cluster_cache::{CacheError, Pin};
use crate::decide::backoff::Backoff;
use crate::decide::bounds::Ledger;
use crate::decide::brake::Brake;
use crate::decide::expiring::Expiring;
use crate::decide::expiry::Rules;
use crate::decide::rounds::Rounds;
use crate::decide::turns::Turns;
use crate::decide::{Image, Moment};
use crate::events::Events;
use crate::leader::{Leadership, NotLeading, Pen};
use crate::world::now;

use beside::Beside;
use budget::Budget;
use conditions::Conditions;
use jobs::{Done, Told};
use listing::Unlisted;
use looks::Looks;
use refusals::Refusals;
use registries::Registries;
pub use shared::{Settings, Shared};
use trouble::Trouble;
use upstreams::Upstreams;

/// Between two passes.
const PASS: Duration = Duration::from_mins(1);

/// Between two passes that something set off.
const PASS_SOON: Duration = Duration::from_secs(1);

/// Before a pass that something set off there is so many times a pause of what the last one took: with many images a pass is long.
const PASS_SHARE: u32 = 4;

/// Between two looks at what is to expire.
const EXPIRY: Duration = Duration::from_secs(10);

/// When the set of pins was not declared complete for twice this it is said: a bucket wants it once an hour.
const DECLARED: Duration = Duration::from_mins(15);

/// Objects that are written at a time, of images and of registries.
const WRITES: usize = 32;

/// Pins that are deleted at a time.
const UNPINS: usize = 16;

/// Questions of what a tag means that are under way, of one registry.
const QUESTIONS: usize = 16;

/// The same of all of them: however many there are, the connections to the cache are for the rest as well.
const QUESTIONS_AT_ALL: usize = 64;

/// Images that are looked at before anything else gets its turn again.
const LOOKS: usize = 256;

/// For one answer of the API server.
const ANSWER: Duration = Duration::from_secs(15);

/// Works until it is dropped.
pub async fn work(shared: Arc<Shared>, leadership: Leadership) -> anyhow::Result<()> {
    let mut work = Work::new(shared, leadership);
    match work.run().await {
        // Whoever runs this drops it now, or has begun to.
        Err(NotLeading) => std::future::pending().await,
        Ok(never) => match never {},
    }
}

/// What happens to the pins.
#[derive(Default)]
struct Pins {
    /// As they were seen last, by the reference that is pinned.
    known: BTreeMap<Image, Pin>,
    /// Wishes that the cache does not take, in its words.
    refused: BTreeMap<Image, String>,
    /// Whether they were listed since we lead.
    is_listed: bool,
    /// Why the cache cannot be asked now, and since when.
    trouble: Trouble,
    /// A fetch of it is watched.
    watched: BTreeSet<Image>,
    /// It is being deleted, or waits for that.
    leaving: BTreeSet<Image>,
    /// Those of them that wait.
    to_leave: VecDeque<(Image, ImageReference)>,
}

struct Work {
    shared: Arc<Shared>,
    leadership: Leadership,
    api: Api<CachedImage>,
    events: Events,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Sent by jobs that go on.
    progress: (tokio::sync::mpsc::Sender<Done>, tokio::sync::mpsc::Receiver<Done>),
    /// To be looked at, at that time.
    looks: Looks<Image>,
    /// Whether everything is listed.
    may_look: bool,
    unlisted: Unlisted,
    /// When they may have expired, of those that no Pod uses.
    ends: Looks<Image>,
    /// Their objects are being written.
    writing: BTreeSet<Image>,
    /// What the API server did not take of them.
    refusals: Refusals,
    budget: Budget<Image>,
    registries: Registries,
    /// How long images are kept, by what people say of registries.
    rules: Rules,
    pins: Pins,
    turns: Turns,
    brake: Brake,
    expiring: Expiring,
    /// What is left for the next leader.
    pen: Pen,
    /// Images that expired and pins that a word was said for, until their pins are gone: nobody is asked for them again.
    let_go: BTreeSet<Image>,
    rounds: Rounds,
    /// What changes with time alone (a last use) is looked at with this.
    by_time: Rounds,
    /// What registries said of images.
    upstream: Upstreams,
    /// Images that are in the cache for the first time, and not yet with all that belongs to them.
    arriving: BTreeSet<Image>,
    /// Questions that are under way, by registry.
    questions: BTreeMap<Box<str>, usize>,
    digests: Beside,
    next_pass: Instant,
    pass_runs: bool,
    burst: burst::Burst,
    /// When the last pass began, and how long the last one took that ended well.
    pass_began: Instant,
    pass_took: Duration,
    next_expiry: Instant,
    expiry_runs: bool,
    /// Until when images are left alone that were due and used.
    spared: BTreeMap<Image, Instant>,
    /// When the set of pins was last declared complete, or this began to lead.
    declared: Instant,
    /// Who has how much, once that was counted.
    ledger: Option<Ledger>,
    /// Images over a bound, and namespaces, of which that was said.
    told_over: bounding::Told,
    /// The line that the log has of what would be cached.
    last_report: Option<String>,
    sizes: sizes::Sizes,
    next_size: Instant,
    /// Images whose name somebody gave to an object of another one.
    squatted: BTreeSet<Image>,
    /// What was said to the brake when it was last asked.
    last_word: Option<String>,
    conditions: Conditions,
}

/// Whoever does not lead any more says nothing of what only a leader knows.
impl Drop for Work {
    fn drop(&mut self) {
        self.conditions.clear();
        self.shared.metrics.held(0);
        self.shared.metrics.forget_images();
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.metrics.expiry_held(0);
        for queue in ["ready", "resting", "under_way", "to_write", "being_written"] {
            self.shared.metrics.queue(queue, 0);
        }
        self.shared.world.is_worked_on(false);
    }
}

impl Work {
    fn new(shared: Arc<Shared>, leadership: Leadership) -> Self {
        let client = shared.client.clone();
        let turns = Turns::new(shared.settings.concurrency, Backoff::default(), shared.identity.clone());
        let begin = Instant::now();
        shared.world.is_worked_on(true);
        shared.world.known().reasons.tell_anew();
        let (found, pen) = shared.note.begin();
        let found = held::Held::read(&found);
        Self {
            api: Api::all(client.clone()),
            events: Events::new(client.clone(), &shared.identity, Arc::clone(&shared.metrics)),
            leadership,
            jobs: FuturesUnordered::new(),
            progress: tokio::sync::mpsc::channel(256),
            looks: Looks::new(),
            may_look: false,
            unlisted: Unlisted::default(),
            ends: Looks::new(),
            writing: BTreeSet::new(),
            refusals: Refusals::default(),
            budget: Budget::of(budget::OF_AN_IMAGE),
            registries: Registries::new(client),
            rules: shared.settings.rules.clone(),
            pins: Pins::default(),
            turns,
            brake: found.brake(&shared.identity),
            expiring: found.expiring(&shared.identity),
            pen,
            let_go: BTreeSet::new(),
            rounds: Rounds::default(),
            by_time: Rounds::default(),
            upstream: Upstreams::default(),
            arriving: BTreeSet::new(),
            questions: BTreeMap::new(),
            digests: Beside::default(),
            next_pass: begin,
            pass_runs: false,
            burst: burst::Burst::default(),
            pass_began: begin,
            pass_took: Duration::ZERO,
            next_expiry: begin + EXPIRY,
            expiry_runs: false,
            spared: BTreeMap::new(),
            declared: begin,
            ledger: None,
            told_over: bounding::Told::default(),
            last_report: None,
            sizes: sizes::Sizes::default(),
            next_size: begin,
            squatted: BTreeSet::new(),
            last_word: None,
            conditions: Conditions::of(&shared.readiness),
            shared,
        }
    }

    async fn run(&mut self) -> Result<std::convert::Infallible, NotLeading> {
        let shared = Arc::clone(&self.shared);
        self.begin_registries();
        self.look_at_everything();
        loop {
            self.take_changes();
            self.take_turns();
            self.look_by_time();
            self.look();
            self.check();
            self.look_at_registries();
            self.begin_pass();
            self.begin_expiry();
            self.ask_size();
            self.tell_of_events();
            self.count();
            let wake = self.wakes_at();
            tokio::select! {
                () = shared.world.changed() => {}
                Some(done) = self.jobs.next() => self.take(done)?,
                Some(done) = self.progress.1.recv() => self.take(done)?,
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Whatever became known while another one led.
    fn look_at_everything(&mut self) {
        let known = self.shared.world.known();
        let all: Vec<Image> = known.by_image.keys().chain(known.index.images()).cloned().collect();
        drop(known);
        let now = Instant::now();
        for image in all {
            self.looks.insert(image, now);
        }
    }

    fn take_changes(&mut self) {
        let (changed, was_deleted, said_otherwise) = {
            let mut known = self.shared.world.known();
            known.believe_registries(std::time::Instant::now());
            let changed: Vec<(Image, bool)> = std::mem::take(&mut known.changed)
                .into_iter()
                .map(|image| (image.clone(), known.by_image.contains_key(&image)))
                .collect();
            (changed, known.is_deleted_anew, std::mem::take(&mut known.registries_changed))
        };
        if !said_otherwise.is_empty() {
            self.registries_changed(&said_otherwise);
        }
        for (image, has_object) in changed {
            if has_object {
                self.look_soon(image);
            } else {
                // Somebody waits for that: before those of which there is only something new to say.
                self.looks.insert_first(image);
            }
        }
        let word = self.word();
        let is_said = word != self.last_word;
        if was_deleted || is_said {
            self.last_word = word;
            self.pass_soon();
            if is_said {
                self.next_expiry = Instant::now();
            }
        }
        if self.pins.trouble.is_to_be_said(Instant::now()) {
            self.look_at_everything();
        }
    }

    fn look_soon(&mut self, image: Image) {
        self.looks.insert(image, Instant::now());
    }

    fn pass_soon(&mut self) {
        // With many images a pass takes its time, and is not all that is done while they are deleted one by one.
        let soon = (self.pass_took * PASS_SHARE).clamp(PASS_SOON, PASS);
        self.next_pass = self.next_pass.min(Instant::now() + soon);
    }

    fn wakes_at(&self) -> Instant {
        let at = |moment: Moment| Instant::now() + moment.since(now());
        let first_look = self.looks.next().filter(|_| self.may_look && self.writing.len() < WRITES);
        let passes = (!self.pass_runs).then_some(self.next_pass);
        let expires = (!self.expiry_runs && !self.shared.settings.observe).then_some(self.next_expiry);
        // While the cache is away nothing is asked of it but the list of a pass.
        let asks = !self.pins.trouble.is_some();
        let turns = self.turns.wakes_at().filter(|_| asks).map(at);
        let rounds = self.rounds.wakes_at().filter(|_| asks && self.under_way() < QUESTIONS_AT_ALL).map(at);
        let registries = Some(self.registries.wakes_at());
        let by_time = self.by_time.wakes_at().map(at);
        let unlisted = self.unlisted.said_at();
        let sizes = (self.shared.settings.observe && self.pins.is_listed).then_some(self.next_size);
        let soonest = [
            first_look,
            passes,
            expires,
            turns,
            rounds,
            registries,
            by_time,
            sizes,
            unlisted,
            self.events.wakes_at(),
            self.pins.trouble.said_at(),
        ];
        let latest = Instant::now() + PASS;
        // Never in a circle without a pause.
        soonest.into_iter().flatten().min().unwrap_or(latest).clamp(Instant::now() + Duration::from_millis(5), latest)
    }

    fn cache_said(&mut self, error: Option<&CacheError>) {
        match error {
            None => {
                if self.conditions.cache.clear() {
                    tracing::info!("the cluster cache answers again");
                }
                if self.pins.trouble.ends(Instant::now()) {
                    self.look_at_everything();
                }
            }
            Some(error) => {
                self.shared.metrics.cache_failed();
                if error.is_of_the_whole_cache() {
                    self.cache_is_away(error);
                }
            }
        }
    }

    fn cache_is_away(&mut self, error: &CacheError) {
        let words = error.to_string();
        if self.conditions.cache.set(words.clone()) {
            tracing::warn!("{words}");
        }
        if self.pins.trouble.begins(words, Instant::now()) {
            self.next_pass = self.next_pass.min(Instant::now() + PASS_SOON);
        }
    }

    fn count(&mut self) {
        let metrics = &self.shared.metrics;
        let (ready, resting, under_way) = self.turns.lengths();
        metrics.queue("ready", ready);
        metrics.queue("resting", resting);
        metrics.queue("under_way", under_way);
        metrics.queue("to_write", self.looks.len());
        metrics.queue("being_written", self.writing.len());
        let mut known = self.shared.world.known();
        if known.listed.images && known.reasons.take_news() {
            for ((condition, reason), count) in known.reasons.all() {
                metrics.images(condition, reason, count);
            }
        }
        metrics.visited(known.objects.take_visited());
        metrics.known("pods", known.index.pods());
        metrics.known("nodes", known.nodes.len());
        metrics.known("images", known.objects.len());
        metrics.known("pins", self.pins.known.len());
    }

    fn word(&self) -> Option<String> {
        self.shared.word.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

//! Two clusters on one bucket that pin, unpin, pull, read, declare and collect at random, and are paused and killed at random moments. Every pin that was ever
//! promised is complete byte for byte, whenever anybody looks; and what nobody wants is gone in the end.
//!
//! Each process is the library with spans of a few seconds in place of days. It appends to a file what it has promised, so that the one who kills it knows. `LARDER_BUCKET_SEED`
//! repeats the choices of a run (what the clock does to them is not repeated), `LARDER_BUCKET_MINUTES` makes it longer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use larder_oci::ImageReference;
use larder_proxy::pins::{Content, Declared, Failed, Holder, Pin, PinName, Pins, Platforms, Put};
use larder_proxy::store::bucket::{BucketConfig, Removal};
use larder_proxy::store::removal::Policy;
use larder_proxy::store::{Checksums, Store as _};
use larder_test_bucket::Kind;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::world::{Case, Replica, World, configured, content, sha256, until};

const CHILD: &str = "LARDER_TEST_CHURNS_ON";
const IMAGES: u64 = 14;
/// Always pinned, lest there are no pins at all, which is the brake's matter.
const ANCHOR: u64 = IMAGES;

/// What is left is looked up in the server's folder.
pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    if !matches!(kind, Kind::Versitygw | Kind::Minio) {
        return Vec::new();
    }
    vec![("clusters_that_are_killed_at_random_lose_nothing_that_is_pinned", |world| Box::pin(churn(world)))]
}

/// Small numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_of<'a, T>(&mut self, of: &'a mut [T]) -> Option<&'a mut T> {
        let which = self.below(of.len().max(1) as u64);
        of.get_mut(usize::try_from(which).unwrap())
    }
}

/// The blobs of an image. Each is in two images; some are small, some have checksums, one goes in parts.
fn blobs(image: u64) -> Vec<Bytes> {
    let blob =
        |number: u64| content(7000 + number, [900, 40_000, 1_500_000, 2_100_000, 6_000_000][(number % 5) as usize]);
    if image == ANCHOR { vec![blob(100)] } else { (image..image + 2).map(|number| blob(number % IMAGES)).collect() }
}

fn hasty(config: &mut BucketConfig) {
    let seconds = Duration::from_secs;
    let policy = Policy {
        grace: seconds(1),
        young: seconds(1),
        declared_within: seconds(12),
        tombstone: seconds(8),
        sudden: seconds(1),
        // Whatever goes here is meant.
        small: 1000,
        ..Policy::default()
    };
    config.removal = Removal {
        policy: Arc::new(policy),
        every: Duration::from_millis(300),
        declare_every: Duration::from_millis(900),
        // Often enough that somebody is still between the two writes.
        sweep: Duration::from_millis(600),
        alone: seconds(2),
        ..Removal::default()
    };
    config.part = 5 << 20;
    // Longer than any upload takes here; what is left by then is given up while the others go on.
    config.upload_age = seconds(15);
    config.upload_look = seconds(1);
    // What another one writes and removes is seen at once, so that more is relied on that is about to go.
    config.absent_for = Duration::from_millis(50);
    // A busy machine is no bucket that has lost something.
    config.read_within = seconds(20);
    config.first_bytes_within = seconds(20);
    config.silence = seconds(20);
}

fn me() -> Holder {
    Holder::parse("me").unwrap()
}

fn name(image: u64) -> PinName {
    PinName { holder: me(), image: ImageReference::parse(&format!("reg.example.com/app-{image}:1")).unwrap() }
}

fn pin(image: u64) -> Pin {
    let digests: Vec<_> = blobs(image).iter().map(|bytes| sha256(bytes)).collect();
    let content = Content { root: digests[0].clone(), digests: digests.into_iter().collect(), bytes: 0 };
    Pin { name: name(image), platforms: Platforms::All, put_at: SystemTime::now(), content: Some(content) }
}

/// One process of a cluster.
struct Cluster {
    replica: Replica,
    pins: Arc<dyn Pins>,
    endpoint: String,
    prefix: String,
    id: String,
}

impl Cluster {
    async fn open(endpoint: &str, prefix: &str, id: &str) -> Self {
        let replica = opened(endpoint, prefix, id).await;
        replica.keep();
        let pins = replica.store.pins();
        Self { replica, pins, endpoint: endpoint.to_owned(), prefix: prefix.to_owned(), id: id.to_owned() }
    }

    async fn bring(&self, image: u64) {
        for bytes in blobs(image) {
            // The same blob may be on its way here already.
            if let Ok(mut partial) = self.replica.store.create(&sha256(&bytes), Some(bytes.len() as u64)).await {
                let stored = tokio::task::spawn_blocking(move || {
                    if partial.existing() > 0 {
                        partial.restart().unwrap();
                    }
                    partial.append(&bytes).unwrap();
                    partial.commit(Checksums::of(&bytes)).unwrap();
                });
                stored.await.unwrap();
            }
        }
    }

    /// Until it is complete; with an origin that delivers, that takes two rounds, or another one if what was found went meanwhile.
    async fn pin(&self, image: u64, pull_first: bool) -> Result<(), String> {
        if pull_first {
            self.bring(image).await;
        }
        let pin = pin(image);
        let mut last = String::new();
        for _ in 0..10 {
            match self.pins.put(pin.clone()).await {
                Ok(Put::Complete) => return Ok(()),
                Ok(Put::Incomplete(_)) => self.bring(image).await,
                Ok(Put::Superseded) => return Err("nobody else pins for this holder".to_owned()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("it does not become complete: {last}"))
    }

    async fn declare(&self) -> bool {
        let Ok(as_of) = self.pins.begin_declaration(&me()).await else { return false };
        matches!(self.pins.declare(&me(), as_of, &Failed::default()).await, Ok(Declared::Done))
    }

    /// As `larder-cache` does now and then. A collector that was killed while it condemned may have done so after somebody had begun to rely on it: nothing is
    /// lost by that, and it is copied when it is looked at next.
    async fn look_again(&self) {
        let Ok(Some(seen)) = self.pins.overview().await else { return };
        let Ok(page) = self.pins.list(Some(&me()), None, 1000).await else { return };
        for kept in page.pins {
            if kept.older_lacks || !seen.has_all_of(&kept) {
                let _ = self.pins.look_again(&kept.pin.name).await;
            }
        }
    }

    async fn pinned(&self) -> Vec<(u64, bool)> {
        let page = self.pins.list(Some(&me()), None, 1000).await.unwrap();
        let number = |image: String| image.split("app-").nth(1)?.split(':').next()?.parse().ok();
        let of = |name: &PinName| number(name.image.to_string()).unwrap();
        page.pins.iter().map(|kept| (of(&kept.pin.name), kept.complete)).collect()
    }

    /// Reads every byte of an image by a process that has nothing of its own.
    async fn read(&self, image: u64) -> Result<(), String> {
        let fresh = opened(&self.endpoint, &self.prefix, &self.id).await;
        for bytes in blobs(image) {
            let digest = sha256(&bytes);
            match fresh.get(&digest).await {
                Some((got, true)) if got == bytes => {}
                Some((got, _)) => {
                    return Err(format!("image {image}: {} of {} bytes of {digest}", got.len(), bytes.len()));
                }
                None => return Err(format!("image {image}: {digest} is not there")),
            }
        }
        Ok(())
    }
}

async fn opened(endpoint: &str, prefix: &str, id: &str) -> Replica {
    let copies = tempfile::tempdir().unwrap();
    let mut config = configured(&Kind::Versitygw.bucket(prefix), endpoint, id, &copies);
    hasty(&mut config);
    Replica::open(config, copies).await.unwrap()
}

/// In a process that is killed sooner or later.
pub(crate) fn child() -> Option<ExitCode> {
    let said = std::env::var(CHILD).ok()?;
    let words: Vec<&str> = said.split(' ').collect();
    let [endpoint, prefix, id, journal, seed] = words[..] else { return Some(ExitCode::FAILURE) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(endpoint, prefix, id, Path::new(journal), seed.parse().unwrap()));
    Some(ExitCode::SUCCESS)
}

async fn work(endpoint: &str, prefix: &str, id: &str, journal: &Path, seed: u64) {
    let mut journal = File::options().append(true).create(true).open(journal).unwrap();
    // One write: what is killed has said a line, or has not.
    let mut say = |line: String| journal.write_all(format!("{line}\n").as_bytes()).unwrap();
    let (cluster, mut random) = (Cluster::open(endpoint, prefix, id).await, Random::new(seed));
    cluster.pin(ANCHOR, true).await.unwrap();
    say(format!("pinned {ANCHOR}"));
    let mut told = (0, 0);
    loop {
        // Its own collector runs beside.
        let standing = cluster.replica.store.standing();
        if (standing.condemned, standing.removed) != told {
            say(format!("ran {} {}", standing.condemned - told.0, standing.removed - told.1));
            told = (standing.condemned, standing.removed);
        }
        let image = random.below(IMAGES);
        if random.below(3) == 0 && cluster.declare().await {
            say("declared".to_owned());
        }
        match random.below(12) {
            0..4 => {
                if let Err(error) = cluster.pin(image, random.below(2) == 0).await {
                    say(format!("wrong {image} {error}"));
                } else {
                    say(format!("pinned {image}"));
                }
            }
            4..8 => {
                say(format!("unpinning {image}"));
                let _ = cluster.pins.delete(&name(image)).await;
            }
            8 => cluster.bring(image).await,
            9 => {
                // Only what is complete and stays so while it is read: nobody else unpins for this holder.
                let mut complete: Vec<u64> =
                    cluster.pinned().await.into_iter().filter(|(_, is)| *is).map(|(n, _)| n).collect();
                if let Some(image) = random.one_of(&mut complete)
                    && let Err(error) = cluster.read(*image).await
                {
                    say(format!("wrong {image} {error}"));
                }
            }
            10 => {
                let _ = cluster.replica.store.collect().await.unwrap();
            }
            _ => {
                for (image, complete) in cluster.pinned().await {
                    if !complete && cluster.pin(image, true).await.is_ok() {
                        say(format!("pinned {image}"));
                    }
                }
            }
        }
    }
}

/// What was promised for certain, and what was said beside.
#[derive(Debug, Default)]
struct Said {
    pinned: BTreeMap<u64, bool>,
    wrong: Vec<String>,
    condemned: u64,
    removed: u64,
    declared: u64,
}

fn said(journal: &Path) -> Said {
    let mut said = Said::default();
    for line in std::fs::read_to_string(journal).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["pinned", image] => _ = said.pinned.insert(image.parse().unwrap(), true),
            ["unpinning", image] => _ = said.pinned.insert(image.parse().unwrap(), false),
            ["ran", condemned, removed] => {
                said.condemned += condemned.parse::<u64>().unwrap();
                said.removed += removed.parse::<u64>().unwrap();
            }
            ["declared"] => said.declared += 1,
            _ => said.wrong.push(line.to_owned()),
        }
    }
    said
}

/// What is asked of each, and of all, whatever the seed: what was never removed cannot have been missed.
fn have_done_their_part(said: &[Said]) -> bool {
    said.iter().all(|said| said.declared > 0)
        && said.iter().any(|said| said.condemned > 0)
        && said.iter().any(|said| said.removed > 0)
}

fn said_by_all(workers: &[Worker]) -> Vec<Said> {
    workers.iter().map(|worker| said(&worker.journal)).collect()
}

struct Worker {
    id: &'static str,
    journal: std::path::PathBuf,
    child: Child,
}

impl Worker {
    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(world: &World, id: &'static str, journal: &Path, seed: u64) -> Child {
    let (this, endpoint) = (std::env::current_exe().unwrap(), world.server().endpoint());
    let words = format!("{endpoint} {} {id} {} {seed}", world.prefix(), journal.display());
    Command::new(this).env(CHILD, words).spawn().unwrap()
}

async fn churn(world: World) {
    let world = world.fresh();
    let minutes = std::env::var("LARDER_BUCKET_MINUTES").ok().and_then(|text| text.parse::<f64>().ok());
    let span = minutes.map_or(Duration::from_secs(20), |minutes| Duration::from_secs_f64(minutes * 60.0));
    let seed = std::env::var("LARDER_BUCKET_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() % 1_000_000);
    println!("LARDER_BUCKET_SEED={seed} repeats the choices of this run of {span:?}");
    let (mut random, journals) = (Random::new(seed), TempDir::new().unwrap());
    let mut workers: Vec<Worker> = ["one", "two"]
        .into_iter()
        .map(|id| {
            let journal = journals.path().join(id);
            let child = start(&world, id, &journal, random.below(1 << 32));
            Worker { id, journal, child }
        })
        .collect();
    let (until_when, mut kills, mut pauses) = (Instant::now() + span, 0, 0);
    // A machine that is busy with something else gets little done in that time: nobody who declared is no finding, and neither is nothing removed.
    let at_most = until_when + Duration::from_mins(2);
    while Instant::now() < until_when || (Instant::now() < at_most && !have_done_their_part(&said_by_all(&workers))) {
        tokio::time::sleep(Duration::from_millis(500 + random.below(4500))).await;
        let worker = random.one_of(&mut workers).unwrap();
        let status = worker.child.try_wait().unwrap();
        assert!(status.is_none(), "seed {seed}: a process ended by itself: {status:?}");
        if random.below(3) == 0 {
            // Longer than the grace, and than what is left alone may lie there; then it goes on with what it had in mind.
            worker.signal(Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(1000 + random.below(2500))).await;
            worker.signal(Signal::SIGCONT);
            pauses += 1;
            continue;
        }
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
        kills += 1;
        worker.child = start(&world, worker.id, &worker.journal, random.below(1 << 32));
    }
    for worker in &mut workers {
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
    }
    let said = said_by_all(&workers);
    for (worker, said) in workers.iter().zip(&said) {
        assert!(said.wrong.is_empty(), "seed {seed}, cluster {}: {:?}", worker.id, said.wrong);
    }
    let numbers: Vec<_> = said.iter().map(|said| (said.declared, said.condemned, said.removed)).collect();
    assert!(have_done_their_part(&said), "seed {seed}: each declared, condemned and removed so often: {numbers:?}");
    println!(
        "{kills} times killed, {pauses} times paused; each said that it declared, condemned and removed so often: {numbers:?}"
    );
    settle(&world, &workers, seed).await;
}

/// With everybody alive: what was promised is there, and what nobody wants goes.
async fn settle(world: &World, workers: &[Worker], seed: u64) {
    let mut clusters = Vec::new();
    for worker in workers {
        let cluster = Cluster::open(&world.server().endpoint(), world.prefix(), worker.id).await;
        for (image, promised) in said(&worker.journal).pinned {
            if !promised {
                continue;
            }
            let kept = cluster.pins.get(&name(image)).await.unwrap();
            assert!(
                kept.is_some(),
                "seed {seed}: image {image} of {} is not pinned; there is {:#?}, and it said {:#?}",
                worker.id,
                objects(&world.server().objects().join(world.prefix()).join(format!("clusters/{}/pins", worker.id))),
                std::fs::read_to_string(&worker.journal)
            );
            // Killed while it was pinned anew, it may not say so: the older pin holds until the new one does, and that does before its note is there.
            cluster.read(image).await.unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", worker.id));
            if kept.is_some_and(|kept| !kept.complete) {
                cluster.pin(image, true).await.unwrap();
            }
        }
        let pinned = cluster.pinned().await;
        for (image, complete) in pinned {
            if complete {
                cluster.read(image).await.unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", worker.id));
            } else {
                // Killed on its way: nobody was promised anything.
                cluster.pins.delete(&name(image)).await.unwrap();
            }
        }
        clusters.push(cluster);
    }
    let mut wanted = std::collections::BTreeSet::new();
    for cluster in &clusters {
        for (image, _) in cluster.pinned().await {
            wanted.extend(blobs(image).iter().map(|bytes| sha256(bytes).to_string()));
        }
    }
    let left = || {
        let of = |kind: &str| objects(&world.server().objects().join(world.prefix()).join(kind));
        let of_clusters = |kind: &str| {
            let ids = clusters.iter().map(|cluster| cluster.id.as_str());
            ids.flat_map(|id| of(&format!("clusters/{id}/{kind}")).into_iter().map(move |key| format!("{id}/{key}")))
                .collect()
        };
        Left {
            blobs: of("blobs"),
            checksums: of("checksums"),
            marks: of("condemned"),
            uploads: of("uploads"),
            pins: of_clusters("pins"),
            complete: of_clusters("complete"),
            clocks: of_clusters("removal/clock"),
        }
    };
    let clean = async || {
        for cluster in &clusters {
            cluster.look_again().await;
            cluster.declare().await;
        }
        let left = left();
        let of_wanted = |key: &String| wanted.contains(&digest_of(key));
        left.blobs.len() == wanted.len()
            && left.blobs.iter().all(of_wanted)
            && left.checksums.iter().all(|key| left.blobs.contains(key))
            && left.marks.is_empty()
            && left.uploads.is_empty()
            && left.complete.iter().all(|key| left.pins.contains(key))
            // Those of this moment: of a declaration, of a collector.
            && left.clocks.len() <= 4 * clusters.len()
    };
    let is_clean = until(Duration::from_secs(90), clean).await;
    assert!(is_clean, "seed {seed}: {} digests are wanted, and there is left: {:#?}", wanted.len(), left());
    for cluster in &clusters {
        for (image, complete) in cluster.pinned().await {
            assert!(complete);
            cluster.read(image).await.unwrap_or_else(|error| panic!("seed {seed}, in the end: {error}"));
        }
    }
}

/// Keys of what may be left.
#[derive(Debug)]
struct Left {
    blobs: Vec<String>,
    checksums: Vec<String>,
    marks: Vec<String>,
    uploads: Vec<String>,
    pins: Vec<String>,
    complete: Vec<String>,
    clocks: Vec<String>,
}

/// Keys below a folder, as `sha256/<hex>/<generation>`. An object is a file, or with `MinIO` a folder that holds one of this name.
fn objects(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        if next.join("xl.meta").exists() {
            found.push(next.strip_prefix(folder).unwrap().display().to_string());
            continue;
        }
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn digest_of(key: &str) -> String {
    key.splitn(3, '/').take(2).collect::<Vec<_>>().join(":")
}

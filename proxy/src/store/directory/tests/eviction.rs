//! Eviction against a model: it never takes what is open or being assembled, keeps the limit, and takes the longest unused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::store::conformance::content;
use crate::store::directory::room::footprint;
use crate::store::{PartialBlob, StoreHealth};

const BLOBS: u8 = 12;
const MODEL_LIMIT: u64 = 112 << 10;

#[derive(Debug, Clone)]
enum Step {
    /// Store a blob at once.
    Put(u8),
    /// Open a blob and keep it open.
    Open(u8),
    /// Close it.
    Close(u8),
    /// Begin to assemble a blob, or go on.
    Begin(u8, bool),
    /// Write some of it.
    Append(u8, u16),
    /// Finish it.
    Commit(u8),
    /// Leave it.
    Keep(u8),
    /// Throw it away.
    Discard(u8),
    /// Drop it as damaged.
    Damaged(u8),
    /// The store is closed and opened.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let blob = 0..BLOBS;
    prop_oneof![
        4 => blob.clone().prop_map(Step::Put),
        3 => blob.clone().prop_map(Step::Open),
        2 => blob.clone().prop_map(Step::Close),
        4 => (blob.clone(), any::<bool>()).prop_map(|(blob, sized)| Step::Begin(blob, sized)),
        6 => (blob.clone(), any::<u16>()).prop_map(|(blob, length)| Step::Append(blob, length)),
        3 => blob.clone().prop_map(Step::Commit),
        1 => blob.clone().prop_map(Step::Keep),
        1 => blob.clone().prop_map(Step::Discard),
        1 => blob.prop_map(Step::Damaged),
        1 => Just(Step::Reopen),
    ]
}

struct Model {
    folder: TempDir,
    hand: Hand,
    store: Option<Arc<DirectoryStore>>,
    contents: Vec<Bytes>,
    open: BTreeMap<u8, StoredBlob>,
    assembling: BTreeMap<u8, PartialBlob>,
    last_use: BTreeMap<u8, u64>,
    uses: u64,
}

impl Model {
    fn new() -> Self {
        // From a few bytes to a third of the store.
        let contents = (0..BLOBS).map(|blob| content(blob.into(), usize::from(blob) * 3_500 + 10)).collect();
        let mut model = Self {
            folder: folder(),
            hand: Hand::new(),
            store: None,
            contents,
            open: BTreeMap::new(),
            assembling: BTreeMap::new(),
            last_use: BTreeMap::new(),
            uses: 0,
        };
        model.reopen();
        model
    }

    fn reopen(&mut self) {
        self.open.clear();
        self.assembling.clear();
        self.store = None;
        let store = DirectoryStore::open(DirectoryConfig {
            limit: Some(MODEL_LIMIT),
            clock: self.hand.clock(),
            touch_every: Duration::ZERO,
            ..config(self.folder.path())
        });
        let store = store.unwrap();
        for shard in 0..layout::SHARDS {
            store.shared.blobs.list(&store.shared.folder, shard).unwrap();
        }
        self.store = Some(store);
    }

    fn store(&self) -> Arc<DirectoryStore> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    fn digest(&self, blob: u8) -> Digest {
        sha256(&self.contents[usize::from(blob)])
    }

    fn present(&self) -> BTreeSet<u8> {
        (0..BLOBS).filter(|blob| self.folder.path().join(layout::blob(&self.digest(*blob))).exists()).collect()
    }

    fn used(&mut self, blob: u8) {
        self.uses += 1;
        self.last_use.insert(blob, self.uses);
    }

    async fn take(&mut self, step: Step) {
        let store = self.store();
        self.hand.advance(Duration::from_secs(1));
        match step {
            Step::Put(blob) => {
                let bytes = self.contents[usize::from(blob)].clone();
                match store.put_bytes(&sha256(&bytes), bytes).await {
                    Ok(()) => self.used(blob),
                    Err(error) => assert!(matches!(error, StoreError::Full { .. }), "{error:?}"),
                }
            }
            Step::Open(blob) => {
                let before = self.present().contains(&blob);
                let opened = store.blob(&self.digest(blob)).await.unwrap();
                assert_eq!(opened.is_some(), before);
                if let Some(opened) = opened {
                    self.used(blob);
                    self.open.insert(blob, opened);
                }
            }
            Step::Close(blob) => drop(self.open.remove(&blob)),
            Step::Begin(blob, sized) => {
                let size = sized.then(|| self.contents[usize::from(blob)].len() as u64);
                // A store that was full a moment ago says so until it has looked again.
                store.shared.gate.probed(&Ok(()));
                match store.create(&self.digest(blob), size).await {
                    Ok(partial) => assert!(self.assembling.insert(blob, partial).is_none()),
                    Err(StoreError::InUse { .. }) => assert!(self.assembling.contains_key(&blob)),
                    Err(error) => assert!(matches!(error, StoreError::Full { .. }), "{error:?}"),
                }
            }
            Step::Append(blob, length) => {
                if let Some(partial) = self.assembling.get_mut(&blob) {
                    let rest = &self.contents[usize::from(blob)][usize::try_from(partial.written()).unwrap()..];
                    let before = partial.written();
                    let chunk = &rest[..rest.len().min(length.into())];
                    match partial.append(chunk) {
                        Ok(()) => assert_eq!(partial.written(), before + chunk.len() as u64),
                        Err(StoreError::Full { .. }) => assert_eq!(partial.written(), before),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            Step::Commit(blob) => {
                if let Some(mut partial) = self.assembling.remove(&blob) {
                    let rest = &self.contents[usize::from(blob)][usize::try_from(partial.written()).unwrap()..];
                    if partial.append(rest).is_ok() {
                        drop(partial.commit(Checksums::of(&self.contents[usize::from(blob)])).unwrap());
                        self.used(blob);
                    }
                }
            }
            Step::Keep(blob) => drop(self.assembling.remove(&blob)),
            Step::Discard(blob) => {
                if let Some(partial) = self.assembling.remove(&blob) {
                    partial.discard().unwrap();
                }
            }
            Step::Damaged(blob) => {
                store.remove_damaged(&self.digest(blob)).await.unwrap();
                self.open.remove(&blob);
            }
            Step::Reopen => {
                drop(store);
                self.reopen();
            }
        }
    }

    fn check(&self, before: &BTreeSet<u8>, step: &Step) {
        let (store, after) = (self.store(), self.present());
        for blob in self.open.keys() {
            assert!(after.contains(blob), "{blob} is open and was taken by {step:?}");
        }
        for (blob, partial) in &self.assembling {
            let path = self.folder.path().join(layout::partial(&self.digest(*blob)));
            assert_eq!(path.metadata().unwrap().len(), partial.written(), "{blob} is being assembled");
        }
        for blob in &after {
            let bytes = std::fs::read(self.folder.path().join(layout::blob(&self.digest(*blob)))).unwrap();
            assert_eq!(bytes, self.contents[usize::from(*blob)]);
        }
        let on_disk = |folder| -> u64 {
            let files = files_below(self.folder.path(), folder).into_iter();
            files.filter(|(path, _)| path.strip_suffix(".json").is_none()).map(|(_, length)| footprint(length)).sum()
        };
        let stats = store.stats();
        assert_eq!((stats.bytes, stats.partial_bytes), (on_disk("blobs"), on_disk("partial")), "sums after {step:?}");
        assert_eq!(stats.blobs, after.len() as u64);
        assert!(stats.bytes + stats.partial_bytes <= MODEL_LIMIT, "{stats:?} after {step:?}");
        if !matches!(step, Step::Damaged(_)) {
            let evicted = before.difference(&after).map(|blob| self.last_use[blob]).max();
            let spared = after.iter().filter(|blob| before.contains(blob) && !self.open.contains_key(blob));
            let kept = spared.filter(|blob| !matches!(step, Step::Put(put) | Step::Commit(put) if put == *blob));
            let kept = kept.map(|blob| self.last_use[blob]).min();
            assert!(evicted.zip(kept).is_none_or(|(evicted, kept)| evicted < kept), "not the longest unused: {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn eviction_spares_what_is_in_use(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for step in steps {
                let before = model.present();
                model.take(step.clone()).await;
                model.check(&before, &step);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_others_fill_the_disk_all_goes_but_what_is_open() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    for seed in 0..8 {
        drop(put(&store, &content(seed, 100_000)).await.unwrap());
    }
    drop(store);
    // More is to stay free than any disk has.
    let reserve = Reserve::Bytes(u64::MAX / 2);
    let store = DirectoryStore::open(DirectoryConfig { reserve, ..config(folder.path()) }).unwrap();
    let held = store.blob(&sha256(&content(3, 100_000))).await.unwrap().unwrap();
    let _running = background(&store);
    until("the others were evicted", || store.stats().evicted_blobs == 7).await;
    until("it has given up", || store.health() == StoreHealth::Full).await;
    assert!(matches!(store.create(&sha256(b"x"), None).await, Err(StoreError::Full { .. })));
    assert_eq!((store.stats().blobs, held.len()), (1, 100_000));
}

/// Counted twice for a moment, a blob of more than half the limit would make a store look full that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_never_counts_twice() {
    let folder = folder();
    let store = DirectoryStore::open(DirectoryConfig { limit: Some(LIMIT), ..config(folder.path()) }).unwrap();
    for seed in 0..100 {
        let bytes = content(seed, usize::try_from(LIMIT).unwrap() / 2 + 5000);
        let mut partial = store.create(&sha256(&bytes), None).await.unwrap();
        partial.append(&bytes).unwrap();
        let before = store.shared.used();
        let committed = AtomicBool::new(false);
        let most = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !committed.load(Ordering::Relaxed) {
                    most = most.max(store.shared.used());
                }
                most
            });
            let blob = partial.commit(Checksums::of(&bytes)).unwrap();
            committed.store(true, Ordering::Relaxed);
            drop(blob);
            watcher.join().unwrap()
        });
        assert!(most <= before, "{most} bytes while {before} were committed");
    }
}

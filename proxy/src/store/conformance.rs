//! What every store must do: one suite, run against each of them with [`conformance_tests`].
//!
//! Stores that need a real server are tested elsewhere, with [`cases`] (feature `testing`).
//!
//! A store under test holds at most [`LIMIT`] bytes, keeps no disk room free, and runs whatever it runs in the background.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
#![cfg_attr(not(test), expect(dead_code, reason = "no store with a bound is tested from outside"))]

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_oci::{Algorithm, Digest, Registry, Repository, Tag};

use super::{
    CHUNK, CheckedRange, Checksums, Link, Name, PartialOrigin, Store, StoreError, StoreHealth, StoredBlob, TagRecord,
};

/// What a store under test may hold.
pub const LIMIT: u64 = 1 << 20;

/// Hands the names of the cases that every store passes to another macro, behind what it gets anyway.
macro_rules! every_case {
    ($then:ident; $($first:tt)*) => {
        $then! { $($first)*
            links_belong_to_one_name, repositories_are_listed_in_pages, a_blob_is_held_with_its_evidence, tags_belong_to_one_name, long_names_are_names_too, small_blobs_are_verified,
            a_growing_blob_is_read_and_then_committed, a_blob_has_one_writer, an_unfinished_blob_is_resumed,
            restarting_leaves_readers_their_bytes, a_discarded_blob_is_gone,
            open_readers_are_spared, running_assemblies_are_spared, what_cannot_fit_is_refused_at_once,
            what_grows_too_large_is_refused, no_damaged_byte_leaves_and_the_rest_does,
            checksums_of_other_bytes_are_refused, damaged_blobs_go_under_their_readers, all_may_write_the_same_small_blob,
        }
    };
}

/// Makes one test of each case. `$make` yields a store and whatever must outlive it. `unbounded`: what the store holds is copies, which
/// make room for others, of what it keeps elsewhere.
#[cfg(test)]
macro_rules! conformance_tests {
    (unbounded; $make:expr) => {
        use $crate::store::conformance::{every_case, test_of_each};
        every_case! { test_of_each; $make; what_makes_room_here_is_kept_all_the_same, }
    };
    ($make:expr) => {
        use $crate::store::conformance::{every_case, test_of_each};
        every_case! { test_of_each; $make; the_longest_unused_goes_first, }
    };
}

#[cfg(test)]
macro_rules! test_of_each {
    ($make:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _keep) = $make;
                $crate::store::conformance::$case(store).await;
            }
        )*
    };
}
#[cfg(test)]
pub(crate) use {conformance_tests, every_case, test_of_each};

/// A case, for whoever has other means of running it.
pub type Case = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

/// The cases, with their names, for a store that holds copies of what it keeps elsewhere.
#[cfg(feature = "testing")]
pub fn cases() -> Vec<(&'static str, Case)> {
    macro_rules! named {
        ($($case:ident),* $(,)?) => { vec![$((stringify!($case), |store| Box::pin($case(store)))),*] };
    }
    every_case! { named; what_makes_room_here_is_kept_all_the_same, }
}

fn name(registry: &str, repository: &str) -> Name {
    Name { registry: Registry::parse(registry).unwrap(), repository: Repository::parse(repository).unwrap() }
}

/// `length` bytes that nobody else has.
pub(crate) fn content(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn link(digest: &Digest) -> Link {
    Link {
        digest: digest.clone(),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        size: Some(7),
        public: true,
        confirmed_at: SystemTime::now(),
    }
}

fn read(blob: &StoredBlob) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(blob.len()).unwrap()];
    blob.file().unwrap().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Stores a blob the long way and returns it open.
async fn put(store: &Arc<dyn Store>, bytes: &Bytes) -> Result<StoredBlob, StoreError> {
    let mut partial = store.create(&sha256(bytes), Some(bytes.len() as u64)).await?;
    partial.append(bytes)?;
    partial.commit(Checksums::of(bytes))
}

/// The same where a copy may still be on its way out: a store may say for a moment that it is full.
async fn put_when_there_is_room(store: &Arc<dyn Store>, bytes: &Bytes) -> StoredBlob {
    let putting = async {
        loop {
            match put(store, bytes).await {
                Err(StoreError::Full { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                put => return put.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), putting).await.expect("there should be room again")
}

async fn until_healthy(store: &Arc<dyn Store>) {
    let healthy = async {
        while store.health() != StoreHealth::Ok {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healthy).await.expect("the store should be well again");
}

pub(crate) async fn links_belong_to_one_name(store: Arc<dyn Store>) {
    let digest = sha256(b"x");
    let names = [
        name("reg.example.com", "a"),
        name("reg.example.com", "a/b"),
        name("reg.example.com:5000", "a"),
        name("reg.example.com5000", "a"),
        name("[::1]:5000", "a"),
        name("docker.io", "library/a"),
    ];
    for (index, name) in names.iter().enumerate() {
        assert_eq!(store.link(name, &digest).await.unwrap(), None);
        let link = Link { size: Some(index as u64), ..link(&digest) };
        store.put_link(name, link).await.unwrap();
    }
    for (index, name) in names.iter().enumerate() {
        assert_eq!(store.link(name, &digest).await.unwrap().unwrap().size, Some(index as u64), "{name}");
    }
    let newer = Link { public: false, media_type: None, ..link(&digest) };
    store.put_link(&names[0], newer.clone()).await.unwrap();
    assert_eq!(store.link(&names[0], &digest).await.unwrap(), Some(newer));
    assert_eq!(store.link(&names[0], &Digest::of(Algorithm::Sha512, b"x")).await.unwrap(), None);
    store.remove_link(&names[0], &digest).await.unwrap();
    store.remove_link(&names[0], &digest).await.unwrap();
    assert_eq!(store.link(&names[0], &digest).await.unwrap(), None);
    assert!(store.link(&names[1], &digest).await.unwrap().is_some());
}

pub(crate) async fn repositories_are_listed_in_pages(store: Arc<dyn Store>) {
    let mut names: Vec<Name> = [
        ("docker.io", "library/a"),
        ("reg.example.com", "a"),
        ("reg.example.com", "a/b"),
        ("reg.example.com", "a/0"),
        ("reg.example.com", "a-b"),
        ("reg.example.com", "a.b/c"),
        ("reg.example.com:5000", "a"),
        ("[::1]:5000", "a"),
    ]
    .map(|(registry, repository)| name(registry, repository))
    .into();
    assert_eq!(store.names(None, 10).await.unwrap(), []);
    for name in &names {
        for bytes in [b"x", b"y"] {
            store.put_link(name, link(&sha256(bytes))).await.unwrap();
        }
    }
    names.sort();
    for limit in [1, 3, 8, 100] {
        let mut found: Vec<Name> = Vec::new();
        loop {
            let page = store.names(found.last(), limit).await.unwrap();
            let is_last = page.len() < limit;
            found.extend(page);
            if is_last {
                break;
            }
        }
        found.sort();
        assert_eq!(found, names, "{limit} at a time");
    }
}

pub(crate) async fn a_blob_is_held_with_its_evidence(store: Arc<dyn Store>) {
    let bytes = content(31, 5_000);
    let (digest, one, other) = (sha256(&bytes), name("reg.example.com", "a"), name("reg.example.com", "b"));
    store.put_link(&one, link(&digest)).await.unwrap();
    assert!(store.held(&one, &digest).await.unwrap().is_none(), "evidence of what is not here");
    drop(put(&store, &bytes).await.unwrap());
    let (evidence, blob) = store.held(&one, &digest).await.unwrap().unwrap();
    assert_eq!((evidence.digest, read(&blob)), (digest.clone(), bytes.to_vec()));
    assert!(store.held(&other, &digest).await.unwrap().is_none(), "somebody else's");
}

pub(crate) async fn tags_belong_to_one_name(store: Arc<dyn Store>) {
    let (one, below) = (name("reg.example.com", "a"), name("reg.example.com", "a/b"));
    // A tag may be one letter's case away from another, and may look like a digest, a record or a folder of ours.
    let digest_like = format!("sha256-{}", sha256(b"subject").hex());
    let tags: Vec<Tag> =
        ["V1", "_tags", &digest_like, "v1", "v1.json"].iter().map(|text| Tag::parse(text).unwrap()).collect();
    for (index, tag) in tags.iter().enumerate() {
        let record = TagRecord { digest: sha256(&[u8::try_from(index).unwrap()]), checked_at: SystemTime::now() };
        store.put_tag(&one, tag, record.clone()).await.unwrap();
        assert_eq!(store.tag(&one, tag).await.unwrap(), Some(record));
        assert_eq!(store.tag(&below, tag).await.unwrap(), None);
    }
    for (index, tag) in tags.iter().enumerate() {
        let record = store.tag(&one, tag).await.unwrap().unwrap();
        assert_eq!(record.digest, sha256(&[u8::try_from(index).unwrap()]), "{tag}");
    }
    let mut sorted = tags.clone();
    sorted.sort();
    assert_eq!(store.tags(&one).await.unwrap(), sorted);
    assert_eq!(store.tags(&below).await.unwrap(), []);
    let moved = TagRecord { digest: sha256(b"moved"), checked_at: SystemTime::now() };
    store.put_tag(&one, &tags[0], moved.clone()).await.unwrap();
    assert_eq!(store.tag(&one, &tags[0]).await.unwrap(), Some(moved));
}

pub(crate) async fn long_names_are_names_too(store: Arc<dyn Store>) {
    let host = [["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."), "d".repeat(61)].join(".");
    let repositories = ["r".repeat(255), vec!["a"; 128].join("/")];
    let tag = Tag::parse(&"t".repeat(128)).unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"x");
    for registry in [format!("{host}:50000"), format!("{host}:50001"), host] {
        for repository in &repositories {
            let name = name(&registry, repository);
            let media_type = Some(registry.clone());
            store.put_link(&name, Link { media_type: media_type.clone(), ..link(&digest) }).await.unwrap();
            assert_eq!(store.link(&name, &digest).await.unwrap().unwrap().media_type, media_type);
            let record = TagRecord { digest: digest.clone(), checked_at: SystemTime::now() };
            assert_eq!(store.tag(&name, &tag).await.unwrap(), None);
            store.put_tag(&name, &tag, record.clone()).await.unwrap();
            assert_eq!(store.tag(&name, &tag).await.unwrap(), Some(record));
        }
    }
}

pub(crate) async fn small_blobs_are_verified(store: Arc<dyn Store>) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for bytes in [Bytes::new(), content(1, 5000)] {
            let digest = Digest::of(algorithm, &bytes);
            assert!(store.blob(&digest).await.unwrap().is_none());
            store.put_bytes(&digest, bytes.clone()).await.unwrap();
            assert_eq!(read(&store.blob(&digest).await.unwrap().unwrap()), bytes);
        }
        let digest = Digest::of(algorithm, b"right");
        let refused = store.put_bytes(&digest, Bytes::from_static(b"wrong")).await;
        assert!(matches!(refused, Err(StoreError::Mismatch { .. })), "{refused:?}");
        assert!(store.blob(&digest).await.unwrap().is_none());
    }
}

pub(crate) async fn a_growing_blob_is_read_and_then_committed(store: Arc<dyn Store>) {
    let bytes = content(2, 300_000);
    let digest = sha256(&bytes);
    let mut partial = store.create(&digest, None).await.unwrap();
    assert_eq!((partial.existing(), partial.written()), (0, 0));
    let growing = partial.file();
    for chunk in bytes.chunks(70_000) {
        let before = partial.written();
        partial.append(chunk).unwrap();
        let mut seen = vec![0; chunk.len()];
        growing.read_exact_at(&mut seen, before).unwrap();
        assert_eq!(seen, chunk);
        assert!(store.blob(&digest).await.unwrap().is_none(), "not before it is complete");
    }
    assert!(!store.keeps(&digest).await.unwrap());
    let stored = partial.commit(Checksums::of(&bytes)).unwrap();
    assert!(store.keeps(&digest).await.unwrap());
    assert_eq!(read(&stored), bytes);
    assert_eq!(read(&store.blob(&digest).await.unwrap().unwrap()), bytes);
    let mut seen = vec![0; bytes.len()];
    growing.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, bytes);
}

pub(crate) async fn a_blob_has_one_writer(store: Arc<dyn Store>) {
    let digest = sha256(b"x");
    let writer = store.create(&digest, Some(1)).await.unwrap();
    for _ in 0..3 {
        let second = store.create(&digest, Some(1)).await;
        assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    }
    let other = store.create(&sha256(b"y"), Some(1)).await.unwrap();
    writer.keep();
    drop(store.create(&digest, Some(1)).await.unwrap());
    let mut writer = store.create(&digest, Some(1)).await.unwrap();
    writer.append(b"x").unwrap();
    writer.commit(Checksums::of(b"x")).unwrap();
    other.discard().unwrap();
    // It is complete; whoever thinks otherwise may write it again.
    let mut again = store.create(&digest, Some(1)).await.unwrap();
    again.append(b"x").unwrap();
    again.commit(Checksums::of(b"x")).unwrap();
    assert_eq!(read(&store.blob(&digest).await.unwrap().unwrap()), b"x");
}

pub(crate) async fn an_unfinished_blob_is_resumed(store: Arc<dyn Store>) {
    let bytes = content(3, 100_000);
    let digest = sha256(&bytes);
    let origin = PartialOrigin {
        name: name("reg.example.com", "team/app"),
        etag: Some("\"abc\"".to_owned()),
        total: Some(bytes.len() as u64),
    };
    let mut partial = store.create(&digest, None).await.unwrap();
    assert_eq!(partial.origin(), None);
    partial.set_origin(origin.clone()).unwrap();
    partial.append(&bytes[..60_000]).unwrap();
    partial.keep();
    let mut partial = store.create(&digest, Some(bytes.len() as u64)).await.unwrap();
    assert_eq!((partial.existing(), partial.origin()), (60_000, Some(origin)));
    let mut seen = vec![0; 60_000];
    partial.file().read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, bytes[..60_000]);
    partial.append(&bytes[60_000..]).unwrap();
    assert_eq!(read(&partial.commit(Checksums::of(&bytes)).unwrap()), bytes);
    // Committed is not unfinished; longer than the blob is no beginning of it.
    let mut partial = store.create(&digest, None).await.unwrap();
    assert_eq!((partial.existing(), partial.origin()), (0, None));
    partial.append(&bytes[..50_000]).unwrap();
    partial.keep();
    assert_eq!(store.create(&digest, Some(40_000)).await.unwrap().existing(), 0);
}

pub(crate) async fn restarting_leaves_readers_their_bytes(store: Arc<dyn Store>) {
    let (old, new) = (content(4, 10_000), content(5, 10_000));
    let mut partial = store.create(&sha256(&new), None).await.unwrap();
    partial.append(&old).unwrap();
    let reader = partial.file();
    partial.restart().unwrap();
    assert_eq!((partial.existing(), partial.written()), (0, 0));
    partial.append(&new).unwrap();
    assert_eq!(read(&partial.commit(Checksums::of(&new)).unwrap()), new);
    let mut seen = vec![0; old.len()];
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, old);
}

pub(crate) async fn a_discarded_blob_is_gone(store: Arc<dyn Store>) {
    let bytes = content(6, 1000);
    let digest = sha256(&bytes);
    let mut partial = store.create(&digest, None).await.unwrap();
    partial.append(&bytes).unwrap();
    partial.discard().unwrap();
    assert!(store.blob(&digest).await.unwrap().is_none());
    assert_eq!(store.create(&digest, None).await.unwrap().existing(), 0);
}

const EIGHTH: usize = 128 << 10;

pub(crate) async fn the_longest_unused_goes_first(store: Arc<dyn Store>) {
    let blobs: Vec<Bytes> = (0..12).map(|seed| content(100 + seed, EIGHTH)).collect();
    for bytes in &blobs {
        drop(put(&store, bytes).await.unwrap());
        assert!(store.blob(&sha256(bytes)).await.unwrap().is_some(), "not what has just come");
    }
    let mut here = Vec::new();
    for bytes in &blobs {
        here.push(store.blob(&sha256(bytes)).await.unwrap().is_some());
    }
    let kept = here.iter().filter(|here| **here).count();
    assert!((6..=8).contains(&kept), "{here:?}");
    assert!(here.is_sorted(), "the oldest are gone: {here:?}");
}

pub(crate) async fn what_makes_room_here_is_kept_all_the_same(store: Arc<dyn Store>) {
    let blobs: Vec<Bytes> = (0..12).map(|seed| content(150 + seed, EIGHTH)).collect();
    for bytes in &blobs {
        drop(put(&store, bytes).await.unwrap());
    }
    for bytes in &blobs {
        assert!(store.keeps(&sha256(bytes)).await.unwrap());
        let blob = store.blob(&sha256(bytes)).await.unwrap().unwrap();
        assert_eq!(read_checked(&blob, 0..bytes.len() as u64).await, (bytes.to_vec(), true));
    }
}

pub(crate) async fn open_readers_are_spared(store: Arc<dyn Store>) {
    let first = content(200, EIGHTH);
    let reader = put(&store, &first).await.unwrap();
    let second_reader = reader.clone();
    drop(reader);
    for seed in 201..220 {
        drop(put(&store, &content(seed, EIGHTH)).await.unwrap());
        assert!(store.blob(&sha256(&first)).await.unwrap().is_some());
    }
    assert_eq!(read(&second_reader), first);
}

pub(crate) async fn running_assemblies_are_spared(store: Arc<dyn Store>) {
    let slow = content(300, 2 * EIGHTH);
    let mut assembly = store.create(&sha256(&slow), Some(slow.len() as u64)).await.unwrap();
    assembly.append(&slow[..EIGHTH]).unwrap();
    for seed in 301..320 {
        drop(put(&store, &content(seed, EIGHTH)).await.unwrap());
    }
    assembly.append(&slow[EIGHTH..]).unwrap();
    assert_eq!(read(&assembly.commit(Checksums::of(&slow)).unwrap()), slow);
}

pub(crate) async fn what_cannot_fit_is_refused_at_once(store: Arc<dyn Store>) {
    let small = content(400, 1000);
    drop(put(&store, &small).await.unwrap());
    let refused = store.create(&sha256(b"large"), Some(LIMIT + 1)).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    // Nor what would fit alone, beside one that is under way.
    let half = store.create(&sha256(b"half"), Some(LIMIT / 2 + 1)).await.unwrap();
    let refused = store.create(&sha256(b"other half"), Some(LIMIT / 2 + 1)).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(store.health(), StoreHealth::Ok, "one blob that is too large is not a full store");
    assert!(store.blob(&sha256(&small)).await.unwrap().is_some(), "nothing was evicted for it");
    half.discard().unwrap();
    store.create(&sha256(b"other half"), Some(LIMIT / 2 + 1)).await.unwrap().discard().unwrap();
}

pub(crate) async fn what_grows_too_large_is_refused(store: Arc<dyn Store>) {
    let bytes = content(500, 64 << 10);
    let mut partial = store.create(&sha256(b"endless"), None).await.unwrap();
    let mut written = 0;
    let refused = loop {
        match partial.append(&bytes) {
            Ok(()) => written += bytes.len() as u64,
            Err(error) => break error,
        }
        assert!(written <= LIMIT);
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    assert_eq!(partial.written(), written);
    assert!(written >= LIMIT - (64 << 10));
    partial.discard().unwrap();
    until_healthy(&store).await;
    for seed in 501..510 {
        drop(put(&store, &content(seed, EIGHTH)).await.unwrap());
    }
}

pub(crate) async fn damaged_blobs_go_under_their_readers(store: Arc<dyn Store>) {
    let bytes = content(600, EIGHTH);
    let digest = sha256(&bytes);
    let reader = put(&store, &bytes).await.unwrap();
    store.remove_damaged(&digest).await.unwrap();
    assert!(store.blob(&digest).await.unwrap().is_none());
    store.remove_damaged(&digest).await.unwrap();
    let again = put(&store, &bytes).await.unwrap();
    drop(reader);
    drop(store.blob(&digest).await.unwrap().unwrap());
    // The reader of the first one is gone; the second one is still held.
    for seed in 601..620 {
        drop(put(&store, &content(seed, EIGHTH)).await.unwrap());
    }
    assert!(store.blob(&digest).await.unwrap().is_some());
    assert_eq!(read(&again), bytes);
}

pub(crate) async fn all_may_write_the_same_small_blob(store: Arc<dyn Store>) {
    let bytes = content(700, 2000);
    let digest = sha256(&bytes);
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let (store, digest, bytes) = (Arc::clone(&store), digest.clone(), bytes.clone());
            tokio::spawn(async move {
                store.put_bytes(&digest, bytes.clone()).await.unwrap();
                assert_eq!(read(&store.blob(&digest).await.unwrap().unwrap()), bytes);
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// What a range of a blob gives, and whether it came to its end.
pub(crate) async fn read_checked(blob: &StoredBlob, range: std::ops::Range<u64>) -> (Vec<u8>, bool) {
    rest(CheckedRange::new(blob.clone(), range)).await
}

/// All that is left of a range, and whether it came to its end.
pub async fn rest(mut range: CheckedRange) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match std::future::poll_fn(|context| range.poll_next(context)).await {
            Some(Ok(part)) => bytes.extend_from_slice(&part),
            Some(Err(_)) => return (bytes, false),
            None => return (bytes, true),
        }
    }
}

/// A store has nothing else to give, or has the right bytes elsewhere.
async fn nobody_is_given_other_bytes(store: &Arc<dyn Store>, digest: &Digest, whole: &[u8]) {
    if let Some(blob) = store.blob(digest).await.unwrap() {
        assert_eq!(read_checked(&blob, 0..whole.len() as u64).await, (whole.to_vec(), true));
    }
}

pub(crate) async fn no_damaged_byte_leaves_and_the_rest_does(store: Arc<dyn Store>) {
    let whole = content(700, 2 * CHUNK + 1000);
    let (digest, end) = (sha256(&whole), whole.len() as u64);
    for (damaged, first, last) in [
        // In the first, the middle and the last chunk, from the start.
        (10, 0, end),
        (CHUNK + 7, 0, end),
        (2 * CHUNK + 999, 0, end),
        // From within a chunk: the damage lies before what was asked for, in it, and beyond it but in its chunk.
        (CHUNK + 7, CHUNK as u64 + 5000, end),
        (2 * CHUNK + 5, CHUNK as u64 + 5000, end),
        (CHUNK - 1, 100, 200),
    ] {
        let blob = put_when_there_is_room(&store, &whole).await;
        let (good, ended) = read_checked(&blob, first..last).await;
        let wanted = &whole[usize::try_from(first).unwrap()..usize::try_from(last).unwrap()];
        assert!(ended && good == wanted, "sound, from {first}");
        blob.file().unwrap().write_all_at(&[!whole[damaged]], damaged as u64).unwrap();
        let blob = store.blob(&digest).await.unwrap().unwrap();
        let (bytes, ended) = read_checked(&blob, first..last).await;
        let until = (damaged - damaged % CHUNK).saturating_sub(usize::try_from(first).unwrap());
        assert!(!ended && bytes == wanted[..until], "{} bytes with damage at {damaged}, from {first}", bytes.len());
        nobody_is_given_other_bytes(&store, &digest, &whole).await;
    }
    // A reader of the damaged file that is late does not harm the one that came in its place.
    let old = put_when_there_is_room(&store, &whole).await;
    old.file().unwrap().write_all_at(&[!whole[0]], 0).unwrap();
    store.remove_damaged(&digest).await.unwrap();
    let writable = put_when_there_is_room(&store, &whole).await;
    assert_eq!(read_checked(&old, 0..end).await, (Vec::new(), false));
    let new = store.blob(&digest).await.unwrap().unwrap();
    assert_eq!(read_checked(&new, 0..end).await, (whole.to_vec(), true));
    // One that is cut down to less is not all there, whatever it says that its length is.
    writable.file().unwrap().set_len(CHUNK as u64 + 1).unwrap();
    assert_eq!(read_checked(&new, 0..end).await, (whole[..CHUNK].to_vec(), false));
    nobody_is_given_other_bytes(&store, &digest, &whole).await;
}

pub(crate) async fn checksums_of_other_bytes_are_refused(store: Arc<dyn Store>) {
    let bytes = content(701, 5000);
    let mut partial = store.create(&sha256(&bytes), None).await.unwrap();
    partial.append(&bytes).unwrap();
    let refused = partial.commit(Checksums::of(&bytes[..4999]));
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert!(store.blob(&sha256(&bytes)).await.unwrap().is_none());
}

//! Whose answer is taken, and who is asked for the rest of a blob.

use std::time::Duration;

use bytes::Bytes;
use larder_oci::Digest;

use super::*;
use crate::fetch::testing::{Act, FaultyStore, ScriptedSource, content, limits, name, read, soon};
use crate::fetch::{FetchError, Fetcher, Opened};
use crate::metrics::Metrics;
use crate::source::{Unconfirmed, Verdict};
use crate::store::Store as _;

struct Stage {
    cache: Arc<ScriptedSource>,
    origin: Arc<ScriptedSource>,
    store: Arc<FaultyStore>,
    chain: Arc<Chain>,
    fetcher: Fetcher,
}

impl Stage {
    fn new() -> Self {
        let (cache, origin) = (Arc::new(ScriptedSource::default()), Arc::new(ScriptedSource::default()));
        let chain = Arc::new(Chain::new(cache.clone(), origin.clone()));
        let store = Arc::new(FaultyStore::default());
        let fetcher = Fetcher::new(store.clone(), chain.clone(), Arc::new(Metrics::new()), limits());
        Self { cache, origin, store, chain, fetcher }
    }

    /// Something that both have.
    fn blob(&self, length: usize) -> (Digest, Bytes) {
        let bytes = content(length);
        self.cache.add_blob(&bytes);
        (self.origin.add_blob(&bytes), bytes)
    }

    async fn get(&self, digest: &Digest) -> Result<(Bytes, bool), FetchError> {
        match self.fetcher.open(&name("team/app"), digest, None, false, soon()).await? {
            Opened::Body(opened) => Ok(read(opened.body).await),
            other => panic!("{other:?}"),
        }
    }
}

fn breaks_after(bytes: usize) -> Act {
    Act { break_after: Some(bytes), ..Act::default() }
}

#[tokio::test]
async fn what_the_registry_said_is_handed_through_and_anything_else_sends_on() {
    let (name, tag) = (name("team/app"), ManifestReference::parse("v1").unwrap());
    for (error, sends_on) in [
        (SourceError::NotFound, false),
        (SourceError::NeedsCredentials { status: 401 }, false),
        (SourceError::RateLimited { retry_after: None }, false),
        (SourceError::Server { status: 502 }, false),
        (SourceError::Timeout, true),
        (SourceError::Unreachable { reason: String::new() }, true),
        (SourceError::CircuitOpen, true),
        (SourceError::Refused { reason: String::new() }, true),
        (SourceError::Protocol { reason: String::new() }, true),
        (SourceError::Broken { reason: String::new() }, true),
    ] {
        let stage = Stage::new();
        let (digest, _) = stage.origin.tag(&name, "v1", "one");
        stage.origin.list("{}");
        stage.cache.fail(Some(error.clone()));
        let head = stage.chain.head_manifest(&name, &tag, soon()).await;
        let body = stage.chain.get_manifest(&name, &tag, soon()).await;
        let tags = stage.chain.tags(&name, None, soon()).await;
        let referrers = stage.chain.referrers(&name, &digest, None, soon()).await;
        assert_eq!(stage.origin.asked().len(), if sends_on { 4 } else { 0 }, "{error}");
        assert_eq!(head.map(|head| head.digest), if sends_on { Ok(Some(digest)) } else { Err(error.clone()) });
        let all = [body.map(drop), tags.map(drop), referrers.map(drop)];
        assert_eq!(all, if sends_on { [Ok(()), Ok(()), Ok(())] } else { all.each_ref().map(|_| Err(error.clone())) });
    }
}

#[tokio::test]
async fn a_list_that_is_only_remembered_is_second_to_the_registry_s_own() {
    let stage = Stage::new();
    stage.cache.list("old");
    stage.origin.list("new");
    stage.cache.unconfirmed(Some(Unconfirmed { said: Verdict::Timeout, age: Some(Duration::from_secs(9)) }));
    let tags = async || stage.chain.tags(&name("team/app"), None, soon()).await.unwrap();
    assert_eq!((tags().await.bytes, tags().await.unconfirmed), (Bytes::from("new"), None));
    stage.origin.fail(Some(SourceError::Timeout));
    let remembered = tags().await;
    assert_eq!((&remembered.bytes[..], remembered.unconfirmed.unwrap().said), (&b"old"[..], Verdict::Timeout));
}

#[tokio::test]
async fn a_cache_that_breaks_again_and_again_is_left_for_the_registry_from_that_byte() {
    let stage = Stage::new();
    let (digest, bytes) = stage.blob(500_000);
    for _ in 0..20 {
        stage.cache.act(breaks_after(50_000));
    }
    assert_eq!(stage.get(&digest).await.unwrap(), (bytes, true));
    assert_eq!((stage.cache.blob_gets(), stage.origin.blob_gets()), (2, 1));
    assert!(format!("{:?}", stage.origin.asked()).contains("from: 100000"), "{:?}", stage.origin.asked());
}

#[tokio::test]
async fn a_cache_that_breaks_is_better_than_a_registry_that_is_away() {
    let stage = Stage::new();
    let bytes = content(500_000);
    let digest = stage.cache.add_blob(&bytes);
    for _ in 0..3 {
        stage.cache.act(breaks_after(50_000));
    }
    assert_eq!(stage.get(&digest).await.unwrap(), (bytes, true));
}

#[tokio::test]
async fn other_bytes_of_the_cache_cost_a_small_blob_nothing_and_a_large_one_at_most_one_try() {
    for (length, wrong_at, is_unseen) in
        [(50_000_usize, 17_usize, true), (500_000, 499_000, true), (500_000, 17, false)]
    {
        for is_stored in [true, false] {
            let stage = Stage::new();
            stage.store.refuse(!is_stored);
            let (digest, bytes) = stage.blob(length);
            let mut wrong = bytes.to_vec();
            wrong[wrong_at] ^= 1;
            stage.cache.act(Act { lie: Some(wrong.clone().into()), chunk: Some(1000), ..Act::default() });
            let first = stage.get(&digest).await.unwrap();
            // Without a store what has left is not there any more to be compared.
            if is_unseen && (is_stored || length < 65_536) {
                assert!(first == (bytes.clone(), true), "{length}, {wrong_at}, {is_stored}");
            } else {
                assert!(!first.1 && first.0.len() < length, "{} bytes of {length}", first.0.len());
            }
            let gets = stage.cache.blob_gets();
            let (again, ended_well) = match stage.fetcher.open(&name("team/app"), &digest, None, false, soon()).await {
                Ok(Opened::Body(opened)) => read(opened.body).await,
                Ok(Opened::Stored(_)) => continue,
                other => panic!("{other:?}"),
            };
            assert!(again == bytes && ended_well, "the next try: {length}, {wrong_at}, {is_stored}");
            assert_eq!(stage.cache.blob_gets(), gets, "it is not asked for that any more");
            if is_stored {
                crate::fetch::testing::until(|| async { stage.store.blob(&digest).await.unwrap().is_some() }).await;
            }
        }
    }
}

#[tokio::test]
async fn a_registry_that_is_no_better_is_refused_as_ever() {
    let stage = Stage::new();
    let (digest, bytes) = stage.blob(500_000);
    let mut wrong = bytes.to_vec();
    wrong[17] ^= 1;
    for source in [&stage.cache, &stage.origin, &stage.origin] {
        source.act(Act { lie: Some(wrong.clone().into()), ..Act::default() });
    }
    assert!(!stage.get(&digest).await.unwrap().1);
    let second = stage.get(&digest).await;
    assert!(matches!(&second, Ok((_, false)) | Err(FetchError::Refused { .. })), "{second:?}");
    assert!(matches!(stage.get(&digest).await, Err(FetchError::Refused { .. })));
}

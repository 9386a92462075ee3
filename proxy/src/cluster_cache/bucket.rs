//! The bucket that the cluster cache keeps blobs in, where it sends us for them (decision 26).
//!
//! Nothing of it is trusted but that it may be asked: without our token, at most this one hop, within the rules for what something listed
//! leads to (`origin::address`), and what comes is verified by its digest like everything else. A bucket that does not give a blob costs
//! that blob two seconds, and the others nothing: for a while the cache is asked for the bytes, and one blob at a time is tried again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderValue, StatusCode};
use larder_oci::Digest;
use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use super::replica::Pace;
use crate::origin::address::Boundary;
use crate::origin::blob::GetBlob;
use crate::origin::client::{Client, Wanted, check_hop, shown};
use crate::origin::connect::Network;
use crate::origin::question::Question as _;
use crate::origin::{ProxyEnvironment, ProxyVariables, Resolve, body};
use crate::source::{BlobStream, Doubts, Order, SourceError};
use crate::store::Name;

/// Connecting, TLS and the head of the answer together. Whoever waits for the blob then still has time to hear the cache.
const HEAD: Duration = Duration::from_secs(2);

/// A body without a byte for so long, or with next to none, is broken: the rest comes from the cache.
const SILENCE: Duration = Duration::from_secs(5);

/// How long it is left alone after the first failure; twice as long after each further one.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// But never longer.
const LONGEST: Duration = Duration::from_hours(1);

/// Where the cache leads to for a blob.
pub(super) struct Place {
    pub(super) url: Url,
    /// How long the blob is. Whoever waits for it is told that before the digest is known.
    pub(super) length: u64,
}

/// The bucket, wherever that is: the cache names it in each answer.
pub(super) struct Bucket {
    client: Client,
    health: Mutex<Health>,
    /// Blobs that it gave badly.
    doubts: Doubts,
}

impl Bucket {
    /// Where the cache is, decides how far its redirects may reach. They are followed straight: a node that reaches the bucket by a
    /// corporate proxy only is better served by the cache.
    pub(super) fn new(cache: &Url, resolver: Arc<dyn Resolve>, tls: ClientConfig, via: HeaderValue) -> Arc<Self> {
        let network = Arc::new(Network {
            boundary: Boundary::new(true, std::slice::from_ref(cache)),
            resolver,
            proxies: Arc::new(ProxyEnvironment::new(&ProxyVariables::default())),
            limit: HEAD,
        });
        let client = Client::new(network, tls, via, Arc::new(|_, _| {})).following_none();
        Arc::new(Self { client, health: Mutex::default(), doubts: Doubts::default() })
    }

    /// Whether the cache may send us there for this blob. Who asks has to ask then.
    pub(super) fn may_be_asked_for(&self, name: &Name, digest: &Digest, now: Instant) -> bool {
        self.doubts.order(name, digest, now) == Order::Usual && self.health().may_be_asked(now)
    }

    /// What came for this blob was wrong. Whether it was the bucket's: the cache may have it right.
    pub(super) fn distrust(&self, name: &Name, digest: &Digest, now: Instant) -> bool {
        let is_ours = self.doubts.wrong(name, digest, now);
        if is_ours {
            tracing::warn!(registry = %name.registry, repository = %name.repository, %digest,
                "the bucket that the cluster cache leads to gave something else; the cache is asked for the bytes of this blob for a while");
        }
        is_ours
    }

    /// The blob from byte `from` on, from where the cache at `cache` led to, if that is anywhere.
    pub(super) async fn get(
        self: &Arc<Self>,
        cache: &Url,
        place: Option<Place>,
        (name, digest): (&Name, &Digest),
        from: u64,
        deadline: Instant,
    ) -> Result<BlobStream, SourceError> {
        let began = Instant::now();
        let Some(mut place) = place else {
            let reason = "the cluster cache leads to what is no URL, or does not say how long the blob is".to_owned();
            let error = SourceError::Protocol { reason };
            self.failed("no URL", &error, began);
            return Err(error);
        };
        place.url.set_fragment(None);
        let host = shown(&place.url);
        let length = place.length;
        // Half of the time is for asking the cache after all.
        let until = began + HEAD.min(deadline.saturating_duration_since(began) / 2);
        match self.ask(cache, place, digest, from, until).await {
            Ok(Some(stream)) => {
                self.doubts.gives(name, digest, began);
                Ok(self.watched(host, began, length, stream))
            }
            Ok(None) => Err(SourceError::NotFound),
            Err(error) => {
                self.failed(&host, &error, began);
                Err(error)
            }
        }
    }

    /// `None`: it does not have it, or not any more.
    async fn ask(
        &self,
        cache: &Url,
        place: Place,
        digest: &Digest,
        from: u64,
        until: Instant,
    ) -> Result<Option<BlobStream>, SourceError> {
        check_hop(cache, &place.url)?;
        let question = GetBlob { digest: digest.clone(), from, etag: None, silence: SILENCE };
        let wanted =
            Wanted { kind: GetBlob::KIND, method: question.method(), url: place.url, headers: question.headers()? };
        let answer = self.client.ask(&wanted, None, until).await.map_err(|failed| failed.error)?;
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                let stream = question.understand(answer, until).await?;
                if stream.total != Some(place.length) {
                    // A page of somebody in between, say: nobody who waits for the blob may be told that it is so long.
                    let given = stream.total.map_or_else(|| "no number of".to_owned(), |total| total.to_string());
                    let reason = format!("it announces {given} bytes in the place of {}", place.length);
                    return Err(SourceError::Protocol { reason });
                }
                Ok(Some(stream))
            }
            // It is the blob, or its length, and not the bucket.
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
                body::drain(answer.body).await;
                Ok(None)
            }
            status => Err(SourceError::Server { status: status.as_u16() }),
        }
    }

    /// The body of a blob of `length` bytes, or the rest of it. Whether the bucket gives anything is known when all of that has come.
    fn watched(self: &Arc<Self>, host: String, began: Instant, length: u64, stream: BlobStream) -> BlobStream {
        let state = Some((stream.body, Arc::clone(self), host, Pace::default(), length.saturating_sub(stream.first)));
        let body = stream::unfold(state, move |state| async move {
            let (mut body, bucket, host, mut pace, left) = state?;
            let waits_since = Instant::now();
            let error = match body.next().await? {
                Ok(piece) if pace.is_kept(piece.len(), waits_since.elapsed(), SILENCE) => {
                    let left = left.saturating_sub(piece.len() as u64);
                    if left == 0 {
                        bucket.gave(&host, began);
                    }
                    return Some((Ok(piece), Some((body, bucket, host, pace, left))));
                }
                Ok(_) => SourceError::Broken { reason: format!("{host} gives next to nothing") },
                Err(error) => error,
            };
            bucket.failed(&host, &error, began);
            Some((Err(error), None))
        });
        BlobStream { etag: None, body: body.boxed(), ..stream }
    }

    fn gave(&self, host: &str, began: Instant) {
        if self.health().succeeded(began) {
            tracing::info!(bucket = host, "the bucket that the cluster cache leads to gives blobs again");
        }
    }

    fn failed(&self, host: &str, error: &SourceError, began: Instant) {
        if self.health().failed(began, Instant::now()) {
            tracing::warn!(bucket = host, %error,
                "the bucket that the cluster cache leads to does not give a blob here; the cache is asked for the bytes for a while");
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing that holds it can panic half-way through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the bucket may be asked. Pure: time comes in as a value.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    failed_at: Option<Instant>,
    next: Option<Instant>,
}

impl Health {
    /// Once it failed, one at a time finds out whether it gives anything again.
    fn may_be_asked(&mut self, now: Instant) -> bool {
        match self.next {
            None => true,
            Some(next) if next <= now => {
                self.next = Some(now + pause(self.failures));
                true
            }
            Some(_) => false,
        }
    }

    /// A question failed that began at `began`. True if that is news.
    fn failed(&mut self, began: Instant, now: Instant) -> bool {
        // Those that were under way together have failed once.
        if self.failed_at.is_some_and(|at| began < at) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        (self.failed_at, self.next) = (Some(now), Some(now + pause(self.failures)));
        self.failures == 1
    }

    /// It gives what was asked for at `began`. True if that is news.
    fn succeeded(&mut self, began: Instant) -> bool {
        if self.failed_at.is_none_or(|at| began < at) {
            return false;
        }
        *self = Self::default();
        true
    }
}

fn pause(failures: u32) -> Duration {
    LEFT_ALONE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_again_when_all_of_a_blob_has_come_and_not_when_it_begins_to() {
        const HALF: &[u8] = b"half";
        let tls = crate::origin::tls::client_config(&rustls::RootCertStore::empty(), None, false).unwrap();
        let resolver = Arc::new(crate::origin::SystemResolver::new("/etc/hosts"));
        let cache = Url::parse("http://cache.example").unwrap();
        let bucket = Bucket::new(&cache, resolver, tls, HeaderValue::from_static("1.1 larder"));
        let broken = || SourceError::Broken { reason: "cut".to_owned() };
        bucket.failed("bucket", &broken(), Instant::now());
        for (pieces, pause) in [
            (vec![Ok(HALF), Err(broken())], Some(LEFT_ALONE * 2)),
            (vec![Ok(HALF), Err(broken())], Some(LEFT_ALONE * 4)),
            (vec![Ok(HALF), Ok(HALF)], None),
        ] {
            tokio::time::advance(LONGEST).await;
            let began = Instant::now();
            assert!(bucket.health().may_be_asked(began));
            let body = stream::iter(pieces).map(|piece| piece.map(bytes::Bytes::from_static)).boxed();
            let given = BlobStream { first: 0, total: Some(8), etag: None, body };
            let mut given = bucket.watched("bucket".to_owned(), began, 8, given);
            given.body.next().await.unwrap().unwrap();
            assert!(!bucket.health().may_be_asked(Instant::now()), "one at a time finds out");
            // Nobody asks for more once he has all.
            let _ = given.body.next().await.unwrap();
            assert_eq!(bucket.health().next, pause.map(|pause| began + pause));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_fails_is_tried_by_one_at_a_time_and_less_and_less_often() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut health = Health::default();
        assert!(health.may_be_asked(start) && health.may_be_asked(start) && !health.succeeded(start));
        assert!(health.failed(start, start + second));
        // It was under way with the first.
        assert!(!health.failed(start, start + 2 * second) && !health.succeeded(start));
        assert!(!health.may_be_asked(start + LEFT_ALONE));
        let again = start + second + LEFT_ALONE;
        assert!(health.may_be_asked(again) && !health.may_be_asked(again), "one alone");
        assert!(!health.failed(again, again + second), "no news");
        assert!(!health.may_be_asked(again + second + LEFT_ALONE));
        let later = again + second + 2 * LEFT_ALONE;
        assert!(health.may_be_asked(later));
        assert!(health.succeeded(later));
        assert!(health.may_be_asked(later) && health.may_be_asked(later));
    }

    #[test]
    fn it_is_never_given_up_for_good() {
        assert_eq!((pause(1), pause(2), pause(3)), (LEFT_ALONE, 2 * LEFT_ALONE, 4 * LEFT_ALONE));
        assert_eq!((pause(10), pause(u32::MAX)), (LONGEST, LONGEST));
    }
}

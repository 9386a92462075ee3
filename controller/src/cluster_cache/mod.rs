//! The cluster cache's control API (docs/control-api.md), asked as whoever says what is kept.
//!
//! Invariants: nothing that it answers is believed to be short, well-formed, or about what was asked; every question has an end in time; an error says whose
//! fault it is ([`CacheError::fault`]) and whether asking again helps. Everything that is asked may be repeated, so a replica that does not answer is
//! followed by the next.
//!
//! `config` is what a person says → `files` reads token and authorities, again when they change → `transport` puts a question to one replica after
//! another → `answer` (pure) is what was said.

mod answer;
mod config;
mod error;
mod files;
mod registries;
mod transport;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Method, StatusCode};
use larder_oci::{Digest, ImageReference};

pub use answer::{Amount, Pin, PinState, Planned, Revalidation};
pub use config::{ClusterCacheConfig, ConfigError};
pub use error::{CacheError, Code, Fault};
pub use registries::Heard;

use answer::Page;
use transport::{Question, Transport};

/// Pins in a page: with the longest words that are believed, less than the largest answer.
const PAGE: usize = 200;

/// Pages of one list. More pins than this (two millions) are none of ours.
const MOST_PAGES: usize = 10_000;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connecting, and TLS, to one replica.
    pub connect: Duration,
    /// One replica's whole answer, beside what the question itself asks it to wait.
    pub answer: Duration,
    /// The same where the cache asks a registry before it answers.
    pub registry: Duration,
    /// One replica's answer where all are asked at the same time, and the slowest keeps the rest waiting.
    pub each: Duration,
    /// How old what was read of the files may be.
    pub files: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(10),
            registry: Duration::from_secs(30),
            each: Duration::from_secs(2),
            files: Duration::from_secs(5),
        }
    }
}

/// The beginning of a declaration: everything that is pinned later is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsOf(pub u64);

/// The control API, as one holder. Clones are the same connections.
#[derive(Clone)]
pub struct ClusterCache {
    transport: std::sync::Arc<Transport>,
    holder: String,
}

impl fmt::Debug for ClusterCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClusterCache").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl ClusterCache {
    /// Asks nobody yet and reads nothing.
    pub fn new(config: ClusterCacheConfig, limits: Limits) -> Result<Self, ConfigError> {
        config.check()?;
        let holder = config.holder.clone();
        Ok(Self { transport: std::sync::Arc::new(Transport::new(config, limits)), holder })
    }

    /// Wants an image kept, on these platforms (none: on all that there are), and waits at most `wait` (rounded down to seconds) for it to be there.
    pub async fn put(&self, image: &ImageReference, platforms: &[String], wait: Duration) -> Result<Pin, CacheError> {
        let body = if platforms.is_empty() {
            Bytes::new()
        } else {
            Bytes::from(serde_json::json!({ "platforms": platforms }).to_string())
        };
        let path = format!("pins/{}/{image}", self.holder);
        let question = Question::new(Method::PUT, path).with_body(body).waiting(wait);
        let said = self.transport.ask(&question).await?;
        answer::pin(&said.of(&[StatusCode::OK, StatusCode::ACCEPTED])?, &self.holder, image)
    }

    /// The pin of an image, if there is one.
    pub async fn get(&self, image: &ImageReference) -> Result<Option<Pin>, CacheError> {
        let said = self.transport.ask(&Question::new(Method::GET, format!("pins/{}/{image}", self.holder))).await?;
        if said.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer::pin(&said.of(&[StatusCode::OK])?, &self.holder, image).map(Some)
    }

    /// Wants an image kept no longer. True, as well, of one that was not.
    pub async fn delete(&self, image: &ImageReference) -> Result<(), CacheError> {
        let said = self.transport.ask(&Question::new(Method::DELETE, format!("pins/{}/{image}", self.holder))).await?;
        said.of(&[StatusCode::NO_CONTENT, StatusCode::OK]).map(drop)
    }

    /// All pins of this holder, a page in memory at a time. What the cache lists and cannot be understood is an error in its place, and the list goes on.
    pub fn pins(&self) -> impl Stream<Item = Result<Pin, CacheError>> + Send {
        self.pages().flat_map(|page| stream::iter(page.unwrap_or_else(|error| vec![Err(error)])))
    }

    /// The same, page by page: an error in the place of a page is the last there is, for without it nobody knows the next.
    pub fn pages(&self) -> impl Stream<Item = Result<Vec<Result<Pin, CacheError>>, CacheError>> + Send {
        let listing = Listing { cache: self.clone(), next: Some(String::new()), pages: 0 };
        stream::unfold(listing, async |mut listing| {
            let page = listing.next().await?;
            Some((page, listing))
        })
    }

    async fn page(&self, after: &str) -> Result<Page, CacheError> {
        let mut query = format!("limit={PAGE}&holder={}", self.holder);
        if !after.is_empty() {
            query.push_str("&after=");
            query.extend(url::form_urlencoded::byte_serialize(after.as_bytes()));
        }
        let said = self.transport.ask(&Question::new(Method::GET, "pins".to_owned()).with_query(query)).await?;
        answer::page(&said.of(&[StatusCode::OK])?, &self.holder)
    }

    /// Begins to look at what is wanted.
    pub async fn begin_declaration(&self) -> Result<AsOf, CacheError> {
        let path = format!("holders/{}/declarations", self.holder);
        let said = self.transport.ask(&Question::new(Method::POST, path)).await?;
        answer::as_of(&said.of(&[StatusCode::OK])?).map(AsOf)
    }

    /// Declares that since then all that is wanted is pinned, and nothing else. [`CacheError::Incomplete`] while a pin is not there yet, unless it failed when
    /// it was tried: what cannot be had is not waited for.
    pub async fn declare(&self, as_of: AsOf) -> Result<(), CacheError> {
        let path = format!("holders/{}/declarations/{}", self.holder, as_of.0);
        let question = Question::new(Method::PUT, path).with_query("without=failed".to_owned());
        let said = self.transport.ask(&question).await?;
        if said.status == StatusCode::CONFLICT {
            return Err(CacheError::Incomplete { reason: said.words() });
        }
        said.of(&[StatusCode::OK]).map(drop)
    }

    /// How many bytes an image has on these platforms (none: on all), of which its manifests are fetched and nothing else.
    pub async fn plan(&self, image: &ImageReference, platforms: &[String]) -> Result<Planned, CacheError> {
        let body = if platforms.is_empty() {
            Bytes::new()
        } else {
            Bytes::from(serde_json::json!({ "platforms": platforms }).to_string())
        };
        let question = Question::new(Method::POST, format!("plans/{image}")).with_body(body).asking_a_registry();
        let said = self.transport.ask(&question).await?;
        answer::planned(&said.of(&[StatusCode::OK])?)
    }

    /// Asks the registry what a reference means now, by HEAD: of a digest, whether it is still there.
    pub async fn revalidate(&self, image: &ImageReference) -> Result<Revalidation, CacheError> {
        let question = Question::new(Method::POST, format!("revalidations/{image}")).asking_a_registry();
        let said = self.transport.ask(&question).await?;
        answer::revalidation(&said.of(&[StatusCode::OK])?)
    }
}

/// Where a list is.
struct Listing {
    cache: ClusterCache,
    /// `None`: there is no other page.
    next: Option<String>,
    pages: usize,
}

impl Listing {
    async fn next(&mut self) -> Option<Result<Vec<Result<Pin, CacheError>>, CacheError>> {
        let after = self.next.take()?;
        let Page { pins, next } = match self.cache.page(&after).await {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        self.pages += 1;
        if next.as_deref() == Some(after.as_str()) || (next.is_some() && self.pages >= MOST_PAGES) {
            return Some(Err(CacheError::Strange { reason: "its list of pins has no end".to_owned() }));
        }
        self.next = next;
        Some(Ok(pins))
    }
}

/// What is known of an image once it is pinned and complete.
impl Pin {
    /// The digest that is there in full, or what is kept until the newer one is.
    pub fn held(&self) -> Option<&Digest> {
        match self.state {
            PinState::Complete => self.digest.as_ref(),
            _ => self.until_then.as_ref(),
        }
    }
}

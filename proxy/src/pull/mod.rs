//! What is answered to a pull: tags, manifests, blobs and lists, from the store or from the origin.
//!
//! What holds for every answer:
//!
//! - Nothing is served through a repository without evidence that this very repository delivers it: a *link* in the store, or
//!   the origin's word in this request.
//! - A tag means what the origin says now, as long as it says so in time; else what it last said, and the answer says that it
//!   is stale.
//! - A refusal is 404 or 502, at once and empty, so that the engine is on its way to the origin: any other status makes some
//!   engine wait, retry here, or give up.
//!
//! [`Puller`] is asked by `server`, one method per kind of request: `tag` and `manifest`, `blob`, `listing`. The policy is
//! `table`, the time `freshness`, and `flight` sees that simultaneous questions cost the origin one. Bytes of blobs come from
//! the store, or through `fetch`, or are somewhere else to be had (`elsewhere`). Clients that cannot turn elsewhere after the
//! manifest are `promised`'s, which asks the same and looks further ahead; what is attached to images (signatures) is
//! `attachment`'s. What was used is pinned for a while by `uses`.

mod answer;
mod attachment;
mod blob;
mod broken;
mod catalog;
mod denied;
mod elsewhere;
mod flight;
mod freshness;
mod held;
mod keep;
mod limits;
mod listing;
mod manifest;
mod moves;
mod promised;
mod promises;
mod recent;
mod referrers;
mod sent;
mod table;
mod tag;
mod uses;
mod whole;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use larder_oci::{Digest, ManifestReference, Registry, Tag};
use tokio::time::Instant;

use crate::fetch::Fetcher;
use crate::metrics::Metrics;
use crate::reply::Reply;
use crate::settings::SharedSettings;
use crate::source::{BlobHead, ManifestBody, ManifestHead, Source, SourceError, Unconfirmed};
use crate::store::{Name, Store};

use broken::Broken;
use denied::Denied;
use flight::Flights;
use freshness::Freshness;
use moves::Moves;
use promises::Promises;
use recent::Recent;
use sent::SentOn;
use uses::Uses;

pub use elsewhere::{Follows, Redirects, Sent};
pub(crate) use keep::{Code, Reason, Unkept};
pub use limits::Limits;
pub use table::{Asked, Conditions, Decision, decide};
pub use uses::{KeepPulled, Keeping};

/// Answers pulls. A clone is another handle of the same.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Shared>,
    /// How long whoever asks waits for the head of an answer.
    answer: Duration,
    /// Whether it follows a redirect.
    follows: Follows,
}

struct Shared {
    store: Arc<dyn Store>,
    source: Arc<dyn Source>,
    settings: SharedSettings,
    metrics: Arc<Metrics>,
    limits: Limits,
    fetcher: Fetcher,
    freshness: Freshness,
    denied: Denied,
    moves: Moves,
    promises: Arc<Promises>,
    broken: Broken,
    uses: Uses,
    sent_on: SentOn,
    recent_tags: Recent<Result<NamedHead, SourceError>>,
    recent_refusals: Recent<(StatusCode, &'static str)>,
    recent_answers: Recent<()>,
    tag_heads: Flights<(Name, Tag), Result<NamedHead, SourceError>>,
    digest_heads: Flights<(Name, Digest), Result<ManifestHead, SourceError>>,
    blob_heads: Flights<(Name, Digest), Result<BlobHead, SourceError>>,
    manifests: Flights<(Name, ManifestReference), Result<ManifestBody, SourceError>>,
}

/// What the origin says that a tag means.
#[derive(Debug, Clone)]
struct NamedHead {
    digest: Digest,
    size: Option<u64>,
    media_type: Option<String>,
    /// It is what the cluster cache last heard.
    unconfirmed: Option<Unconfirmed>,
}

impl Puller {
    /// Answers from `store` and `source`, within the settings of the moment.
    pub fn new(
        store: Arc<dyn Store>,
        source: Arc<dyn Source>,
        settings: SharedSettings,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let fetcher = Fetcher::new(Arc::clone(&store), Arc::clone(&source), Arc::clone(&metrics), limits.fetch.clone());
        let shared = Shared {
            store,
            source,
            settings,
            metrics,
            fetcher,
            freshness: Freshness::new(&limits),
            denied: Denied::new(limits.denied),
            moves: Moves::default(),
            promises: Arc::new(Promises::new(limits.quiet)),
            broken: Broken::default(),
            uses: Uses::default(),
            sent_on: SentOn::default(),
            recent_tags: Recent::default(),
            recent_refusals: Recent::default(),
            recent_answers: Recent::default(),
            tag_heads: Flights::default(),
            digest_heads: Flights::default(),
            blob_heads: Flights::default(),
            manifests: Flights::default(),
            limits,
        };
        Self { answer: shared.limits.answer, shared: Arc::new(shared), follows: Follows::default() }
    }

    /// That of what is said of a registry.
    pub fn fingerprint(&self, registry: &Registry) -> Option<String> {
        self.shared.settings.load().fingerprint(registry)
    }

    /// The same for somebody who waits no longer than this.
    #[must_use]
    pub fn within(&self, time: Option<Duration>) -> Self {
        let answer = time.map_or(self.answer, |time| time.min(self.answer));
        Self { shared: Arc::clone(&self.shared), answer, follows: self.follows.clone() }
    }

    /// `GET` or `HEAD /v2/<name>/manifests/<reference>`.
    pub async fn manifest(&self, name: &Name, reference: &ManifestReference, method: Method) -> Reply {
        if !self.shared.permits(name) {
            return answer::refused();
        }
        let deadline = Instant::now() + self.answer;
        let answer = match reference {
            ManifestReference::Tag(tag) if referrers::is_reserved(tag) => answer::refused().into(),
            ManifestReference::Tag(tag) => self.shared.by_tag(name, tag, &method, deadline).await,
            ManifestReference::Digest(digest) => self.shared.by_digest(name, digest, &method, deadline).await,
        };
        if let Some(given) = &answer.given {
            self.shared.used(name, reference, &given.digest, &method);
        }
        answer::to_method(answer.reply, &method)
    }
}

impl Shared {
    /// Whether the settings let this repository be served at all.
    fn permits(&self, name: &Name) -> bool {
        let settings = self.settings.load();
        settings.permits(name) && !settings.registries.get(&name.registry).is_some_and(|registry| registry.skip)
    }

    /// A client was given a manifest. A HEAD by digest asks for what the client knows already.
    fn used(&self, name: &Name, reference: &ManifestReference, digest: &Digest, method: &Method) {
        match (method, reference) {
            (&Method::GET, _) => self.uses.note(name, digest),
            (_, ManifestReference::Tag(_)) => self.uses.note_head(name, digest),
            (_, ManifestReference::Digest(_)) => {}
        }
    }

    fn conditions(&self, name: &Name, public: bool) -> Conditions {
        let settings = self.settings.load();
        Conditions::new(&settings.registry(&name.registry), settings.permits(name), public)
    }

    /// Passes an error of the origin on, and remembers what it says about the repository.
    fn learn<T>(&self, name: &Name, answer: Result<T, SourceError>) -> Result<T, SourceError> {
        match &answer {
            Ok(_) => self.denied.note_public(name),
            Err(SourceError::NeedsCredentials { status }) => {
                tracing::debug!(registry = %name.registry, repository = %name.repository, status, "needs credentials");
                self.denied.note(name);
            }
            Err(_) => {}
        }
        answer
    }

    /// The same for a blob or an attachment. Where we were given anything else a refusal is that part's own: storage behind a
    /// registry has rules of its own, and bad days.
    async fn learn_of_part<T>(&self, name: &Name, answer: Result<T, SourceError>) -> Result<T, SourceError> {
        if matches!(answer, Err(SourceError::NeedsCredentials { .. }))
            && (self.denied.is_public(name) || self.store.tags(name).await.is_ok_and(|tags| !tags.is_empty()))
        {
            return answer;
        }
        self.learn(name, answer)
    }

    /// The error of a repository that is known to need credentials.
    fn known_to_be_denied(&self, name: &Name) -> Result<(), SourceError> {
        if self.denied.contains(name) { Err(SourceError::NeedsCredentials { status: 401 }) } else { Ok(()) }
    }
}

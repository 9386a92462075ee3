//! Manifests by digest, and getting them from the origin once for all who ask.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use larder_oci::{Digest, ManifestReference};
use tokio::time::{Instant, timeout};

use super::Shared;
use super::answer;
use super::held::{self, Held, STORING};
use super::table::{Asked, Decision, decide};
use super::tag::evidence_from;
use crate::metrics::StaleLabels;
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::source::{ManifestBody, ManifestHead, SourceError, Unconfirmed, Verdict};
use crate::store::Name;

/// An answer to who asks for a manifest, and what it rests on.
pub(super) struct ManifestAnswer {
    pub(super) reply: Reply,
    /// `None` where it is refused.
    pub(super) given: Option<Given>,
}

/// A manifest that is given.
pub(super) struct Given {
    pub(super) digest: Digest,
    /// The origin has said in this request that the repository has it, or that the tag means it.
    pub(super) confirmed: bool,
}

impl ManifestAnswer {
    pub(super) fn confirmed(reply: Reply, digest: Digest) -> Self {
        Self { reply, given: Some(Given { digest, confirmed: true }) }
    }

    pub(super) fn unconfirmed(reply: Reply, digest: Digest) -> Self {
        Self { reply, given: Some(Given { digest, confirmed: false }) }
    }

    /// What the cluster cache has given without the origin's confirmation: neither do we.
    pub(super) fn heard_only(self, unconfirmed: Unconfirmed) -> Self {
        let given = self.given.map(|given| Given { confirmed: false, ..given });
        Self { reply: answer::stale(self.reply, unconfirmed.said, unconfirmed.age), given }
    }
}

impl From<Reply> for ManifestAnswer {
    /// A refusal.
    fn from(reply: Reply) -> Self {
        Self { reply, given: None }
    }
}

impl Shared {
    pub(super) async fn by_digest(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        if let Some(held) = self.held(name, digest).await
            && let Some(answer) = self.held_by_digest(name, digest, held, method, deadline).await
        {
            return answer;
        }
        if let Err(error) = self.known_to_be_denied(name) {
            return answer::of_error(&error).into();
        }
        // Somebody else's repository delivered it: a HEAD, which costs no quota, tells whether this one has it too.
        if let Some(blob) = self.stored(digest).await {
            match self.head_by_digest(name, digest, deadline).await {
                Ok(head) if agrees(&head, digest, blob.len()) => {
                    let told_at = evidence_from(head.unconfirmed.as_ref());
                    let link = self.put_link(name, digest, head.media_type, head.size, told_at).await;
                    if let Some(reply) = self.stored_manifest(digest, Held { link, blob }, method).await {
                        return ManifestAnswer::confirmed(reply, digest.clone());
                    }
                }
                Ok(ManifestHead { digest: Some(_), .. }) => {
                    return answer::refusal(StatusCode::BAD_GATEWAY, "wrong").into();
                }
                // Registries that do not know HEAD must be asked for the bytes, and so must whoever answers 200 to anything.
                Ok(_) | Err(SourceError::Protocol { .. }) => {}
                Err(error) => return answer::of_error(&error).into(),
            }
        }
        match self.get_manifest(name, &ManifestReference::Digest(digest.clone()), deadline).await {
            Ok((body, joined)) => fresh(body, joined),
            Err(error) => answer::of_error(&error).into(),
        }
    }

    /// Content is what it is: the origin is only asked where a policy wants its word.
    async fn held_by_digest(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        held: Held,
        method: &Method,
        deadline: Instant,
    ) -> Option<ManifestAnswer> {
        let conditions = self.conditions(name, held.link.public);
        let is_asked = conditions.depend_on_origin();
        let said = if is_asked {
            let budget = Instant::now() + self.freshness.budget(&name.registry);
            let answer = self.head_by_digest(name, digest, budget.min(deadline)).await;
            verdict(digest, held.blob.len(), answer.as_ref())
        } else {
            Verdict::Ok
        };
        match decide(Asked::Digest, said, conditions) {
            Decision::Serve | Decision::Follow => {
                let reply = self.stored_manifest(digest, held, method).await?;
                let given = Given { digest: digest.clone(), confirmed: is_asked };
                Some(ManifestAnswer { reply, given: Some(given) })
            }
            Decision::ServeStale => {
                let confirmed_at = held.link.confirmed_at;
                let age = SystemTime::now().duration_since(confirmed_at).ok();
                let age = age.filter(|_| confirmed_at > SystemTime::UNIX_EPOCH);
                let reply = self.stored_manifest(digest, held, method).await?;
                self.count_stale(name, said);
                Some(ManifestAnswer::unconfirmed(answer::stale(reply, said, age), digest.clone()))
            }
            Decision::Refuse => Some(answer::refused().into()),
        }
    }

    pub(super) fn count_stale(&self, name: &Name, said: Verdict) {
        self.metrics.note_registry(&name.registry);
        let registry = self.metrics.registry_label(&name.registry);
        self.metrics.count_stale(&StaleLabels { registry, reason: said.as_str() });
    }

    pub(super) async fn head_by_digest(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<ManifestHead, SourceError> {
        let mut flight = self.digest_heads.join((name.clone(), digest.clone()), || {
            let (shared, name, reference) = (Arc::clone(self), name.clone(), ManifestReference::Digest(digest.clone()));
            async move {
                let deadline = Instant::now() + shared.limits.background;
                let head = shared.source.head_manifest(&name, &reference, deadline).await;
                shared.learn(&name, head)
            }
        });
        flight.answer(deadline).await.unwrap_or(Err(SourceError::Timeout))
    }

    /// The manifest from the origin, and whether somebody else had asked for it; stored on the way. What comes too late for
    /// this request is stored all the same.
    pub(super) async fn get_manifest(
        self: &Arc<Self>,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> Result<(ManifestBody, bool), SourceError> {
        let mut flight = self.manifests.join((name.clone(), reference.clone()), || {
            let (shared, name, reference) = (Arc::clone(self), name.clone(), reference.clone());
            async move { shared.fetch_manifest(&name, &reference).await }
        });
        let joined = flight.joined;
        let answer = flight.answer(deadline).await.unwrap_or(Err(SourceError::Timeout));
        answer.map(|body| (body, joined))
    }

    async fn fetch_manifest(
        self: Arc<Self>,
        name: &Name,
        reference: &ManifestReference,
    ) -> Result<ManifestBody, SourceError> {
        // Another flight may have landed between the look into the store and this one's start.
        if let ManifestReference::Digest(digest) = reference
            && let Some(held) = self.held(name, digest).await
            && let Ok(bytes) = held::read_document(&held.blob).await
            && Digest::of(digest.algorithm(), &bytes) == *digest
        {
            let media_type = held.link.media_type.unwrap_or_else(|| held::media_type_of(&bytes));
            return Ok(ManifestBody { digest: digest.clone(), media_type, bytes });
        }
        let deadline = Instant::now() + self.limits.background;
        let body = self.get_manifest_of_the_origin(name, reference, deadline).await?;
        let (shared, name, stored) = (Arc::clone(&self), name.clone(), body.clone());
        let storing = tokio::spawn(async move { shared.keep_manifest(&name, &stored).await });
        if timeout(STORING, storing).await.is_err() {
            tracing::debug!(digest = %body.digest, "the store takes its time");
        }
        Ok(body)
    }

    /// The same, whatever we hold, and stored by nobody.
    pub(super) async fn get_manifest_of_the_origin(
        &self,
        name: &Name,
        reference: &ManifestReference,
        deadline: Instant,
    ) -> Result<ManifestBody, SourceError> {
        let body = self.source.get_manifest(name, reference, deadline).await;
        self.learn(name, body)
    }

    async fn keep_manifest(&self, name: &Name, body: &ManifestBody) {
        if let Err(error) = self.store.put_bytes(&body.digest, body.bytes.clone()).await {
            tracing::debug!(digest = %body.digest, %error, "a manifest could not be stored");
            return;
        }
        let size = body.bytes.len() as u64;
        self.put_link(name, &body.digest, Some(body.media_type.clone()), Some(size), None).await;
        for (tag, heard) in self.moves.take(name, &body.digest) {
            self.put_tag(name, &tag, body.digest.clone(), heard).await;
        }
    }
}

/// A manifest that the origin has just given.
pub(super) fn fresh(body: ManifestBody, joined: bool) -> ManifestAnswer {
    let ManifestBody { digest, media_type, bytes } = body;
    let outcome = Outcome::new(ReplySource::Origin, if joined { "joined" } else { "miss" });
    let reply = answer::manifest(&digest, &media_type, bytes.len() as u64, Body::Bytes(bytes), outcome);
    ManifestAnswer::confirmed(reply, digest)
}

/// Whether a HEAD speaks of this manifest. Not every registry says the digest; a page for people never has the same length.
pub(super) fn agrees(head: &ManifestHead, digest: &Digest, length: u64) -> bool {
    head.digest.as_ref().map_or(head.size == Some(length), |said| said == digest)
}

fn verdict(digest: &Digest, length: u64, head: Result<&ManifestHead, &SourceError>) -> Verdict {
    match head {
        Ok(head) if agrees(head, digest, length) => head.unconfirmed.map_or(Verdict::Ok, |heard| heard.said),
        Ok(_) => Verdict::Changed,
        Err(error) => error.verdict(),
    }
}

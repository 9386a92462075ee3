//! Manifests by tag: what the tag means now, or what it last meant.
//!
//! The origin is asked with a HEAD, which costs no pull quota, once for all who ask at the same time. While a cached answer
//! exists it has the registry's budget of time; an answer that comes later still moves the tag.

use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use larder_oci::{Digest, ManifestReference, Tag};
use tokio::time::Instant;

use super::flight::Ticket;
use super::held::Held;
use super::manifest::{ManifestAnswer, fresh};
use super::moves::Heard;
use super::table::{Asked, Decision, decide};
use super::{NamedHead, Shared};
use super::{answer, attachment};
use crate::reply::{Body, Outcome, ReplySource};
use crate::source::{ManifestHead, SourceError, Unconfirmed, Verdict};
use crate::store::{Name, TagRecord};

/// What the tag meant when the origin last said so, and we hold it.
pub(super) struct Cached {
    record: TagRecord,
    held: Held,
}

impl Cached {
    /// What the tag meant.
    pub(super) fn digest(&self) -> &Digest {
        &self.record.digest
    }
}

impl Shared {
    pub(super) async fn by_tag(
        self: &Arc<Self>,
        name: &Name,
        tag: &Tag,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        let cached = self.cached(name, tag).await;
        let said = self.ask(name, tag, cached.is_some(), deadline).await;
        self.answer_said(name, cached, said, method, deadline).await
    }

    /// What is answered when the origin says this of a tag and we hold that.
    pub(super) async fn answer_said(
        self: &Arc<Self>,
        name: &Name,
        cached: Option<Cached>,
        said: Result<NamedHead, SourceError>,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        let Some(cached) = cached else {
            let followed = match said {
                Ok(head) => self.follow_or_refuse(name, head, method, deadline).await,
                Err(error) => Err(error),
            };
            return followed.unwrap_or_else(|error| answer::of_error(&error).into());
        };
        let conditions = self.conditions(name, cached.held.link.public);
        let mut verdict = match &said {
            Ok(NamedHead { digest, unconfirmed: None, .. }) if *digest == cached.record.digest => Verdict::Ok,
            Ok(NamedHead { unconfirmed: None, .. }) => Verdict::Changed,
            Ok(NamedHead { digest, unconfirmed: Some(heard), .. }) => {
                // The cluster cache heard it later than we did: it is nearer to what the tag means.
                if *digest != cached.record.digest && heard_at(heard).is_some_and(|at| at > cached.record.checked_at) {
                    Verdict::Changed
                } else {
                    heard.said
                }
            }
            Err(error) => error.verdict(),
        };
        if decide(Asked::Tag, verdict, conditions) == Decision::Follow
            && let Ok(head) = said
        {
            let budget = Instant::now() + self.freshness.budget(&name.registry);
            match self.follow_or_refuse(name, head, method, budget.min(deadline)).await {
                Ok(answer) => return answer,
                // It says what the tag means and then does not give it: as if it had said nothing.
                Err(error) => verdict = error.verdict(),
            }
        }
        self.answer_cached(name, cached, verdict, decide(Asked::Tag, verdict, conditions), method, deadline).await
    }

    pub(super) async fn cached(&self, name: &Name, tag: &Tag) -> Option<Cached> {
        let record = self.store.tag(name, tag).await.ok().flatten()?;
        // That there is no such attachment is written down as the image itself, which nobody asked for.
        if attachment::image_of(tag).as_ref() == Some(&record.digest) {
            return None;
        }
        let held = self.held(name, &record.digest).await?;
        Some(Cached { record, held })
    }

    async fn answer_cached(
        self: &Arc<Self>,
        name: &Name,
        cached: Cached,
        said: Verdict,
        decision: Decision,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        let Cached { record, held } = cached;
        if decision == Decision::Refuse {
            return answer::refused().into();
        }
        let Some(reply) = self.stored_manifest(&record.digest, held, method).await else {
            // It was damaged.
            let reference = ManifestReference::Digest(record.digest);
            return match self.get_manifest(name, &reference, deadline).await {
                Ok((body, joined)) => fresh(body, joined),
                Err(error) => answer::of_error(&error).into(),
            };
        };
        if decision == Decision::Serve {
            return ManifestAnswer::confirmed(reply, record.digest);
        }
        self.count_stale(name, said);
        tracing::info!(registry = %name.registry, repository = %name.repository, digest = %record.digest,
            said = said.as_str(), "the origin does not confirm the tag; serving what it last meant");
        // Of one that was written anew nobody knows.
        let age = SystemTime::now().duration_since(record.checked_at).ok();
        let age = age.filter(|_| record.checked_at > SystemTime::UNIX_EPOCH);
        ManifestAnswer::unconfirmed(answer::stale(reply, said, age), record.digest)
    }

    /// What the origin says now, if it says so in time.
    pub(super) async fn ask(
        self: &Arc<Self>,
        name: &Name,
        tag: &Tag,
        is_cached: bool,
        deadline: Instant,
    ) -> Result<NamedHead, SourceError> {
        // Once it was public: one refusal is no reason to take the tag as it was for minutes.
        if !is_cached {
            self.known_to_be_denied(name)?;
        }
        let budget = self.freshness.budget(&name.registry);
        // Not the moment that one has who asks in an outage: that would be a question more with each who asks.
        let age = is_cached.then(|| budget.max(self.limits.freshness));
        let mut flight = self.tag_heads.join_within((name.clone(), tag.clone()), age, |ticket| {
            let (shared, name, tag) = (Arc::clone(self), name.clone(), tag.clone());
            async move { shared.head_tag(&name, &tag, is_cached, &ticket).await }
        });
        // Counted from when the question was asked: whoever joins late has had the others wait for him.
        let until = if is_cached { (flight.since + budget).min(deadline) } else { deadline };
        if let Some(answer) = flight.answer(until).await {
            return answer;
        }
        if is_cached {
            self.freshness.passed(&name.registry);
        }
        Err(SourceError::Timeout)
    }

    async fn head_tag(
        self: Arc<Self>,
        name: &Name,
        tag: &Tag,
        is_cached: bool,
        ticket: &Ticket,
    ) -> Result<NamedHead, SourceError> {
        let since = Instant::now();
        let budget = self.freshness.budget(&name.registry);
        let reference = ManifestReference::Tag(tag.clone());
        let waiting = since + if is_cached { budget } else { self.limits.answer };
        let last = since + self.limits.background;
        let head = self.source.head_manifest_in_time(name, &reference, waiting, last).await;
        let elapsed = since.elapsed();
        if matches!(head, Ok(_) | Err(SourceError::NotFound | SourceError::NeedsCredentials { .. })) {
            self.freshness.answered(&name.registry, elapsed);
        }
        // What is refused of an attachment is that one thing, whose image was given.
        let head = match attachment::image_of(tag) {
            Some(_) => self.learn_of_part(name, head).await,
            None => self.learn(name, head),
        };
        let named = match head {
            Ok(ManifestHead { digest: Some(digest), size, media_type, unconfirmed }) => {
                NamedHead { digest, size, media_type, unconfirmed }
            }
            // Registries that do not say the digest, or do not know HEAD, must be asked for the bytes.
            Ok(ManifestHead { digest: None, .. }) | Err(SourceError::Protocol { .. }) => {
                let (body, _) = self.get_manifest(name, &reference, since + self.limits.background).await?;
                let size = Some(body.bytes.len() as u64);
                NamedHead { digest: body.digest, size, media_type: Some(body.media_type), unconfirmed: None }
            }
            Err(error) => return Err(error),
        };
        if ticket.is_newest_word() {
            let (shared, name, tag, noted) = (Arc::clone(&self), name.clone(), tag.clone(), named.clone());
            tokio::spawn(async move { shared.note_tag(&name, &tag, noted, is_cached && elapsed >= budget).await });
        }
        Ok(named)
    }

    /// Writes down what a tag means: at once if we hold it, else as soon as we do. Where nobody waited for the answer nobody
    /// will ask for the manifest either, so it is fetched.
    async fn note_tag(self: Arc<Self>, name: &Name, tag: &Tag, head: NamedHead, is_late: bool) {
        let NamedHead { digest, size, media_type, unconfirmed } = head;
        let told_at = match &unconfirmed {
            None => None,
            Some(unsure) => match heard_at(unsure) {
                // Of unknown age it is worth nothing for later.
                None => return,
                at => at,
            },
        };
        // Before the look into the store: whoever stores the manifest in between finds it.
        self.moves.note(name, &digest, tag, told_at);
        if self.stored(&digest).await.is_some() {
            self.put_link(name, &digest, media_type, size, told_at).await;
            self.moves.take(name, &digest);
            self.put_tag(name, tag, digest, told_at).await;
        } else if is_late
            && told_at.is_none()
            && let Err(error) = self
                .get_manifest(name, &ManifestReference::Digest(digest), Instant::now() + self.limits.background)
                .await
        {
            tracing::debug!(%tag, %error, "a tag moved to a manifest that does not come");
        }
    }

    /// Writes down what a tag means now, or what the cluster cache `heard` that it meant then.
    pub(super) async fn put_tag(&self, name: &Name, tag: &Tag, digest: Digest, heard: Heard) {
        let checked_at = heard.unwrap_or_else(SystemTime::now);
        if let Ok(Some(old)) = self.store.tag(name, tag).await {
            let is_known = old.digest == digest
                && checked_at.duration_since(old.checked_at).is_ok_and(|age| age < self.limits.confirmation);
            if is_known || (heard.is_some() && old.checked_at >= checked_at) {
                return;
            }
        }
        if let Err(error) = self.store.put_tag(name, tag, TagRecord { digest, checked_at }).await {
            tracing::debug!(%tag, %error, "a tag could not be written");
        }
    }

    /// [`Self::follow`]; where the cluster cache has only told what it last heard, as far as our own policies go.
    async fn follow_or_refuse(
        self: &Arc<Self>,
        name: &Name,
        head: NamedHead,
        method: &Method,
        deadline: Instant,
    ) -> Result<ManifestAnswer, SourceError> {
        let Some(unsure) = head.unconfirmed else { return self.follow(name, head, method, deadline).await };
        // It has been given to anyone, or the cluster cache would not have it.
        if decide(Asked::Tag, unsure.said, self.conditions(name, true)) == Decision::Refuse {
            return Ok(answer::refused().into());
        }
        let answer = self.follow(name, head, method, deadline).await?;
        self.count_stale(name, unsure.said);
        Ok(answer.heard_only(unsure))
    }

    /// Answers with what the origin says that the tag means now.
    async fn follow(
        self: &Arc<Self>,
        name: &Name,
        head: NamedHead,
        method: &Method,
        deadline: Instant,
    ) -> Result<ManifestAnswer, SourceError> {
        let NamedHead { digest, size, media_type, unconfirmed } = head;
        if let Some(blob) = self.stored(&digest).await {
            // The origin says that this repository has it, or did when it was heard: evidence.
            let told_at = evidence_from(unconfirmed.as_ref());
            let link = self.put_link(name, &digest, media_type.clone(), size, told_at).await;
            if let Some(reply) = self.stored_manifest(&digest, Held { link, blob }, method).await {
                return Ok(ManifestAnswer::confirmed(reply, digest));
            }
        }
        if method == Method::HEAD
            && let (Some(size), Some(media_type)) = (size, &media_type)
        {
            let outcome = Outcome::new(ReplySource::Origin, "miss");
            let reply = answer::manifest(&digest, media_type, size, Body::Empty, outcome);
            return Ok(ManifestAnswer::confirmed(reply, digest));
        }
        let (body, joined) = self.get_manifest(name, &ManifestReference::Digest(digest), deadline).await?;
        Ok(fresh(body, joined))
    }
}

/// The same for evidence, which a time that is not known makes as old as can be.
pub(super) fn evidence_from(unconfirmed: Option<&Unconfirmed>) -> Heard {
    unconfirmed.map(|unsure| heard_at(unsure).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// When the origin said it.
fn heard_at(unconfirmed: &Unconfirmed) -> Heard {
    SystemTime::now().checked_sub(unconfirmed.age?)
}

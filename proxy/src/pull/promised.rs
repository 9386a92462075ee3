//! Answers for a client that stays with whoever gave it the manifest: CRI-O, and all that reads `registries.conf`.
//!
//! Its one chance to go elsewhere is the first manifest. So a manifest is given only where the rest can be given: everything is in the
//! store (`whole`), or the origin answers now. What fails in spite of that is remembered (`promises`, `broken`) and the image
//! refused at its manifest for a while, so that the next try goes to the origin. What is asked for twice in one pull costs the
//! origin one question (`recent`).

use std::sync::Arc;

use http::{Method, StatusCode};
use larder_oci::{ByteRange, Children, Digest, ManifestReference, Tag};
use tokio::time::{Instant, timeout_at};

use super::broken::Cause;
use super::manifest::{Given, ManifestAnswer, agrees};
use super::promises::{Promise, UnderWay};
use super::tag::Cached;
use super::{NamedHead, Puller, Shared, answer, attachment, recent, referrers, whole};
use crate::reply::{Body, Reply, ReplyObserver, ReplySource};
use crate::source::{SourceError, Verdict};
use crate::store::Name;

impl Puller {
    /// [`Puller::manifest`] for a client that will ask nobody else for the rest.
    pub async fn promised_manifest(&self, name: &Name, reference: &ManifestReference, method: Method) -> Reply {
        if !self.shared.permits(name) {
            return answer::refused();
        }
        answer::to_method(self.shared.promised_manifest(name, reference, &method).await, &method)
    }

    /// [`Puller::blob`] for a client that will ask nobody else.
    pub async fn promised_blob(&self, name: &Name, digest: &Digest, range: Option<ByteRange>, method: Method) -> Reply {
        let shared = &self.shared;
        shared.recent_tags.forget(name);
        shared.recent_answers.forget(name);
        let under_way = shared.promises.asked(name, digest);
        let is_get = method == Method::GET;
        let mut reply = self.blob(name, digest, range, method).await;
        let is_elsewhere = reply.status == StatusCode::TEMPORARY_REDIRECT;
        if reply.status.is_success() || is_elsewhere || reply.status == StatusCode::RANGE_NOT_SATISFIABLE {
            let of_origin = reply.outcome.source == ReplySource::Origin;
            reply.observer = Some(Box::new(Delivery {
                shared: Arc::clone(shared),
                name: name.clone(),
                digest: digest.clone(),
                is_whole: is_get && reply.status == StatusCode::OK,
                of_origin,
                _under_way: under_way,
            }));
            return reply;
        }
        shared.broke(name, &Cause::Blob(digest.clone()));
        // Later ones of these clients do go on elsewhere after a 5xx, and after a 404 only where it says a code. So 404, which a registry
        // has to say of what it does not have, is said with one; anything else is a 502.
        if is_get && answer::says(&reply, Verdict::NotFound) {
            return answer::unknown_blob(reply);
        }
        if !answer::says(&reply, Verdict::NotFound) {
            reply.status = StatusCode::BAD_GATEWAY;
        }
        reply
    }

    /// How many images are refused now because they could not be given in full.
    pub fn images_refused(&self) -> usize {
        self.shared.broken.images()
    }

    /// Promises nothing new from now on; ends when everybody has what was promised or has gone quiet.
    pub async fn finish(&self) {
        self.shared.promises.close();
        self.shared.promises.kept().await;
    }
}

/// What a client wants, and until when it is answered.
struct Wanted<'a> {
    name: &'a Name,
    reference: &'a ManifestReference,
    /// The image that this is a signature of.
    attached_to: Option<Digest>,
    method: &'a Method,
    deadline: Instant,
}

impl Shared {
    async fn promised_manifest(self: &Arc<Self>, name: &Name, reference: &ManifestReference, method: &Method) -> Reply {
        let deadline = Instant::now() + self.limits.answer;
        let attached_to = match reference {
            ManifestReference::Tag(tag) => attachment::image_of(tag),
            ManifestReference::Digest(_) => None,
        };
        let wanted = Wanted { name, reference, attached_to, method, deadline };
        if !self.promises.admits(name, reference, wanted.attached_to.as_ref()) {
            return answer::refusal(StatusCode::BAD_GATEWAY, "stopping");
        }
        if self.is_refused(name, reference, deadline).await {
            if let ManifestReference::Digest(digest) = reference {
                // An index that was given out since leads here, and would at the next try again.
                self.broken.spread(name, reference, self.promises.led_to(name, digest, false));
            }
            return answer::refusal(StatusCode::BAD_GATEWAY, "broken");
        }
        let _under_way = match reference {
            ManifestReference::Digest(digest) => Some(self.promises.asked(name, digest)),
            ManifestReference::Tag(_) => None,
        };
        // Whoever is asked on the way has the deadline, too, and answers as well as it can until then. This is for the disk.
        let reply = timeout_at(deadline, self.find_and_promise(&wanted)).await;
        let reply = reply.unwrap_or_else(|_| answer::refusal(StatusCode::BAD_GATEWAY, "timeout"));
        let is_failure = match reference {
            ManifestReference::Tag(_) => wanted.attached_to.is_some() && reply.status.is_server_error(),
            ManifestReference::Digest(_) => reply.status != StatusCode::OK,
        };
        if is_failure {
            self.broke(name, &Cause::Manifest(reference.clone()));
        }
        reply
    }

    async fn find_and_promise(self: &Arc<Self>, wanted: &Wanted<'_>) -> Reply {
        let Wanted { name, reference, attached_to, method, deadline } = wanted;
        let ManifestAnswer { reply, given } = match (reference, attached_to) {
            (ManifestReference::Tag(tag), Some(image)) => self.attachment(name, tag, image, method, *deadline).await,
            (ManifestReference::Tag(tag), None) if referrers::is_reserved(tag) => answer::refused().into(),
            (ManifestReference::Tag(tag), None) => self.tag_once(name, tag, method, *deadline).await,
            (ManifestReference::Digest(digest), _) => self.digest_once(name, digest, method, *deadline).await,
        };
        match given {
            Some(given) => self.promise(wanted, given, reply).await,
            None => reply,
        }
    }

    async fn tag_once(self: &Arc<Self>, name: &Name, tag: &Tag, method: &Method, deadline: Instant) -> ManifestAnswer {
        let cached: Option<Cached> = self.cached(name, tag).await;
        let said = self.ask_once(name, tag, cached.is_some(), deadline).await;
        self.answer_said(name, cached, said, method, deadline).await
    }

    /// What the origin says that a tag means; the second time in a pull, what it has just said.
    pub(super) async fn ask_once(
        self: &Arc<Self>,
        name: &Name,
        tag: &Tag,
        is_cached: bool,
        deadline: Instant,
    ) -> Result<NamedHead, SourceError> {
        let reference = ManifestReference::Tag(tag.clone());
        if let Some(said) = self.recent_tags.take(name, &reference) {
            return said;
        }
        let said = self.ask(name, tag, is_cached, deadline).await;
        let time = if said.is_ok() { recent::ANSWER } else { recent::FAILURE };
        self.recent_tags.note(name, &reference, said.clone(), time);
        said
    }

    async fn digest_once(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        method: &Method,
        deadline: Instant,
    ) -> ManifestAnswer {
        let reference = ManifestReference::Digest(digest.clone());
        if let Some((status, result)) = self.recent_refusals.take(name, &reference) {
            return answer::refusal(status, result).into();
        }
        let mut answer = self.by_digest(name, digest, method, deadline).await;
        if let Some(given) = &mut answer.given {
            // What it has said a moment ago still holds.
            given.confirmed = given.confirmed || self.recent_answers.take(name, &reference).is_some();
        } else {
            let refusal = (answer.reply.status, answer.reply.outcome.result);
            self.recent_refusals.note(name, &reference, refusal, recent::FAILURE);
        }
        answer
    }

    /// A manifest that was found, if all that it names can be given.
    async fn promise(self: &Arc<Self>, wanted: &Wanted<'_>, given: Given, reply: Reply) -> Reply {
        let Wanted { name, reference, attached_to, method, deadline } = wanted;
        let Given { digest, confirmed } = given;
        let itself = ManifestReference::Digest(digest.clone());
        if **reference != itself && self.is_refused(name, &itself, *deadline).await {
            return answer::refusal(StatusCode::BAD_GATEWAY, "broken");
        }
        let children = match &reply.body {
            Body::Bytes(bytes) => larder_oci::children(bytes).ok(),
            _ => self.look(*deadline, self.stored_children(&digest)).await.flatten(),
        };
        // Of a signature these clients read the layers alone: its config is never here, and need not be.
        let children = if attached_to.is_some() { children.map(Children::without_config) } else { children };
        if confirmed {
            self.recent_answers.note(name, &itself, (), recent::ANSWER);
        }
        let can_be_given = confirmed
            || match &children {
                // A disk that takes its time would take it once for each layer, with the client waiting.
                Some(children) => self.look(*deadline, self.is_whole(name, children)).await == Some(true),
                None => false,
            }
            || self.origin_has(name, &digest, *deadline).await;
        if !can_be_given {
            tracing::info!(registry = %name.registry, repository = %name.repository, %digest,
                "not all of the image is here, and its registry does not answer; the manifest is refused");
            return answer::refusal(StatusCode::BAD_GATEWAY, "partial");
        }
        if let Some(children) = &children
            && self.look(*deadline, self.refuses_any(name, children)).await != Some(false)
        {
            return answer::refusal(StatusCode::BAD_GATEWAY, "broken");
        }
        self.broken.mended(name, &Cause::Manifest((*reference).clone()));
        self.used(name, reference, &digest, method);
        if **method == Method::GET {
            let children = children.unwrap_or_default();
            let is_index = !children.manifests.is_empty();
            let content = children.manifests.into_iter().chain(children.blobs).map(|child| child.digest).collect();
            let (name, reference, attached_to) = ((*name).clone(), (*reference).clone(), attached_to.clone());
            self.promises.add(Promise { name, digest, reference, attached_to, content, is_index });
        }
        reply
    }

    /// Whether the origin answers now, and has this manifest. A registry that knows no HEAD answers.
    async fn origin_has(self: &Arc<Self>, name: &Name, digest: &Digest, deadline: Instant) -> bool {
        if self.known_to_be_denied(name).is_err() {
            return false;
        }
        let budget = Instant::now() + self.freshness.budget(&name.registry);
        let length = self.stored(digest).await.map(|blob| blob.len());
        match self.head_by_digest(name, digest, budget.min(deadline)).await {
            Ok(head) => length.is_none_or(|length| agrees(&head, digest, length)),
            Err(SourceError::Protocol { .. }) => true,
            Err(SourceError::Timeout) => {
                // Something of it is in the store, so it may be remembered.
                if length.is_some() {
                    self.freshness.passed(&name.registry);
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Whether something that it names has failed just now and would be refused: of an index, what an engine here asks for next.
    async fn refuses_any(&self, name: &Name, children: &Children) -> bool {
        for digest in whole::candidates(&children.manifests) {
            if self.is_broken(name, &ManifestReference::Digest(digest.clone())).await {
                return true;
            }
        }
        for blob in &children.blobs {
            if self.fetcher.refuses(name, &blob.digest) && self.held(name, &blob.digest).await.is_none() {
                return true;
            }
        }
        false
    }

    /// What the disk says, if it says so in time.
    async fn look<T>(&self, deadline: Instant, answer: impl Future<Output = T>) -> Option<T> {
        timeout_at(deadline.min(Instant::now() + self.limits.look_at_disk), answer).await.ok()
    }

    async fn is_refused(self: &Arc<Self>, name: &Name, reference: &ManifestReference, deadline: Instant) -> bool {
        self.is_broken_in_time(name, reference, deadline).await && !self.is_here_alone(name, reference, deadline).await
    }

    /// Whether all that an engine here asks for of an index is in the store, and its registry is away: what failed was of another
    /// platform, and nobody has anywhere else to go.
    async fn is_here_alone(self: &Arc<Self>, name: &Name, reference: &ManifestReference, deadline: Instant) -> bool {
        let find_index = async {
            let digest = match reference {
                ManifestReference::Digest(digest) => digest.clone(),
                ManifestReference::Tag(tag) => self.store.tag(name, tag).await.ok()??.digest,
            };
            let children = self.stored_children(&digest).await?;
            let is_whole_index = !children.manifests.is_empty()
                && self.held(name, &digest).await.is_some()
                && self.is_whole(name, &children).await;
            is_whole_index.then_some(digest)
        };
        match self.look(deadline, find_index).await.flatten() {
            Some(digest) => !self.origin_has(name, &digest, deadline).await,
            None => false,
        }
    }

    async fn is_broken_in_time(&self, name: &Name, reference: &ManifestReference, deadline: Instant) -> bool {
        self.look(deadline, self.is_broken(name, reference)).await.unwrap_or(true)
    }

    /// Whether an image is refused; not any more once what was missing is in the store.
    async fn is_broken(&self, name: &Name, reference: &ManifestReference) -> bool {
        let Some(cause) = self.broken.cause(name, reference) else { return false };
        let is_here = match &cause {
            Cause::Blob(digest) => self.held(name, digest).await.is_some(),
            Cause::Manifest(ManifestReference::Digest(digest)) => match self.stored_children(digest).await {
                Some(children) => self.held(name, digest).await.is_some() && self.is_whole(name, &children).await,
                None => false,
            },
            // Signed or not, it is known.
            Cause::Manifest(ManifestReference::Tag(tag)) => {
                matches!(self.store.tag(name, tag).await, Ok(Some(_)))
            }
        };
        if is_here {
            self.broken.mended(name, &cause);
        }
        !is_here
    }

    /// Something could not be given that was promised: its images are refused from now on.
    fn broke(&self, name: &Name, cause: &Cause) {
        let references = match cause {
            Cause::Blob(digest) | Cause::Manifest(ManifestReference::Digest(digest)) => {
                self.promises.led_to(name, digest, false)
            }
            Cause::Manifest(ManifestReference::Tag(tag)) => match attachment::image_of(tag) {
                Some(image) => self.promises.led_to(name, &image, true),
                None => return,
            },
        };
        if references.is_empty() {
            return;
        }
        let time = self.limits.broken;
        tracing::warn!(registry = %name.registry, repository = %name.repository, ?cause, seconds = time.as_secs(),
            "an image was promised and cannot be given in full; for a while clients that cannot go elsewhere in a pull are refused it");
        self.metrics.promises_broken.get_or_create(&self.metrics.registry_labels(&name.registry)).inc();
        self.broken.note(name, references, cause, time);
    }
}

/// A blob on its way to a client that cannot get it elsewhere.
struct Delivery {
    shared: Arc<Shared>,
    name: Name,
    digest: Digest,
    is_whole: bool,
    /// Of what is cut short the client asks for the rest. What the disk has lost the origin may then give, and what the origin does not
    /// give is refused for a while.
    of_origin: bool,
    _under_way: UnderWay,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl ReplyObserver for Delivery {
    fn delivered(&mut self) {
        if self.is_whole {
            self.shared.broken.mended(&self.name, &Cause::Blob(self.digest.clone()));
        }
    }

    fn cut(&mut self) {
        if self.of_origin {
            self.shared.broke(&self.name, &Cause::Blob(self.digest.clone()));
        }
    }
}

//! A blob that the store keeps in a bucket: whoever follows is sent there for it (decision 26).
//!
//! Sent on are requests for all of a blob, through a repository with evidence for it, from somebody who is known. Who asks for a part is
//! given it here, since that is how whoever was not served there comes back; but nodes say so by themselves, and are sent on for the rest
//! of a blob as well. What lies here is given from here.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use larder_oci::Digest;
use tokio::time::{Instant, timeout};
use url::Host;

use super::{Puller, Shared};
use crate::hop;
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::store::StoredBlob;

/// How long it may take to find out where a blob may be had; then it is given here.
const PLACE: Duration = Duration::from_secs(1);

/// Who is sent to the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sent {
    /// Nobody.
    #[default]
    Nobody,
    /// Nodes of ours that say that they follow: they come back when the bucket does not serve them.
    Nodes,
    /// Everybody who is known, and does not say otherwise. Whoever follows and does not get there fails, and is given the blob here when it
    /// asks again.
    Everyone,
}

/// Who is sent to the bucket, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redirects {
    /// Who.
    pub to: Sent,
    /// Blobs of at least so many bytes.
    pub from: u64,
}

/// Whether whoever asks follows a redirect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Follows {
    /// It does not want to, or nobody knows who it is.
    #[default]
    No,
    /// It says so.
    Yes,
    /// It does not say. Tools send the token on to the very host that they asked, whatever the port, and to hosts below it; and some
    /// (crane) go to no host that is a private address.
    Unsaid {
        /// The host that was asked.
        asked: String,
        /// The machine that asks, if the system says which.
        machine: Option<IpAddr>,
    },
}

impl Follows {
    fn is_sent(&self, redirects: Redirects) -> bool {
        match (redirects.to, self) {
            (Sent::Nobody, _) | (_, Self::No) | (Sent::Nodes, Self::Unsaid { .. }) => false,
            (Sent::Nodes | Sent::Everyone, Self::Yes) | (Sent::Everyone, Self::Unsaid { .. }) => true,
        }
    }

    /// Whether it gets there, and does not show that host a token that is for us.
    fn may_go_to(&self, host: &str) -> bool {
        match self {
            Self::No | Self::Yes => true,
            Self::Unsaid { asked, .. } => {
                let is_address = !matches!(Host::parse(host), Ok(Host::Domain(_)));
                let asked = asked.trim_end_matches('.').to_ascii_lowercase();
                let below = host.trim_end_matches('.').strip_suffix(&asked);
                let is_told = below.is_some_and(|below| below.is_empty() || below.ends_with('.'));
                !is_address && !is_told
            }
        }
    }
}

impl Puller {
    /// The same for somebody who follows redirects, or does not.
    #[must_use]
    pub fn following(self, follows: Follows) -> Self {
        Self { follows, ..self }
    }
}

impl Shared {
    /// `None`: it is given here.
    pub(super) async fn elsewhere(&self, digest: &Digest, blob: &StoredBlob, follows: &Follows) -> Option<Reply> {
        let redirects = self.limits.redirects;
        if !follows.is_sent(redirects) || blob.len() < redirects.from || blob.still_arriving().is_none() {
            return None;
        }
        let now = Instant::now();
        if let Follows::Unsaid { machine, .. } = follows
            && self.sent_on.comes_back(*machine, digest, now)
        {
            return None;
        }
        let place = match timeout(PLACE, self.store.elsewhere(digest, blob.len())).await {
            Ok(Ok(place)) => place?,
            Ok(Err(error)) => {
                tracing::debug!(%digest, %error, "nobody is sent on for this blob");
                return None;
            }
            Err(_) => return None,
        };
        if !follows.may_go_to(place.host()) {
            return None;
        }
        if let Follows::Unsaid { machine, .. } = follows {
            self.sent_on.note(*machine, digest, now);
        }
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, place.header()?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        headers.insert(hop::LENGTH, HeaderValue::from(blob.len()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let outcome = Outcome::new(ReplySource::Store, "redirected");
        Some(Reply::new(StatusCode::TEMPORARY_REDIRECT, headers, Body::Empty, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_sent_on() {
        let unsaid = || Follows::Unsaid { asked: "cache.example".to_owned(), machine: None };
        for (to, sent) in [
            (Sent::Nobody, [false, false, false]),
            (Sent::Nodes, [false, true, false]),
            (Sent::Everyone, [false, true, true]),
        ] {
            let redirects = Redirects { to, from: 0 };
            assert_eq!([Follows::No, Follows::Yes, unsaid()].map(|one| one.is_sent(redirects)), sent, "{to:?}");
        }
    }

    #[test]
    fn nobody_is_sent_to_where_his_tool_would_show_the_token_or_not_go() {
        let may = |asked: &str, host| Follows::Unsaid { asked: asked.to_owned(), machine: None }.may_go_to(host);
        assert!(!may("cache.example", "cache.example") && !may("Cache.Example.", "minio.cache.example"));
        assert!(!may("localhost", "127.0.0.1") && !may("cache.example", "[fd00::1]") && !may("10.0.0.1", "10.0.0.1"));
        assert!(may("cache.example", "bucket.example") && may("cache.example", "notcache.example"));
        assert!(may("minio.cache.example", "cache.example") && may("10.0.0.1", "bucket.example"));
        assert!(Follows::Yes.may_go_to("cache.example") && Follows::Yes.may_go_to("10.0.0.1"));
    }
}

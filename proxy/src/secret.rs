//! Secrets: they are not shown, and leave no copy of ours behind.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

pub use larder_process::secret::{Token, may_go_in_the_clear};

/// A URL that is signed: whoever has it may read what it names, for as long as it holds.
pub struct SignedUrl {
    url: Zeroizing<String>,
    host: String,
}

impl SignedUrl {
    /// This one. `None` if it names no host.
    pub fn new(url: Url) -> Option<Self> {
        let host = url.host_str()?.to_ascii_lowercase();
        Some(Self { url: Zeroizing::new(url.into()), host })
    }

    /// Of whom it is asked, without the port. This may be shown.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `Location`, which is not shown either.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.url).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl({}…)", self.host)
    }
}

/// What is remembered in the place of a token: a keyed hash, whose key is random and this process's own.
pub struct TokenHasher(Zeroizing<[u8; 32]>);

impl TokenHasher {
    /// With a new key. `None`: the system gives no random bytes.
    pub fn random() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut *key).ok()?;
        Some(Self(key))
    }

    /// The hash of a token.
    pub fn hash(&self, token: &str) -> Option<[u8; 32]> {
        Some(self.keyed(token)?.finalize().into_bytes().into())
    }

    /// The same, for a comparison in constant time.
    pub(crate) fn keyed(&self, token: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).ok()?;
        mac.update(token.as_bytes());
        Some(mac)
    }
}

impl fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHasher(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_not_shown() {
        let url = Url::parse("https://Bucket.example:9000/images/blob?X-Amz-Signature=secret").unwrap();
        let signed = SignedUrl::new(url.clone()).unwrap();
        let header = signed.header().unwrap();
        assert_eq!((signed.host(), header.to_str().unwrap()), ("bucket.example", url.as_str()));
        let shown = format!("{signed:?} {header:?}");
        assert!(shown.contains("bucket.example") && !shown.contains("secret") && !shown.contains("Amz"), "{shown}");
    }
}

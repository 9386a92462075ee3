//! Digests: the identity of content.

use std::fmt;
use std::sync::Arc;

use sha2::Digest as _;

/// The algorithms that registries use (OCI image specification, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 64 hexadecimal characters.
    Sha256,
    /// 128 hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// `algorithm:hex`, lower-case. Cheap to clone: the digests of 100,000 images are in memory several times over while a controller compares all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    text: Arc<str>,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Neither sha256 nor sha512.
    #[error("digest {0:?} is neither sha256:… nor sha512:…")]
    Algorithm(String),
    /// Wrong length, or not lower-case hexadecimal.
    #[error("digest {0:?} must have {1} lower-case hexadecimal characters after its colon")]
    Hex(String, usize),
}

impl Digest {
    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let shown = || text.chars().take(160).collect::<String>();
        let (algorithm, hex) = match text.split_once(':') {
            Some(("sha256", hex)) => (Algorithm::Sha256, hex),
            Some(("sha512", hex)) => (Algorithm::Sha512, hex),
            _ => return Err(DigestError::Algorithm(shown())),
        };
        let valid = hex.len() == algorithm.hex_length() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid {
            Ok(Self { algorithm, text: text.into() })
        } else {
            Err(DigestError::Hex(shown(), algorithm.hex_length()))
        }
    }

    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What follows the colon.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

crate::string_type!(Digest, DigestError);

/// Computes a digest as bytes pass. A clone continues from the same place.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    bytes_hashed: u64,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(sha2::Sha512::new())),
        };
        Self { state, bytes_hashed: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.bytes_hashed += bytes.len() as u64;
    }

    /// How many bytes it has taken.
    pub fn bytes_hashed(&self) -> u64 {
        self.bytes_hashed
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => written(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => written(Algorithm::Sha512, &state.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("bytes_hashed", &self.bytes_hashed).finish_non_exhaustive()
    }
}

fn written(algorithm: Algorithm, raw: &[u8]) -> Digest {
    use fmt::Write as _;
    let mut text = format!("{}:", algorithm.as_str());
    for byte in raw {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Digest { algorithm, text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_digests() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").as_str(), EMPTY);
        assert!(Digest::of(Algorithm::Sha512, b"").as_str().starts_with("sha512:cf83e1357eefb8bd"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = EMPTY.to_uppercase();
        for text in
            ["", "sha256", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, &EMPTY[..70], "sha256:../../etc"]
        {
            assert!(Digest::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_hash_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 0usize..500) {
            let cut = cut.min(bytes.len());
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..cut]);
                let mut copy = hasher.clone();
                copy.update(&bytes[cut..]);
                let digest = copy.finish();
                prop_assert_eq!(&digest, &Digest::of(algorithm, &bytes));
                prop_assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
            }
        }
    }
}

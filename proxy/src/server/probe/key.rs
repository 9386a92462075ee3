//! The secret that the agent and the proxy of a node share, and what is proved with it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::{ProbeAnswer, ProbeQuestion};

const KEY_BYTES: usize = 32;

/// Why the key was not read.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("read probe key {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file holds something else.
    #[error("probe key {} must be 64 hexadecimal digits", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
    },
}

/// The secret that the agent and the proxy share.
#[derive(Clone)]
pub struct ProbeKey(Zeroizing<[u8; KEY_BYTES]>);

impl ProbeKey {
    /// The key of these bytes.
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    /// Reads the 64 hexadecimal digits of a key file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let mut text = Zeroizing::new(String::new());
        File::open(path)
            .and_then(|file| file.take(1024).read_to_string(&mut text))
            .map_err(|error| KeyError::Read { path: path.to_owned(), error })?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        decode_hex(text.trim(), &mut key).ok_or_else(|| KeyError::Wrong { path: path.to_owned() })?;
        Ok(Self(key))
    }

    /// A key that nobody else knows: the proxy serves, and nobody can verify that it is this one.
    pub fn random() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill_random(&mut *key)?;
        Ok(Self(key))
    }

    /// What a key file holds: 64 hexadecimal digits.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_hex(self.0.as_slice()))
    }

    /// Whether `answer` was given to `question` by somebody who has this key. Until it is true, nothing of the answer counts.
    pub fn verifies(&self, question: &ProbeQuestion, answer: &ProbeAnswer) -> bool {
        let mut mac = Zeroizing::new([0; KEY_BYTES]);
        decode_hex(&answer.mac, &mut mac).is_some()
            && self
                .hmac(question.challenge(), answer.stalled_ms, answer.seen)
                .is_some_and(|expected| expected.verify_slice(mac.as_slice()).is_ok())
    }

    pub(super) fn mac(&self, challenge: &str, stalled_ms: u64, seen: bool) -> String {
        // An empty answer verifies nowhere.
        self.hmac(challenge, stalled_ms, seen).map(|mac| encode_hex(&mac.finalize().into_bytes())).unwrap_or_default()
    }

    fn hmac(&self, challenge: &str, stalled_ms: u64, seen: bool) -> Option<Hmac<Sha256>> {
        // A key of any length is a key for HMAC.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).ok()?;
        mac.update(format!("larder-probe-v1\n{challenge}\n{stalled_ms}\n{seen}").as_bytes());
        Some(mac)
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProbeKey(redacted)")
    }
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    let path = Path::new("/dev/urandom");
    File::open(path)
        .and_then(|mut source| source.read_exact(bytes))
        .map_err(|error| KeyError::Read { path: path.to_owned(), error })
}

pub(super) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn decode_hex(text: &str, out: &mut [u8; KEY_BYTES]) -> Option<()> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let mut value = 0;
        for digit in digits {
            value = value * 16 + char::from(*digit).to_digit(16)?;
        }
        *byte = u8::try_from(value).ok()?;
        value.zeroize();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answer() {
        // Computed with `openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07`.
        let known = "5eb56f91684db2a4f3ab1f3073c8d83cd643ccb49e91874de90ef9421ad1882d";
        let key = ProbeKey::from_bytes(Zeroizing::new([7; KEY_BYTES]));
        assert_eq!(key.mac(&"00".repeat(16), 5, true), known);
    }

    #[test]
    fn a_key_file_holds_64_hexadecimal_digits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{}\n", "0f".repeat(32))).unwrap();
        let key = ProbeKey::read(&path).unwrap();
        assert_eq!(*key.0, [0x0f; KEY_BYTES]);
        assert_eq!(*key.to_hex(), "0f".repeat(32));
        std::fs::write(&path, "0f").unwrap();
        assert!(ProbeKey::read(&path).unwrap_err().to_string().contains("64 hexadecimal digits"));
        assert_eq!(format!("{:?}", ProbeKey::random().unwrap()), "ProbeKey(redacted)");
        assert_ne!(*ProbeKey::random().unwrap().0, *ProbeKey::random().unwrap().0);
    }
}

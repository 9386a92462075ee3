//! A question to the proxy and its answer, as the side that asks sees them. Pure but for the randomness of a challenge.

use serde::{Deserialize, Serialize};

use super::key::{KeyError, encode_hex, fill_random};

/// A question that nobody asked before, so that no answer of before fits it.
#[derive(Debug)]
pub struct ProbeQuestion {
    challenge: String,
    target: String,
}

impl ProbeQuestion {
    /// With a fresh challenge; `seen` is the nonce of a canary to ask after, or empty.
    pub fn fresh(seen: &str) -> Result<Self, KeyError> {
        let mut challenge = [0; 32];
        fill_random(&mut challenge)?;
        let challenge = encode_hex(&challenge);
        let target = format!("{}?challenge={challenge}&seen={seen}", super::PATH);
        Ok(Self { challenge, target })
    }

    /// What is asked for with GET: path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }
}

/// What a proxy says of itself. Anybody can say so: it counts once [`super::ProbeKey::verifies`] it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    pub(super) mac: String,
    /// For how long the runtime that serves pulls has not turned, in milliseconds.
    pub stalled_ms: u64,
    /// Whether an engine asked for the canary in the last ten minutes.
    pub seen: bool,
    /// The version of the proxy; not covered by the proof.
    pub version: String,
}

impl ProbeAnswer {
    /// Reads the body of a 200; `None` if it is something else.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    pub(super) fn to_json(&self) -> String {
        // Numbers, booleans and strings: this cannot fail, and an empty answer would verify nowhere.
        serde_json::to_string(self).unwrap_or_default()
    }
}

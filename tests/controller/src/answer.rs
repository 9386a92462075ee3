//! What an API server answers, before anybody makes an error of it.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// What was warned of.
    pub warnings: Vec<String>,
    /// The object, or a Status that says why not.
    pub body: Value,
}

impl Answer {
    /// The object, where the answer is one.
    pub fn done(self) -> Result<Value> {
        ensure!((200..300).contains(&self.status), "{}: {}", self.status, self.message());
        Ok(self.body)
    }

    /// Fails unless it was refused with this status, for this reason.
    pub fn refused(&self, status: u16, because: &str) -> Result<()> {
        if self.status != status || !self.message().contains(because) {
            bail!("not {status} with {because:?}, but {}: {}", self.status, self.message());
        }
        Ok(())
    }

    /// Why not.
    pub fn message(&self) -> String {
        self.body.get("message").and_then(Value::as_str).map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

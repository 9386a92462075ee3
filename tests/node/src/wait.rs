//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// No waiting helps any more: ends [`until`] at once.
#[derive(Debug)]
pub struct Hopeless(pub String);

impl std::fmt::Display for Hopeless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Asks every 20 ms until `condition` gives a value; an error that names `what` and the last reason after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(reason) if reason.is::<Hopeless>() => return Err(reason.context(what.to_owned())),
            Err(reason) if started.elapsed() > limit => bail!("{what}: not within {limit:?}: {reason:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

//! Whether our clock is the API server's: what expires does so by comparing the one with times of the other.
//!
//! A minute more or less is no matter for what is kept for days. Where the two differ by more than [`TOLERANCE`], nobody knows which is right, and nothing
//! expires; nor does anything where the API server does not say what time it is.

use std::time::Duration;

use super::Moment;

/// How much clocks may differ: what Kubernetes itself takes, for tokens and certificates, without trouble.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Off {
    /// Ours shows a later time.
    #[error("this machine's clock is {} ahead of the API server's: nothing expires until one of them is set right (is a time service running?)", words(*.0))]
    Ahead(Duration),
    /// Ours shows an earlier time.
    #[error("this machine's clock is {} behind the API server's: nothing expires until one of them is set right (is a time service running?)", words(*.0))]
    Behind(Duration),
    /// Something on the way takes the header away.
    #[error(
        "the API server's answers do not say what time it is (no header Date): nothing expires until they do; what is between it and this program?"
    )]
    Unknown,
}

/// Compares what an answer says with the time at which it came.
pub fn compare(said: Option<Moment>, ours: Moment) -> Result<(), Off> {
    let said = said.ok_or(Off::Unknown)?;
    let (ahead, behind) = (ours.since(said), said.since(ours));
    if ahead > TOLERANCE {
        Err(Off::Ahead(ahead))
    } else if behind > TOLERANCE {
        Err(Off::Behind(behind))
    } else {
        Ok(())
    }
}

fn words(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
mod tests;

//! The API server, as every program that speaks to it does: how it is reached, what its errors mean, when a watch is tried again.
//!
//! Knows nothing of what is read or written there.

mod again;

use std::time::Duration;

use anyhow::Context as _;
use kube::Config;
use larder_process::causes::with_causes;

pub use again::{Again, try_again};

/// Longer than a watch is silent, which asks for its own end sooner.
const SILENCE: Duration = Duration::from_secs(295);

/// The credentials of `KUBECONFIG`, or else of the Pod, whose token and authorities are read again once a minute. Asks nobody. `connect` is the time to a
/// connection, with TLS.
pub async fn config(connect: Duration) -> anyhow::Result<Config> {
    let config = Config::infer().await;
    let mut config = config.context(
        "how is the API server reached? Run in a Pod with the token of its ServiceAccount, or set KUBECONFIG",
    )?;
    config.connect_timeout = Some(connect);
    config.read_timeout = Some(SILENCE);
    // Whoever asks knows what else it can do, and how long its answer is of use.
    config.default_retry = false;
    Ok(config)
}

/// What an error says, with its causes: the client's own text is `ServiceError`.
pub fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the API server refuses ({}): {}", status.code, status.message);
    }
    with_causes(error)
}

/// The HTTP status, if the API server answered.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

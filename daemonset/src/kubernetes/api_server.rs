//! The API server: how it is reached, and what its errors mean.

use anyhow::Context as _;
use kube::{Client, Config};
use larder_process::causes::with_causes;
use std::time::Duration;

/// To a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// Longer than a watch is silent, which asks for its own end sooner.
const SILENCE: Duration = Duration::from_secs(295);

/// A client with the credentials of `KUBECONFIG`, or else of the Pod, whose token and authorities are read again once a minute. Asks nobody.
pub(super) async fn connect() -> anyhow::Result<Client> {
    let config = Config::infer().await;
    let mut config = config.context(
        "how is the API server reached? Run in a Pod with the token of its ServiceAccount, or set KUBECONFIG",
    )?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    // Whoever asks knows what else it can do, and how long its answer is of use.
    config.default_retry = false;
    Client::try_from(config).context("make a client for the API server")
}

/// What an error says, with its causes: the client's own text is `ServiceError`.
pub(super) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the API server refuses ({}): {}", status.code, status.message);
    }
    with_causes(error)
}

/// The HTTP status, if the API server answered.
pub(super) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

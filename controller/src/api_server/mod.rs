//! The API server: how it is reached, and what its errors mean.

mod heard;

use std::time::Duration;

use anyhow::Context as _;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use larder_process::causes::with_causes;

pub use heard::Heard;

/// To a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(2);

/// Longer than a watch is silent, which asks for its own end sooner.
const SILENCE: Duration = Duration::from_secs(295);

/// A client with the credentials of `KUBECONFIG`, or else of the Pod, and what its answers say beside. Asks nobody.
pub async fn connect() -> anyhow::Result<(Client, Heard)> {
    let mut config = Config::infer().await.context(
        "how is the API server reached? Run in a Pod with the token of its ServiceAccount, or set KUBECONFIG",
    )?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    // Whoever asks knows what else it can do, and how long its answer is of use.
    config.default_retry = false;
    let heard = Heard::default();
    let client = ClientBuilder::try_from(config).context("make a client for the API server")?;
    Ok((client.with_layer(&heard).build(), heard))
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

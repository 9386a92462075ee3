//! The API server: how it is reached, and what its answers say beside.

mod heard;

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::client::ClientBuilder;

pub use heard::Heard;
pub use larder_api_server::{answered, code, is_no_such_object, words};

/// To a connection, with TLS: a lease is lost sooner than many of these.
const CONNECT: Duration = Duration::from_secs(2);

/// A client with the credentials of `KUBECONFIG`, or else of the Pod, and what its answers say beside. Asks nobody.
pub async fn connect() -> anyhow::Result<(Client, Heard)> {
    let config = larder_api_server::config(CONNECT).await?;
    let heard = Heard::default();
    let client = ClientBuilder::try_from(config).context("make a client for the API server")?;
    Ok((client.with_layer(&heard).build(), heard))
}

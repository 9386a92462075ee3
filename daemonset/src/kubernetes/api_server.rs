//! The API server, as an agent asks it: nothing waits for it.

use anyhow::Context as _;
use kube::Client;
use std::time::Duration;

pub(super) use larder_api_server::{answered, code, try_again, words};

/// To a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// A client with the credentials of `KUBECONFIG`, or else of the Pod. Asks nobody.
pub(super) async fn connect() -> anyhow::Result<Client> {
    let config = larder_api_server::config(CONNECT).await?;
    Client::try_from(config).context("make a client for the API server")
}

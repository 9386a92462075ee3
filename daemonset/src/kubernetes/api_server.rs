//! The API server, as an agent asks it: nothing waits for it.

use kube::Client;
use std::time::Duration;

pub(super) use larder_api_server::{answered, code, words};

/// To a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// A client, which has asked nobody yet.
pub(super) async fn connect() -> anyhow::Result<Client> {
    larder_api_server::client(CONNECT).await
}

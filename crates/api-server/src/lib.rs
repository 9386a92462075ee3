//! The API server, as every program that speaks to it does: how it is reached, what its errors mean, when a watch is tried again.
//!
//! Knows nothing of what is read or written there.

mod again;
mod anew;

use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};
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

/// A client with [`config`]. Asks nobody.
pub async fn client(connect: Duration) -> anyhow::Result<Client> {
    Client::try_from(config(connect).await?).context("make a client for the API server")
}

/// What is answered to a request, of which nobody waits longer than this.
pub async fn answered<T>(within: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let no_answer = || kube::Error::Service("the API server does not answer in time".into());
    tokio::time::timeout(within, request).await.unwrap_or_else(|_| Err(no_answer()))
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

/// Whether it says to an apply that there is no object of that name. To one that names a UID it says so as a conflict, and in words only. Where there is no
/// such kind (any more) it says 404 as well, without a name, and nothing follows.
pub fn is_no_such_object(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let says_so = match status.code {
        404 => true,
        409 => status.message.contains("no existing object was found"),
        _ => false,
    };
    says_so && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_is_not_there_is_no_kind_that_is_not_there() {
        let error = |status| kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
        let object = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "cachedimages.larder.dev \"a\" not found", "details": {"name": "a", "group": "larder.dev", "kind": "cachedimages"}});
        assert!(is_no_such_object(&error(object.clone())));
        // As kube makes it of `404 page not found`.
        assert!(!is_no_such_object(&error(json!({"status": "Failure", "code": 404, "message": "404 page not found"}))));
        let mut conflict = object;
        conflict["code"] = json!(409);
        assert!(!is_no_such_object(&error(conflict.clone())));
        conflict["message"] =
            json!("uid mismatch: the provided object specified uid u, and no existing object was found");
        assert!(is_no_such_object(&error(conflict)));
    }
}

//! Asks the engine over its CRI socket, as kubelet does.

use larder_cri::{Cri, CriError};
use larder_node_agent::confirm::{BoxFuture, PullAnswer, PullProbe};
use std::time::Duration;

/// The canary is refused within milliseconds; an engine that tries other hosts first may take longer.
const LIMIT: Duration = Duration::from_secs(15);

/// The engine at one socket.
#[derive(Debug, Clone)]
pub(crate) struct ByCri(pub(crate) Cri);

impl PullProbe for ByCri {
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<PullAnswer, String>> {
        let reference = reference.to_owned();
        Box::pin(async move {
            match self.0.pull_image(&reference, None, LIMIT).await {
                Ok(_) => Ok(PullAnswer::Pulled),
                Err(error @ CriError::Refused { .. }) => Ok(PullAnswer::Failed(error.to_string())),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

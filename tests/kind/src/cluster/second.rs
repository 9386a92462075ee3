//! A second cluster beside the one that all cases share: one node on the same network, which sees the same registries.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::life::{configuration, of_one};
use super::{Cluster, Node};

/// Its name.
const NAME: &str = "larder-test-second";

impl Cluster {
    /// Makes one. Its only node runs Pods of cases, with the engine of the first worker here. It ends with the value, whether this one is
    /// kept or not.
    pub fn beside(&self) -> Result<Self> {
        let first = self.workers().next().context("there is no worker")?;
        let image =
            self.docker.image_of_running(first.name()).with_context(|| format!("{} does not run", first.name()))?;
        let engine = first.engine();
        let second = Self {
            name: NAME,
            nodes: vec![Node::new(format!("{NAME}-control-plane"), engine, true)],
            kind: self.kind.clone(),
            kubectl: self.kubectl.clone(),
            kubeconfig: self.machine.folder.join("kubeconfig-of-the-second"),
            certificate: self.certificate.clone(),
            second: true,
            keep: false,
            docker: Arc::clone(&self.docker),
            machine: Arc::clone(&self.machine),
        };
        // What a run that was killed has left.
        second.delete_nodes()?;
        second.create(&configuration(&[of_one("control-plane", engine, &image)]).to_string())?;
        Ok(second)
    }
}

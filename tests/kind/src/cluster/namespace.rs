//! A namespace of one case, which ends with it.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use super::Cluster;

/// A namespace, which is deleted when this is dropped.
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    /// A new one whose name begins with `case`, ready for Pods.
    pub fn create(cluster: &'a Cluster, case: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{case}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.kubectl(&["create", "namespace", &name])?;
        let namespace = Self { cluster, name };
        // Pods are refused before there is one.
        cluster.kubectl(&["wait", "--for=create", "serviceaccount/default", "--namespace", &namespace.name])?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Nobody waits for it: the next case has another one, and the cluster ends with the run.
        if let Err(error) = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]) {
            eprintln!("{error:#}");
        }
    }
}

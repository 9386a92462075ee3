//! An image of a case's own, in the registry beside the cluster.

use anyhow::{Result, ensure};
use larder_test_kind::registry::Registry;
use larder_test_kind::requests::Request;
use larder_test_kind::{Cluster, test_image};

/// How many blobs an image of [`test_image`] has: its configuration and a layer.
pub(crate) const BLOBS: usize = 2;

/// An image that was pushed, with one tag.
pub(crate) struct Image<'a> {
    pub(crate) registry: Registry<'a>,
    pub(crate) repository: String,
    /// As a Pod names it.
    pub(crate) reference: String,
}

impl<'a> Image<'a> {
    /// A public one.
    pub(crate) fn push(cluster: &'a Cluster, name: &str) -> Result<Self> {
        Self::push_to(cluster, cluster.origin()?, name)
    }

    /// One in some registry.
    pub(crate) fn push_to(cluster: &'a Cluster, registry: Registry<'a>, name: &str) -> Result<Self> {
        let repository = format!("cases/{name}");
        let reference = registry.reference(&format!("{repository}:1"));
        let image = Self { registry, repository, reference };
        image.put(cluster, &format!("{name}, first"))?;
        Ok(image)
    }

    /// A public one with a layer of so many bytes.
    pub(crate) fn push_large(cluster: &'a Cluster, name: &str, bytes: u64) -> Result<Self> {
        let (registry, repository) = (cluster.origin()?, format!("cases/{name}"));
        let folder = tempfile::tempdir()?;
        registry
            .push(&test_image::large(cluster.machine(), folder.path(), name, bytes)?, &format!("{repository}:1"))?;
        let reference = registry.reference(&format!("{repository}:1"));
        Ok(Self { registry, repository, reference })
    }

    /// Moves the tag to an image with other bytes.
    pub(crate) fn put(&self, cluster: &Cluster, content: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = test_image::runnable(cluster.machine(), folder.path(), content)?;
        self.registry.push(&archive, &format!("{}:1", self.repository))
    }

    /// The digest that the tag leads to at the registry.
    pub(crate) fn digest(&self) -> Result<String> {
        self.registry.digest(&format!("{}:1", self.repository))
    }

    /// Deletes it at the registry, whatever names it there.
    pub(crate) fn delete(&self) -> Result<()> {
        self.registry.delete(&format!("{}@{}", self.repository, self.digest()?))
    }

    /// The same image by digest, as a Pod names it.
    pub(crate) fn by_digest(&self) -> Result<String> {
        Ok(self.registry.reference(&format!("{}@{}", self.repository, self.digest()?)))
    }

    /// The hexadecimal digits of everything that it consists of.
    pub(crate) fn parts(&self) -> Result<Vec<String>> {
        self.registry.parts(&format!("{}:1", self.repository))
    }

    /// What the registry was asked about it by nodes.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        self.registry.requests(&self.repository)
    }

    /// What it was asked since there were `earlier` requests.
    pub(crate) fn requests_since(&self, earlier: &[Request]) -> Result<Vec<Request>> {
        Ok(self.requests()?.split_off(earlier.len()))
    }
}

/// Only Larder asked, and for no blob twice from one node.
pub(crate) fn only_larder_asked(requests: &[Request]) -> Result<()> {
    ensure!(!requests.is_empty(), "nobody asked the registry for anything");
    let by_itself: Vec<_> = requests.iter().filter(|request| !request.is_larders()).collect();
    ensure!(by_itself.is_empty(), "an engine went round Larder: {by_itself:#?}");
    let mut blobs: Vec<_> = requests
        .iter()
        .filter(|request| request.is_for_a_blob())
        .map(|request| (&request.from, &request.path))
        .collect();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    ensure!(blobs.len() == all, "a node's Larder asked for the same blob twice: {requests:#?}");
    Ok(())
}

/// Nobody of Larder asked, and somebody did.
pub(crate) fn only_engines_asked(requests: &[Request]) -> Result<()> {
    ensure!(!requests.is_empty(), "nobody asked the registry for anything");
    let others: Vec<_> = requests.iter().filter(|request| !request.is_an_engines()).collect();
    ensure!(others.is_empty(), "it was not engines alone that asked: {others:#?}");
    Ok(())
}

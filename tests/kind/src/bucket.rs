//! A bucket beside the cluster: versitygw over a folder, in a container on the nodes' network.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::wait::until;
use serde_json::{Value, json};

use crate::cache::Key;
use crate::cluster::Cluster;
use crate::docker::NETWORK;
use crate::image::{Configuration, Layer, archive};
use crate::registry::remove;

/// Name of the container, and of the server on the nodes' network.
const NAME: &str = "bucket.larder.test";
/// The bucket.
const BUCKET: &str = "images";
/// What the names of all objects begin with.
const PREFIX: &str = "larder";
const PORT: u16 = 7070;
/// For tests only.
const ACCOUNT: (&str, &str) = ("larder-test", "larder-test-secret");

/// A running server, with one empty bucket.
pub struct Bucket<'a> {
    cluster: &'a Cluster,
}

impl<'a> Bucket<'a> {
    /// Starts one, in place of what an earlier run left.
    pub fn start(cluster: &'a Cluster) -> Result<Self> {
        let docker = cluster.docker();
        remove(docker, NAME)?;
        let image = image(cluster)?;
        docker.run(&["run", "--detach", "--name", NAME, "--network", NETWORK, &image])?;
        let this = Self { cluster };
        let node = cluster.nodes().first().context("there is no node")?;
        until("the bucket answers", Duration::from_secs(30), || {
            cluster
                .node_exec(node, &["curl", "--silent", "--max-time", "2", "--output", "/dev/null", &Self::endpoint()])
        })?;
        Ok(this)
    }

    /// Where nodes and Pods reach it.
    pub fn endpoint() -> String {
        format!("http://{NAME}:{PORT}")
    }

    /// What a chart's values say of it, with the credentials in a Secret.
    pub fn values(cluster: &str, secret: &str) -> Value {
        json!({"url": Self::url(), "endpoint": Self::endpoint(), "clusterId": cluster, "credentialsSecret": secret})
    }

    /// As `--store` has it after `bucket:`.
    pub fn url() -> String {
        format!("s3://{BUCKET}/{PREFIX}")
    }

    /// Puts the credentials into a Secret of a cluster, as the provider's variables.
    pub fn put_secret(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": ACCOUNT.0, "AWS_SECRET_ACCESS_KEY": ACCOUNT.1, "AWS_REGION": "us-east-1"},
        });
        cluster.kubectl_with_input(&["apply", "--filename", "-"], object.to_string().as_bytes()).map(drop)
    }
}

impl Bucket<'_> {
    /// The uploads of each blob that is in it, by the hexadecimal digits of its digest. The server's own files say it.
    pub fn blobs(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut blobs = BTreeMap::<String, Vec<String>>::new();
        for object in self.objects("blobs/sha256")? {
            if let Some((digest, generation)) = object.split_once('/') {
                blobs.entry(digest.to_owned()).or_default().push(generation.to_owned());
            }
        }
        Ok(blobs)
    }

    /// Names of all objects below a prefix, without it, in order.
    pub fn objects(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = self.folder()?.join(prefix);
        let mut found = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            let entries = match fs::read_dir(&next) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.with_context(|| format!("could not read {}", next.display()))?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&folder)?.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Lets a cluster have declared its pins so much earlier: declarations have their time in their names.
    pub fn age_declarations(&self, cluster: &str, by: Duration) -> Result<()> {
        let holders = format!("clusters/{cluster}/holders");
        for declaration in self.objects(&holders)? {
            let (holder, last) = declaration.split_once('/').context("a declaration without a holder")?;
            let (as_of, unique) = last.split_once('-').with_context(|| format!("{last} is no declaration"))?;
            let as_of =
                as_of.parse::<u64>().with_context(|| format!("{last} has no time"))?.saturating_sub(by.as_secs());
            let folder = self.folder()?.join(&holders).join(holder);
            fs::rename(folder.join(last), folder.join(format!("{as_of}-{unique}")))
                .with_context(|| format!("could not rename {declaration}"))?;
        }
        Ok(())
    }

    /// Where the server keeps what is below [`PREFIX`], as the machine sees it.
    fn folder(&self) -> Result<PathBuf> {
        Ok(self.cluster.docker().root_of(NAME)?.join("data").join(BUCKET).join(PREFIX))
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.cluster.docker(), NAME) {
            eprintln!("{error:#}");
        }
    }
}

fn image(cluster: &Cluster) -> Result<String> {
    let program = cluster.machine().parts.module("versitygw")?.join("versitygw");
    let key = Key::default().with(include_str!("bucket.rs")).with_part(program.parent().unwrap_or(&program)).finish();
    let reference = format!("larder-test-bucket:{key}");
    let docker = cluster.docker();
    if docker.has_image(&reference) {
        return Ok(reference);
    }
    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    for folder in ["tmp", "metadata", &format!("data/{BUCKET}")] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(program, root.join("versitygw")).context("could not copy versitygw")?;
    let layer = Layer::pack(&root, &work.path().join("layer.tar"))?;
    let port = format!(":{PORT}");
    let (access, secret) = ACCOUNT;
    let server = ["/versitygw", "--access", access, "--secret", secret, "--quiet", "--keep-alive", "--port", &port];
    let entrypoint = [&server[..], &["posix", "--sidecar", "/metadata", "/data"]].concat();
    let configuration = Configuration { entrypoint: &entrypoint, ..Configuration::default() };
    let file = work.path().join("image.tar");
    archive(&reference, &[layer], &configuration, &file)?;
    docker.load(&file, &reference)?;
    Ok(reference)
}

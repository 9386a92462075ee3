//! A bucket beside the cluster: versitygw over a folder, in a container on the nodes' network.

use std::fs;
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
    pub fn values(secret: &str) -> Value {
        json!({"url": format!("s3://{BUCKET}/larder"), "endpoint": Self::endpoint(), "clusterId": "kind", "credentialsSecret": secret})
    }

    /// Puts the credentials into a Secret, as the provider's variables.
    pub fn put_secret(&self, namespace: &str, name: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": ACCOUNT.0, "AWS_SECRET_ACCESS_KEY": ACCOUNT.1, "AWS_REGION": "us-east-1"},
        });
        self.cluster.kubectl_with_input(&["apply", "--filename", "-"], object.to_string().as_bytes()).map(drop)
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

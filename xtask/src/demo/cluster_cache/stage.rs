//! What the steps share: a registry with an image, a bucket, two replicas of the cluster cache on it, and nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result};
use larder_oci::Digest;
use larder_test_bucket::{Kind, Server};
use larder_test_node::cache::{Cache, CacheOptions, TOKEN, Trust};
use larder_test_node::cluster::{CACHE, HOSTS, Member, NAME, settings};
use larder_test_node::engine;
use larder_test_node::http::free_address;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::folder;
use larder_test_origin::{Image, private_certificate};
use larder_test_parts::{EngineLine, Parts};
use tempfile::TempDir;

use super::super::registry::Registry;
use super::super::stage::{image, mebibytes, name};
use super::super::story::Told;
use crate::workspace;

pub(super) struct Stage {
    // Dropped in this order: who uses something goes before it.
    pub(super) nodes: Vec<Member>,
    pub(super) replicas: Vec<Cache>,
    _bucket: Server,
    pub(super) registry: Registry,
    pub(super) image: Image,
    authority: String,
    trust: Trust,
    line: EngineLine,
    program: PathBuf,
    folder: TempDir,
}

impl Stage {
    pub(super) fn set(line: EngineLine, told: &Told) -> Result<Self> {
        let parts = Parts::from_environment()?;
        let program = workspace::build_program("larder-node", "dev")?;
        let cache = workspace::build_program("larder-cache", "dev")?;
        parts.engine(line)?;
        parts.module(Kind::Versitygw.name())?;
        let folder = folder()?;

        // A name that means this machine only would not be asked of a cluster's cache, so the registry has another one.
        let tls = private_certificate(&[NAME, "127.0.0.1"]);
        let registry = Registry::start(&parts, folder.path(), Some(&tls))?;
        let image = image(1);
        registry.push("shop/frontend:v1", &image)?;
        let shown = format!("{NAME}:{}", registry.port());
        told.saw(format!(
            "registry: a real one (CNCF distribution), {shown}, holding shop/frontend:v1, {:.0} MiB in {} blobs",
            mebibytes(image.host_size()),
            image.host_platform().blobs.len()
        ));

        let bucket = Server::start(Kind::Versitygw)?;
        told.saw(format!("bucket:   a real S3 server (versitygw) at {}", bucket.endpoint()));
        let trust = Trust::make(folder.path(), &[CACHE, "127.0.0.1", "127.0.0.2"])?;
        let registries = folder.path().join("registries.toml");
        std::fs::write(&registries, settings(registry.port(), &tls.authority))?;
        let first = free_address()?;
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        let mut replicas = Vec::new();
        for listen in [first, second] {
            let place = folder.path().join(format!("replica-{}", replicas.len() + 1));
            let options = CacheOptions::on_bucket(&bucket, &place, listen);
            let options = CacheOptions { program: Some(cache.clone()), ..options };
            replicas.push(Cache::start(&place, &trust, &registries, &options)?);
        }
        told.saw(format!("cache:    two replicas of larder-cache on that bucket, {first} and {second}: {CACHE}"));
        if let Some(replica) = replicas.first() {
            told.note(replica.command_line());
        }

        let (nodes, authority, bucket) = (Vec::new(), tls.authority, bucket);
        let mut stage =
            Self { nodes, replicas, _bucket: bucket, registry, image, authority, trust, line, program, folder };
        let node = |number| stage.node(number);
        let nodes = thread::scope(|scope| {
            let starting: Vec<_> = (1..=3).map(|number| scope.spawn(move || node(number))).collect();
            let joined =
                starting.into_iter().map(|node| node.join().map_err(|_| anyhow::anyhow!("a node panicked"))?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        stage.nodes = nodes;
        told.saw(format!(
            "nodes:    three of {} {}, which keep no layers themselves, below {}",
            name(line),
            engine::version(line)?,
            stage.folder.path().display()
        ));
        if let Some(node) = stage.nodes.first() {
            told.note(node.larder.command_line());
        }
        Ok(stage)
    }

    /// A node that was not there before.
    pub(super) fn node(&self, number: usize) -> Result<Member> {
        let folder = self.folder.path().join(format!("node-{number}"));
        std::fs::create_dir_all(&folder)?;
        let port = self.registry.port();
        let engine = engine::start_knowing(self.line, &folder, HOSTS)?;
        engine.trust(&format!("{NAME}:{port}"), &self.authority)?;
        let cache = self.replicas.first().context("there is no replica")?.listen;
        let addresses = self.replicas.iter().map(|replica| format!("{} {CACHE}\n", replica.listen.ip()));
        let hosts = addresses.collect();
        let options = LarderOptions {
            registries: settings(port, &self.authority),
            memory: Some("1MB"),
            arguments: self.trust.of_a_node(&format!("https://{CACHE}:{}", cache.port())),
            hosts,
            program: Some(self.program.clone()),
            ..LarderOptions::default()
        };
        Ok(Member { larder: Larder::start(&*engine, &folder, &options)?, engine })
    }

    pub(super) fn by_tag(&self) -> String {
        format!("{NAME}:{}/shop/frontend:v1", self.registry.port())
    }

    /// How engines call themselves when they ask a registry.
    pub(super) fn agent(&self) -> String {
        self.nodes.first().map(|node| format!("{}/", node.engine.user_agent())).unwrap_or_default()
    }

    /// The replica that nodes ask first for a blob: the one that they were seen to ask.
    pub(super) fn who_delivers(&self, digest: &Digest) -> Result<&Cache> {
        let delivered = |replica: &&Cache| {
            let log = replica.log();
            log.lines().any(|line| line.contains(digest.as_str()) && line.contains("answered"))
        };
        self.replicas.iter().find(delivered).with_context(|| format!("no replica has delivered {digest}"))
    }

    pub(super) fn logs(&self) -> String {
        let nodes = self.nodes.iter().map(|node| format!("larder-node says:\n{}", node.larder.last_lines()));
        let replicas = self.replicas.iter().map(|replica| format!("larder-cache says:\n{}", replica.last_lines()));
        nodes.chain(replicas).collect::<Vec<_>>().join("\n\n")
    }

    /// Leaves everything running until a person has had enough.
    pub(super) fn play(&self) -> Result<()> {
        let (node, replica) = (self.nodes.first().context("no node")?, self.replicas.first().context("no replica")?);
        self.registry.start_again()?;
        println!(
            "It is running. To play with, in another terminal:\n\n  \
             curl --cacert {ca} -u me:{TOKEN} {cache}/v2/{NAME}__{port}/shop/frontend/tags/list\n  \
             curl -s http://{admin}/metrics | grep ^larder\n  \
             curl -s http://{proxy}/metrics | grep ^larder_cluster_cache\n  \
             crictl --image-endpoint unix://{engine} pull {reference}\n\n\
             Press Enter to end it.",
            ca = self.trust.authority().display(),
            cache = replica.url(),
            port = self.registry.port(),
            admin = replica.admin,
            proxy = node.larder.proxy_admin,
            engine = node.engine.socket().display(),
            reference = self.by_tag(),
        );
        std::io::stdin().read_line(&mut String::new())?;
        Ok(())
    }
}

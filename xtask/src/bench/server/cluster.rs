//! `larder-node proxy` in front of `larder-cache`, as nodes of a cluster have it: over TLS and with a token.
//!
//! The registry has a name that is no machine's own, since what means another machine on each machine is not asked of the cluster cache.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::Digest;
use larder_test_bucket::Server as Bucket;
use larder_test_node::cache::{Cache, CacheOptions, Trust};
use larder_test_node::cluster::{CACHE, NAME};
use larder_test_node::http::{free_address, metric};
use larder_test_node::wait::until;

use super::{Server, larder};
use crate::bench::row::REPOSITORY;
use crate::bench::{Bench, usage};

/// The cluster cache, and what nodes are told of it.
pub(in crate::bench) struct Cluster {
    replicas: Vec<Cache>,
    trust: Trust,
    registries: PathBuf,
    folder: PathBuf,
    /// More arguments of nodes.
    told: Vec<String>,
}

impl Cluster {
    /// One `larder-cache` with a folder.
    pub(in crate::bench) fn on_folder(bench: &Bench, folder: &Path, origin: SocketAddr) -> Result<Self> {
        let mut cluster = Self::without_replicas(folder, origin)?;
        cluster.add(bench, &CacheOptions::default())?;
        Ok(cluster)
    }

    /// So many replicas, up to 250, on a bucket. Each `folder` has its own; all are of one cluster, and share what is in the bucket.
    pub(in crate::bench) fn on_bucket(
        bench: &Bench,
        folder: &Path,
        origin: SocketAddr,
        bucket: &Bucket,
        replicas: u8,
        more: &[&str],
    ) -> Result<Self> {
        let mut cluster = Self::without_replicas(folder, origin)?;
        let port = free_address()?.port();
        for number in 1..=replicas {
            let listen = SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), port));
            let mut options = CacheOptions::on_bucket(bucket, &cluster.next_folder(), listen);
            options.arguments.extend(more.iter().map(|&word| word.to_owned()));
            cluster.add(bench, &options)?;
        }
        Ok(cluster)
    }

    fn without_replicas(folder: &Path, origin: SocketAddr) -> Result<Self> {
        fs::create_dir_all(folder.join("settings"))?;
        // In a folder of its own: the proxy watches that folder.
        let registries = folder.join("settings/registries.toml");
        let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"http://{origin}\"]\ninsecure = true\n");
        fs::write(&registries, settings)?;
        let addresses: Vec<String> = (1..=250).map(|number| format!("127.0.0.{number}")).collect();
        let names: Vec<&str> = std::iter::once(CACHE).chain(addresses.iter().map(String::as_str)).collect();
        let trust = Trust::make(folder, &names)?;
        Ok(Self { replicas: Vec::new(), trust, registries, folder: folder.to_owned(), told: Vec::new() })
    }

    /// Nodes get these arguments too.
    pub(in crate::bench) fn telling_nodes(self, more: &[&str]) -> Self {
        Self { told: more.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    fn next_folder(&self) -> PathBuf {
        self.folder.join(format!("replica-{}", self.replicas.len() + 1))
    }

    fn add(&mut self, bench: &Bench, options: &CacheOptions) -> Result<()> {
        let options = CacheOptions { program: Some(bench.cache_program()?), ..options.clone() };
        self.replicas.push(Cache::start(&self.next_folder(), &self.trust, &self.registries, &options)?);
        Ok(())
    }

    /// A node, which is known to ask the cluster cache. Processor time and memory of the cluster cache are counted with it.
    pub(in crate::bench) fn node(&self, bench: &Bench, name: &str) -> Result<Server> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let first = self.replicas.first().context("the cluster cache has no replica")?.listen;
        let url = if self.replicas.len() == 1 {
            format!("https://{first}")
        } else {
            format!("https://{CACHE}:{}", first.port())
        };
        let mut arguments = self.trust.of_a_node(&url);
        // Nodes keep what they pulled last. In memory, since they have one disk together here.
        let store = format!("memory:{}MB", bench.scale.blob.div_ceil(1_000_000) * 3 / 2);
        arguments.extend(["--store".to_owned(), store]);
        arguments.extend(self.told.iter().cloned());
        for replica in &self.replicas {
            // The name has no address on this machine.
            arguments.extend(["--cache-address".to_owned(), replica.listen.to_string()]);
        }
        let mut node = larder::node(bench, &folder, &arguments, &self.registries, NAME)?;
        for replica in &self.replicas {
            node.behind.push(replica.pid()?);
        }
        Ok(node)
    }

    /// Waits until all that was fetched is where it is kept.
    pub(in crate::bench) fn wait_until_kept(&self) -> Result<()> {
        for replica in &self.replicas {
            until("the cluster cache has kept what it fetched", Duration::from_mins(1), || {
                for name in ["larder_fetches_running", "larder_bucket_owed"] {
                    let value = metric(&replica.metrics()?, name)?;
                    ensure!(value == 0.0, "{name} is {value}:\n{}", replica.last_lines());
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Waits until a blob, and the evidence for it, is in the bucket, where every replica finds it.
    pub(in crate::bench) fn wait_until_in_bucket(&self, bucket: &Bucket, digest: &Digest) -> Result<()> {
        let larder = bucket.objects().join("larder");
        let blob = larder.join(format!("blobs/sha256/{}", digest.hex()));
        let link = larder.join(format!("clusters/test/links/{NAME}/{REPOSITORY}/_/sha256-{}", digest.hex()));
        until("the bucket has the blob", Duration::from_mins(1), || {
            let uploads = fs::read_dir(&blob).map_or(0, Iterator::count);
            ensure!(uploads > 0, "there is none in {}", blob.display());
            ensure!(link.exists(), "{} is not there", link.display());
            Ok(())
        })?;
        self.wait_until_kept()
    }

    /// Where its first replica is asked without a node between.
    pub(in crate::bench) fn address(&self) -> Result<SocketAddr> {
        Ok(self.replicas.first().context("the cluster cache has no replica")?.listen)
    }

    /// Vouches for its certificates, PEM.
    pub(in crate::bench) fn authority(&self) -> Result<String> {
        let file = self.trust.authority();
        fs::read_to_string(&file).with_context(|| format!("{}: the cluster cache's authority", file.display()))
    }

    /// Processor seconds that all replicas have used so far, nodes not counted.
    pub(in crate::bench) fn processor_seconds(&self) -> Result<f64> {
        self.replicas.iter().map(|replica| usage::processor_seconds(replica.pid()?)).sum()
    }

    /// Memory that all replicas hold beside their files, in MiB.
    pub(in crate::bench) fn anonymous_mebibytes(&self) -> Result<f64> {
        self.replicas.iter().map(|replica| usage::anonymous_mebibytes(replica.pid()?)).sum()
    }

    /// How many requests all replicas have answered by sending somebody to the bucket.
    pub(in crate::bench) fn sent_on(&self) -> Result<f64> {
        self.replicas.iter().map(Cache::sent_on).sum()
    }

    /// Requests to the bucket until now, of all replicas.
    pub(in crate::bench) fn bucket_requests(&self) -> Result<f64> {
        // A replica that sent none has no such line.
        self.replicas
            .iter()
            .map(|replica| Ok(metric(&replica.metrics()?, "larder_bucket_requests_total").unwrap_or(0.0)))
            .sum()
    }
}

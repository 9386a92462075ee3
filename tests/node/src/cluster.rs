//! A registry, a cluster cache, and nodes that ask it before the registry.
//!
//! The registry has a name that is no machine's own: what means another machine on each machine is not asked of the cluster cache. Engines
//! have the name from a hosts file and know the registry's private authority; Larder is told both in its registries file.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::Digest;
use larder_test_bucket::{Kind, Server};
use larder_test_origin::{Image, ImageSpec, Origin, OriginBuilder, private_certificate};
use larder_test_parts::EngineLine;
use tempfile::TempDir;

use crate::cache::{Cache, CacheOptions, Trust};
use crate::engine::{self, Engine};
use crate::http;
use crate::larder::{Larder, LarderOptions};
use crate::node::{blob_in, folder};
use crate::wait::until;

/// What the registry is called.
pub const NAME: &str = "registry.example";

/// `/etc/hosts` of engines.
pub const HOSTS: &str = "127.0.0.1 localhost registry.example\n";

/// What nodes call the cluster cache where it has several replicas, which are the addresses behind the name.
pub const CACHE: &str = "larder-cache.example";

/// Vouches for a bucket that speaks TLS; a file of the case's folder.
const BUCKET_CA: &str = "bucket-ca.pem";

/// One node of a cluster.
pub struct Member {
    /// Larder on it.
    pub larder: Larder,
    /// Its engine.
    pub engine: Box<dyn Engine>,
}

impl Member {
    /// How many questions to the cluster cache ended so.
    pub fn questions(&self, outcome: &str) -> Result<f64> {
        let label = format!("larder_cluster_cache_questions_total{{outcome=\"{outcome}\"}}");
        Ok(http::metric(&self.larder.metrics()?, &label).unwrap_or_default())
    }

    /// How often its proxy asked the registry itself.
    pub fn asked_the_registry(&self) -> Result<f64> {
        Ok(http::metric(&self.larder.metrics()?, "larder_origin_requests_total").unwrap_or_default())
    }

    /// Waits until its proxy says this of the cluster cache, where a person looks.
    pub fn wait_until_it_says(&self, words: &str) -> Result<()> {
        until(&format!("/readyz of the proxy says {words:?}"), Duration::from_secs(20), || {
            let reply = http::get(self.larder.proxy_admin, "/readyz", &[])?;
            ensure!(reply.status == 200 && reply.text().contains(words), "it says {}: {}", reply.status, reply.text());
            Ok(())
        })
    }
}

/// All of it ends with the value.
pub struct Cluster {
    // In the order in which they are dropped: who uses something goes before it.
    /// Nodes that were there from the beginning.
    pub nodes: Vec<Member>,
    /// The cluster cache, or a replica of it.
    pub cache: Cache,
    /// Another replica, on the same bucket.
    pub other: Option<Cache>,
    /// The bucket.
    pub bucket: Option<Server>,
    /// The registry.
    pub origin: Origin,
    /// What the registry holds as `team/app:v1`.
    pub image: Image,
    /// Who trusts whom.
    pub trust: Trust,
    line: EngineLine,
    /// The case's folder.
    pub folder: TempDir,
}

impl Cluster {
    /// So many nodes with an engine of this line.
    pub fn of(line: EngineLine, nodes: usize, spec: &ImageSpec) -> Result<Self> {
        Self::with(line, nodes, spec, &CacheOptions::default())
    }

    /// With options of the cache too.
    pub fn with(line: EngineLine, nodes: usize, spec: &ImageSpec, options: &CacheOptions) -> Result<Self> {
        let folder = folder()?;
        let (origin, image) = registry(spec);
        let registries = folder.path().join("registries.toml");
        std::fs::write(&registries, settings_of(&origin))?;
        let trust = Trust::make(folder.path(), &["127.0.0.1"])?;
        let cache = Cache::start(&folder.path().join("cache"), &trust, &registries, options)?;
        let (nodes_yet, other, bucket) = (Vec::new(), None, None);
        Self { nodes: nodes_yet, cache, other, bucket, origin, image, trust, line, folder }.furnished(nodes)
    }

    /// With two replicas of the cluster cache on a bucket.
    pub fn on_bucket(line: EngineLine, nodes: usize, spec: &ImageSpec) -> Result<Self> {
        let folder = folder()?;
        let (origin, image) = registry(spec);
        let registries = folder.path().join("registries.toml");
        std::fs::write(&registries, settings_of(&origin))?;
        let trust = Trust::make(folder.path(), &[CACHE, "127.0.0.1", "127.0.0.2"])?;
        let bucket = Server::start(Kind::Versitygw)?;
        let first = http::free_address()?;
        let replica = |name: &str, listen| {
            let folder = folder.path().join(name);
            Cache::start(&folder, &trust, &registries, &CacheOptions::on_bucket(&bucket, &folder, listen))
        };
        let cache = replica("cache", first)?;
        let other = Some(replica("other", (Ipv4Addr::new(127, 0, 0, 2), first.port()).into())?);
        let nodes_yet = Vec::new();
        Self { nodes: nodes_yet, cache, other, bucket: Some(bucket), origin, image, trust, line, folder }
            .furnished(nodes)
    }

    /// With a cluster cache that sends nodes to its bucket, which speaks TLS.
    pub fn sent_to_bucket(line: EngineLine, spec: &ImageSpec) -> Result<Self> {
        let folder = folder()?;
        let (origin, image) = registry(spec);
        let registries = folder.path().join("registries.toml");
        std::fs::write(&registries, settings_of(&origin))?;
        let trust = Trust::make(folder.path(), &["127.0.0.1"])?;
        let certificate = private_certificate(&["127.0.0.1"]);
        std::fs::write(folder.path().join(BUCKET_CA), &certificate.authority)?;
        let bucket = Server::start_tls(&certificate.certificate, &certificate.key)?;
        let cache = Self::sending(&folder.path().join("cache"), folder.path(), &bucket, &trust)?;
        let nodes = Vec::new();
        Ok(Self { nodes, cache, other: None, bucket: Some(bucket), origin, image, trust, line, folder })
    }

    /// The cluster cache of such a cluster starts again with nothing in its folder.
    pub fn empty_its_folder(&mut self) -> Result<()> {
        let bucket = self.bucket.as_ref().context("the cluster has no bucket")?;
        self.cache = Self::sending(&self.folder.path().join("anew"), self.folder.path(), bucket, &self.trust)?;
        Ok(())
    }

    fn sending(own: &Path, folder: &Path, bucket: &Server, trust: &Trust) -> Result<Cache> {
        let mut options = CacheOptions::on_bucket(bucket, own, http::free_address()?);
        let authority = folder.join(BUCKET_CA).display().to_string();
        let more = ["--endpoint-ca", &authority, "--redirect", "nodes", "--redirect-from", "1MiB"];
        options.arguments.extend(more.map(str::to_owned));
        options.variables.push(("LARDER_LOG".to_owned(), "trace".to_owned()));
        Cache::start(own, trust, &folder.join("registries.toml"), &options)
    }

    /// A node that trusts the bucket as well.
    pub fn node_trusting_the_bucket(&self, number: usize) -> Result<Member> {
        let mut arguments = self.trust.of_a_node(&self.url());
        let authority = self.folder.path().join(BUCKET_CA).display().to_string();
        arguments.extend(["--upstream-ca".to_owned(), authority]);
        self.node_told(number, arguments)
    }

    /// With nodes, which start at the same time.
    fn furnished(mut self, nodes: usize) -> Result<Self> {
        let cluster = &self;
        let start = |number| cluster.node(number);
        self.nodes = thread::scope(|scope| {
            let starting: Vec<_> = (1..=nodes).map(|number| scope.spawn(move || start(number))).collect();
            starting.into_iter().map(|node| node.join().expect("a node starts without a panic")).collect::<Result<_>>()
        })?;
        Ok(self)
    }

    /// What nodes are told of where the cluster cache is.
    fn url(&self) -> String {
        match &self.other {
            Some(_) => format!("https://{CACHE}:{}", self.cache.listen.port()),
            None => self.cache.url(),
        }
    }

    /// A node that was not there before; its number is none of another one.
    pub fn node(&self, number: usize) -> Result<Member> {
        self.node_told(number, self.trust.of_a_node(&self.url()))
    }

    /// The same, told something else of the cluster cache.
    pub fn node_told(&self, number: usize, arguments: Vec<String>) -> Result<Member> {
        let folder = self.folder.path().join(format!("node-{number}"));
        std::fs::create_dir_all(&folder)?;
        let engine = engine::start_knowing(self.line, &folder, HOSTS)?;
        engine.trust(&self.registry(), self.origin.ca_pem().context("the registry has no authority")?)?;
        let hosts = self.other.as_ref().map(|other| {
            let addresses = [self.cache.listen.ip(), other.listen.ip()];
            addresses.map(|address| format!("{address} {CACHE}\n")).concat()
        });
        let (registries, hosts) = (settings_of(&self.origin), hosts.unwrap_or_default());
        let options = LarderOptions { registries, arguments, hosts, ..LarderOptions::default() };
        Ok(Member { larder: Larder::start(&*engine, &folder, &options)?, engine })
    }

    /// The first node.
    pub fn first(&self) -> &Member {
        self.nodes.first().expect("the cluster has a node")
    }

    /// The registry as references name it.
    pub fn registry(&self) -> String {
        format!("{NAME}:{}", self.origin.address().port())
    }

    /// `team/app:v1` of the registry.
    pub fn by_tag(&self) -> String {
        self.named("app")
    }

    /// `team/…:v1` of the registry.
    pub fn named(&self, name: &str) -> String {
        format!("{}/team/{name}:v1", self.registry())
    }

    /// Another image, as `team/…:v1`; its reference.
    pub fn push_another(&self, name: &str, seed: u64) -> (String, Image) {
        let image = Image::build(&ImageSpec { seed, ..ImageSpec::default() });
        self.origin.push(&format!("team/{name}"), "v1", &image);
        (self.named(name), image)
    }

    /// Requests that the registry saw from engines themselves.
    pub fn asked_by_engines(&self) -> usize {
        let agent = |access: &larder_test_origin::Access| access.header("user-agent").map(str::to_owned);
        let of_engine = |agent: &String| ["containerd", "cri-o"].iter().any(|name| agent.starts_with(name));
        self.origin.log().iter().filter_map(agent).filter(of_engine).count()
    }

    /// The file of a blob in the cache's store, when it is there.
    pub fn cached(&self, digest: &Digest) -> Option<PathBuf> {
        blob_in(&self.cache.store(), digest)
    }
}

/// A registry with an image.
fn registry(spec: &ImageSpec) -> (Origin, Image) {
    let origin = OriginBuilder::default().tls(&[NAME, "127.0.0.1"]).start();
    let image = Image::build(spec);
    origin.push("team/app", "v1", &image);
    (origin, image)
}

/// What Larder is told of a registry on that port of this machine, which it knows by [`NAME`] and which has a private authority.
pub fn settings(port: u16, authority: &str) -> String {
    format!(
        "[registries.\"{NAME}:{port}\"]\nendpoints = [\"https://127.0.0.1:{port}\"]\nca_pem = \"\"\"\n{authority}\"\"\"\n"
    )
}

fn settings_of(origin: &Origin) -> String {
    settings(origin.address().port(), origin.ca_pem().unwrap_or_default())
}

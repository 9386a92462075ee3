//! The proxy as CRI-O meets it: one connection to see whether it is a registry, one `Accept` for each type, the registry in the
//! path, and nobody else to ask after the manifest.

mod attachments;
mod giving;
mod stopping;

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_oci::{Algorithm, Digest, media_type};
use larder_test_origin::{Behaviour, Matcher};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;

/// As c/image sends them; there is no `*/*`.
const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json\r\n\
    Accept: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n\
    Accept: application/vnd.docker.distribution.manifest.v1+json\r\n\
    Accept: application/vnd.docker.distribution.manifest.list.v2+json\r\n\
    Accept: application/vnd.oci.image.index.v1+json\r\n";

/// A proxy and the one registry that it is asked for, in which `team/app:v1` is [`Stage::image`].
struct Stage {
    origin: TestOrigin,
    image: Image,
    address: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
    folder: tempfile::TempDir,
}

impl Stage {
    /// Whose clients are given up soon at a stop.
    fn start() -> Self {
        Self::with_quiet(Duration::from_millis(100))
    }

    fn with_quiet(quiet: Duration) -> Self {
        let origin = TestOrigin::start();
        let image = Image::build(&ImageSpec::default());
        origin.push("team/app", "v1", &image);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY), "5a".repeat(32)).unwrap();
        let settings = format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry());
        fs::write(folder.path().join(REGISTRIES), settings).unwrap();
        let (address, admin, shutdown, running) = run(folder.path(), quiet);
        Self { origin, image, address, admin, shutdown, running, folder }
    }

    /// The proxy ends and another one starts with its store.
    async fn restart(&mut self) {
        self.shutdown.cancel();
        let (address, admin, shutdown, running) = {
            (&mut self.running).await.unwrap().unwrap();
            run(self.folder.path(), Duration::from_millis(100))
        };
        (self.address, self.admin, self.shutdown, self.running) = (address, admin, shutdown, running);
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        tokio::task::block_in_place(|| drop(self.origin));
    }

    fn target(&self, what: &str) -> String {
        format!("/v2/{}/team/app/{what}", self.origin.registry().to_string().replace(':', "__"))
    }

    async fn manifest(&self, reference: &str) -> (u16, Vec<u8>) {
        ask_with(self.address, "GET", &self.target(&format!("manifests/{reference}")), ACCEPT).await
    }

    async fn blob(&self, digest: &Digest) -> (u16, Vec<u8>) {
        ask(self.address, "GET", &self.target(&format!("blobs/{digest}"))).await
    }

    /// The manifests of a pull: what the tag means, and what it has for this platform.
    async fn manifests(&self) {
        let (index, manifest) = (&self.image.index, &self.image.host_platform().manifest);
        assert_eq!(self.manifest("v1").await, (200, self.image.manifests[index].1.to_vec()));
        assert_eq!(self.manifest(manifest.as_str()).await, (200, self.image.manifests[manifest].1.to_vec()));
    }

    async fn blobs(&self) {
        for digest in &self.image.host_platform().blobs {
            assert!(self.blob(digest).await == (200, self.image.blobs[digest].to_vec()), "{digest}");
        }
    }

    /// A whole pull, and its store is done with it.
    async fn pull(&self) {
        self.manifests().await;
        self.blobs().await;
        self.stored().await;
    }

    async fn stored(&self) {
        until_fetched(self.admin).await;
    }

    fn stop_origin(&self) {
        tokio::task::block_in_place(|| self.origin.stop());
    }

    /// What the registry was asked about manifests since the last time.
    fn asked(&self) -> Vec<String> {
        let log = self.origin.log();
        self.origin.clear_log();
        let manifests = log.iter().filter(|access| access.path.contains("/manifests/"));
        manifests
            .map(|access| format!("{} {}", access.method, access.path.rsplit('/').next().unwrap_or_default()))
            .collect()
    }
}

fn run(
    folder: &Path,
    quiet: Duration,
) -> (SocketAddr, SocketAddr, CancellationToken, JoinHandle<Result<(), RunError>>) {
    let mut config = config(StoreConfig::Directory(directory(folder)), Some(folder));
    config.limits.pull.quiet = quiet;
    let opened = open(config).unwrap();
    let (address, admin, shutdown) = (opened.addresses()[0], opened.admin_address(), CancellationToken::new());
    (address, admin, shutdown.clone(), tokio::spawn(opened.run(shutdown)))
}

/// Something that is no image for any platform: one manifest and its blobs.
fn artifact(note: &str) -> Image {
    let blobs = [Bytes::from(format!("config of {note}")), Bytes::from(format!("payload of {note}"))];
    let descriptors: Vec<_> = blobs
        .iter()
        .map(|bytes| {
            json!({"mediaType": "application/octet-stream", "size": bytes.len(),
            "digest": Digest::of(Algorithm::Sha256, bytes)})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptors[0], "layers": [descriptors[1]]});
    let manifest = Bytes::from(manifest.to_string());
    let index = Digest::of(Algorithm::Sha256, &manifest);
    Image {
        index: index.clone(),
        platforms: Vec::new(),
        manifests: BTreeMap::from([(index, (media_type::OCI_MANIFEST.to_owned(), manifest))]),
        blobs: blobs.into_iter().map(|bytes| (Digest::of(Algorithm::Sha256, &bytes), bytes)).collect(),
    }
}

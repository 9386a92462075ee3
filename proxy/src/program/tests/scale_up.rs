//! A thousand new nodes at once: what they cost the registry beside one node, and the memory that the service takes for them.
//!
//! The nodes are what a node's proxy sends, over TLS and with its token: a HEAD of the tag, the index, its manifest, the blobs, on one
//! connection each. How long it takes is for `cargo xtask bench`; here it is counted.

use std::sync::Arc;

use larder_oci::Digest;
use larder_test_origin::private_certificate;
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::cluster::Running;
use super::*;
use crate::origin::tls::client_config;

const NAME: &str = "reg.example.com";
const TOKEN: &str = "a-token-of-many-letters";
const NODES: usize = 1000;

/// As many as one test process may have open files for, with room to spare.
const AT_ONCE: usize = 100;

/// A node as the service sees it: one connection, over TLS and with a token.
pub(super) struct Node {
    stream: TlsStream<TcpStream>,
}

impl Node {
    pub(super) async fn connect(address: SocketAddr, tls: &TlsConnector) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        Self { stream: tls.connect(name, stream).await.unwrap() }
    }

    /// The body of a 200.
    pub(super) async fn ask(&mut self, method: &str, what: &str) -> Vec<u8> {
        let request = format!(
            "{method} /v2/team/app/{what}?ns={NAME} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nLarder-Timeout-Ms: 9000\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{what}: {head}");
        if method == "HEAD" {
            return Vec::new();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        body
    }

    /// As a node pulls; everything has the digest that it was asked for by.
    async fn pull(&mut self, image: &Image) {
        self.ask("HEAD", "manifests/v1").await;
        let platform = image.host_platform();
        for manifest in [&image.index, &platform.manifest] {
            let bytes = self.ask("GET", &format!("manifests/{manifest}")).await;
            assert_eq!(Digest::of(manifest.algorithm(), &bytes), *manifest);
        }
        for blob in &platform.blobs {
            let bytes = self.ask("GET", &format!("blobs/{blob}")).await;
            assert_eq!(Digest::of(blob.algorithm(), &bytes), *blob);
        }
    }
}

/// Trusts this authority.
pub(super) fn tls(authority: &str) -> TlsConnector {
    TlsConnector::from(Arc::new(client_config(&RootCertStore::empty(), Some(authority), false).unwrap()))
}

/// Memory of this process that is no file's, in bytes (`proc_pid_smaps(5)`).
fn anonymous() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_cost_the_registry_what_one_costs_but_for_the_question_what_the_tag_is() {
    let origin = TestOrigin::start();
    let image = Arc::new(Image::build(&ImageSpec { layers: vec![40_000, 20_000, 1000], ..ImageSpec::default() }));
    origin.push("team/app", "v1", &image);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let certificate = private_certificate(&["127.0.0.1"]);
    let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", origin.url());
    fs::write(path(REGISTRIES), settings).unwrap();
    fs::write(path("tls.crt"), &certificate.certificate).unwrap();
    fs::write(path("tls.key"), &certificate.key).unwrap();
    fs::write(path("tokens"), format!("nodes {TOKEN}\n")).unwrap();
    let service = ServiceConfig {
        tls: Some(CertificateConfig::Files { certificate: path("tls.crt"), key: path("tls.key") }),
        tokens: Some(path("tokens")),
        callers: None,
        anonymous: Vec::new(),
        control: None,
    };
    let service = Running::start(ProxyConfig {
        registries: Some(path(REGISTRIES)),
        service: Some(service),
        ..config(StoreConfig::Directory(directory(folder.path())), None)
    });
    let (tls, address) = (tls(&certificate.authority), service.address);

    let (before, places) = (anonymous(), Arc::new(Semaphore::new(AT_ONCE)));
    let nodes: Vec<_> = (0..NODES)
        .map(|_| {
            let (tls, image, places) = (tls.clone(), Arc::clone(&image), Arc::clone(&places));
            tokio::spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                Node::connect(address, &tls).await.pull(&image).await;
            })
        })
        .collect();
    for node in nodes {
        node.await.unwrap();
    }
    let log = origin.log();
    let asked =
        |wanted: &dyn Fn(&larder_test_origin::Access) -> bool| log.iter().filter(|access| wanted(access)).count();
    for blob in &image.host_platform().blobs {
        assert_eq!(origin.blob_gets(blob), 1, "{blob}");
    }
    assert_eq!(asked(&|access| access.is_manifest_get()), 2, "index and manifest, once each");
    // A tag is what the registry says now; that costs no quota. Those who ask at the same moment share the answer.
    let heads = asked(&|access| access.method == "HEAD");
    assert!(heads <= NODES && heads + 6 >= log.len(), "{heads} of {}", log.len());
    // Nothing is kept of a node that has gone: a thousand of them cost less than a hundred readers' buffers.
    let grown = anonymous().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more");
    service.stop().await;
    tokio::task::block_in_place(|| drop(origin));
}

//! Nodes as the cluster cache sees them: a connection each, over TLS and with a token, and on it what a node's proxy asks for a pull.
//!
//! They come at a steady pace whatever became of the ones before them, as in [`super::load::at_a_pace`]: a service that stops is not spared those
//! that waited. Real proxies would be too many for one machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::media_type::ACCEPT_MANIFESTS;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No node may be kept waiting for longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Of a reply's head.
const MOST: usize = 16 * 1024;

/// Where they go, and as whom.
pub(super) struct Crowd {
    runtime: Runtime,
    tls: TlsConnector,
    address: SocketAddr,
    token: String,
}

/// What a node asks: one HEAD, then these, of which the last is the one whose first byte counts.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) head: String,
    pub(super) gets: Vec<String>,
}

/// Of one node, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Pulled {
    /// From the question to the first byte of the last thing.
    pub(super) first: f64,
    /// From when it was due until it had all.
    pub(super) all: f64,
}

impl Crowd {
    /// `authority` vouches for the certificate at `address`.
    pub(super) fn new(address: SocketAddr, authority: &str, token: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.context("the authority's certificate is no PEM")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the crowd")?;
        Ok(Self { runtime, tls: TlsConnector::from(Arc::new(config)), address, token: token.to_owned() })
    }

    /// So many of them, one every `interval`.
    pub(super) fn come(&self, nodes: u32, interval: Duration, wish: &Wish) -> Result<Vec<Pulled>> {
        self.runtime.block_on(async {
            let began = Instant::now();
            let coming: Vec<_> = (0..nodes)
                .map(|number| {
                    let (tls, address, token, wish) =
                        (self.tls.clone(), self.address, self.token.clone(), wish.clone());
                    tokio::spawn(async move {
                        let due = began + interval * number;
                        sleep_until(due).await;
                        timeout(PATIENCE, pull(&tls, address, &token, &wish, due))
                            .await
                            .context("a node waits for ever")?
                    })
                })
                .collect();
            let mut all = Vec::new();
            for node in coming {
                all.push(node.await.context("a node ended by a panic")??);
            }
            Ok(all)
        })
    }
}

async fn pull(tls: &TlsConnector, address: SocketAddr, token: &str, wish: &Wish, due: Instant) -> Result<Pulled> {
    let stream = TcpStream::connect(address).await.context("a node cannot connect")?;
    stream.set_nodelay(true)?;
    let mut stream = tls.connect(ServerName::from(address.ip()), stream).await.context("TLS")?;
    ask(&mut stream, "HEAD", &wish.head, token).await?;
    let mut first = 0.0;
    for target in &wish.gets {
        first = ask(&mut stream, "GET", target, token).await?;
    }
    Ok(Pulled { first, all: due.elapsed().as_secs_f64() * 1e3 })
}

/// Milliseconds to the first byte of the body, which is taken to its end.
async fn ask(stream: &mut TlsStream<TcpStream>, method: &str, target: &str, token: &str) -> Result<f64> {
    let asked = Instant::now();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: cache\r\naccept: {ACCEPT_MANIFESTS}\r\nauthorization: Bearer {token}\r\nlarder-timeout-ms: 9000\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut arrived = Vec::with_capacity(MOST);
    let end = loop {
        ensure!(arrived.len() < MOST, "the head of the reply to {target} is too long");
        ensure!(stream.read_buf(&mut arrived).await? > 0, "the connection was closed instead of an answer to {target}");
        if let Some(end) = arrived.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(arrived.get(..end).unwrap_or_default()).to_lowercase();
    ensure!(head.starts_with("http/1.1 200 "), "to {method} {target} it says {head}");
    if method == "HEAD" {
        return Ok(asked.elapsed().as_secs_f64() * 1e3);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut left = length.context("no length")?.saturating_sub(arrived.len() - end);
    if arrived.len() == end && left > 0 {
        arrived.resize(end + 1, 0);
        stream.read_exact(arrived.get_mut(end..).unwrap_or_default()).await?;
        left -= 1;
    }
    let first = asked.elapsed().as_secs_f64() * 1e3;
    arrived.resize(64 * 1024, 0);
    while left > 0 {
        let most = left.min(arrived.len());
        let read = stream.read(arrived.get_mut(..most).unwrap_or_default()).await?;
        ensure!(read > 0, "{target} was cut");
        left -= read;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use larder_test_origin::{Image, ImageSpec, OriginBuilder};

    use super::*;

    #[test]
    fn each_of_them_asks_for_everything_and_a_refusal_is_an_error() {
        let origin = OriginBuilder::default().tls(&["127.0.0.1"]).start();
        let image = Image::build(&ImageSpec::default());
        origin.push("team/app", "v1", &image);
        let crowd = Crowd::new(origin.address(), origin.ca_pem().unwrap(), "token").unwrap();
        let gets = vec![
            format!("/v2/team/app/manifests/{}", image.index),
            format!("/v2/team/app/blobs/{}", image.largest_layer()),
        ];
        let wish = Wish { head: "/v2/team/app/manifests/v1".to_owned(), gets };
        let pulled = crowd.come(3, Duration::from_millis(5), &wish).unwrap();
        assert!(pulled.len() == 3 && pulled.iter().all(|node| node.first > 0.0 && node.all >= node.first));
        assert_eq!((origin.log().len(), origin.blob_gets(&image.largest_layer())), (9, 3));
        assert!(origin.log().iter().all(|access| access.header("authorization") == Some("Bearer token")));
        let wish = Wish { head: "/v2/team/app/manifests/v2".to_owned(), ..wish };
        let refused = crowd.come(1, Duration::ZERO, &wish).err().unwrap();
        assert!(format!("{refused:#}").contains("404"), "{refused:#}");
    }
}

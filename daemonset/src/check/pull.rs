//! An image through the proxy of this node, as a person with curl would: manifest, configuration and every layer of this machine's
//! platform, each verified. With a cluster cache it has to have answered for the proxy, too.

use super::cluster_cache::Questions;
use crate::args::CheckPullArgs;
use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use larder_oci::{Digest, Hasher, ImageReference, ManifestReference, media_type};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The program has no use for a larger manifest, nor has an engine.
const LARGEST_MANIFEST: usize = 4 << 20;

/// A proxy that is asked too early, before its agent is done, is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// So is a cluster cache, with a question to the registry each time: kubelet brings its authority a minute or two after it is there.
const CACHE_AGAIN: Duration = Duration::from_secs(3);

pub(super) async fn run(args: &CheckPullArgs) -> anyhow::Result<()> {
    let reference = ImageReference::parse(&args.image).with_context(|| format!("--image {}", args.image))?;
    let limit = Duration::from_secs(args.limit);
    let (began, mut last) = (Instant::now(), None);
    let tries = async {
        loop {
            let (error, pause) = match pull(args.proxy, &reference, args.cluster_cache.then_some(args.admin)).await {
                Ok(Pulled { bytes, cluster_cache: Ok(()) }) => return bytes,
                Ok(Pulled { cluster_cache: Err(error), .. }) => (error, CACHE_AGAIN),
                Err(error) => (error, AGAIN),
            };
            let shown = format!("{error:#}");
            if last.as_ref().is_none_or(|before| format!("{before:#}") != shown) {
                eprintln!("not yet: {shown}");
            }
            last = Some(error);
            tokio::time::sleep(pause).await;
        }
    };
    let Ok(bytes) = tokio::time::timeout(limit, tries).await else {
        let error = last.unwrap_or_else(|| anyhow::anyhow!("the proxy at {} does not answer", args.proxy));
        return Err(error.context(format!("{} does not come through {} within {limit:?}", args.image, args.proxy)));
    };
    println!("{}: {bytes} bytes through {} in {:.2?}", args.image, args.proxy, began.elapsed());
    Ok(())
}

/// An image came.
struct Pulled {
    /// Of all its blobs.
    bytes: u64,
    /// Whether the cluster cache had a part in it, or what is the matter with it.
    cluster_cache: anyhow::Result<()>,
}

async fn pull(proxy: SocketAddr, image: &ImageReference, admin: Option<SocketAddr>) -> anyhow::Result<Pulled> {
    let before = match admin {
        Some(admin) => Some((admin, Questions::of(admin).await?)),
        None => None,
    };
    let bytes = whole(proxy, image).await?;
    let Some((admin, before)) = before else { return Ok(Pulled { bytes, cluster_cache: Ok(()) }) };
    if matches!(image.manifest_reference(), ManifestReference::Digest(_)) {
        // What a digest means the node's own store may know; what tags there are nobody knows but the registry. The answer is of no use here.
        let _ = ask(proxy, image, "tags/list").await;
    }
    Ok(Pulled { bytes, cluster_cache: before.must_have_answers(admin).await })
}

/// Bytes of all blobs.
async fn whole(proxy: SocketAddr, image: &ImageReference) -> anyhow::Result<u64> {
    let mut children = larder_oci::children(&manifest(proxy, image, &image.manifest_reference()).await?)?;
    if !children.manifests.is_empty() {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let platform = format!("linux/{architecture}");
        let ours = |platform_of: &Option<String>| {
            platform_of.as_deref().is_some_and(|one| {
                one.strip_prefix(&platform).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let child = children.manifests.iter().find(|child| ours(&child.platform));
        let child = child.with_context(|| format!("{} has no manifest for {platform}", image.repository))?;
        let reference = ManifestReference::Digest(child.digest.clone());
        children = larder_oci::children(&manifest(proxy, image, &reference).await?)?;
    }
    ensure!(!children.blobs.is_empty(), "the manifest names no blob");
    let mut bytes = 0;
    for blob in &children.blobs {
        bytes += verified(proxy, image, &blob.digest).await.with_context(|| blob.digest.to_string())?;
    }
    Ok(bytes)
}

async fn manifest(proxy: SocketAddr, image: &ImageReference, reference: &ManifestReference) -> anyhow::Result<Bytes> {
    let answer =
        ask(proxy, image, &format!("manifests/{reference}")).await.with_context(|| format!("manifest {reference}"))?;
    let body = http_body_util::Limited::new(answer.into_body(), LARGEST_MANIFEST).collect().await;
    let bytes = body.map_err(|error| anyhow::anyhow!("manifest {reference}: {error}"))?.to_bytes();
    if let ManifestReference::Digest(digest) = reference {
        let actual = Digest::of(digest.algorithm(), &bytes);
        ensure!(actual == *digest, "manifest {digest} came as {actual}");
    }
    Ok(bytes)
}

/// How many bytes it has.
async fn verified(proxy: SocketAddr, image: &ImageReference, digest: &Digest) -> anyhow::Result<u64> {
    let mut body = ask(proxy, image, &format!("blobs/{digest}")).await?.into_body();
    let mut hasher = Hasher::new(digest.algorithm());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            hasher.update(&data);
        }
    }
    let bytes = hasher.bytes_hashed();
    let actual = hasher.finish();
    ensure!(actual == *digest, "it came as {actual}");
    Ok(bytes)
}

async fn ask(proxy: SocketAddr, image: &ImageReference, what: &str) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(proxy).await.with_context(|| format!("connect to {proxy}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    // As containerd asks, whose tries are each for themselves: a client that stays is refused for minutes after one bad answer.
    let request = Request::get(format!("/v2/{}/{what}?ns={}", image.repository, image.registry))
        .header(HOST, proxy.to_string())
        .header(ACCEPT, media_type::ACCEPT_MANIFESTS)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        bail!("the proxy answered {}: its log says why", answer.status());
    }
    Ok(answer)
}

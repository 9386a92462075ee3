//! Clients of a proxy: what an engine asks, what an operator reads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_oci::Registry;
use larder_test_origin::Image;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::sha256;

/// Pulls as an engine does: what is cut is asked for from where it ended. How long the longest answer took to begin.
pub(crate) async fn pull(
    address: SocketAddr,
    registry: &Registry,
    repository: &str,
    tag: &str,
    image: &Image,
) -> Result<Duration, String> {
    let target = |what: &str| format!("/v2/{repository}/{what}?ns={registry}");
    let mut longest = Duration::ZERO;
    let platform = image.host_platform();
    let manifest = &platform.manifest;
    let mut wanted = vec![
        (target(&format!("manifests/{tag}")), image.index.clone()),
        (target(&format!("manifests/{manifest}")), manifest.clone()),
    ];
    wanted.extend(platform.blobs.iter().map(|digest| (target(&format!("blobs/{digest}")), digest.clone())));
    for (target, digest) in wanted {
        let mut bytes = Vec::new();
        for tries in 0.. {
            let began = Instant::now();
            let (status, part) = ask(address, &target, bytes.len()).await;
            longest = longest.max(began.elapsed());
            if !matches!(status, 200 | 206) {
                return Err(format!("{target}: {status} after {} bytes", bytes.len()));
            }
            bytes.extend(part);
            if sha256(&bytes) == digest {
                break;
            }
            if tries >= 5 || bytes.len() >= length(image, &digest) {
                return Err(format!("{target}: other bytes"));
            }
        }
    }
    Ok(longest)
}

fn length(image: &Image, digest: &larder_oci::Digest) -> usize {
    image.blobs.get(digest).map_or(0, bytes::Bytes::len)
}

/// Longer than any answer takes: what a bucket holds up is answered from its registry.
pub(crate) const ANSWER: Duration = Duration::from_mins(1);

/// An exchange on a connection of its own, from a byte on; a body that is cut is given as far as it came. Status 0: there was no answer.
pub(crate) async fn ask(address: SocketAddr, target: &str, from: usize) -> (u16, Vec<u8>) {
    exchange(address, "GET", target, from).await
}

pub(crate) async fn exchange(address: SocketAddr, method: &str, target: &str, from: usize) -> (u16, Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (0, Vec::new()) };
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{range}\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(ANSWER, stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "waited in vain for the end of the answer to {method} {target}");
    let Some(end) = all.windows(4).position(|window| window == b"\r\n\r\n") else { return (0, Vec::new()) };
    let status = std::str::from_utf8(&all[9..12]).unwrap().parse().unwrap();
    (status, all.split_off(end + 4))
}

/// A number of `/metrics`.
pub(crate) async fn metric(admin: SocketAddr, line: &str) -> Option<u64> {
    let (_, text) = ask(admin, "/metrics", 0).await;
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

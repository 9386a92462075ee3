//! What arrives, and what is made of it when it is not what it should be.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_oci::ManifestReference;
use larder_test_origin::{Behaviour, Matcher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Setting, at, later, name, requests, started, v1};
use crate::source::{BlobStream, MAXIMUM_DOCUMENT, Source as _, SourceError};

async fn collect(mut stream: BlobStream) -> (Vec<u8>, Result<(), SourceError>) {
    let mut collected = Vec::new();
    while let Some(piece) = stream.body.next().await {
        match piece {
            Ok(piece) => collected.extend_from_slice(&piece),
            Err(error) => {
                assert!(stream.body.next().await.is_none(), "nothing follows an error");
                return (collected, Err(error));
            }
        }
    }
    (collected, Ok(()))
}

/// A server that sends the same bytes to everyone and closes.
pub(super) async fn parrot(answer: Vec<u8>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(&answer).await;
            let _ = socket.shutdown().await;
            while socket.read(&mut request).await.is_ok_and(|read| read > 0) {}
        }
    });
    address
}

async fn ask_parrot(answer: Vec<u8>) -> Result<crate::source::ManifestBody, SourceError> {
    let address = parrot(answer).await.to_string();
    let (origin, _) = Setting::listing(&address, at(&[&format!("http://{address}")])).origin();
    origin.get_manifest(&name(&address), &v1(), later()).await
}

#[tokio::test]
async fn manifests_by_tag_and_by_digest() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    let (media_type, bytes) = &image.manifests[&image.index];
    for reference in [v1(), ManifestReference::Digest(image.index.clone())] {
        let body = origin.get_manifest(&name, &reference, later()).await.unwrap();
        assert_eq!((&body.digest, &body.media_type, &body.bytes), (&image.index, media_type, bytes));
        let head = origin.head_manifest(&name, &reference, later()).await.unwrap();
        assert_eq!(head.digest, Some(image.index.clone()));
        assert_eq!(head.size, Some(bytes.len() as u64));
        assert_eq!(head.media_type.as_ref(), Some(media_type));
    }
    registry.behave("/manifests/".into(), Behaviour::Without("docker-content-digest"));
    assert_eq!(origin.head_manifest(&name, &v1(), later()).await.unwrap().digest, None);
    registry.behave("/manifests/".into(), Behaviour::Without("content-type"));
    assert_eq!(origin.get_manifest(&name, &v1(), later()).await.unwrap().media_type, *media_type);
    let accept = registry.log()[0].header("accept").unwrap().to_owned();
    assert_eq!(accept, larder_oci::media_type::ACCEPT_MANIFESTS);
}

#[tokio::test]
async fn manifests_that_lie() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    registry.behave("/manifests/".into(), Behaviour::Lie(5));
    for reference in [v1(), ManifestReference::Digest(image.index.clone())] {
        let result = origin.get_manifest(&name, &reference, later()).await;
        assert!(matches!(result, Err(SourceError::Mismatch { .. })), "{result:?}");
    }
    registry.behave_well();
    registry.behave("/manifests/".into(), Behaviour::With("docker-content-digest", "sha256:nonsense".into()));
    let result = origin.head_manifest(&name, &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Protocol { .. })), "{result:?}");
    registry.behave_well();
    registry.behave("/manifests/".into(), Behaviour::With("content-encoding", "gzip".into()));
    let result = origin.get_manifest(&name, &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Protocol { .. })), "{result:?}");
}

#[tokio::test]
async fn documents_and_heads_are_bounded() {
    let long = |head: &str, length: usize| [head.as_bytes(), &vec![b' '; length]].concat();
    let answers = [
        long("HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n", MAXIMUM_DOCUMENT + 1),
        long("HTTP/1.1 200 OK\r\n\r\n", MAXIMUM_DOCUMENT + 1),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        long("HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n", 2),
    ];
    for answer in answers {
        let result = ask_parrot(answer).await;
        assert!(matches!(result, Err(SourceError::Protocol { .. })), "{result:?}");
    }
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}", "X: y\r\n".repeat(101));
    let one_long_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}", "y".repeat(200_000));
    for answer in [many_headers, one_long_header] {
        let result = ask_parrot(answer.into_bytes()).await;
        let refused = matches!(result, Err(SourceError::Protocol { .. } | SourceError::Unreachable { .. }));
        assert!(refused, "{result:?}");
    }
    let short = ask_parrot(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}".to_vec()).await;
    assert!(matches!(short, Err(SourceError::Broken { .. })), "{short:?}");
}

#[tokio::test]
async fn blobs_whole_and_in_part() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    let (digest, bytes) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let total = bytes.len() as u64;
    assert_eq!(origin.head_blob(&name, digest, later()).await.unwrap().size, Some(total));

    let whole = origin.get_blob(&name, digest, 0, None, later()).await.unwrap();
    assert_eq!((whole.first, whole.total), (0, Some(total)));
    let etag = whole.etag.clone().unwrap();
    let (collected, end) = collect(whole).await;
    assert_eq!((Bytes::from(collected), end), (bytes.clone(), Ok(())));

    let rest = origin.get_blob(&name, digest, 1000, Some(&etag), later()).await.unwrap();
    assert_eq!((rest.first, rest.total), (1000, Some(total)));
    assert_eq!(Bytes::from(collect(rest).await.0), bytes.slice(1000..));
    let last = registry.log().pop().unwrap();
    assert_eq!((last.header("range"), last.header("if-range")), (Some("bytes=1000-"), Some(etag.as_str())));

    registry.behave(Matcher::path("/blobs/"), Behaviour::IgnoreRange);
    let ignored = origin.get_blob(&name, digest, 1000, None, later()).await.unwrap();
    assert_eq!((ignored.first, ignored.total), (0, Some(total)));
    assert_eq!(Bytes::from(collect(ignored).await.0), *bytes);
}

#[tokio::test]
async fn blobs_that_break_off() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    let (digest, bytes) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    for behaviour in [Behaviour::Truncate(100_000), Behaviour::Reset(100_000), Behaviour::Stall(100_000)] {
        registry.behave_times(1, Matcher::path("/blobs/"), behaviour.clone());
        let stream = origin.get_blob(&name, digest, 0, None, later()).await.unwrap();
        let began = std::time::Instant::now();
        let (collected, end) = collect(stream).await;
        assert!(matches!(end, Err(SourceError::Broken { .. })), "{behaviour:?}: {end:?}");
        // A reset may overtake bytes that were sent before it.
        assert!(bytes.starts_with(&collected), "{behaviour:?}");
        if !matches!(behaviour, Behaviour::Reset(_)) {
            assert_eq!(collected.len(), 100_000, "{behaviour:?}");
        }
        if matches!(behaviour, Behaviour::Stall(_)) {
            assert!(began.elapsed() >= Duration::from_millis(300));
        }
    }
    registry.behave_times(1, Matcher::path("/blobs/"), Behaviour::Truncate(100_000));
    let rest = origin.get_blob(&name, digest, 5, None, later()).await.unwrap();
    assert!(matches!(collect(rest).await.1, Err(SourceError::Broken { .. })));
}

#[tokio::test]
async fn a_partial_answer_of_another_range_is_refused() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    let (digest, bytes) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let (last, total) = (bytes.len() - 1, bytes.len());
    for range in [format!("bytes 999-{last}/{total}"), format!("bytes 1000-{last}/{}", total + 1), "bytes".into()] {
        registry.behave_times(1, Matcher::path("/blobs/"), Behaviour::With("content-range", range.clone()));
        let result = origin.get_blob(&name, digest, 1000, None, later()).await;
        assert!(matches!(result, Err(SourceError::Protocol { .. })), "{range}: {result:?}");
    }
}

#[tokio::test]
async fn listings_are_passed_on() {
    let (registry, image, origin) = started();
    let name = name(registry.registry().as_str());
    registry.behave("/tags/list".into(), Behaviour::With("link", "</v2/x?last=v1>; rel=\"next\"".into()));
    let tags = origin.tags(&name, Some("n=5&ns=other.example.com"), later()).await.unwrap();
    assert_eq!(tags.media_type, "application/json");
    assert_eq!(tags.link.as_deref(), Some("</v2/x?last=v1>; rel=\"next\""));
    assert!(String::from_utf8_lossy(&tags.bytes).contains("\"v1\""));
    assert_eq!(registry.log()[0].query, "n=5");
    let filter = Some("artifactType=application%2Fvnd.example");
    let referrers = origin.referrers(&name, &image.index, filter, later()).await.unwrap();
    assert_eq!(referrers.filters.as_deref(), Some("artifactType"));
    registry.behave("/referrers/".into(), Behaviour::Status(404, vec![]));
    let referrers = origin.referrers(&name, &image.index, None, later()).await;
    assert_eq!(referrers, Err(SourceError::NotFound));
    assert_eq!(requests(&registry, &format!("/referrers/{}", image.index)), 2);
}

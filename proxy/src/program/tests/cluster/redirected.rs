//! A cluster cache that sends a node to a bucket, and buckets that are away, refuse, hang, break off or lie: the pull succeeds without the
//! registry, and what a bad bucket costs is paid once.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream as Plain};

use larder_oci::Digest;

use super::odd_caches::{Fake, hang, say};
use super::*;

/// What a bucket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Well,
    Refuses,
    HasItNot,
    SendsOn,
    Hangs,
    BreaksOff,
    LiesAtTheStart,
    LiesAtTheEnd,
    GivesNothing,
    GivesAPage,
    GivesMore,
    GivesAPart,
}

fn blob_of(head: &str, image: &Image) -> Option<(Digest, bytes::Bytes)> {
    let digest = image.blobs.keys().find(|digest| head.lines().next().unwrap().contains(digest.hex()))?;
    Some((digest.clone(), image.blobs[digest].clone()))
}

fn give(stream: &mut Plain, more: &str, bytes: &[u8]) {
    say(stream, &format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n", bytes.len()));
    let _ = stream.write_all(bytes);
}

fn bucket(image: &Image, does: Bucket) -> Fake {
    let image = image.clone();
    Fake::start(move |head, stream| {
        let Some((_, bytes)) = blob_of(head, &image) else { return };
        let flipped = |at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 0x80;
            bytes
        };
        let empty = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        match does {
            Bucket::Well => give(stream, "", &bytes),
            Bucket::Refuses => say(stream, &empty("403 Forbidden")),
            Bucket::HasItNot => say(stream, &empty("404 Not Found")),
            Bucket::SendsOn => say(stream, &empty("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/")),
            Bucket::Hangs => hang(stream),
            Bucket::BreaksOff => {
                say(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()));
                let _ = stream.write_all(&bytes[..bytes.len() / 2]);
            }
            Bucket::LiesAtTheStart => give(stream, "", &flipped(1)),
            Bucket::LiesAtTheEnd => give(stream, "", &flipped(bytes.len() - 2)),
            Bucket::GivesNothing => give(stream, "", b""),
            Bucket::GivesAPage => give(stream, "Content-Type: text/html\r\n", &[b'x'; 700]),
            Bucket::GivesMore => give(stream, "", &[&bytes[..], &[0; 300]].concat()),
            Bucket::GivesAPart => {
                let (last, total) = (bytes.len() - 1, bytes.len());
                let range = format!("206 Partial Content\r\nContent-Range: bytes 0-{last}/{total}");
                say(stream, &format!("HTTP/1.1 {range}\r\nContent-Length: {total}\r\nConnection: close\r\n\r\n"));
                let _ = stream.write_all(&bytes);
            }
        }
    })
}

/// A cache that knows no manifests, has all blobs, and sends those who follow to `place`.
fn cache_leading_to(image: &Image, place: &str) -> Fake {
    let (image, place) = (image.clone(), place.to_owned());
    Fake::start(move |head, stream| {
        let settings = head.lines().find(|line| line.starts_with("larder-settings: ")).unwrap_or("x: y");
        let Some((digest, bytes)) = blob_of(head, &image) else {
            return say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        };
        if head.contains("larder-redirect: yes") {
            let status = "307 Temporary Redirect";
            let location = format!("{place}/{}?X-Amz-Signature=secret\r\nLarder-Length: {}", digest.hex(), bytes.len());
            return say(
                stream,
                &format!(
                    "HTTP/1.1 {status}\r\n{settings}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
            );
        }
        let from = head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            None => give(stream, &format!("{settings}\r\n"), &bytes),
            Some(from) => {
                let (last, total): (usize, usize) = (bytes.len() - 1, bytes.len());
                say(
                    stream,
                    &format!(
                        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\n{settings}\r\nContent-Range: bytes {from}-{last}/{total}\r\n\
                         Content-Length: {}\r\n\r\n",
                        total - from
                    ),
                );
                let _ = stream.write_all(&bytes[from..]);
            }
        }
    })
}

/// The heads of requests for this blob.
fn asked_for(fake: &Fake, digest: &Digest) -> Vec<String> {
    fake.asked.lock().unwrap().iter().filter(|head| head.contains(digest.hex())).cloned().collect()
}

fn follows(head: &str) -> bool {
    assert!(head.contains("larder-redirect: "), "{head}");
    head.contains("larder-redirect: yes")
}

async fn get(node: &Running, digest: &Digest) -> (u16, bool) {
    let (status, blob) = ask(node.address, "GET", &format!("/v2/team/app/blobs/{digest}?ns={NAME}")).await;
    (status, Digest::of(digest.algorithm(), &blob) == *digest)
}

/// A large and a small one.
fn layers(image: &Image) -> (Digest, Digest) {
    let mut blobs = image.host_platform().blobs.clone();
    blobs.sort_by_key(|digest| image.blobs[digest].len());
    (blobs.last().unwrap().clone(), blobs.first().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_given_a_blob_by_the_bucket_which_learns_nothing_of_the_cache() {
    let cluster = Cluster::start();
    let bucket = bucket(&cluster.image, Bucket::Well);
    let cache = cache_leading_to(&cluster.image, &bucket.url);
    let node = cluster.node_asking(&cache.url);
    let (large, small) = layers(&cluster.image);
    for digest in [&large, &small] {
        assert_eq!(get(&node, digest).await, (200, true));
        let asked = asked_for(&cache, digest);
        assert!(asked.len() == 1 && follows(&asked[0]) && asked[0].contains("authorization: "), "{asked:?}");
        let asked = asked_for(&bucket, digest);
        let tells = |word: &str| asked[0].contains(word);
        assert!(asked.len() == 1 && !tells("authorization") && !tells(TOKEN) && !tells("\r\nlarder-"), "{asked:?}");
        assert_eq!(cluster.origin.blob_gets(digest), 0);
    }
    assert!(question(&node, "redirected").await && !question(&node, "unfollowed").await);
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_bucket_fails_no_pull_and_is_paid_for_once() {
    for (does, is_left_alone) in [
        (Some(Bucket::Refuses), true),
        (Some(Bucket::HasItNot), false),
        (Some(Bucket::SendsOn), true),
        (Some(Bucket::Hangs), true),
        (Some(Bucket::BreaksOff), true),
        (Some(Bucket::LiesAtTheEnd), false),
        (Some(Bucket::GivesNothing), true),
        (Some(Bucket::GivesAPage), true),
        (Some(Bucket::GivesMore), true),
        (Some(Bucket::GivesAPart), true),
        // Nobody is there.
        (None, true),
    ] {
        let cluster = Cluster::start();
        let bucket = does.map(|does| bucket(&cluster.image, does));
        let nowhere = || {
            let listener = TcpListener::bind(LOOPBACK).unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let place = bucket.as_ref().map_or_else(nowhere, |bucket| bucket.url.clone());
        let cache = cache_leading_to(&cluster.image, &place);
        let node = cluster.node_asking(&cache.url);
        let (large, small) = layers(&cluster.image);
        let began = Instant::now();
        assert_eq!(get(&node, &large).await, (200, true), "{does:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "{does:?}: {:?}", began.elapsed());
        let asked = asked_for(&cache, &large);
        assert!(asked.len() == 2 && follows(&asked[0]) && !follows(&asked[1]), "{does:?}: {asked:?}");
        let is_continued = asked[1].contains("range: bytes=");
        assert_eq!(is_continued, does == Some(Bucket::BreaksOff), "{does:?}: {asked:?}");
        assert_eq!(cluster.origin.blob_gets(&large), 0, "{does:?}: the cache has it");

        let began = Instant::now();
        assert_eq!(get(&node, &small).await, (200, true), "{does:?}");
        let asked = asked_for(&cache, &small);
        assert_eq!(follows(&asked[0]), !is_left_alone, "{does:?}: {asked:?}");
        assert!(!is_left_alone || began.elapsed() < Duration::from_secs(1), "{does:?}: {:?}", began.elapsed());
        cluster.end(vec![node]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_of_a_bucket_reach_nobody_in_full_and_the_cache_is_asked_for_the_right_ones() {
    let cluster = Cluster::start();
    let bucket = bucket(&cluster.image, Bucket::LiesAtTheStart);
    let cache = cache_leading_to(&cluster.image, &bucket.url);
    let node = cluster.node_asking(&cache.url);
    let (large, _) = layers(&cluster.image);
    let (status, blob) = ask(node.address, "GET", &format!("/v2/team/app/blobs/{large}?ns={NAME}")).await;
    assert!(status == 200 && blob.len() < cluster.image.blobs[&large].len(), "{status}, {} bytes", blob.len());
    assert_eq!(get(&node, &large).await, (200, true));
    assert_eq!((asked_for(&bucket, &large).len(), cluster.origin.blob_gets(&large)), (1, 0));
    cluster.end(vec![node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cache_leads_a_node_to_where_nothing_may_lead_it() {
    // The listener is this machine's, and the cache is called otherwise.
    let own = TcpListener::bind(LOOPBACK).unwrap();
    own.set_nonblocking(true).unwrap();
    let port = own.local_addr().unwrap().port();
    for place in [
        "http://169.254.169.254/latest".to_owned(),
        "http://[fd00:ec2::254]/latest".to_owned(),
        format!("http://localhost:{port}"),
        format!("http://user:password@127.0.0.1:{port}"),
        "file:///etc/passwd".to_owned(),
        "nonsense".to_owned(),
        // A path alone.
        String::new(),
    ] {
        let cluster = Cluster::start();
        let cache = cache_leading_to(&cluster.image, &place);
        let node = cluster.node_asking(&cache.url);
        let (large, small) = layers(&cluster.image);
        let began = Instant::now();
        assert_eq!(get(&node, &large).await, (200, true), "{place}");
        assert!(began.elapsed() < Duration::from_secs(1), "{place}: {:?}", began.elapsed());
        let asked = asked_for(&cache, &large);
        assert!(asked.len() == 2 && follows(&asked[0]) && !follows(&asked[1]), "{place}: {asked:?}");
        // It is left alone like every bucket that gives nothing.
        assert_eq!(get(&node, &small).await, (200, true), "{place}");
        assert!(!follows(&asked_for(&cache, &small)[0]), "{place}");
        assert_eq!(cluster.origin.blob_gets(&large), 0, "{place}: the cache has it");
        assert!(own.accept().is_err(), "{place}");
        cluster.end(vec![node]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_that_nobody_asked_for_is_followed_by_nobody() {
    let cluster = Cluster::start();
    let bucket = bucket(&cluster.image, Bucket::Well);
    let place = bucket.url.clone();
    let cache = Fake::start(move |_, stream| {
        say(
            stream,
            &format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        );
    });
    let node = cluster.node_asking(&cache.url);
    assert_eq!(node.pull(&cluster.image).await, (200, true));
    assert!(bucket.asked.lock().unwrap().is_empty() && question(&node, "own").await);
    cluster.end(vec![node]).await;
}

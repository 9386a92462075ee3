//! The double itself: a test that rests on it must be able to trust it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher, Origin};

fn ask(origin: &Origin, target: &str, headers: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(origin.address())?;
    write!(socket, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")?;
    socket.shutdown(std::net::Shutdown::Write)?;
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn with_image() -> (Origin, Image) {
    let origin = Origin::start();
    let image = Image::build(&ImageSpec::default());
    origin.push("team/app", "v1", &image);
    (origin, image)
}

#[test]
fn a_good_day() {
    let (origin, image) = with_image();
    let reply = ask(&origin, "/v2/team/app/manifests/v1", "").unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains(image.index.as_str()), "{reply}");
    let blob = format!("/v2/team/app/blobs/{}", image.largest_layer());
    let reply = ask(&origin, &blob, "range: bytes=10-19\r\n").unwrap();
    assert!(reply.contains("content-range: bytes 10-19/"), "{reply}");
    assert!(ask(&origin, "/v2/other/manifests/v1", "").unwrap().starts_with("HTTP/1.1 404"));
    assert_eq!(origin.log().len(), 3);
}

#[test]
fn a_bad_day() {
    let (origin, image) = with_image();
    let blob = format!("/v2/team/app/blobs/{}", image.largest_layer());
    origin.behave_times(1, Matcher::path("/blobs/"), Behaviour::Truncate(1000));
    let reply = ask(&origin, &blob, "").unwrap();
    assert!(reply.len() < 2000, "{}", reply.len());
    origin.behave_times(1, Matcher::path("/blobs/"), Behaviour::Reset(1000));
    assert_eq!(ask(&origin, &blob, "").unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(ask(&origin, &blob, "").unwrap().len() > 300_000, "rules end after their count");
    origin.behave(Matcher::all(), Behaviour::Delay(Duration::from_millis(200)));
    let started = Instant::now();
    ask(&origin, &blob, "").unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    origin.stop();
    assert_eq!(ask(&origin, &blob, "").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    origin.start_again();
    assert!(ask(&origin, &blob, "").unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_token_is_demanded() {
    let (origin, _) = with_image();
    origin.require_token();
    let reply = ask(&origin, "/v2/team/app/manifests/v1", "").unwrap();
    assert!(reply.starts_with("HTTP/1.1 401") && reply.contains("scope=\"repository:team/app:pull\""), "{reply}");
    let token = ask(&origin, "/token?scope=x", "").unwrap();
    let token = token.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap();
    let reply = ask(&origin, "/v2/team/app/manifests/v1", &format!("authorization: Bearer {token}\r\n")).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

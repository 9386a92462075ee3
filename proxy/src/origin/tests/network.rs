//! Ways to a registry: private certificates, either scheme, corporate proxies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Names, Setting, TestRegistry, assert_refused, at, later, name, pushed, requests, tls, v1};
use crate::origin::{Limits, ProxyEnvironment, ProxyVariables};
use crate::settings::RegistrySettings;
use crate::source::{Source as _, SourceError};

const HOST: &str = "registry.example.com";

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_listed() {
    let (registry, image) = tls(HOST);
    let host = format!("{HOST}:{}", registry.address().port());
    let ca_pem = registry.ca_pem().map(ToOwned::to_owned);
    let table = [
        (RegistrySettings { ca_pem, ..RegistrySettings::default() }, true),
        (RegistrySettings { insecure: true, ..RegistrySettings::default() }, true),
        (RegistrySettings::default(), false),
    ];
    for (settings, trusted) in table {
        let mut setting = Setting::listing(&host, settings);
        setting.names = Names::of(&[(HOST, "127.0.0.1")]);
        let (origin, _) = setting.origin();
        match origin.head_manifest(&name(&host), &v1(), later()).await {
            Ok(head) => assert!(trusted && head.digest == Some(image.index.clone())),
            Err(error) => {
                assert!(!trusted, "{error}");
                assert!(matches!(&error, SourceError::Unreachable { reason } if reason.contains("TLS")), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn certificates_are_for_the_name_that_was_asked_for() {
    let (registry, _) = tls("other.example.com");
    let host = format!("{HOST}:{}", registry.address().port());
    let ca_pem = registry.ca_pem().map(ToOwned::to_owned);
    let mut setting = Setting::listing(&host, RegistrySettings { ca_pem, ..RegistrySettings::default() });
    setting.names = Names::of(&[(HOST, "127.0.0.1")]);
    let result = setting.origin().0.head_manifest(&name(&host), &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Unreachable { .. })), "{result:?}");
    assert_eq!(registry.log().len(), 0);
}

#[tokio::test]
async fn an_insecure_registry_is_found_over_plain_http() {
    let (registry, _) = pushed(TestRegistry::start());
    let host = registry.registry();
    let mut setting = Setting::listing(host.as_str(), at(&[]));
    setting.limits = Limits { connect: Duration::from_millis(500), ..setting.limits };
    let (origin, _) = setting.origin();
    for _ in 0..3 {
        origin.head_manifest(&name(host.as_str()), &v1(), later()).await.unwrap();
    }
    assert_eq!(requests(&registry, "/manifests/"), 3);
}

#[tokio::test]
async fn docker_hub_is_asked_where_it_lives() {
    let setting = Setting::new();
    let names = Arc::clone(&setting.names);
    let (origin, _) = setting.origin();
    let result = origin.head_manifest(&name("docker.io"), &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Unreachable { .. })), "{result:?}");
    assert_eq!(names.asked(), ["registry-1.docker.io"]);
}

/// A corporate proxy that connects everything to one address, with the request lines that it saw.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(pass_on(client, to, Arc::clone(&log)));
        }
    });
    (address, seen)
}

async fn pass_on(mut client: TcpStream, to: std::net::SocketAddr, log: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head).unwrap();
    let line = text.lines().next().unwrap().to_owned();
    let password = text.lines().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization"));
    log.lock().unwrap().push(format!("{line} {}", if password.is_some() { "with password" } else { "" }));
    let mut server = TcpStream::connect(to).await.unwrap();
    if line.starts_with("CONNECT") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    } else {
        // The fake registry knows no absolute form.
        let text = text.replacen(&format!("http://{HOST}"), "", 1);
        server.write_all(text.as_bytes()).await.unwrap();
    }
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

fn through(proxy: std::net::SocketAddr, no: &str) -> ProxyEnvironment {
    let url = format!("http://user:secret@{proxy}");
    ProxyEnvironment::new(&ProxyVariables { https: url.clone(), http: url, all: String::new(), no: no.into() })
}

#[tokio::test]
async fn through_a_corporate_proxy() {
    let (registry, _) = tls(HOST);
    let (address, seen) = proxy(registry.address()).await;
    let ca_pem = registry.ca_pem().map(ToOwned::to_owned);
    let mut setting = Setting::listing(HOST, RegistrySettings { ca_pem, ..RegistrySettings::default() });
    setting.proxies = through(address, "");
    let names = Arc::clone(&setting.names);
    let (origin, _) = setting.origin();
    origin.head_manifest(&name(HOST), &v1(), later()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [format!("CONNECT {HOST}:443 HTTP/1.1 with password")]);
    assert!(names.asked().is_empty(), "the proxy resolves");
    assert!(registry.log()[0].headers.iter().all(|(name, _)| name != "proxy-authorization"));

    // What can be checked is the name.
    for (host, reason) in [("10.0.0.1", "private"), ("metadata.google.internal", "metadata"), ("127.1", "this machine")]
    {
        let mut setting = Setting::new();
        setting.proxies = through(address, "");
        let result = setting.origin().0.head_manifest(&name(host), &v1(), later()).await;
        if host == "10.0.0.1" {
            // A private address that is the reference itself is meant.
            assert!(!matches!(result, Err(SourceError::Refused { .. })), "{result:?}");
        } else {
            assert_refused(&result, reason);
        }
    }
}

#[tokio::test]
async fn a_proxy_that_opens_tls_is_told_by_what_to_do_about_it() {
    let (registry, _) = tls(HOST);
    let (address, _) = proxy(registry.address()).await;
    let mut setting = Setting::new();
    setting.proxies = through(address, "");
    match setting.origin().0.head_manifest(&name(HOST), &v1(), later()).await {
        Err(SourceError::Unreachable { reason }) => {
            assert!(reason.contains("UnknownIssuer") && reason.contains("--upstream-ca"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_http_through_a_corporate_proxy() {
    let (registry, _) = pushed(TestRegistry::start());
    let (address, seen) = proxy(registry.address()).await;
    let mut setting = Setting::listing(HOST, at(&[&format!("http://{HOST}")]));
    setting.proxies = through(address, "");
    let (origin, _) = setting.origin();
    origin.head_manifest(&name(HOST), &v1(), later()).await.unwrap();
    let line = format!("HEAD http://{HOST}/v2/team/app/manifests/v1 HTTP/1.1 with password");
    assert_eq!(*seen.lock().unwrap(), [line]);
}

#[tokio::test]
async fn no_proxy_for_what_is_near() {
    let (registry, _) = tls(HOST);
    let (address, seen) = proxy(registry.address()).await;
    let host = format!("{HOST}:{}", registry.address().port());
    let ca_pem = registry.ca_pem().map(ToOwned::to_owned);
    let mut setting = Setting::listing(&host, RegistrySettings { ca_pem, ..RegistrySettings::default() });
    setting.names = Names::of(&[(HOST, "127.0.0.1")]);
    setting.proxies = through(address, ".example.com");
    let (origin, _) = setting.origin();
    origin.head_manifest(&name(&host), &v1(), later()).await.unwrap();
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = client.read(&mut head).await;
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    });
    let mut setting = Setting::new();
    setting.proxies = through(address, "");
    let result = setting.origin().0.head_manifest(&name(HOST), &v1(), later()).await;
    match result {
        Err(SourceError::Unreachable { reason }) => {
            assert!(reason.contains("proxy") && !reason.contains("secret"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

//! A corporate proxy that opens TLS: it answers for every registry with a certificate of its own authority.

use std::path::PathBuf;

use larder_test_origin::OriginBuilder;
use tokio::net::TcpListener;

use super::*;

const REGISTRY: &str = "registry.example.com";

/// Connects whoever asks to `interceptor`, which speaks TLS as if it were the host that was asked for.
async fn corporate_proxy(interceptor: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                assert!(head.starts_with(format!("CONNECT {REGISTRY}:443 ").as_bytes()));
                let mut server = TcpStream::connect(interceptor).await.unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

async fn pull(proxy: SocketAddr, upstream_ca: Option<PathBuf>, settings: &Path) -> (u16, String) {
    let store = StoreConfig::Memory { limit: 64 << 20 };
    let proxies = ProxyVariables { https: format!("http://{proxy}"), ..ProxyVariables::default() };
    let registries = Some(settings.to_owned());
    let opened = open(ProxyConfig { registries, proxies, upstream_ca, ..config(store, None) }).unwrap();
    let address = opened.addresses()[0];
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opened.run(shutdown.clone()));
    let (status, body) = ask(address, "GET", &format!("/v2/team/app/manifests/v1?ns={REGISTRY}")).await;
    shutdown.cancel();
    ended(running).await;
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_opens_tls_is_trusted_with_its_certificate_and_not_without() {
    let interceptor = OriginBuilder::default().tls(&[REGISTRY]).start();
    interceptor.push("team/app", "v1", &Image::build(&ImageSpec::default()));
    let proxy = corporate_proxy(interceptor.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, settings) = (folder.path().join("ca.crt"), folder.path().join("registries.toml"));
    fs::write(&ca, interceptor.ca_pem().unwrap()).unwrap();
    fs::write(&settings, "").unwrap();

    assert_eq!(pull(proxy, None, &settings).await.0, 502, "the engine goes on to the registry");
    assert!(interceptor.log().is_empty(), "nobody who is not trusted is asked anything");
    let (status, manifest) = pull(proxy, Some(ca.clone()), &settings).await;
    assert_eq!(status, 200, "{manifest}");
    assert!(manifest.contains("schemaVersion"), "{manifest}");

    // A registry with an authority of its own keeps it beside the others.
    let own = format!("[registries.\"{REGISTRY}\"]\nca_pem = '''{}'''", crate::authorities::SOUND);
    fs::write(&settings, own).unwrap();
    assert_eq!(pull(proxy, Some(ca), &settings).await.0, 200);
    tokio::task::block_in_place(|| drop(interceptor));
}

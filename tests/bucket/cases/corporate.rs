//! A bucket behind a corporate proxy.

use larder_proxy::origin::ProxyVariables;
use larder_test_bucket::{Forward, Kind, Server};
use larder_test_origin::private_certificate;

use crate::world::{Case, World, content, sha256};

/// A name that nobody here can resolve.
const NAME: &str = "bucket.corp.test";

pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    if kind != Kind::Versitygw {
        return Vec::new();
    }
    vec![("a_bucket_is_reached_through_a_corporate_proxy", |world| Box::pin(through_a_proxy(world)))]
}

async fn through_a_proxy(world: World) {
    let certificate = private_certificate(&[NAME]);
    let secure = Server::start_tls(&certificate.certificate, &certificate.key).unwrap();
    for (scheme, server) in [("http", world.server()), ("https", &secure)] {
        let forward = Forward::to(NAME, server.address()).unwrap();
        let world = world.fresh();
        let replica = || {
            world.replica_with(|config| {
                config.endpoint = Some(format!("{scheme}://{NAME}:{}", server.address().port()));
                config.ca_pem = Some(certificate.authority.clone());
                let url = forward.url();
                config.proxies = ProxyVariables { http: url.clone(), https: url, ..ProxyVariables::default() };
            })
        };
        // At once, and in parts.
        for (seed, length) in [(400, 3 << 20), (401, 20 << 20)] {
            let bytes = content(seed, length);
            let writer = replica().await;
            writer.put(&bytes).await;
            assert_eq!(writer.store.stats().owed_blobs, 0, "{scheme}");
            assert!(replica().await.whole(&sha256(&bytes)).await.unwrap() == bytes, "{scheme}");
        }
        let (forwarded, tunnelled) = forward.seen();
        assert_eq!((forwarded > 0, tunnelled > 0), (scheme == "http", scheme == "https"));
    }
}

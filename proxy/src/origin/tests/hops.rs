//! Redirects, and the rules on every hop.

use larder_test_origin::{Behaviour, Matcher};

use super::{Names, Setting, TestRegistry, assert_refused, at, later, name, pushed, requests, started, tls, v1};
use crate::settings::RegistrySettings;
use crate::source::{Source as _, SourceError};

#[tokio::test]
async fn credentials_do_not_follow_to_another_host_but_the_range_does() {
    let (registry, image, origin) = started();
    let storage = TestRegistry::start();
    let blob = image.platforms[0].blobs.last().unwrap();
    storage.push_blob("storage", image.blobs[blob].clone());
    registry.require_token();
    let elsewhere = format!("{}/v2/storage/blobs/{blob}?signature=secret", storage.url());
    registry.behave(Matcher::path("/blobs/"), Behaviour::Redirect(elsewhere));

    let name = name(registry.registry().as_str());
    // The first one is refused without a token, then redirected.
    for _ in 0..2 {
        let stream = origin.get_blob(&name, blob, 10, None, later()).await.unwrap();
        assert_eq!((stream.first, stream.total), (10, Some(image.blobs[blob].len() as u64)));
    }
    let asked = registry.log();
    let with_token = asked.iter().rfind(|access| access.path.contains("/blobs/")).unwrap();
    assert!(with_token.header("authorization").is_none(), "redirected before a token was asked for");

    let seen = storage.log();
    assert!(!seen.is_empty());
    for access in seen {
        assert_eq!(access.header("authorization"), None);
        assert_eq!(access.header("range"), Some("bytes=10-"));
        assert_eq!(access.header("accept-encoding"), Some("identity"));
        assert_eq!(access.header("via"), Some(format!("1.1 {}", origin.identity()).as_str()));
        assert!(access.header("user-agent").unwrap().starts_with("larder/"));
    }
}

#[tokio::test]
async fn a_token_goes_to_the_registry_and_not_on_to_where_it_redirects() {
    let (registry, image, origin) = started();
    let (storage, _) = pushed(TestRegistry::start());
    let name = name(registry.registry().as_str());
    registry.require_token();
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    registry.clear_log();
    registry.behave(
        Matcher::path("/manifests/"),
        Behaviour::Redirect(format!("{}/v2/team/app/manifests/{}", storage.url(), image.index)),
    );
    assert_eq!(origin.get_manifest(&name, &v1(), later()).await.unwrap().digest, image.index);
    assert!(registry.log().iter().all(|access| access.header("authorization").is_some()));
    assert!(storage.log().iter().all(|access| access.header("authorization").is_none()));
    assert_eq!((registry.log().len(), storage.log().len()), (1, 1));
}

#[tokio::test]
async fn redirects_to_forbidden_addresses_are_refused() {
    let (registry, _) = pushed(TestRegistry::start());
    let mut setting = Setting::listing(registry.registry().as_str(), at(&[&registry.url()]));
    setting.names = Names::of(&[("loopback.example.com", "127.0.0.1"), ("metadata.example.com", "169.254.169.254")]);
    let (origin, _) = setting.origin();
    let name = name(registry.registry().as_str());
    let port = registry.address().port();
    let table = [
        ("http://169.254.169.254/latest".to_owned(), "metadata"),
        ("http://metadata.example.com/".to_owned(), "metadata"),
        (format!("http://loopback.example.com:{port}/"), "this machine"),
        (format!("http://127.0.0.2:{port}/"), "this machine"),
        (format!("http://[::1]:{port}/"), "this machine"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "this machine"),
        ("http://0.0.0.0/".to_owned(), "unspecified"),
        ("file:///etc/passwd".to_owned(), "not http"),
    ];
    for (location, reason) in table {
        registry.clear_log();
        registry.behave_times(1, Matcher::path("/manifests/"), Behaviour::Redirect(location));
        assert_refused(&origin.head_manifest(&name, &v1(), later()).await, reason);
        assert_eq!(registry.log().len(), 1);
    }
}

#[tokio::test]
async fn https_never_becomes_http() {
    let (registry, _) = tls("127.0.0.1");
    let plain = TestRegistry::start();
    let settings = RegistrySettings { ca_pem: registry.ca_pem().map(Into::into), ..RegistrySettings::default() };
    let (origin, _) = Setting::listing(registry.registry().as_str(), settings).origin();
    let name = name(registry.registry().as_str());
    origin.head_manifest(&name, &v1(), later()).await.unwrap();
    registry.behave_times(1, Matcher::path("/manifests/"), Behaviour::Redirect(plain.url()));
    assert_refused(&origin.head_manifest(&name, &v1(), later()).await, "plain http");
    registry.require_token_from(&format!("{}/token", plain.url()), None);
    assert_refused(&origin.head_manifest(&name, &v1(), later()).await, "plain http");
    assert_eq!(plain.log().len(), 0);
}

#[tokio::test]
async fn redirects_end() {
    let (registry, _, origin) = started();
    registry.behave(Matcher::path("/manifests/"), Behaviour::Redirect("/v2/team/app/manifests/v1".into()));
    let result = origin.head_manifest(&name(registry.registry().as_str()), &v1(), later()).await;
    assert!(matches!(result, Err(SourceError::Protocol { .. })), "{result:?}");
    assert_eq!(requests(&registry, "/manifests/"), 6);
}

#[tokio::test]
async fn storage_that_refuses_says_nothing_about_who_may_have_it() {
    let (registry, image, origin) = started();
    let storage = TestRegistry::start();
    storage.behave(Matcher::all(), Behaviour::Status(403, vec![]));
    registry.behave(Matcher::path("/blobs/"), Behaviour::Redirect(storage.url()));
    let blob = &image.platforms[0].blobs[0];
    let result = origin.head_blob(&name(registry.registry().as_str()), blob, later()).await;
    assert_eq!(result, Err(SourceError::Server { status: 403 }));
}

#[tokio::test]
async fn a_registry_that_is_not_listed_is_public_or_refused() {
    let registry = TestRegistry::start();
    let mut setting = Setting::new();
    setting.names = Names::of(&[("rebound.example.com", "10.0.0.1 127.0.0.1"), ("docker", "172.17.0.1")]);
    let names = std::sync::Arc::clone(&setting.names);
    let (origin, _) = setting.origin();
    for (host, reason) in [
        ("rebound.example.com", "this machine"),
        ("docker:5000", "private"),
        (registry.registry().as_str(), "this machine"),
        ("169.254.169.254", "metadata"),
    ] {
        assert_refused(&origin.head_manifest(&name(host), &v1(), later()).await, reason);
    }
    assert_eq!(names.asked(), ["rebound.example.com", "docker"], "literal addresses are not asked for");
    assert_eq!(registry.log().len(), 0);
}

#[tokio::test]
async fn what_the_settings_do_not_permit_is_not_asked() {
    let registry = TestRegistry::start();
    let host = registry.registry();
    let (origin, settings) =
        Setting::listing(host.as_str(), RegistrySettings { skip: true, ..at(&[&registry.url()]) }).origin();
    let name = name(host.as_str());
    assert_refused(&origin.head_manifest(&name, &v1(), later()).await, "skip");

    // A reload counts at once.
    let mut changed = settings.load().as_ref().clone();
    changed.registries.insert(host.clone(), at(&[&registry.url()]));
    settings.store(changed.clone().into());
    assert_eq!(origin.head_manifest(&name, &v1(), later()).await, Err(SourceError::NotFound));

    registry.clear_log();
    changed.registries.insert(host.clone(), RegistrySettings { insecure: false, ..at(&[&registry.url()]) });
    settings.store(changed.into());
    assert_refused(&origin.head_manifest(&name, &v1(), later()).await, "not listed as insecure");
    assert_eq!(registry.log().len(), 0);
}

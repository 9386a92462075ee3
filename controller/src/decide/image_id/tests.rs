use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn of(image: &str, id: &str) -> Running {
    running(&Image::parse(image).unwrap(), id)
}

#[test]
fn a_repository_with_a_digest_is_a_manifest() {
    let manifest = Running::Manifest(Digest::parse(&format!("sha256:{HEX}")).unwrap());
    for id in [
        format!("docker.io/library/nginx@sha256:{HEX}"),
        format!("nginx@sha256:{HEX}"),
        format!("docker-pullable://nginx@sha256:{HEX}"),
        format!("docker-pullable://docker.io/library/nginx@sha256:{HEX}"),
        format!("docker.io/library/nginx:1.25@sha256:{HEX}"),
    ] {
        assert_eq!(of("nginx:1.25", &id), manifest, "{id}");
        assert_eq!(of(&format!("nginx@sha256:{HEX}"), &id), manifest, "{id}");
    }
}

#[test]
fn a_bare_digest_is_a_configuration_and_is_never_pinned() {
    for id in [format!("sha256:{HEX}"), format!("docker://sha256:{HEX}"), HEX.to_owned()] {
        assert_eq!(of("nginx", &id), Running::Configuration, "{id}");
        assert_eq!(of("nginx", &id).digest(), None);
    }
}

#[test]
fn another_repositorys_digest_is_not_this_ones() {
    let elsewhere = format!("mirror.example.com/nginx@sha256:{HEX}");
    assert_eq!(of("nginx", &elsewhere), Running::Elsewhere(Image::parse(&elsewhere).unwrap()));
    assert_eq!(of("nginx", &elsewhere).digest(), None);
}

#[test]
fn what_is_nothing_is_no_crash() {
    assert_eq!(of("nginx", ""), Running::NotYet);
    for id in ["docker://", "nginx@", "@", "nginx@sha256:1", "nginx:1.25", "sha256:12", "NGINX@sha256:x", "://@://"] {
        let is = of("nginx", id);
        assert!(matches!(is, Running::Unreadable | Running::NotYet), "{id}: {is:?}");
    }
}

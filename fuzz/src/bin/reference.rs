//! Names of images, registries, repositories, tags and digests: what is parsed prints as something that parses to the same, and a
//! name that becomes a part of a path stays one.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use larder_oci::{Algorithm, Digest, ImageReference, ManifestReference, Registry, Repository, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(image) = same_again::<ImageReference>(text) {
        assert!(image.tag.is_some() || image.digest.is_some(), "{image} names nothing");
        assert!(!image.registry.is_docker_hub() || image.repository.as_str().contains('/'), "{image} is in no library");
        let asked = image.manifest_reference();
        assert_eq!(ManifestReference::parse(&asked.to_string()), Ok(asked));
    }
    if let Some(registry) = same_again::<Registry>(text) {
        host(&registry, text);
    }
    if let Some(repository) = same_again::<Repository>(text) {
        assert_eq!(repository.as_str(), text);
        assert!(text.split('/').all(is_one_step), "{text} leaves its folder");
    }
    if let Some(tag) = same_again::<Tag>(text) {
        assert!(tag.as_str() == text && is_one_step(text), "{text} leaves its folder");
        assert_eq!(ManifestReference::parse(text), Ok(ManifestReference::Tag(tag)));
    }
    if let Some(digest) = same_again::<Digest>(text) {
        assert_eq!(format!("{}:{}", digest.algorithm().as_str(), digest.hex()), text);
        assert_eq!(ManifestReference::parse(text), Ok(ManifestReference::Digest(digest)));
    }
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, text.as_bytes());
        assert_eq!(Digest::parse(digest.as_str()), Ok(digest));
    }
});

fn host(registry: &Registry, text: &str) {
    let segment = registry.path_segment();
    assert!(is_one_step(&segment), "{registry} leaves its folder");
    assert_eq!(Registry::from_path_segment(&segment).as_ref(), Ok(registry), "{registry} as a folder is {segment}");
    assert_eq!(Registry::parse(&text.to_ascii_uppercase()).as_ref(), Ok(registry), "case counts in {text}");
    let port = registry.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = registry.host();
    assert!([format!("{host}{port}"), format!("[{host}]{port}")].contains(&registry.to_string()), "{registry}");
    assert_eq!(registry.ip().is_some_and(|ip| ip.is_ipv6()), registry.as_str().starts_with('['), "{registry}");
}

/// What `text` names, after it was printed and parsed again.
fn same_again<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let first: T = text.parse().ok()?;
    let printed = first.to_string();
    match printed.parse::<T>() {
        Ok(second) => assert_eq!(second, first, "printed as {printed}"),
        Err(error) => panic!("{first:?} is printed as {printed}, which is refused: {error:?}"),
    }
    Some(first)
}

/// As a part of a path it is one folder further down.
fn is_one_step(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

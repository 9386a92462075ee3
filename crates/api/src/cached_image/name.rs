//! The name of a CachedImage, from its image: readable, a label's value as well, and never that of another image.
//!
//! `docker.io/library/alpine:3` is `alpine-3-` and 16 characters of the SHA-256 of the whole reference, always: 80 bits, so that nobody finds an
//! image that has the name of somebody else's. What is read before it is the end of the reference, for that is what tells images apart.

use larder_oci::{Algorithm, Digest, ImageReference};

/// Characters of the hash.
const HASH: usize = 16;
/// Longest value of a label.
const LONGEST: usize = 63;
/// Characters of a digest that are shown.
const SHOWN_OF_DIGEST: usize = 12;

/// The name of an image's object.
pub fn of(image: &ImageReference) -> String {
    let image = normalised(image);
    let mut readable = String::new();
    if !image.registry.is_docker_hub() {
        readable.push_str(image.registry.as_str());
        readable.push('-');
    }
    let repository = image.repository.as_str();
    let repository = match repository.strip_prefix("library/") {
        Some(short) if image.registry.is_docker_hub() => short,
        _ => repository,
    };
    readable.push_str(repository);
    readable.push('-');
    readable.push_str(match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.hex().get(..SHOWN_OF_DIGEST).unwrap_or_default(),
        (None, Some(tag)) => tag.as_str(),
        (None, None) => "",
    });
    format!("{}-{}", end(&plain(&readable), LONGEST - HASH - 1), hash(&image.to_string()))
}

/// An image as objects name it: with a tag or a digest, never both. Where both are written the digest decides, and engines drop the tag.
pub(crate) fn normalised(image: &ImageReference) -> ImageReference {
    let mut image = image.clone();
    if image.digest.is_some() {
        image.tag = None;
    }
    image
}

/// The last characters of a name, as the beginning of one.
pub(crate) fn end(name: &str, longest: usize) -> &str {
    let end = name.get(name.len().saturating_sub(longest)..).unwrap_or(name);
    end.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// Letters, digits and dots between them; a run of anything else is one dash.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for part in text.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric() && c != '.') {
        let part = part.split('.').filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".");
        if !plain.is_empty() && !part.is_empty() {
            plain.push('-');
        }
        plain.push_str(&part);
    }
    plain
}

/// 80 bits of SHA-256, in letters and digits that names may have (RFC 4648's base32, in lower case).
pub(crate) fn hash(text: &str) -> String {
    const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz234567";
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    // Twenty hexadecimal digits are 80 bits.
    let bits = digest.hex().get(..20).and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default();
    let letter = |place: usize| {
        let index = usize::try_from((bits >> (5 * place)) & 31).unwrap_or_default();
        ALPHABET.get(index..=index).unwrap_or_default()
    };
    (0..HASH).rev().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> String {
        of(&ImageReference::parse(text).unwrap())
    }

    #[test]
    fn names_are_read_easily() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let names: Vec<_> = [
            "alpine:3",
            "nginx",
            "docker.io/team/app:1.2.3",
            "registry.k8s.io/pause:3.10.1",
            "reg.example.com:5000/team/app:1_2",
            "localhost:5000/a_b/c__d:X",
            "[::1]:5000/a:1",
            &format!("ghcr.io/owner/app@{digest}"),
            &format!("ghcr.io/owner/app:1.0@{digest}"),
            "registry.example.com/one/of/those/repositories/that/go/on/and/on/application:2026-01-01.build.17",
        ]
        .iter()
        .map(|text| format!("{text} -> {}", named(text)))
        .collect();
        insta::assert_snapshot!(names.join("\n"));
    }

    #[test]
    fn beside_a_digest_a_tag_says_nothing() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(named(&format!("a:1@{digest}")), named(&format!("a@{digest}")));
        assert_ne!(named("a:1"), named(&format!("a:1@{digest}")));
    }

    /// RFC 1123's subdomain, and a label's value.
    fn is_a_name(name: &str) -> bool {
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        name.len() <= LONGEST && name.split('.').all(label)
    }

    fn references() -> impl Strategy<Value = String> {
        (
            "(docker\\.io|localhost|[a-z]{1,3}([_.-][a-z]{1,3}){1,3}\\.io|10\\.0\\.0\\.[1-9])(:[1-9][0-9]{0,3})?",
            "[a-z0-9]{1,4}((\\.|_|__|-|---|/)[a-z0-9]{1,9}){0,12}",
            "(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,40})?",
            "(@sha256:[0-9a-f]{64})?",
        )
            .prop_map(|(registry, repository, tag, digest)| format!("{registry}/{repository}{tag}{digest}"))
    }

    proptest! {
        #[test]
        fn every_image_has_a_valid_name_of_its_own(texts in proptest::collection::vec(references(), 1..60)) {
            let mut known: HashMap<String, String> = HashMap::new();
            for image in texts.iter().filter_map(|text| ImageReference::parse(text).ok()) {
                let name = of(&image);
                prop_assert!(is_a_name(&name), "{} of {}", name, image);
                let image = normalised(&image).to_string();
                prop_assert_eq!(known.entry(name).or_insert_with(|| image.clone()), &image);
                // However it was written.
                prop_assert_eq!(named(&image), of(&ImageReference::parse(&image).unwrap()));
            }
        }

        /// What differs in nothing but what names cannot have.
        #[test]
        fn near_ones_are_told_apart(image in references()) {
            let near = [image.replace('_', "-"), image.replace("__", "_"), image.to_lowercase(), image.replace('/', "-"), image.replace(':', "-")];
            for near in near.iter().filter(|near| **near != image) {
                if let (Ok(one), Ok(other)) = (ImageReference::parse(&image), ImageReference::parse(near))
                    && normalised(&one) != normalised(&other)
                {
                    prop_assert_ne!(of(&one), of(&other));
                }
            }
        }
    }
}

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
    if let Some(tag) = &image.tag {
        readable.push('-');
        readable.push_str(tag.as_str());
    }
    if let Some(digest) = &image.digest {
        readable.push('-');
        readable.push_str(digest.hex().get(..SHOWN_OF_DIGEST).unwrap_or_default());
    }
    with_hash(&readable, &image.to_string(), LONGEST)
}

/// A text as a name, with a hash of what it stands for at its end.
pub(crate) fn with_hash(readable: &str, whole: &str, longest: usize) -> String {
    let plain = plain(readable);
    let room = longest - HASH - 1;
    let end = plain.get(plain.len().saturating_sub(room)..).unwrap_or(&plain);
    let end = end.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let hash = hash(whole);
    if end.is_empty() { hash } else { format!("{end}-{hash}") }
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
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
        'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
    ];
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    // Twenty hexadecimal digits are 80 bits.
    let bits = digest.hex().get(..20).and_then(|hex| u128::from_str_radix(hex, 16).ok()).unwrap_or_default();
    (0..HASH).rev().map(|place| ALPHABET[(bits >> (5 * place)) as usize & 31]).collect()
}

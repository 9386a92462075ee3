//! The name of an UpstreamRegistry, from its registry. The API server checks it, so there is one object of a registry at most.
//!
//! `docker.io` is `docker.io`, `reg.example.com:5000` is `reg.example.com.port-5000`. What cannot be written so (an underscore, an IPv6 address, a host
//! that itself ends in such a label) is what can be read of it and `.odd-` with a hash.

use larder_oci::Registry;

use crate::cached_image::name;

/// Longest name that the API server takes.
const LONGEST: usize = 253;

/// The name of a registry's object.
pub fn of(registry: &Registry) -> String {
    let host = registry.host();
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_ours = last.starts_with("port-") || last.starts_with("odd-");
    let can_be_a_name = host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    let name = match registry.port() {
        Some(port) => format!("{host}.port-{port}"),
        None => host.to_owned(),
    };
    if can_be_a_name && !is_ours && name.len() <= LONGEST { name } else { odd(registry) }
}

fn odd(registry: &Registry) -> String {
    let hash = format!("odd-{}", name::hash(registry.as_str()));
    let readable = name::plain(registry.as_str());
    let room = LONGEST - hash.len() - 1;
    let end = readable.get(readable.len().saturating_sub(room)..).unwrap_or(&readable);
    let end = end.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if end.is_empty() { hash } else { format!("{end}.{hash}") }
}

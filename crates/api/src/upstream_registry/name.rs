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
    match name::end(&readable, LONGEST - hash.len() - 1) {
        "" => hash,
        end => format!("{end}.{hash}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> String {
        of(&Registry::parse(text).unwrap())
    }

    #[test]
    fn names_are_those_of_hosts() {
        for (text, name) in [
            ("docker.io", "docker.io"),
            ("Registry-1.docker.io", "docker.io"),
            ("reg.example.com:5000", "reg.example.com.port-5000"),
            ("localhost:5000", "localhost.port-5000"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(named(text), name);
        }
        let long = ["a".repeat(46), "b".repeat(49), "c".repeat(49), "d".repeat(49), "e".repeat(49)].join(".");
        assert_eq!(named(&format!("{long}:1")), format!("{long}.port-1"), "all that there is room for");
        let odd =
            ["my_registry:5000", "[::1]:5000", "[::]", "a.port-5000", "a.odd-1", "port-1", &format!("{long}:5000")];
        let names: Vec<_> = odd.iter().map(|text| format!("{text} -> {}", named(text))).collect();
        insta::assert_snapshot!(names.join("\n"));
    }

    proptest! {
        #[test]
        fn every_registry_has_a_valid_name_of_its_own(
            one in "([a-z0-9]{1,3}(-[a-z]|_[a-z]|port-[0-9])?\\.){0,3}(io|port-[0-9]|odd-[a-z2-7]{16})(:[1-9])?",
            other in "([a-z0-9]{1,3}(-[a-z]|_[a-z]|port-[0-9])?\\.){0,3}(io|port-[0-9]|odd-[a-z2-7]{16})(:[1-9])?",
        ) {
            if let (Ok(one), Ok(other)) = (Registry::parse(&one), Registry::parse(&other)) {
                prop_assert_eq!(one == other, of(&one) == of(&other));
                let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
                let name = of(&one);
                let of_names = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
                prop_assert!(name.len() <= LONGEST && name.bytes().all(of_names) && name.split('.').all(label), "{}", name);
            }
        }
    }
}

//! A registry's name: the `host[:port]` part of an image reference.

use std::net::{IpAddr, Ipv6Addr};

/// A registry as image references name it: `host[:port]`, lower-case. The host is a DNS name, an IPv4 address or an
/// IPv6 address in brackets. Docker Hub's aliases are one registry here, `docker.io`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registry {
    text: String,
    host_end: usize,
    port: Option<u16>,
}

/// Why a text names no registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The host is empty.
    #[error("registry has no host")]
    Empty,
    /// Longer than any DNS name with a port can be.
    #[error("registry is longer than 261 characters")]
    TooLong,
    /// It begins with a scheme, as URLs do.
    #[error("a registry is named without {scheme}://: write {host:?}")]
    Scheme {
        /// `https`, mostly.
        scheme: String,
        /// What stands between the scheme and the next slash.
        host: String,
    },
    /// The host is neither a DNS name nor an address.
    #[error("registry host {0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// What follows the colon is not a port from 1 to 65535.
    #[error("registry port {0:?} is not a number from 1 to 65535")]
    Port(String),
}

/// 253 characters of a DNS name, two brackets, a colon and five digits.
const MAX_LENGTH: usize = 261;

const DOCKER_HUB: &str = "docker.io";

impl Registry {
    /// Parses `host[:port]`. Upper case becomes lower case, Docker Hub's aliases become `docker.io`.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        if text.len() > MAX_LENGTH {
            return Err(RegistryError::TooLong);
        }
        let text = text.to_ascii_lowercase();
        if let Some((scheme, rest)) = text.split_once("://") {
            // Without what stands before an @, which may be a password.
            let host = rest.split('/').next().and_then(|authority| authority.rsplit('@').next()).unwrap_or_default();
            return Err(RegistryError::Scheme { scheme: scheme.to_owned(), host: host.to_owned() });
        }
        let (host, port) = split_port(&text)?;
        check_host(host)?;
        let port = port.map(parse_port).transpose()?;
        if port.is_none() && matches!(host, "index.docker.io" | "registry-1.docker.io" | DOCKER_HUB) {
            return Ok(Self::docker_hub());
        }
        let host_end = host.len();
        // A port written with leading zeros is the same registry: write it one way.
        let text = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self { text, host_end, port })
    }

    /// Docker Hub, which references name `docker.io` though it answers at another host.
    pub fn docker_hub() -> Self {
        Self { text: DOCKER_HUB.to_owned(), host_end: DOCKER_HUB.len(), port: None }
    }

    /// `host[:port]`, an IPv6 host in brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        let host = self.text.get(..self.host_end).unwrap_or(&self.text);
        host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, when the reference names one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host as an address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// Whether this is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.text == DOCKER_HUB
    }

    /// Whether the name means another machine on each machine: loopback addresses, `localhost`, and names of a single label.
    pub fn is_loopback_or_single_label(&self) -> bool {
        match self.ip() {
            Some(IpAddr::V4(v4)) => v4.is_loopback(),
            Some(IpAddr::V6(v6)) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
            None => {
                let host = self.host().trim_end_matches('.');
                !host.contains('.') || host.ends_with(".localhost")
            }
        }
    }

    /// The registry as one segment of a path: the colon of a port becomes `__`, because c/image rewrites a colon
    /// there into an invalid reference. `[`, `]` and `:` of an IPv6 address are kept: nothing but us reads those.
    pub fn path_segment(&self) -> String {
        match self.port {
            Some(port) => format!("{}__{port}", self.text.get(..self.host_end).unwrap_or_default()),
            None => self.text.clone(),
        }
    }

    /// The reverse of [`Self::path_segment`]; a plain `host:port` is understood too.
    pub fn from_path_segment(segment: &str) -> Result<Self, RegistryError> {
        match segment.rsplit_once("__") {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                Self::parse(&format!("{host}:{port}"))
            }
            _ => Self::parse(segment),
        }
    }
}

crate::string_type!(Registry, RegistryError);

fn split_port(text: &str) -> Result<(&str, Option<&str>), RegistryError> {
    if text.is_empty() {
        return Err(RegistryError::Empty);
    }
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| RegistryError::Host(text.to_owned()))?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(RegistryError::Host(text.to_owned())),
        };
    }
    match text.split_once(':') {
        Some(("", _)) => Err(RegistryError::Empty),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, RegistryError> {
    let bad = || RegistryError::Port(text.to_owned());
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().ok().filter(|port| *port != 0).ok_or_else(bad)
}

fn check_host(host: &str) -> Result<(), RegistryError> {
    let bad = || RegistryError::Host(host.to_owned());
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        return inner.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| bad());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
            // `__` is how a port is written in a path (see `path_segment`).
            && !label.contains("__")
    };
    if host.len() <= 253 && host.split('.').all(label) { Ok(()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_in_use_are_parsed() {
        for (text, host, port) in [
            ("docker.io", "docker.io", None),
            ("Reg.Example.com:5000", "reg.example.com", Some(5000)),
            ("127.0.0.1:05000", "127.0.0.1", Some(5000)),
            ("[::1]:80", "::1", Some(80)),
            ("localhost", "localhost", None),
        ] {
            let registry = Registry::parse(text).unwrap();
            assert_eq!((registry.host(), registry.port()), (host, port), "{text}");
        }
        assert!(Registry::parse("registry-1.docker.io").unwrap().is_docker_hub());
        assert_eq!(Registry::parse("127.0.0.1:05000").unwrap().as_str(), "127.0.0.1:5000");
    }

    #[test]
    fn what_names_no_registry_is_refused() {
        for text in [
            "", ":5000", "a..b", "a/b", "-a.b", "a:0", "a:65536", "a:", "a:5x", "[::1", "[::1]x", "a b", "..",
            "a__5000", "[]", "é.com", "a@b", "a:1:2",
        ] {
            assert!(Registry::parse(text).is_err(), "{text:?}");
        }
        assert!(Registry::parse(&"a".repeat(300)).is_err());
    }

    #[test]
    fn a_url_is_told_apart_from_a_name() {
        for (text, expected) in [
            ("https://quay.io", "a registry is named without https://: write \"quay.io\""),
            ("http://Reg:5000/v2/", "a registry is named without http://: write \"reg:5000\""),
            ("https://user:secret@quay.io/x", "a registry is named without https://: write \"quay.io\""),
        ] {
            assert_eq!(Registry::parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn names_that_mean_another_machine_on_each_machine() {
        for text in ["localhost:5000", "127.0.0.2", "[::1]", "registry", "a.localhost", "[::ffff:127.0.0.1]"] {
            assert!(Registry::parse(text).unwrap().is_loopback_or_single_label(), "{text}");
        }
        for text in ["docker.io", "10.0.0.1:5000", "[2001:db8::1]"] {
            assert!(!Registry::parse(text).unwrap().is_loopback_or_single_label(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_path_segment_leads_back(host in "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,3})?(\\.[a-z0-9]{1,5}){0,3}", port in proptest::option::of(1u16..)) {
            let text = match port { Some(port) => format!("{host}:{port}"), None => host };
            let registry = Registry::parse(&text).unwrap();
            prop_assert_eq!(Registry::from_path_segment(&registry.path_segment()).unwrap(), registry.clone());
            prop_assert!(!registry.path_segment().contains('/'));
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            if let Ok(registry) = Registry::parse(&text) {
                prop_assert_eq!(Registry::parse(registry.as_str()).unwrap(), registry);
            }
        }
    }
}

//! What an administrator's chain means for one registry: nothing, other certificates, the same place, elsewhere, or nowhere.
//!
//! When in doubt it is elsewhere: then we stay out of it.

use larder_oci::Registry;

use super::hosts::{AdminChain, Endpoint};

/// The name under which containerd asks for Docker Hub, and those by which people name the same place.
const DOCKER_HUB: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// What is meant for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// The registry as it is.
    Nothing,
    /// The registry itself, with a CA, headers, client certificates or without checks.
    SameOrigin,
    /// Somewhere else comes first or last: that place.
    Redirected(String),
    /// Nothing may be pulled.
    Blocked,
    /// Our mirror is in it already, by somebody else's hand.
    NamesUs,
}

/// Scheme, host and path of a URL in `hosts.toml`, with what containerd adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `https` also when none was written.
    pub scheme: String,
    /// With its port, if one was written; lower case.
    pub authority: String,
    /// Without a trailing slash; empty for the root.
    pub path: String,
}

impl Address {
    /// Reads `server` or the name of a `[host]` table (containerd `parseHostConfig`); `None` when containerd would refuse it.
    pub fn parse(text: &str) -> Option<Self> {
        let with_scheme = if text.starts_with("http") { text.to_owned() } else { format!("https://{text}") };
        let (scheme, rest) = with_scheme.split_once("://")?;
        if rest.chars().any(|character| character.is_control() || character == ' ') {
            return None;
        }
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // Go takes nothing but digits for a port; brackets hold an IPv6 address.
        let host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
        if host.rsplit_once(':').is_some_and(|(_, port)| !port.bytes().all(|byte| byte.is_ascii_digit())) {
            return None;
        }
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.to_ascii_lowercase(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The registry `host` (as references write it) at its own place. Plain http of the same host is the same place.
    pub fn is_origin_of(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let same_host = if host == "docker.io" {
            DOCKER_HUB.contains(&self.authority.trim_end_matches(":443"))
        } else {
            let default_port = if self.scheme == "http" { ":80" } else { ":443" };
            self.authority == host
                || self.authority.strip_suffix(default_port) == Some(host.as_str())
                || host.strip_suffix(default_port) == Some(self.authority.as_str())
        };
        same_host && matches!(self.path.as_str(), "" | "/v2") && matches!(self.scheme.as_str(), "http" | "https")
    }

    /// The same place as `other`, as far as the text tells.
    pub fn is_same(&self, other: &Self) -> bool {
        self.authority == other.authority && self.scheme == other.scheme
    }
}

/// What `chain` means for the registry `host`; `None` for the directory that stands for all registries.
pub fn of(chain: &AdminChain, host: Option<&str>, mirror: &Address) -> Intent {
    let address = |endpoint: &Endpoint| endpoint.url.as_deref().map(Address::parse);
    if chain.endpoints().filter_map(address).flatten().any(|known| known.is_same(mirror)) {
        return Intent::NamesUs;
    }
    if !chain.endpoints().any(|endpoint| endpoint.can("pull")) {
        return Intent::Blocked;
    }
    for endpoint in chain.endpoints() {
        let Some(url) = &endpoint.url else { continue };
        let at_home = match (Address::parse(url), host) {
            (Some(address), Some(host)) => address.is_origin_of(host),
            _ => false,
        };
        if !at_home {
            return Intent::Redirected(url.clone());
        }
    }
    if *chain == AdminChain::default() { Intent::Nothing } else { Intent::SameOrigin }
}

/// What our mirror may be asked for: nothing that nobody in the chain could be asked for.
pub fn capabilities(chain: &AdminChain) -> &'static [&'static str] {
    if chain.endpoints().any(|endpoint| endpoint.can("resolve")) { &["pull", "resolve"] } else { &["pull"] }
}

/// The chain reaches the registry without checking who answers.
pub fn is_insecure(chain: &AdminChain) -> bool {
    chain.endpoints().any(|endpoint| {
        endpoint.skip_verify == Some(true)
            || endpoint.url.as_deref().and_then(Address::parse).is_some_and(|address| address.scheme == "http")
    })
}

/// The registry that a directory is for: `host_port_`, `host:port` or `host`; `None` for `_default`.
pub fn host_of_directory(name: &str) -> Option<String> {
    if name == "_default" {
        return None;
    }
    let with_port = name
        .strip_suffix('_')
        .and_then(|name| name.rsplit_once('_'))
        .filter(|(host, port)| !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    Some(match with_port {
        Some((host, port)) => format!("{host}:{port}"),
        None => name.to_owned(),
    })
}

/// The name that containerd looks for first (containerd `hostDirectory`).
pub fn directory_of_host(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() => format!("{name}_{port}_"),
        _ => host.to_owned(),
    }
}

/// The registry of a directory, if its name is one.
pub fn registry(host: &str) -> Option<Registry> {
    Registry::parse(host).ok()
}

#[cfg(test)]
mod tests {
    use super::super::hosts::{AdminChain, Endpoint};
    use super::*;

    fn chain(hosts: &[&str], server: Option<&str>) -> AdminChain {
        let endpoint = |url: &str| Endpoint { url: Some(url.to_owned()), ..Endpoint::default() };
        AdminChain {
            hosts: hosts.iter().map(|url| endpoint(url)).collect(),
            server: server.map(endpoint).unwrap_or_default(),
        }
    }

    fn intent(hosts: &[&str], server: Option<&str>, host: Option<&str>) -> Intent {
        of(&chain(hosts, server), host, &Address::parse("http://127.0.0.1:7439").unwrap())
    }

    #[test]
    fn the_same_place_has_many_spellings() {
        for (url, host) in [
            ("https://docker.io", "docker.io"),
            ("https://registry-1.docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("https://reg.example.com/", "reg.example.com"),
            ("https://reg.example.com:443/v2", "reg.example.com"),
            ("http://reg.example.com:5000", "reg.example.com:5000"),
            ("https://REG.example.com:5000", "reg.example.com:5000"),
        ] {
            assert_eq!(intent(&[url], None, Some(host)), Intent::SameOrigin, "{url}");
            assert_eq!(intent(&[], Some(url), Some(host)), Intent::SameOrigin, "{url}");
        }
    }

    #[test]
    fn anything_else_is_elsewhere() {
        for (url, host) in [
            ("https://harbor.example.com/v2/hub", "docker.io"),
            ("https://reg.example.com/v2/proxy", "reg.example.com"),
            ("https://reg.example.com:8443", "reg.example.com"),
            ("https://mirror.gcr.io", "docker.io"),
            ("https://user@reg.example.com", "reg.example.com"),
        ] {
            assert_eq!(intent(&[url], None, Some(host)), Intent::Redirected(url.to_owned()), "{url}");
        }
        assert!(matches!(intent(&[], Some("https://docker.io"), None), Intent::Redirected(_)));
        assert_eq!(intent(&["http://127.0.0.1:7439"], None, Some("docker.io")), Intent::NamesUs);
        assert_eq!(intent(&[], None, None), Intent::Nothing);
    }

    #[test]
    fn push_only_is_blocked_and_stays_so() {
        let mut chain = AdminChain::default();
        chain.server.capabilities = vec!["push".to_owned()];
        assert_eq!(of(&chain, Some("a.example"), &Address::parse("http://127.0.0.1:7439").unwrap()), Intent::Blocked);
        chain.server.capabilities = vec!["pull".to_owned()];
        assert_eq!(capabilities(&chain), &["pull"]);
    }

    #[test]
    fn directories_name_hosts() {
        assert_eq!(host_of_directory("reg.example.com_5000_").as_deref(), Some("reg.example.com:5000"));
        assert_eq!(host_of_directory("reg.example.com:5000").as_deref(), Some("reg.example.com:5000"));
        assert_eq!(host_of_directory("docker.io").as_deref(), Some("docker.io"));
        assert_eq!(host_of_directory("_default"), None);
        assert_eq!(directory_of_host("reg.example.com:5000"), "reg.example.com_5000_");
        assert_eq!(directory_of_host("[::1]:5000"), "[::1]_5000_");
        assert_eq!(directory_of_host("docker.io"), "docker.io");
    }
}

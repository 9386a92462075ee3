//! Which addresses a registry may lead us to. Pure.
//!
//! Names come from Pods' authors, redirects and token realms from registries: without these rules the proxy could be made
//! to ask the node's own services, its neighbours, or the cloud's metadata. The invariant: on every hop the address that
//! is connected to was checked here after resolving (`connect`); behind a corporate proxy, which resolves by itself, the
//! name was (`client`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use larder_oci::Registry;
use thiserror::Error;
use url::{Host, Url};

/// What an address is, seen from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    Private,
    Loopback,
    /// Never: with what it is.
    Never(&'static str),
}

/// How far a hop may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Public addresses only.
    Public,
    /// Private networks as well.
    Private,
    /// This machine as well.
    Loopback,
}

/// An address or a name that our rules do not let us connect to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{target} is {what}")]
pub(crate) struct Forbidden {
    target: String,
    what: &'static str,
}

impl Reach {
    /// Whether an address may be connected to.
    pub(super) fn permits(self, address: IpAddr) -> Result<(), Forbidden> {
        self.check(classify(address), || address.to_string())
    }

    /// The same for a host that somebody else will resolve.
    pub(super) fn permits_name(self, host: &Host<&str>) -> Result<(), Forbidden> {
        let class = match host {
            Host::Ipv4(address) => classify((*address).into()),
            Host::Ipv6(address) => classify((*address).into()),
            Host::Domain(name) => classify_name(name),
        };
        self.check(class, || host.to_string())
    }

    fn check(self, class: Class, target: impl FnOnce() -> String) -> Result<(), Forbidden> {
        let what = match class {
            Class::Public => return Ok(()),
            Class::Private if self >= Self::Private => return Ok(()),
            Class::Loopback if self >= Self::Loopback => return Ok(()),
            Class::Private => "a private address, and the registry is not listed",
            Class::Loopback => "this machine, and not a listed endpoint",
            Class::Never(what) => what,
        };
        Err(Forbidden { target: target(), what })
    }
}

/// How far the hops of one registry may reach: registry, token realm, storage.
#[derive(Debug, Clone)]
pub(crate) struct Boundary {
    listed: bool,
    endpoints: Vec<Host<String>>,
}

impl Boundary {
    /// `listed`: the registries file names the registry; what an administrator wrote down is meant.
    pub(crate) fn new(listed: bool, endpoints: &[Url]) -> Self {
        let endpoints = endpoints.iter().filter_map(|url| url.host().map(|host| host.to_owned())).collect();
        Self { listed, endpoints }
    }

    /// How far a hop to this host may reach.
    ///
    /// A listed registry's own hosts may be anything that is not forbidden for all, this machine included; what it leads
    /// to may be private. One that is not listed may be private only where its reference is that very address: a name
    /// that leads into the private network may have been made up to do so.
    pub(crate) fn reach(&self, host: &Host<&str>) -> Reach {
        let own = self.endpoints.iter().any(|endpoint| same_host(endpoint, host));
        let literal = !matches!(host, Host::Domain(_));
        match (self.listed, own) {
            (true, true) => Reach::Loopback,
            (true, false) => Reach::Private,
            (false, true) if literal => Reach::Private,
            (false, _) => Reach::Public,
        }
    }
}

fn same_host(own: &Host<String>, other: &Host<&str>) -> bool {
    match (own, other) {
        (Host::Domain(own), Host::Domain(other)) => own.eq_ignore_ascii_case(other),
        (Host::Ipv4(own), Host::Ipv4(other)) => own == other,
        (Host::Ipv6(own), Host::Ipv6(other)) => own == other,
        _ => false,
    }
}

/// The registry's own address when nothing else is configured.
pub(super) fn default_endpoint(registry: &Registry, scheme: &str) -> Result<Url, url::ParseError> {
    if registry.is_docker_hub() {
        Url::parse("https://registry-1.docker.io")
    } else {
        Url::parse(&format!("{scheme}://{registry}"))
    }
}

fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    const METADATA: [[u8; 4]; 3] = [[169, 254, 169, 254], [168, 63, 129, 16], [100, 100, 100, 200]];
    let octets = address.octets();
    if METADATA.contains(&octets) {
        return Class::Never("a cloud's metadata service");
    }
    match octets {
        [0, ..] => Class::Never("unspecified"),
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::Never("link-local"),
        [224..=239, ..] => Class::Never("multicast"),
        // RFC 6890: protocol assignments, among them another metadata service; the future and broadcast.
        [192, 0, 0, _] | [240..=255, ..] => Class::Never("reserved"),
        // RFC 1918, shared address space (RFC 6598), benchmarks (RFC 2544).
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => Class::Private,
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        classify_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Class::Never("a cloud's metadata service"),
        // IPv4-mapped, the older IPv4-compatible, NAT64 (RFC 6052) and 6to4: what counts is where they lead to.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => match embedded(high, low) {
            Class::Public => Class::Public,
            _ => Class::Never("6to4 of an address that is not public"),
        },
        // RFC 8215: a NAT64 of the local network, whose layout only that network knows.
        [0x64, 0xff9b, 1, ..] => Class::Never("a local NAT64 address"),
        [0x2001, 0, ..] => Class::Never("Teredo"),
        [0x0100, 0, 0, 0, ..] => Class::Never("the discard prefix"),
        [0xfe80..=0xfebf, ..] => Class::Never("link-local"),
        [0xff00..=0xffff, ..] => Class::Never("multicast"),
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Class::Private,
        _ => Class::Public,
    }
}

/// Names that mean what their addresses would be refused for. A private name cannot be told from a public one.
fn classify_name(name: &str) -> Class {
    const METADATA: [&str; 5] =
        ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if is_localhost(&name) {
        Class::Loopback
    } else if METADATA.contains(&name.as_str()) {
        Class::Never("a cloud's metadata service")
    } else {
        Class::Public
    }
}

/// `localhost` and everything below it (RFC 6761 §6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(target: &str) -> Option<Reach> {
        let address: IpAddr = target.parse().expect(target);
        [Reach::Public, Reach::Private, Reach::Loopback].into_iter().find(|reach| reach.permits(address).is_ok())
    }

    #[test]
    fn every_range_and_its_neighbours() {
        let table = [
            (Some(Reach::Public), "1.1.1.1 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255"),
            (Some(Reach::Public), "100.63.255.255 100.128.0.0 169.253.255.255 169.255.0.0 168.63.129.15 192.0.1.1"),
            (Some(Reach::Public), "198.17.255.255 198.20.0.0 223.255.255.255 126.255.255.255 128.0.0.0 1.0.0.0"),
            (Some(Reach::Private), "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1"),
            (Some(Reach::Private), "100.127.255.255 198.18.0.1 198.19.255.255"),
            (Some(Reach::Loopback), "127.0.0.1 127.255.255.255"),
            (None, "0.0.0.0 0.1.2.3 169.254.0.1 169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192"),
            (None, "224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255"),
            (Some(Reach::Public), "2606:4700::1111 2001:4860:4860::8888 fbff::1"),
            (Some(Reach::Private), "fc00::1 fdff::1 fec0::1 fd00:ec2::253"),
            (Some(Reach::Loopback), "::1"),
            (None, ":: fe80::1 febf::1 ff02::1 fd00:ec2::254 2001:0:1::1 100::1 64:ff9b:1::a00:1"),
            // Wrapped IPv4: mapped, compatible, NAT64, 6to4.
            (Some(Reach::Public), "::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:101:101::1"),
            (Some(Reach::Private), "::ffff:10.0.0.1 64:ff9b::10.0.0.1 ::10.0.0.1"),
            (Some(Reach::Loopback), "::ffff:127.0.0.1 64:ff9b::127.0.0.1"),
            (None, "::ffff:169.254.169.254 64:ff9b::169.254.169.254 64:ff9b::a83f:8110 2002:a00:1::1 2002:7f00:1::1"),
        ];
        for (expected, targets) in table {
            for target in targets.split(' ') {
                assert_eq!(reaches(target), expected, "{target}");
            }
        }
    }

    #[test]
    fn names_that_somebody_else_resolves() {
        let reach = |name: &str| {
            let url = Url::parse(&format!("https://{name}/")).expect(name);
            let host = url.host().expect(name);
            [Reach::Public, Reach::Private, Reach::Loopback].into_iter().find(|reach| reach.permits_name(&host).is_ok())
        };
        for name in ["registry.example.com", "localhost.example.com", "8.8.8.8"] {
            assert_eq!(reach(name), Some(Reach::Public), "{name}");
        }
        // Every spelling of 127.0.0.1 that a resolver would understand.
        for name in ["localhost", "LOCALHOST.", "a.localhost", "127.1", "0x7f.1", "2130706433", "017700000001", "[::1]"]
        {
            assert_eq!(reach(name), Some(Reach::Loopback), "{name}");
        }
        for name in ["169.254.169.254", "0xa9fea9fe", "metadata.google.internal", "[::ffff:a9fe:a9fe]"] {
            assert_eq!(reach(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_listed_reaches_further() {
        let boundary = |listed, endpoint: &str| Boundary::new(listed, &[Url::parse(endpoint).unwrap()]);
        let reach = |boundary: &Boundary, host| boundary.reach(&Url::parse(host).unwrap().host().unwrap());

        let listed = boundary(true, "http://127.0.0.1:5000");
        assert_eq!(reach(&listed, "http://127.0.0.1:5001/token"), Reach::Loopback);
        assert_eq!(reach(&listed, "http://127.0.0.2:5000/"), Reach::Private);
        assert_eq!(reach(&listed, "http://localhost:5000/"), Reach::Private);

        let private = boundary(false, "https://10.1.2.3");
        assert_eq!(reach(&private, "https://10.1.2.3/"), Reach::Private);
        assert_eq!(reach(&private, "https://10.1.2.4/"), Reach::Public);

        let named = boundary(false, "https://registry.corp.example");
        assert_eq!(reach(&named, "https://registry.corp.example/"), Reach::Public);
    }

    #[test]
    fn docker_hub_lives_elsewhere() {
        let endpoint = |text: &str| default_endpoint(&Registry::parse(text).unwrap(), "https").unwrap().to_string();
        assert_eq!(endpoint("docker.io"), "https://registry-1.docker.io/");
        assert_eq!(endpoint("reg.example.com:5000"), "https://reg.example.com:5000/");
        assert_eq!(endpoint("[2001:db8::1]:5000"), "https://[2001:db8::1]:5000/");
    }
}

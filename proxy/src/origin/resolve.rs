//! From a host's name to its addresses.
//!
//! Names are absolute: no search domain may turn `registry` into somebody's `registry.example.com`, nor a typing error
//! into a query that a cluster's DNS answers. A name in the node's hosts file counts as it would for the engine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::address::is_localhost;

/// Looked up at the same time; a resolver that hangs must not fill the process with threads.
const SIMULTANEOUS: usize = 64;

/// The most of a hosts file that is read.
const LARGEST_HOSTS_FILE: u64 = 1024 * 1024;

/// Turns names into addresses. What it returns is checked before anyone connects.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a host, best first; not literal addresses, those need no resolver. Whoever asks sets the limit
    /// in time.
    fn resolve(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver, without search domains.
#[derive(Debug)]
pub struct SystemResolver {
    hosts_file: PathBuf,
    lookups: Arc<Semaphore>,
}

impl SystemResolver {
    /// `hosts_file`: usually `/etc/hosts`.
    pub fn new(hosts_file: impl Into<PathBuf>) -> Self {
        Self { hosts_file: hosts_file.into(), lookups: Arc::new(Semaphore::new(SIMULTANEOUS)) }
    }

    async fn look_up(&self, host: String) -> io::Result<Vec<IpAddr>> {
        let listed = in_hosts_file(&self.read_hosts_file().await, &host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        // RFC 6761 §6.3: never a question for DNS.
        if is_localhost(&host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let absolute = format!("{}.", host.trim_end_matches('.'));
        // The system's call cannot be given up: the permit stays with it when the one who asked has left.
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host((absolute, 0)).await.map(|found| found.map(|it| it.ip()).collect());
            drop(permit);
            found
        });
        lookup.await.map_err(io::Error::other)?
    }

    /// Without one there is nothing in it.
    async fn read_hosts_file(&self) -> String {
        use tokio::io::AsyncReadExt as _;
        let mut text = Vec::new();
        if let Ok(file) = tokio::fs::File::open(&self.hosts_file).await {
            // What was read until an error is as good as the rest.
            let _ = file.take(LARGEST_HOSTS_FILE).read_to_end(&mut text).await;
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(self.look_up(host.to_owned()))
    }
}

/// hosts(5): address, names, comments after `#`.
fn in_hosts_file(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let addresses = text.lines().filter_map(|line| {
        let mut fields = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address: IpAddr = fields.next()?.parse().ok()?;
        fields.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)).then_some(address)
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n# 9.9.9.9 commented\n10.0.0.7\tRegistry.example.com registry # the registry\n\
                         ::1 localhost\nfe80::1%lo0 zoned\nnonsense here\n10.0.0.8 registry\n";

    #[test]
    fn hosts_files() {
        let found = |host| in_hosts_file(HOSTS, host).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(found("localhost"), "127.0.0.1 ::1");
        assert_eq!(found("registry.example.com."), "10.0.0.7");
        assert_eq!(found("registry"), "10.0.0.7 10.0.0.8");
        assert_eq!(found("commented"), "");
        assert_eq!(found("here"), "");
    }

    #[tokio::test]
    async fn the_hosts_file_counts_and_localhost_is_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let hosts_file = folder.path().join("hosts");
        std::fs::write(&hosts_file, HOSTS).unwrap();
        let resolver = SystemResolver::new(&hosts_file);
        assert_eq!(resolver.resolve("registry.example.com").await.unwrap(), ["10.0.0.7".parse::<IpAddr>().unwrap()]);

        let without = SystemResolver::new(folder.path().join("missing"));
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(without.resolve("a.localhost").await.unwrap(), loopback);
    }
}

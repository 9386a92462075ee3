//! The metrics once more, on an address that a scraper reaches which is not on this node.
//!
//! Invariant: metrics are no reason for a process not to do its work. An address that cannot be had is a condition, and is tried
//! again until it can.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin::{AdminError, AdminServer, MetricsText, Scope};
use crate::readiness::Readiness;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);

/// A server of `/metrics` alone, that has its address or does not have it yet.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    bound: Result<AdminServer, AdminError>,
    again: Duration,
}

impl MetricsServer {
    /// Tries to take the address, while the process still has its privileges. No runtime is needed yet.
    pub fn bind(address: SocketAddr) -> Self {
        Self { address, bound: AdminServer::bind(address, Scope::MetricsOnly), again: AGAIN }
    }

    /// The real address, once it is taken.
    pub fn address(&self) -> Option<SocketAddr> {
        self.bound.as_ref().ok().map(AdminServer::address)
    }

    /// Serves until `shutdown`. Why it cannot is a condition of `readiness`, which stays as ready as it is.
    pub async fn serve(self, readiness: Readiness, metrics: MetricsText, shutdown: CancellationToken) {
        let Self { address, mut bound, again } = self;
        let condition = readiness.condition("metrics");
        loop {
            let serving = match bound {
                Ok(server) => {
                    condition.clear();
                    server.serve(readiness.clone(), MetricsText::clone(&metrics), shutdown.clone()).await
                }
                Err(error) => Err(error),
            };
            let Err(AdminError { error, .. }) = serving else { return };
            let words = format!(
                "nobody can scrape them at {address}: {error}; tried again every {again:?}, and all else goes on"
            );
            if condition.set(words.clone()) {
                tracing::warn!("metrics: {words}");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(again) => {}
            }
            bound = AdminServer::bind(address, Scope::MetricsOnly);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener};
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn scrape(address: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    fn text() -> MetricsText {
        Arc::new(|| "larder_up 1\n# EOF\n".to_owned())
    }

    async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_and_had_once_it_is_free() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let server = MetricsServer { again: Duration::from_millis(20), ..MetricsServer::bind(address) };
        assert_eq!(server.address(), None);
        let serving = tokio::spawn(server.serve(readiness.clone(), text(), shutdown.clone()));
        until("it is told", async || readiness.report().to_string().contains("in use")).await;
        let report = readiness.report();
        assert!(report.ready, "{report}");
        assert!(
            report.to_string().contains(&format!("degraded: metrics: nobody can scrape them at {address}")),
            "{report}"
        );
        drop(other);
        until("it is scraped", async || scrape(address).await.is_ok_and(|answer| answer.contains("larder_up 1"))).await;
        until("nothing is told", async || readiness.report().lines.is_empty()).await;
        shutdown.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_address() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let shutdown = CancellationToken::new();
        let server = MetricsServer::bind(other.local_addr().unwrap());
        let serving = tokio::spawn(server.serve(Readiness::new(), text(), shutdown.clone()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(4), serving).await.unwrap().unwrap();
    }

    /// What a cluster of IPv6 alone says: every address of the node, of either family.
    #[tokio::test]
    async fn the_unspecified_address_of_ipv6_is_scraped_by_either_family() {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            eprintln!("SKIPPED: metrics on [::], because this machine has no IPv6");
            return;
        }
        let server = MetricsServer::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let port = server.address().unwrap().port();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Readiness::new(), text(), shutdown.clone()));
        for address in [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from(([127, 0, 0, 1], port))] {
            assert!(scrape(address).await.unwrap().contains("larder_up 1"), "{address}");
        }
        shutdown.cancel();
        serving.await.unwrap();
    }
}

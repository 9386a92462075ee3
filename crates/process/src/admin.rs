//! The admin server: `/livez`, `/readyz`, `/metrics`, and what pages a process adds, over plain http.
//!
//! Bound before the process drops its privileges ([`AdminServer::bind`]) and served later, on the runtime. It tells nothing
//! but numbers and conditions, takes no input but a path, and holds few connections, each for a short time.
//!
//! Invariant: pages beside these three are for whoever is on this machine, or in this Pod, whatever address the server has. Nobody shows a token here, and pages name
//! what Kubernetes gives to whoever has the right alone: of images, of namespaces, of a node's files. `kubectl port-forward` arrives from loopback.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

/// Connections served at once.
const CONNECTIONS: usize = 64;

/// From a connection's begin to its end, a scrape included.
const LONGEST: Duration = Duration::from_secs(30);

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";

/// Makes the text of `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Why the admin server does not listen.
#[derive(Debug, Error)]
#[error("listen for admin requests on {address}: {error}")]
pub struct AdminError {
    address: SocketAddr,
    pub(crate) error: io::Error,
}

/// Makes the text of a page of its own.
pub type PageText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the text of a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A page that one process has and others do not.
#[derive(Clone)]
struct Page {
    path: &'static str,
    kind: PageKind,
    text: PageText,
}

impl fmt::Debug for Page {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Page").field("path", &self.path).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// `/metrics` only: for an address that others than the node reach.
    MetricsOnly,
}

/// A bound admin server.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    scope: Scope,
    lines_are_here: bool,
    pages: Vec<Page>,
}

impl AdminServer {
    /// Takes the address. No runtime is needed yet.
    pub fn bind(address: SocketAddr, scope: Scope) -> Result<Self, AdminError> {
        let bind = || -> io::Result<(TcpListener, SocketAddr)> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind().map_err(|error| AdminError { address, error })?;
        Ok(Self { listener, address, scope, lines_are_here: false, pages: Vec::new() })
    }

    /// Adds a page, made anew for each request, quickly. Only loopback is answered; where only metrics are told, it is not there.
    #[must_use]
    pub fn with_page(mut self, path: &'static str, kind: PageKind, text: PageText) -> Self {
        self.pages.push(Page { path, kind, text });
        self
    }

    /// What is wrong is told to loopback alone, like pages; others hear whether it is ready. For a process whose conditions name what others have.
    #[must_use]
    pub fn with_lines_here(mut self) -> Self {
        self.lines_are_here = true;
        self
    }

    /// The real address, when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`.
    pub async fn serve(
        self,
        readiness: Readiness,
        metrics: MetricsText,
        shutdown: CancellationToken,
    ) -> Result<(), AdminError> {
        let Self { listener, address, scope, lines_are_here, pages } = self;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| AdminError { address, error })?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let desk = Arc::new(Desk { scope, port: address.port(), lines_are_here, readiness, metrics, pages });
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: accepting again at once would only burn the processor.
                    tracing::warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let reply = desk.reply(request.method(), request.uri().path(), peer);
                    async move { Ok::<_, Infallible>(reply) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // Whoever leaves early or writes nonsense has only lost its own answer.
                let _ = tokio::time::timeout(LONGEST, connection).await;
                drop(place);
            });
        }
    }
}

/// What all connections of a listener answer from.
struct Desk {
    scope: Scope,
    port: u16,
    lines_are_here: bool,
    readiness: Readiness,
    metrics: MetricsText,
    pages: Vec<Page>,
}

impl Desk {
    fn reply(&self, method: &Method, path: &str, peer: SocketAddr) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        // An IPv4 client of a server on [::] has an address of IPv6. Other addresses of loopback are those by which sidecars hand on what comes from elsewhere.
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_here = here.contains(&peer.ip().to_canonical());
        match (path, self.scope) {
            ("/metrics", _) => typed(METRICS, (self.metrics)()),
            (_, Scope::MetricsOnly) => text(StatusCode::NOT_FOUND, "there is /metrics\n".to_owned()),
            ("/livez", Scope::All) => text(StatusCode::OK, "alive\n".to_owned()),
            ("/readyz", Scope::All) => {
                let mut report = self.readiness.report();
                if self.lines_are_here && !is_here && !report.lines.is_empty() {
                    report.lines = vec![self.how_to_ask(path)];
                }
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, report.to_string())
            }
            (_, Scope::All) => self.page(path, is_here),
        }
    }

    fn how_to_ask(&self, path: &str) -> String {
        let port = self.port;
        format!(
            "all of {path} is told to this machine or Pod alone: kubectl -n NAMESPACE port-forward POD {port} & curl http://127.0.0.1:{port}{path}"
        )
    }

    fn page(&self, path: &str, is_here: bool) -> Response<Full<Bytes>> {
        match self.pages.iter().find(|page| page.path == path) {
            Some(_) if !is_here => text(StatusCode::FORBIDDEN, self.how_to_ask(path) + "\n"),
            Some(Page { kind: PageKind::Text, text: make, .. }) => text(StatusCode::OK, make()),
            Some(Page { kind: PageKind::Json, text: make, .. }) => typed(JSON, make()),
            None => {
                let own = self.pages.iter().map(|page| page.path);
                let all: Vec<&str> = ["/livez", "/readyz", "/metrics"].into_iter().chain(own).collect();
                text(StatusCode::NOT_FOUND, format!("there is {}\n", all.join(", ")))
            }
        }
    }
}

fn typed(content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{} | {body}", head.lines().next().unwrap())
    }

    #[tokio::test]
    async fn it_tells_life_readiness_and_metrics() {
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics: MetricsText = Arc::new(|| "larder_up 1\n# EOF\n".to_owned());
        let status: PageText = Arc::new(|| "{\"engine\":1}".to_owned());
        let bind = |scope| {
            AdminServer::bind(loopback, scope).unwrap().with_page("/status", PageKind::Json, Arc::clone(&status))
        };
        let (server, public) = (bind(Scope::All), bind(Scope::MetricsOnly));
        let (address, public_address) = (server.address(), public.address());
        let serving = tokio::spawn(server.serve(readiness.clone(), Arc::clone(&metrics), shutdown.clone()));
        let serving_public = tokio::spawn(public.serve(readiness.clone(), metrics, shutdown.clone()));

        let latch = readiness.latch("store");
        assert_eq!(ask(address, "/livez").await, "HTTP/1.1 200 OK | alive\n");
        assert_eq!(ask(address, "/readyz").await, "HTTP/1.1 503 Service Unavailable | not ready\nwaiting: store\n");
        drop(latch);
        assert_eq!(ask(address, "/readyz").await, "HTTP/1.1 200 OK | ready\n");
        assert_eq!(ask(address, "/metrics").await, "HTTP/1.1 200 OK | larder_up 1\n# EOF\n");
        assert_eq!(ask(public_address, "/metrics").await, "HTTP/1.1 200 OK | larder_up 1\n# EOF\n");
        assert_eq!(ask(public_address, "/readyz").await, "HTTP/1.1 404 Not Found | there is /metrics\n");
        assert_eq!(ask(address, "/status").await, "HTTP/1.1 200 OK | {\"engine\":1}");
        assert_eq!(
            ask(address, "/stat").await,
            "HTTP/1.1 404 Not Found | there is /livez, /readyz, /metrics, /status\n"
        );
        assert_eq!(ask(public_address, "/status").await, "HTTP/1.1 404 Not Found | there is /metrics\n");

        shutdown.cancel();
        serving.await.unwrap().unwrap();
        serving_public.await.unwrap().unwrap();
    }

    #[test]
    fn pages_are_for_this_machine_and_health_and_metrics_for_everybody() {
        let page = Page { path: "/report", kind: PageKind::Json, text: Arc::new(|| "{}".to_owned()) };
        let desk = Desk {
            scope: Scope::All,
            port: 7446,
            lines_are_here: true,
            readiness: Readiness::new(),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            pages: vec![page],
        };
        let status = |path: &str, peer: &str| {
            let peer = SocketAddr::new(peer.parse().unwrap(), 9);
            desk.reply(&Method::GET, path, peer).status()
        };
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(status("/report", here), StatusCode::OK, "{here}");
        }
        for elsewhere in ["10.0.0.7", "::ffff:10.0.0.7", "fd00::7", "127.0.0.6", "169.254.0.1", "0.0.0.0", "::7f00:1"] {
            assert_eq!(status("/report", elsewhere), StatusCode::FORBIDDEN, "{elsewhere}");
            for path in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(status(path, elsewhere), StatusCode::OK, "{path} {elsewhere}");
            }
            assert_eq!(status("/other", elsewhere), StatusCode::NOT_FOUND);
        }
    }

    /// By real connections: this machine's own address is not its loopback.
    #[tokio::test]
    async fn who_comes_from_elsewhere_is_told_how_to_ask() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent: it only tells which address of ours leads there.
        if socket.connect("192.0.2.1:9").is_err() || socket.local_addr().unwrap().ip().is_loopback() {
            eprintln!("SKIPPED: a page asked for from elsewhere, because this machine has no address but loopback");
            return;
        }
        let (own, shutdown) = (socket.local_addr().unwrap().ip(), CancellationToken::new());
        let server = AdminServer::bind(SocketAddr::from(([0, 0, 0, 0], 0)), Scope::All).unwrap();
        let port = server.address().port();
        let server = server.with_page("/report", PageKind::Json, Arc::new(|| "{}".to_owned())).with_lines_here();
        let readiness = Readiness::new();
        let unreadable = readiness.condition("unreadable");
        let serving = tokio::spawn(server.serve(readiness.clone(), Arc::new(String::new), shutdown.clone()));
        let here = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(ask(here, "/report").await, "HTTP/1.1 200 OK | {}");
        let refused = ask(SocketAddr::new(own, port), "/report").await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("port-forward POD"), "{refused}");
        assert!(refused.contains(&format!("curl http://127.0.0.1:{port}/report")), "{refused}");
        assert_eq!(ask(SocketAddr::new(own, port), "/livez").await, "HTTP/1.1 200 OK | alive\n");
        assert_eq!(ask(SocketAddr::new(own, port), "/readyz").await, "HTTP/1.1 200 OK | ready\n");
        unreadable.set("the Pod shop/secret-plans");
        assert!(ask(here, "/readyz").await.contains("shop/secret-plans"));
        let elsewhere = ask(SocketAddr::new(own, port), "/readyz").await;
        assert!(elsewhere.starts_with("HTTP/1.1 200 OK | ready\nall of /readyz is told"), "{elsewhere}");
        assert!(!elsewhere.contains("shop"), "{elsewhere}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let first = AdminServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Scope::All).unwrap();
        let error = AdminServer::bind(first.address(), Scope::All).unwrap_err().to_string();
        assert!(error.starts_with(&format!("listen for admin requests on {}: ", first.address())), "{error}");
    }
}

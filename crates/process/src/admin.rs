//! The admin server: `/livez`, `/readyz`, `/metrics`, and what pages a process adds, over plain http.
//!
//! Bound before the process drops its privileges ([`AdminServer::bind`]) and served later, on the runtime. It tells nothing
//! but numbers and conditions, takes no input but a path, and holds few connections, each for a short time.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
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
        Ok(Self { listener, address, scope, pages: Vec::new() })
    }

    /// Adds a page, made anew for each request, quickly. Where only metrics are told, it is not there.
    #[must_use]
    pub fn with_page(mut self, path: &'static str, kind: PageKind, text: PageText) -> Self {
        self.pages.push(Page { path, kind, text });
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
        let Self { listener, address, scope, pages } = self;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| AdminError { address, error })?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let desk = Arc::new(Desk { scope, readiness, metrics, pages });
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
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
                    let reply = desk.reply(request.method(), request.uri().path());
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
    readiness: Readiness,
    metrics: MetricsText,
    pages: Vec<Page>,
}

impl Desk {
    fn reply(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match (path, self.scope) {
            ("/metrics", _) => typed(METRICS, (self.metrics)()),
            (_, Scope::MetricsOnly) => text(StatusCode::NOT_FOUND, "there is /metrics\n".to_owned()),
            ("/livez", Scope::All) => text(StatusCode::OK, "alive\n".to_owned()),
            ("/readyz", Scope::All) => {
                let report = self.readiness.report();
                let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, report.to_string())
            }
            (_, Scope::All) => self.page(path),
        }
    }

    fn page(&self, path: &str) -> Response<Full<Bytes>> {
        match self.pages.iter().find(|page| page.path == path) {
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
    fn an_address_that_is_taken_is_named() {
        let first = AdminServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Scope::All).unwrap();
        let error = AdminServer::bind(first.address(), Scope::All).unwrap_err().to_string();
        assert!(error.starts_with(&format!("listen for admin requests on {}: ", first.address())), "{error}");
    }
}

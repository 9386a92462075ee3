//! One connection to a host: resolve, check, connect to what was checked, TLS; within one limit in time.
//!
//! The invariant: no socket is opened to an address that [`Boundary`] did not permit. The connections are pooled by the
//! `client` of one registry, whose boundary is the same for all of them, so a pooled one is as good as a new one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tower_service::Service;
use url::{Host, Url};

use super::address::{Boundary, Forbidden, Reach};
use super::proxy_environment::{CorporateProxy, ProxyEnvironment};
use super::resolve::Resolve;

/// An address gets this head start before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Why there is no connection.
#[derive(Debug, Clone, Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("no connection in time")]
    Timeout,
    #[error("{host} cannot be resolved: {reason}")]
    Name { host: String, reason: String },
    #[error("no connection to {host}: {reason}")]
    Tcp { host: String, reason: String },
    #[error("the proxy {proxy} does not connect us: {reason}")]
    Proxy { proxy: String, reason: String },
    #[error("TLS with {host}: {reason}")]
    Tls {
        host: String,
        reason: String,
        /// The other side said something that is no TLS.
        spoke: bool,
        /// Its certificate is none that is trusted.
        untrusted: bool,
    },
}

/// The ways to the outside that the connections of one registry have.
pub(crate) struct Network {
    pub(crate) boundary: Boundary,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) proxies: Arc<ProxyEnvironment>,
    /// For connecting and TLS together.
    pub(crate) limit: Duration,
}

/// Connections with TLS where the scheme says so.
#[derive(Clone)]
pub(crate) struct Connector {
    https: HttpsConnector<Tcp>,
    network: Arc<Network>,
    /// A certificate was not trusted, and that was told.
    told: Arc<AtomicBool>,
}

impl Connector {
    pub(crate) fn new(network: Arc<Network>, tls: ClientConfig) -> Self {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { https: builder.wrap_connector(Tcp(Arc::clone(&network))), network, told: Arc::default() }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Wire>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let host = destination.host().unwrap_or_default().to_owned();
        let proxied = self.network.proxies.proxy(&destination).is_some();
        let connecting = self.https.call(destination);
        let (limit, told) = (self.network.limit, Arc::clone(&self.told));
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Err(_) => Err(ConnectError::Timeout),
                Ok(Ok(stream)) => {
                    told.store(false, Ordering::Relaxed);
                    Ok(stream)
                }
                Ok(Err(error)) => Err(match error.downcast::<ConnectError>() {
                    Ok(error) => *error,
                    // The only other thing that fails in there.
                    Err(error) => not_trusted(host, error.as_ref(), proxied, &told),
                }),
            }
        })
    }
}

/// A certificate that does not fit is for a person to mend, so it is said, once until one fits; anything else (plain http behind an https
/// address, for one) is the endpoint's trouble.
fn not_trusted(
    host: String,
    error: &(dyn std::error::Error + Send + Sync + 'static),
    proxied: bool,
    told: &AtomicBool,
) -> ConnectError {
    let (reason, spoke) = (error.to_string(), is_no_tls(error));
    let is_certificate = is_no_certificate(error);
    let advice = "; if the proxy opens TLS, --upstream-ca has to name its certificates";
    let advice = if proxied && is_certificate { advice } else { "" };
    let error = ConnectError::Tls { host, reason: format!("{reason}{advice}"), spoke, untrusted: is_certificate };
    if is_certificate && !told.swap(true, Ordering::Relaxed) {
        tracing::warn!("{error}");
    }
    error
}

/// Whether what came was something else than TLS.
fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    of_tls(error).is_some_and(|error| matches!(error, rustls::Error::InvalidMessage(_)))
}

/// Whether what came was a certificate that is not trusted.
fn is_no_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    of_tls(error).is_some_and(|error| {
        matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    })
}

fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    // An IO error does not name the one that it wraps as its source.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|error| of_tls(error)).or_else(|| error.source().and_then(of_tls))
}

/// Connections without TLS: straight, or through the corporate proxy.
#[derive(Clone)]
struct Tcp(Arc<Network>);

impl Service<Uri> for Tcp {
    type Response = Wire;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Wire, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let network = Arc::clone(&self.0);
        Box::pin(async move { connect(network, &destination).await })
    }
}

async fn connect(network: Arc<Network>, destination: &Uri) -> Result<Wire, ConnectError> {
    // Parsed as a URL, an address in any spelling is one, and not a name.
    let url = Url::parse(&destination.to_string()).ok();
    let (Some(host), Some(port)) =
        (url.as_ref().and_then(Url::host), url.as_ref().and_then(Url::port_or_known_default))
    else {
        return Err(ConnectError::Tcp { host: destination.to_string(), reason: "it is no address".into() });
    };
    let reach = network.boundary.reach(&host);
    let Some(proxy) = network.proxies.proxy(destination) else {
        let stream = dial(network.resolver.as_ref(), &host, port, Some(reach)).await?;
        return Ok(Wire::new(stream, false));
    };
    // It resolves by itself, so what can be checked is the name.
    reach.permits_name(&host)?;
    if destination.scheme_str() != Some("https") {
        let stream = dial_proxy(&network, &proxy.uri).await?;
        return Ok(Wire::new(stream, true));
    }
    tunnel(proxy, ToProxy(network), destination.clone()).await
}

/// A connection to `destination` through a proxy, to which `to_proxy` connects.
pub(crate) async fn tunnel<C>(proxy: CorporateProxy, to_proxy: C, destination: Uri) -> Result<C::Response, ConnectError>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shown = proxy.uri.to_string();
    let mut tunnel = Tunnel::new(proxy.uri, to_proxy);
    if let Some(authorization) = proxy.authorization {
        tunnel = tunnel.with_auth(authorization);
    }
    tunnel.call(destination).await.map_err(|error| ConnectError::of_proxy(shown, &error))
}

impl ConnectError {
    /// What a proxy's connector says is that it failed; why is below.
    pub(crate) fn of_proxy(proxy: String, error: &dyn std::error::Error) -> Self {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Self::Proxy { proxy, reason }
    }
}

/// Connections to the corporate proxy itself, which may be anywhere: the administrator named it.
#[derive(Clone)]
struct ToProxy(Arc<Network>);

impl Service<Uri> for ToProxy {
    type Response = Wire;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Wire, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let network = Arc::clone(&self.0);
        Box::pin(async move { Ok(Wire::new(dial_proxy(&network, &proxy).await?, false)) })
    }
}

async fn dial_proxy(network: &Network, proxy: &Uri) -> Result<TcpStream, ConnectError> {
    let failed = |reason: String| ConnectError::Proxy { proxy: proxy.to_string(), reason };
    let url = Url::parse(&proxy.to_string()).map_err(|error| failed(error.to_string()))?;
    if url.scheme() != "http" {
        return Err(failed("only http:// proxies are supported".into()));
    }
    let host = url.host().ok_or_else(|| failed("it has no host".into()))?;
    let port = url.port_or_known_default().unwrap_or(80);
    dial(network.resolver.as_ref(), &host, port, None).await.map_err(|error| failed(error.to_string()))
}

/// Resolves, drops what may not be reached, connects to the first of the rest that answers.
async fn dial(
    resolver: &dyn Resolve,
    host: &Host<&str>,
    port: u16,
    reach: Option<Reach>,
) -> Result<TcpStream, ConnectError> {
    let found: Vec<IpAddr> = match host {
        Host::Ipv4(address) => vec![(*address).into()],
        Host::Ipv6(address) => vec![(*address).into()],
        Host::Domain(name) => {
            let failed = |reason: String| ConnectError::Name { host: (*name).to_owned(), reason };
            let found = resolver.resolve(name).await.map_err(|error| failed(error.to_string()))?;
            if found.is_empty() {
                return Err(failed("it has no address".into()));
            }
            found
        }
    };
    let mut permitted = Vec::new();
    let mut forbidden = None;
    for address in found {
        match reach.map_or(Ok(()), |reach| reach.permits(address)) {
            Ok(()) => permitted.push(address),
            Err(error) => forbidden = Some(error),
        }
    }
    if let (Some(error), true) = (forbidden, permitted.is_empty()) {
        return Err(error.into());
    }
    permitted.truncate(MOST_ADDRESSES);
    let stream = first_to_answer(&permitted, port)
        .await
        .map_err(|error| ConnectError::Tcp { host: host.to_string(), reason: error.to_string() })?;
    // Without it, small requests on a kept connection wait for acknowledgements; it works or it is a bit slower.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Tries the next address when the one before failed, or had its head start.
async fn first_to_answer(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    let mut attempts = FuturesUnordered::new();
    let mut waiting = addresses.iter();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(SocketAddr::new(*address, port)));
        } else if attempts.is_empty() {
            return Err(last);
        }
        let answered = if waiting.len() == 0 {
            attempts.next().await
        } else {
            tokio::time::timeout(HEAD_START, attempts.next()).await.unwrap_or_default()
        };
        match answered {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
}

/// A TCP connection, and what the pool and `client` are told about it.
pub(crate) struct Wire {
    io: TokioIo<TcpStream>,
    to_proxy: bool,
    used: Used,
}

/// Whether a connection has carried an answer before: if so, its end without one is no news of the registry's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(Arc<AtomicBool>);

impl Used {
    pub(crate) fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn before(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wire {
    /// `to_proxy`: what is sent is for a proxy that is spoken to in absolute form.
    pub(crate) fn new(stream: TcpStream, to_proxy: bool) -> Self {
        Self { io: TokioIo::new(stream), to_proxy, used: Used::default() }
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        // `proxy` makes hyper send the request in absolute form.
        Connected::new().proxy(self.to_proxy).extra(self.used.clone())
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }
}

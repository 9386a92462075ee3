//! How requests to a bucket leave: by the same HTTP and TLS as all others of this program, counted, and never without a limit in time.
//!
//! `object_store` signs requests and knows the interfaces; it would bring an HTTP client and a TLS stack of its own. What is done here
//! instead is a connector of few lines, and the one place where every request that costs money passes, retries included.
//!
//! There is no `Boundary` here, unlike at origins: where a bucket is, an administrator has said, and the credentials of a
//! machine do come from a link-local address.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::PROXY_AUTHORIZATION;
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::ClientConfig;
use tower_service::Service;

use crate::origin::connect::{ConnectError, Wire, tunnel};
use crate::origin::proxy_environment::CorporateProxy;
use crate::origin::{ProxyEnvironment, ProxyVariables};

/// Resolving and connecting, for one address.
const CONNECT: Duration = Duration::from_secs(2);
/// Less than what servers usually keep a connection for.
const IDLE_TIME: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS: usize = 32;
/// Until the head of an answer is there, for a request without a body.
const HEAD: Duration = Duration::from_secs(20);
/// Bytes a second that a request's own body may take at worst.
const SLOWEST: u64 = 256 << 10;

/// What a request does, as it is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads an object.
    Get,
    /// Asks for an object's properties.
    Head,
    /// Writes an object at once.
    Put,
    /// Lists keys, a page.
    List,
    /// Removes an object.
    Delete,
    /// Begins an upload in parts.
    Begin,
    /// Uploads a part.
    Part,
    /// Ends an upload in parts.
    Complete,
    /// Gives an upload in parts up.
    Abort,
    /// Everything else: credentials, sessions.
    Other,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Put,
        Self::List,
        Self::Delete,
        Self::Begin,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::Other,
    ];

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Begin => "begin",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::Other => "other",
        }
    }

    /// By how the three interfaces write it. What has another host or path than the bucket's is about credentials.
    fn of(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let has = |name: &str| {
            query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(name, _)| name).eq_ignore_ascii_case(name))
        };
        let is = |pair: &str| query.split('&').any(|one| one.eq_ignore_ascii_case(pair));
        match *method {
            Method::GET if has("list-type") || is("comp=list") || has("uploads") => Self::List,
            Method::GET if is_about_credentials(uri) => Self::Other,
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::PUT if has("partNumber") || is("comp=block") => Self::Part,
            Method::PUT if is("comp=blocklist") => Self::Complete,
            Method::PUT if !is_about_credentials(uri) => Self::Put,
            Method::DELETE if has("uploadId") => Self::Abort,
            Method::DELETE => Self::Delete,
            Method::POST if has("uploads") => Self::Begin,
            Method::POST if has("uploadId") => Self::Complete,
            Method::POST if has("delete") || is("comp=batch") => Self::Delete,
            _ => Self::Other,
        }
    }
}

fn is_about_credentials(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let of_a_machine = ["/latest/", "/computeMetadata/", "/metadata/identity/"];
    host.starts_with("169.254.")
        || host.starts_with("metadata.google")
        || of_a_machine.iter().any(|beginning| uri.path().starts_with(beginning))
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx, and 404 and 412, which are answers.
    Ok,
    /// 401 or 403.
    Denied,
    /// 429 or 503: slower, please.
    SlowDown,
    /// Any other status.
    Failed,
    /// No answer.
    Unanswered,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Denied, Self::SlowDown, Self::Failed, Self::Unanswered];

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::SlowDown => "slow_down",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => Self::Ok,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::SlowDown,
            status if status.is_success() => Self::Ok,
            _ => Self::Failed,
        }
    }
}

/// Requests since the start.
#[derive(Debug, Default)]
pub(super) struct Counts([[AtomicU64; Outcome::ALL.len()]; Operation::ALL.len()]);

impl Counts {
    fn add(&self, operation: Operation, outcome: Outcome) {
        if let Some(count) = self.0.get(operation as usize).and_then(|of| of.get(outcome as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, operation: Operation, outcome: Outcome) -> u64 {
        let count = self.0.get(operation as usize).and_then(|of| of.get(outcome as usize));
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Makes the client that `object_store` sends by.
#[derive(Clone)]
pub(super) struct Transport {
    http: legacy::Client<HttpsConnector<Way>, HttpRequestBody>,
    proxies: Arc<ProxyEnvironment>,
    counts: Arc<Counts>,
}

/// Connections without TLS: straight, or through the corporate proxy (`HTTPS_PROXY`, …). What gives a machine its credentials is never asked through one.
#[derive(Clone)]
struct Way {
    tcp: connect::HttpConnector,
    proxies: Arc<ProxyEnvironment>,
}

fn proxy_for(proxies: &ProxyEnvironment, destination: &Uri) -> Option<CorporateProxy> {
    if is_about_credentials(destination) { None } else { proxies.proxy(destination) }
}

impl Service<Uri> for Way {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let (proxy, mut tcp) = (proxy_for(&self.proxies, &destination), self.tcp.clone());
        Box::pin(async move {
            let Some(proxy) = proxy else {
                let stream = tcp.call(destination).await.map_err(io::Error::other)?;
                return Ok(Wire::new(stream.into_inner(), false));
            };
            let shown = proxy.uri.to_string();
            if destination.scheme_str() != Some("https") {
                let stream = tcp.call(proxy.uri).await;
                let stream = stream.map_err(|error| io::Error::other(ConnectError::of_proxy(shown, &error)))?;
                return Ok(Wire::new(stream.into_inner(), true));
            }
            let connecting = tokio::time::timeout(CONNECT * 2, tunnel(proxy, tcp, destination)).await;
            let late = |_| ConnectError::Proxy { proxy: shown, reason: "it does not answer".to_owned() };
            let stream = connecting.map_err(late).flatten().map_err(io::Error::other)?;
            Ok(Wire::new(stream.into_inner(), false))
        })
    }
}

impl Transport {
    pub(super) fn new(tls: ClientConfig, proxies: &ProxyVariables, counts: Arc<Counts>) -> Self {
        let proxies = Arc::new(ProxyEnvironment::new(proxies));
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector.wrap_connector(Way { tcp, proxies: Arc::clone(&proxies) }));
        Self { http, proxies, counts }
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().scheme_str() == Some("http")
            && let Some(authorization) = proxy_for(&self.proxies, request.uri()).and_then(|proxy| proxy.authorization)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        let operation = Operation::of(request.method(), request.uri());
        let body = u64::try_from(request.body().content_length()).unwrap_or(u64::MAX);
        let limit = HEAD + Duration::from_secs(body / SLOWEST);
        let answered = match tokio::time::timeout(limit, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unanswered(&error)),
            Err(_) => {
                let late = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
                Err(HttpError::new(HttpErrorKind::Timeout, late))
            }
        };
        self.counts
            .add(operation, answered.as_ref().map_or(Outcome::Unanswered, |answer| Outcome::of(answer.status())));
        let (head, body) = answered?.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// The innermost cause is what a person can do something about.
fn unanswered(error: &legacy::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let _ = error.source();
    HttpError::new(kind, std::io::Error::other(innermost.to_string()))
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl HttpService for Transport {
    // As the trait's macro writes it.
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_as_they_are_billed() {
        for (method, uri, operation) in [
            (Method::GET, "http://h/b?list-type=2&prefix=a", Operation::List),
            (Method::GET, "https://h/c?restype=container&comp=list", Operation::List),
            (Method::GET, "http://h/b/sha256/ab/01", Operation::Get),
            (Method::GET, "http://169.254.169.254/latest/meta-data/iam", Operation::Other),
            (Method::PUT, "http://169.254.169.254/latest/api/token", Operation::Other),
            (
                Method::GET,
                "http://127.0.0.1:988/computeMetadata/v1/instance/service-accounts/default/token",
                Operation::Other,
            ),
            (Method::GET, "http://127.0.0.1:988/metadata/identity/oauth2/token?resource=x", Operation::Other),
            (Method::HEAD, "http://h/b/version", Operation::Head),
            (Method::PUT, "http://h/b/version", Operation::Put),
            (Method::PUT, "http://h/b/key?partNumber=1&uploadId=x", Operation::Part),
            (Method::PUT, "https://h/c/key?comp=block&blockid=x", Operation::Part),
            (Method::PUT, "https://h/c/key?comp=blocklist", Operation::Complete),
            (Method::POST, "http://h/b/key?uploads=", Operation::Begin),
            (Method::POST, "http://h/b/key?uploadId=x", Operation::Complete),
            (Method::DELETE, "http://h/b/key?uploadId=x", Operation::Abort),
            (Method::DELETE, "http://h/b/key", Operation::Delete),
            (Method::POST, "https://sts.amazonaws.com/?Action=AssumeRole", Operation::Other),
        ] {
            assert_eq!(Operation::of(&method, &uri.parse().unwrap()), operation, "{method} {uri}");
        }
    }

    #[test]
    fn every_operation_and_outcome_has_a_counter_of_its_own() {
        let counts = Counts::default();
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
            for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!((outcome as usize, counts.get(operation, outcome)), (number, 0));
                counts.add(operation, outcome);
                assert_eq!(counts.get(operation, outcome), 1);
            }
        }
    }
}

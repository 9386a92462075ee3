//! A question on its way: which replica, over which connection, for how long, and how much of an answer is read.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use larder_process::causes::with_causes;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use url::{Host, Url};

use super::Limits;
use super::answer::Said;
use super::config::ClusterCacheConfig;
use super::error::CacheError;
use super::files::{Access, Files};

/// The largest answer, in bytes: a page of pins with long words.
const LARGEST: usize = 4 << 20;

/// Replicas that one question is put to.
const MOST_REPLICAS: usize = 3;

/// Replicas that are asked what they have seen of registries.
const MOST_HEARD: usize = 16;

/// For resolving the name.
const NAME: Duration = Duration::from_secs(2);

/// Connections that nobody uses, for each replica.
const IDLE: usize = 4;

/// Connections to one replica after another, with names checked against the service's.
pub(super) type Http = Client<InTime<HttpsConnector<HttpConnector>>, Full<Bytes>>;

/// What is asked.
pub(super) struct Question {
    method: Method,
    path: String,
    query: String,
    body: Bytes,
    wait: Duration,
    asks_a_registry: bool,
}

impl Question {
    /// `path` is below `/v1/`, not encoded.
    pub(super) fn new(method: Method, path: String) -> Self {
        Self { method, path, query: String::new(), body: Bytes::new(), wait: Duration::ZERO, asks_a_registry: false }
    }

    /// `query` is encoded.
    pub(super) fn with_query(self, query: String) -> Self {
        Self { query, ..self }
    }

    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    pub(super) fn waiting(self, wait: Duration) -> Self {
        let query = if wait.as_secs() == 0 { String::new() } else { format!("wait={}", wait.as_secs()) };
        Self { query, wait, ..self }
    }

    pub(super) fn asking_a_registry(self) -> Self {
        Self { asks_a_registry: true, ..self }
    }

    fn limit(&self, limits: &Limits) -> Duration {
        self.wait + if self.asks_a_registry { limits.registry } else { limits.answer }
    }
}

/// All replicas behind one name.
pub(super) struct Transport {
    config: ClusterCacheConfig,
    files: Files,
    limits: Limits,
    /// Who answered last: there the connections are.
    last: Mutex<Option<SocketAddr>>,
}

impl Transport {
    pub(super) fn new(config: ClusterCacheConfig, limits: Limits) -> Self {
        let files = Files::new(config.clone(), limits.connect, limits.files);
        Self { config, files, limits, last: Mutex::default() }
    }

    /// Asks until a replica has said something that counts.
    pub(super) async fn ask(&self, question: &Question) -> Result<Said, CacheError> {
        let access = self.files.access(false).await?;
        let error = match self.ask_all(&access, question).await {
            Ok(said) => return Ok(said),
            Err(error) => error,
        };
        // The token or the certificate may just have been replaced.
        let again = self.files.access(true).await?;
        if again.is_as(&access) { Err(error) } else { self.ask_all(&again, question).await }
    }

    async fn ask_all(&self, access: &Access, question: &Question) -> Result<Said, CacheError> {
        let mut reason = "its name has no address".to_owned();
        for address in self.addresses().await? {
            match timeout(question.limit(&self.limits), self.ask_one(access, address, question)).await {
                Ok(Ok(said)) if said.status == StatusCode::UNAUTHORIZED => {
                    let (url, token) = (self.config.url.to_string(), self.config.token.clone());
                    return Err(CacheError::Unknown { url, token, reason: said.words() });
                }
                Ok(Ok(said)) if says_nothing(said.status) => {
                    reason = format!("{address} says {} {}", said.status.as_u16(), said.words());
                }
                Ok(Ok(said)) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                    return Ok(said);
                }
                Ok(Err(words)) => reason = format!("{address}: {words}"),
                Err(_) => reason = format!("{address}: no answer within {:?}", question.limit(&self.limits)),
            }
            tracing::debug!(%address, reason, "a replica of the cluster cache was of no use");
        }
        Err(CacheError::Away { url: self.config.url.to_string(), reason })
    }

    /// Asks every replica, each its own question, at the same time. The name of the cache may stand for one address behind which there are several replicas:
    /// then it is one of them that is asked, mostly the same. One that hangs
    /// keeps what the others say waiting, which is for that long only: a cluster that has lost a node still hears of an outage within seconds.
    pub(super) async fn ask_each(
        &self,
        question: impl Fn(SocketAddr) -> Question,
    ) -> Result<Vec<(SocketAddr, Result<Said, CacheError>)>, CacheError> {
        let access = self.files.access(false).await?;
        let mut addresses = self.resolved(self.config.replicas.as_deref()).await?;
        addresses.truncate(MOST_HEARD);
        let one = async |address: SocketAddr| {
            let question = question(address);
            let asked = timeout(self.limits.each, self.ask_one(&access, address, &question)).await;
            let reason = match asked {
                Ok(Ok(said)) => return (address, Ok(said)),
                Ok(Err(words)) => format!("{address}: {words}"),
                Err(_) => format!("{address}: no answer within {:?}", self.limits.each),
            };
            (address, Err(CacheError::Away { url: self.config.url.to_string(), reason }))
        };
        Ok(futures_util::future::join_all(addresses.into_iter().map(one)).await)
    }

    /// Who is asked, in order.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, CacheError> {
        let mut found = self.resolved(None).await?;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = found.iter().position(|address| Some(*address) == last) {
            found.rotate_left(position);
        }
        found.truncate(MOST_REPLICAS);
        Ok(found)
    }

    /// The addresses of a name, or else of the cache's own.
    async fn resolved(&self, name: Option<&str>) -> Result<Vec<SocketAddr>, CacheError> {
        let away = |reason: String| CacheError::Away { url: self.config.url.to_string(), reason };
        let port = self.config.url.port_or_known_default().unwrap_or(443);
        let host = name.map(Host::Domain).or_else(|| self.config.url.host());
        let mut found: Vec<SocketAddr> = match host {
            Some(Host::Ipv4(address)) => vec![(IpAddr::V4(address), port).into()],
            Some(Host::Ipv6(address)) => vec![(IpAddr::V6(address), port).into()],
            Some(Host::Domain(name)) => match timeout(NAME, tokio::net::lookup_host((name, port))).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(error)) => return Err(away(format!("its name cannot be resolved: {error}"))),
                Err(_) => return Err(away("its name cannot be resolved in time".to_owned())),
            },
            None => Vec::new(),
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn ask_one(&self, access: &Access, address: SocketAddr, question: &Question) -> Result<Said, String> {
        let url = &self.config.url;
        let mut target = format!("{}/v1/", url.path().trim_end_matches('/'));
        encode(&question.path, &mut target);
        if !question.query.is_empty() {
            target.push('?');
            target.push_str(&question.query);
        }
        let uri = Uri::builder().scheme(url.scheme()).authority(address.to_string()).path_and_query(target).build();
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let mut request = Request::builder()
            .method(&question.method)
            .uri(uri.map_err(|error| error.to_string())?)
            .header(HOST, host)
            .header(AUTHORIZATION, access.authorization.clone());
        if !question.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(question.body.clone())).map_err(|error| error.to_string())?;
        let answer = access.http.request(request).await.map_err(|error| with_causes(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| with_causes(error.as_ref()))?;
        Ok(Said { status: head.status, body: body.to_bytes() })
    }
}

/// What another replica may answer otherwise.
fn says_nothing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn encode(path: &str, into: &mut String) {
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
                into.push(char::from(byte));
            }
            other => {
                // Writing to a text does not fail.
                let _ = write!(into, "%{other:02X}");
            }
        }
    }
}

/// Connections by this TLS to whoever is at an address, who has to be the one that `url` names.
pub(super) fn client(tls: ClientConfig, url: &Url, connect: Duration) -> Http {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let name = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let builder = match ServerName::try_from(name) {
        Ok(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name)),
        Err(_) => builder,
    };
    let connector = InTime { inner: builder.enable_http1().wrap_connector(connector), limit: connect };
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// A connector whose connections, TLS included, are there in time or are not.
#[derive(Clone)]
pub(super) struct InTime<C> {
    inner: C,
    limit: Duration,
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl<C> tower_service::Service<Uri> for InTime<C>
where
    C: tower_service::Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<BoxedError>,
{
    type Response = C::Response;
    type Error = BoxedError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxedError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxedError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.inner.call(uri), self.limit);
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(format!("no connection within {limit:?}").into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_that_hangs_keeps_the_others_waiting_for_a_moment_only() {
        // Connections are made, and nobody is there.
        let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = hung.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "the-controllers-own-token").unwrap();
        let url = Url::parse(&format!("http://{address}")).unwrap();
        let config = ClusterCacheConfig { url, replicas: None, ca: None, token, holder: "me".to_owned() };
        let never = Duration::from_hours(1);
        let each = Duration::from_millis(50);
        let limits = Limits { connect: never, answer: never, registry: never, each, files: never };
        let transport = Transport::new(config, limits);
        let asked = transport.ask_each(|_| Question::new(Method::GET, "registries".to_owned()));
        let said = timeout(Duration::from_mins(1), asked).await.expect("it ends").unwrap();
        let [(who, Err(CacheError::Away { reason, .. }))] = said.as_slice() else { panic!("somebody answered") };
        assert_eq!((*who, reason), (address, &format!("{address}: no answer within 50ms")));
    }

    #[test]
    fn a_reference_stays_one_in_a_path() {
        let encoded = |path: &str| {
            let mut text = String::new();
            encode(path, &mut text);
            text
        };
        assert_eq!(encoded("pins/me/docker.io/a/b:1@sha256:0"), "pins/me/docker.io/a/b:1@sha256:0");
        assert_eq!(encoded("[::1]:5000/a b?c#d%"), "%5B::1%5D:5000/a%20b%3Fc%23d%25");
    }
}

//! The sockets: accept, read, answer as the rules say, and stop so that a port can be used again.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_oci::{Digest, Registry};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::behaviour::{Behaviour, Matcher, Rule};
use crate::image::Image;
use crate::log::Access;
use crate::request::{self, Request};
use crate::respond::{Answer, Content, TokenPolicy, answer};

#[derive(Default)]
struct State {
    content: Content,
    rules: Vec<Rule>,
    log: Vec<Access>,
    tokens: Option<TokenPolicy>,
}

/// How to start.
#[derive(Default)]
pub struct OriginBuilder {
    names: Option<Vec<String>>,
    address: Option<SocketAddr>,
}

impl OriginBuilder {
    /// Serve TLS with a certificate of a private authority for these names or addresses.
    #[must_use]
    pub fn tls(mut self, names: &[&str]) -> Self {
        self.names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Listen here instead of on a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Starts it.
    pub fn start(self) -> Origin {
        let (tls, ca_pem) = match self.names {
            Some(names) => {
                let (config, pem) = crate::tls::private_authority(&names);
                (Some(config), Some(pem))
            }
            None => (None, None),
        };
        let listener = TcpListener::bind(self.address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).expect("listen");
        let address = listener.local_addr().expect("listening");
        let state = Arc::default();
        let running = Some(serve(listener, tls.clone(), Arc::clone(&state)));
        Origin { address, ca_pem, tls, state, running: Mutex::new(running) }
    }
}

/// A running (or stopped) registry.
pub struct Origin {
    address: SocketAddr,
    ca_pem: Option<String>,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<Mutex<State>>,
    running: Mutex<Option<Runtime>>,
}

impl Origin {
    /// Plain http on a free port of 127.0.0.1.
    pub fn start() -> Self {
        OriginBuilder::default().start()
    }

    /// Where it listens, also while it is stopped.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The registry's name in references.
    pub fn registry(&self) -> Registry {
        Registry::parse(&self.address.to_string()).expect("an address is a registry")
    }

    /// `http://…` or `https://…`, without a path.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// The private authority's certificate, when it serves TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Holds `image` under this tag.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        let mut state = self.state.lock().unwrap();
        let objects = state.content.objects.entry(repository.to_owned()).or_default();
        for (digest, (media_type, bytes)) in &image.manifests {
            objects.insert(digest.clone(), (Some(media_type.clone()), bytes.clone()));
        }
        for (digest, bytes) in &image.blobs {
            objects.insert(digest.clone(), (None, bytes.clone()));
        }
        state.content.tags.entry(repository.to_owned()).or_default().insert(tag.to_owned(), image.index.clone());
    }

    /// Holds one blob in a repository.
    pub fn push_blob(&self, repository: &str, bytes: bytes::Bytes) -> Digest {
        let digest = Digest::of(larder_oci::Algorithm::Sha256, &bytes);
        let mut state = self.state.lock().unwrap();
        state.content.objects.entry(repository.to_owned()).or_default().insert(digest.clone(), (None, bytes));
        digest
    }

    /// Holds one manifest in a repository, under this tag if there is one: a signature, say, with the `subject` that it is of.
    pub fn push_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: bytes::Bytes) -> Digest {
        let digest = Digest::of(larder_oci::Algorithm::Sha256, &bytes);
        let mut state = self.state.lock().unwrap();
        let objects = state.content.objects.entry(repository.to_owned()).or_default();
        objects.insert(digest.clone(), (Some(media_type.to_owned()), bytes));
        if let Some(tag) = tag {
            let tags = state.content.tags.entry(repository.to_owned()).or_default();
            tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    /// Forgets a repository, as if its owner had deleted it.
    pub fn delete(&self, repository: &str) {
        let mut state = self.state.lock().unwrap();
        state.content.tags.remove(repository);
        state.content.objects.remove(repository);
    }

    /// From now on such requests are answered so. Later rules go first.
    pub fn behave(&self, matcher: Matcher, behaviour: Behaviour) {
        self.state.lock().unwrap().rules.insert(0, Rule { matcher, behaviour, times: None });
    }

    /// The next `times` such requests are answered so.
    pub fn behave_times(&self, times: usize, matcher: Matcher, behaviour: Behaviour) {
        self.state.lock().unwrap().rules.insert(0, Rule { matcher, behaviour, times: Some(times) });
    }

    /// A good day again.
    pub fn behave_well(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Demands a token that anybody gets at this registry's own `/token`.
    pub fn require_token(&self) {
        self.require_token_from(&format!("{}/token", self.url()), None);
    }

    /// Demands a token from `realm`; with `basic` (base64 of `user:password`) only for who knows that.
    pub fn require_token_from(&self, realm: &str, basic: Option<&str>) {
        self.state.lock().unwrap().tokens =
            Some(TokenPolicy { realm: realm.to_owned(), basic: basic.map(str::to_owned) });
    }

    /// What it was asked since it was made, or since the log was cleared.
    pub fn log(&self) -> Vec<Access> {
        self.state.lock().unwrap().log.clone()
    }

    /// Forgets what it was asked.
    pub fn clear_log(&self) {
        self.state.lock().unwrap().log.clear();
    }

    /// How many GETs of this blob it has seen.
    pub fn blob_gets(&self, digest: &Digest) -> usize {
        self.log().iter().filter(|access| access.is_blob_get() && access.path.ends_with(digest.as_str())).count()
    }

    /// Bytes of this blob that it has sent.
    pub fn blob_bytes(&self, digest: &Digest) -> u64 {
        self.log()
            .iter()
            .filter(|access| access.is_blob_get() && access.path.ends_with(digest.as_str()))
            .map(|access| access.sent)
            .sum()
    }

    /// Closes the port and every connection: connecting is refused.
    pub fn stop(&self) {
        if let Some(runtime) = self.running.lock().unwrap().take() {
            // On a thread of its own: a runtime may not be waited for inside another one.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join();
            assert!(ended.is_ok(), "the test origin's runtime panicked");
        }
    }

    /// Listens again on the same port.
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap();
        if running.is_none() {
            let listener = TcpListener::bind(self.address).expect("listen again");
            *running = Some(serve(listener, self.tls.clone(), Arc::clone(&self.state)));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Dropping a runtime inside another one's task would panic; this returns at once.
        if let Some(runtime) = self.running.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, state: Arc<Mutex<State>>) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("test-origin")
        .build()
        .expect("runtime");
    listener.set_nonblocking(true).expect("nonblocking");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let (tls, state) = (tls.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                let _ = socket.set_nodelay(true);
                match tls {
                    // As Go's registries do: who tries TLS first is told at once, and does not wait for a handshake.
                    None if is_tls_hello(&socket).await => refuse_tls(socket).await,
                    None => connection(socket, &state, |socket| drop(socket.set_zero_linger())).await,
                    Some(config) => {
                        let Ok(socket) = TlsAcceptor::from(config).accept(socket).await else { return };
                        connection(socket, &state, |socket| drop(socket.get_ref().0.set_zero_linger())).await;
                    }
                }
            });
        }
    });
    runtime
}

async fn is_tls_hello(socket: &TcpStream) -> bool {
    let mut first = [0];
    socket.peek(&mut first).await.is_ok_and(|read| read == 1) && first == [0x16]
}

async fn refuse_tls(mut socket: TcpStream) {
    let _ = socket.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks HTTP without TLS.\n").await;
    let _ = socket.shutdown().await;
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, state: &Mutex<State>, reset: impl Fn(&S)) {
    let mut buffer = Vec::new();
    while let Some(request) = request::read(&mut socket, &mut buffer).await {
        let (answer, behaviours, logged) = decide(&request, state);
        let sent = write(&mut socket, &request, answer, &behaviours, &|sent| {
            // The log counts while the body is on its way: a test may look before the end.
            if let Some(access) = state.lock().unwrap().log.get_mut(logged) {
                access.sent = sent;
            }
        })
        .await;
        match sent {
            Sent::Whole => {}
            Sent::Cut => {
                let _ = socket.shutdown().await;
                return;
            }
            Sent::Reset => return reset(&socket),
            Sent::Hang => return std::future::pending().await,
        }
    }
}

fn decide(request: &Request, state: &Mutex<State>) -> (Answer, Vec<Behaviour>, usize) {
    let mut state = state.lock().unwrap();
    let mut behaviours = Vec::new();
    for rule in &mut state.rules {
        if rule.times != Some(0) && rule.matcher.matches(&request.method, &request.path) {
            rule.times = rule.times.map(|times| times - 1);
            behaviours.push(rule.behaviour.clone());
        }
    }
    let ranged = !behaviours.iter().any(|behaviour| matches!(behaviour, Behaviour::IgnoreRange));
    let mut answer = if ranged {
        answer(request, &state.content, state.tokens.as_ref())
    } else {
        let headers = request.headers.iter().filter(|(name, _)| name != "range").cloned().collect();
        let without = Request {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers,
        };
        self::answer(&without, &state.content, state.tokens.as_ref())
    };
    let mut hangs = false;
    for behaviour in &behaviours {
        match behaviour {
            Behaviour::Status(status, headers) => {
                answer = Answer { status: *status, headers: headers.clone(), body: bytes::Bytes::new() };
            }
            Behaviour::Redirect(url) => answer = Answer::new(307).header("location", url),
            Behaviour::Without(name) => answer.headers.retain(|(header, _)| header != name),
            Behaviour::With(name, value) => {
                answer.headers.retain(|(header, _)| header != name);
                answer.headers.push(((*name).to_owned(), value.clone()));
            }
            Behaviour::Lie(offset) => answer.body = lie(&answer, *offset),
            Behaviour::Hang => hangs = true,
            _ => {}
        }
    }
    let access = Access {
        at: Instant::now(),
        method: request.method.clone(),
        path: request.path.clone(),
        query: request.query.clone(),
        headers: request.headers.clone(),
        status: if hangs { 0 } else { answer.status },
        sent: 0,
    };
    state.log.push(access);
    (answer, behaviours, state.log.len() - 1)
}

/// The body with the byte at `offset` of the whole content flipped.
fn lie(answer: &Answer, offset: u64) -> bytes::Bytes {
    let first = answer
        .headers
        .iter()
        .find(|(name, _)| name == "content-range")
        .and_then(|(_, value)| larder_oci::ContentRange::parse(value).ok())
        .map_or(0, |range| range.first);
    let mut body = answer.body.to_vec();
    if let Some(byte) = offset.checked_sub(first).and_then(|at| body.get_mut(usize::try_from(at).unwrap())) {
        *byte ^= 0xff;
    }
    body.into()
}

enum Sent {
    Whole,
    Cut,
    Reset,
    Hang,
}

async fn write<S: AsyncWrite + Unpin>(
    socket: &mut S,
    request: &Request,
    answer: Answer,
    behaviours: &[Behaviour],
    progress: &impl Fn(u64),
) -> Sent {
    let mut rate = None;
    let mut end = None;
    for behaviour in behaviours {
        match behaviour {
            Behaviour::Hang => return Sent::Hang,
            Behaviour::Delay(delay) => sleep(*delay).await,
            Behaviour::Shape(bytes_per_second) => rate = Some(*bytes_per_second),
            Behaviour::Stall(at) => end = Some((*at, Sent::Hang)),
            Behaviour::Truncate(at) => end = Some((*at, Sent::Cut)),
            Behaviour::Reset(at) => end = Some((*at, Sent::Reset)),
            _ => {}
        }
    }
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if !answer.headers.iter().any(|(name, _)| name == "content-length") && answer.status != 304 {
        head.extend(["content-length: ", &answer.body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    if socket.write_all(head.as_bytes()).await.is_err() {
        return Sent::Cut;
    }
    if request.method == "HEAD" || answer.status == 304 {
        return Sent::Whole;
    }
    let length = end.as_ref().map_or(answer.body.len(), |(at, _)| answer.body.len().min(usize::try_from(*at).unwrap()));
    if body(socket, &answer.body[..length], rate, progress).await.is_err() {
        return Sent::Cut;
    }
    match end {
        Some((_, ending)) if length < answer.body.len() => {
            // What was written must have left before a reset throws it away.
            let _ = socket.flush().await;
            if matches!(ending, Sent::Reset) {
                sleep(Duration::from_millis(50)).await;
            }
            ending
        }
        _ => Sent::Whole,
    }
}

async fn body<S: AsyncWrite + Unpin>(
    socket: &mut S,
    bytes: &[u8],
    rate: Option<u64>,
    progress: &impl Fn(u64),
) -> std::io::Result<()> {
    let started = tokio::time::Instant::now();
    // Shaped bodies go out 50 times a second.
    let chunk = rate.map_or(256 * 1024, |rate| usize::try_from(rate / 50).unwrap_or(1).max(1));
    let mut sent = 0;
    for piece in bytes.chunks(chunk) {
        if let Some(rate) = rate {
            tokio::time::sleep_until(started + Duration::from_secs_f64(sent as f64 / rate as f64)).await;
        }
        socket.write_all(piece).await?;
        sent += piece.len() as u64;
        progress(sent);
    }
    socket.flush().await
}

/// So that rules read well in tests.
impl From<&str> for Matcher {
    fn from(text: &str) -> Self {
        Self::path(text)
    }
}

//! The control API on its port: a connection, TLS, whose token it is, the body, and what is done.
//!
//! Whose token it is is asked before anything is read or looked up. Everything that a client can make us hold or wait for is bounded, and
//! where all places are taken a connection on which nobody was let in gives way to the one that comes (`server::strangers`).

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request as HttpRequest, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::api::{self, PinView, Request, Wrong};
use super::holders::{self, HolderOf};
use super::keeper::{Keeper, State};
use super::plan::{Plan, Wanted, plan};
use super::registry::RegistryView;
use crate::origin::Standings;
use crate::pins::{Declared, Failed, Holder, KeptPin, PinName, PinsError};
use crate::pull::Unkept;
use crate::server::gate::{self, Gate, TurnedAway};
use crate::server::strangers::{Stranger, Strangers};
use crate::server::{BindError, bind};
use crate::store::Name;

/// Larger bodies are refused.
const BODY: usize = 64 << 10;

/// Connections at once.
const CONNECTIONS: usize = 256;

/// Holders that are named to whoever looks for another one.
const SHOWN: usize = 20;

/// For a TLS handshake, a head, a body.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address of the control API, taken.
#[derive(Debug)]
pub(crate) struct Listening {
    listeners: Vec<TcpListener>,
}

impl Listening {
    /// Takes it. Blocks.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, BindError> {
        Ok(Self { listeners: bind::bind(&[address])? })
    }

    /// The real address, where port 0 was asked for.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listeners.first()?.local_addr().ok()
    }
}

/// The control API.
pub(crate) struct Control {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) gate: Gate,
    pub(crate) holders: Vec<HolderOf>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

struct Reply {
    status: StatusCode,
    json: Value,
}

impl From<Wrong> for Reply {
    fn from(wrong: Wrong) -> Self {
        let mut json = json!({ "error": wrong.message });
        if let (Some(code), Value::Object(json)) = (wrong.code, &mut json) {
            json.insert("code".to_owned(), code.into());
        }
        Self { status: wrong.status, json }
    }
}

impl From<PinsError> for Wrong {
    fn from(error: PinsError) -> Self {
        let status = match error {
            PinsError::TooLarge(_) => StatusCode::UNPROCESSABLE_ENTITY,
            PinsError::Store(_) | PinsError::Unanswered(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl Control {
    /// Serves until `shutdown`; requests under way are then cut, which does no harm: all of them may be repeated.
    pub(crate) async fn serve(self, listening: Listening, shutdown: CancellationToken) -> std::io::Result<()> {
        let tls = self.tls.clone().map(TlsAcceptor::from);
        let (control, places) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        let strangers = Arc::new(Strangers::default());
        let mut accepting = tokio::task::JoinSet::new();
        for listener in listening.listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (control, places, strangers, tls, shutdown) =
                (Arc::clone(&control), Arc::clone(&places), Arc::clone(&strangers), tls.clone(), shutdown.clone());
            accepting.spawn(async move {
                loop {
                    let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await else { return };
                    let (stream, peer) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(%error, "control: connection not accepted");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    // Where everybody has shown a token, whoever comes waits.
                    if places.available_permits() == 0 && strangers.send_one_away() {
                        tracing::debug!("control: a stranger's connection gives way to another");
                    }
                    let place = shutdown.run_until_cancelled(Arc::clone(&places).acquire_owned()).await;
                    let Some(Ok(place)) = place else { return };
                    let (control, tls, shutdown) = (Arc::clone(&control), tls.clone(), shutdown.clone());
                    let stranger = strangers.add();
                    tokio::spawn(async move {
                        let serving = async {
                            match tls {
                                None => control.connection(stream, peer, &stranger).await,
                                Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                                    Ok(Ok(stream)) => control.connection(stream, peer, &stranger).await,
                                    Ok(Err(error)) => tracing::debug!(%error, "control: no TLS with a client"),
                                    Err(_) => {
                                        tracing::debug!("control: a client did not end its TLS handshake in time");
                                    }
                                },
                            }
                        };
                        tokio::select! {
                            () = serving => {}
                            () = stranger.sent_away() => {}
                            () = shutdown.cancelled() => {}
                        }
                        drop(place);
                    });
                }
            });
        }
        shutdown.cancelled().await;
        accepting.shutdown().await;
        Ok(())
    }

    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, stranger: &Stranger) {
        let service = service_fn(|request: HttpRequest<Incoming>| async move {
            Ok::<_, std::convert::Infallible>(self.handle(request, peer, stranger).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(32 << 10)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "control: connection ended");
        }
    }

    async fn handle(
        &self,
        request: HttpRequest<Incoming>,
        peer: SocketAddr,
        stranger: &Stranger,
    ) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let caller = match self.gate.admit(&parts.headers, Some(peer.ip())).await {
            Ok(caller) => {
                stranger.let_in();
                caller
            }
            Err(TurnedAway { status, message, challenge }) => {
                let mut response = respond(status, format!("{}\n", json!({ "error": message })));
                gate::challenge(response.headers_mut(), challenge);
                return response;
            }
        };
        let reply = async {
            let request = api::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
            if let Some(holder) = request.writes_for()
                && let Some(reason) = holders::refusal(&self.holders, caller.who(), holder)
            {
                return Err(Wrong::new(StatusCode::FORBIDDEN, reason).with_code("holder"));
            }
            let body = read(body).await?;
            match request {
                // Asked every few seconds.
                Request::Registries { .. } => tracing::trace!(caller = caller.name, "control: registries"),
                _ => {
                    tracing::info!(caller = caller.name, method = %parts.method, path = parts.uri.path(), "control");
                }
            }
            self.answer(request, &body).await
        };
        let Reply { status, json } = reply.await.unwrap_or_else(Into::into);
        respond(status, if json.is_null() { String::new() } else { format!("{json}\n") })
    }

    async fn answer(&self, request: Request, body: &[u8]) -> Result<Reply, Wrong> {
        let pins = self.keeper.pins();
        let ok = |json| Ok(Reply { status: StatusCode::OK, json });
        if !matches!(request, Request::Put { .. } | Request::Plan { .. }) {
            api::nothing_in(body)?;
        }
        match request {
            Request::Put { name, wait } => self.put(name, body, wait).await,
            Request::Get { name } => {
                let kept = pins.get(&name).await?.ok_or_else(|| no_pin(&name))?;
                ok(self.show_one(kept).await?)
            }
            Request::Delete { name } => {
                self.keeper.delete(&name).await?;
                Ok(Reply { status: StatusCode::NO_CONTENT, json: Value::Null })
            }
            Request::List { holder, after, limit } => {
                let page = pins.list(holder.as_ref(), after.as_ref(), limit).await?;
                let shown = page.pins.into_iter().map(|kept| self.show(kept)).collect::<Result<Vec<_>, _>>()?;
                ok(json!({ "pins": shown, "next": page.next.map(|next| next.to_string()) }))
            }
            Request::BeginDeclaration { holder } => {
                let as_of = pins.begin_declaration(&holder).await?;
                ok(json!({ "holder": holder.as_str(), "as_of": as_of.0 }))
            }
            Request::Declare { holder, as_of, without_failed } => {
                let failed = if without_failed { self.keeper.failed(&holder) } else { Failed::default() };
                match pins.declare(&holder, as_of, &failed).await? {
                    Declared::Done => ok(json!({ "holder": holder.as_str(), "declared": as_of.0 })),
                    Declared::Incomplete(name) => Err(Wrong::new(
                        StatusCode::CONFLICT,
                        format!("{name} is not complete: wait until it is, or delete it, and declare then"),
                    )),
                    Declared::Future => Err(Wrong::new(
                        StatusCode::BAD_REQUEST,
                        "that time has not come: take the as_of that beginning the declaration has answered",
                    )),
                }
            }
            Request::Declared { holder } => {
                let declared = pins.declared(&holder).await?.map(|as_of| as_of.0);
                ok(json!({ "holder": holder.as_str(), "declared": declared }))
            }
            Request::ForgetHolder { holder } => {
                if !self.keeper.forget_holder(&holder).await? {
                    let others = self.keeper.holders(SHOWN).await?;
                    return Err(no_holder(&holder, &others));
                }
                Ok(Reply { status: StatusCode::NO_CONTENT, json: Value::Null })
            }
            Request::Registries { after } => {
                let now = Instant::now();
                let show = |registry: &_, standing: &_| RegistryView::new(registry, standing, now);
                let (registries, next) = self.standings.since(after.as_deref(), show);
                ok(json!({ "registries": registries, "next": next }))
            }
            Request::Plan { image } => {
                let platforms = api::platforms(body)?;
                match plan(self.keeper.puller(), &image, Wanted::For(&platforms)).await {
                    Ok(Plan { content, .. }) => ok(json!({
                        "image": image.to_string(), "digest": content.root.to_string(), "bytes": content.bytes,
                        "blobs": content.digests.len(),
                    })),
                    // As of a revalidation: it is the registry that does not answer, not the cache.
                    Err(Unkept::Later(reason)) => ok(json!({
                        "image": image.to_string(), "digest": null, "bytes": null, "blobs": null,
                        "error": reason.words, "code": reason.code.as_str(),
                    })),
                    Err(refused) => Err(unanswered(refused)),
                }
            }
            Request::Revalidate { image } => {
                let name = Name { registry: image.registry.clone(), repository: image.repository.clone() };
                let reference = image.manifest_reference();
                let said = self.keeper.puller().revalidate(&name, &reference).await.map_err(unanswered)?;
                let (upstream, verdict, error) = match said.upstream {
                    Ok(digest) => (Some(digest), None, None),
                    Err((verdict, reason)) => (None, Some(verdict.as_str()), Some(reason)),
                };
                let is_same = upstream.as_ref().map(|upstream| said.held.as_ref() == Some(upstream));
                ok(
                    json!({ "image": image.to_string(), "upstream": upstream, "held": said.held, "same": is_same, "verdict": verdict, "error": error }),
                )
            }
        }
    }

    /// Writes the wish if it is a new one, and has it looked at.
    async fn put(&self, name: PinName, body: &[u8], wait: Duration) -> Result<Reply, Wrong> {
        let (pins, platforms, place) = (self.keeper.pins(), api::platforms(body)?, name.place());
        self.keeper.wish(&name, platforms).await?;
        if !self.keeper.enqueue(&name) {
            // What is not complete is found by itself; what was to be looked at again is not.
            tracing::debug!(image = %name.image, "control: too many pins wait, this one is looked at later");
        }
        let until = Instant::now() + wait;
        loop {
            let changed = self.keeper.changed.notified();
            // In this order: what ends between the two is read as it ended, and not as incomplete and given up.
            let going_on = self.keeper.state(&place).map(|(state, _)| state);
            let kept = pins.get(&name).await?.ok_or_else(|| no_pin(&name))?;
            let is_under_way = matches!(going_on, Some(State::Queued | State::Fetching));
            if !is_under_way || Instant::now() >= until {
                let status = if kept.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
                return Ok(Reply { status, json: self.show_one(kept).await? });
            }
            let _ = timeout_at(until.min(Instant::now() + Duration::from_secs(1)), changed).await;
        }
    }

    fn show(&self, kept: KeptPin) -> Result<Value, Wrong> {
        json_of(self.view(kept))
    }

    /// Of one that is asked for by itself what is read for it as well.
    async fn show_one(&self, kept: KeptPin) -> Result<Value, Wrong> {
        let confirmed_at = match kept.pin.content.as_ref().filter(|_| kept.complete) {
            Some(content) => self.keeper.puller().confirmed_at(&kept.pin.name.image, &content.root).await,
            None => None,
        };
        let mut view = self.view(kept);
        view.confirmed_at = confirmed_at.map(seconds);
        json_of(view)
    }

    fn view(&self, kept: KeptPin) -> PinView {
        let place = kept.pin.name.place();
        let going_on = self.keeper.state(&place);
        let last_pull = self.last_pull(&kept);
        let mut view = PinView::new(kept, going_on.as_ref().map(|(state, progress)| (state.clone(), &**progress)));
        view.last_pull = last_pull;
        view.until_then_error = view.until_then_error.map(|words| self.keeper.why_older_lacks(&place).unwrap_or(words));
        view
    }

    /// When a client last used what a pin is of, in seconds since 1970. Nothing is read for it: a hundred thousand pins are listed once a minute.
    fn last_pull(&self, kept: &KeptPin) -> Option<u64> {
        let image = &kept.pin.name.image;
        let name = Name { registry: image.registry.clone(), repository: image.repository.clone() };
        let contents = [kept.pin.content.as_ref(), kept.older.as_ref()].into_iter().flatten();
        let known = contents.flat_map(|content| {
            [self.keeper.puller().last_pull(&name, &content.root), self.keeper.pins().pulled_at(&name, &content.root)]
        });
        known.flatten().max().map(seconds)
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn json_of(view: PinView) -> Result<Value, Wrong> {
    serde_json::to_value(view).map_err(|error| Wrong::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// What a registry was to be asked for, and was not, or does not give.
fn unanswered(unkept: Unkept) -> Wrong {
    let (status, reason) = match unkept {
        Unkept::Refused(reason) => (StatusCode::FORBIDDEN, reason),
        Unkept::Later(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    Wrong::new(status, reason.words).with_code(reason.code.as_str())
}

fn no_holder(holder: &Holder, others: &[Holder]) -> Wrong {
    let others = match others {
        [] => "none of this cluster has pins".to_owned(),
        others => {
            let names: Vec<&str> = others.iter().map(Holder::as_str).collect();
            let more = if others.len() < SHOWN { "" } else { ", …" };
            format!("with pins of this cluster there are: {}{more}", names.join(", "))
        }
    };
    Wrong::new(StatusCode::NOT_FOUND, format!("there is no holder {holder}, or not any more; {others}"))
}

fn no_pin(name: &PinName) -> Wrong {
    Wrong::new(StatusCode::NOT_FOUND, format!("there is no pin {name}: put it first"))
}

async fn read(body: Incoming) -> Result<Bytes, Wrong> {
    match timeout(PATIENCE, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => {
            Err(Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY} bytes, or broke off")))
        }
        Err(_) => Err(Wrong::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn respond(status: StatusCode, json: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

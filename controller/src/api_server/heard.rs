//! What the API server's answers say beside what was asked: what time it is there, and that a watch is open.
//!
//! A watch of what never changes says nothing for hours; that it was taken up again shows in the answer's status alone.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode, Uri, header};
use kube::client::Body;
use tokio::sync::Notify;
use tower::{Layer, Service};

use crate::decide::Moment;
use crate::decide::clock::{self, Off};
use crate::world::now;

/// All of it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Of the last answer.
    clock: Mutex<Option<Result<(), Off>>>,
    /// By the plural of what is watched.
    open: Mutex<BTreeMap<String, Arc<Notify>>>,
}

impl Heard {
    /// Whether our clock was the API server's when it answered last. Nothing was asked yet: unknown.
    pub fn clock(&self) -> Result<(), Off> {
        lock(&self.0.clock).unwrap_or(Err(Off::Unknown))
    }

    /// Told whenever a watch of these begins, `pods` for example.
    pub fn open(&self, plural: &str) -> Arc<Notify> {
        Arc::clone(lock(&self.0.open).entry(plural.to_owned()).or_default())
    }

    fn hear<B>(&self, asked: &Uri, answer: &Response<B>) {
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok()).map(Moment::from);
        *lock(&self.0.clock) = Some(clock::compare(date, now()));
        let is_watch = asked.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if is_watch && answer.status() == StatusCode::OK {
            let plural = asked.path().rsplit('/').next().unwrap_or_default();
            self.open(plural).notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Layer<S> for Heard {
    type Service = Hearing<S>;

    fn layer(&self, inner: S) -> Hearing<S> {
        Hearing { inner, heard: self.clone() }
    }
}

/// Listens to the answers of another service.
#[derive(Debug, Clone)]
pub struct Hearing<S> {
    inner: S,
    heard: Heard,
}

impl<S, B> Service<Request<Body>> for Hearing<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (asked, heard) = (request.uri().clone(), self.heard.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            heard.hear(&asked, &answer);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn answer(status: u16, date: Option<SystemTime>) -> Response<()> {
        let date = date.map(httpdate::fmt_http_date);
        let builder = Response::builder().status(status);
        date.into_iter().fold(builder, |builder, date| builder.header("date", date)).body(()).unwrap()
    }

    #[test]
    fn the_last_answer_says_what_time_it_is() {
        let (heard, uri) = (Heard::default(), Uri::from_static("https://a/api/v1/pods"));
        assert_eq!(heard.clock(), Err(Off::Unknown), "nobody was asked");
        heard.hear(&uri, &answer(200, Some(SystemTime::now() - Duration::from_hours(24))));
        assert!(matches!(heard.clock(), Err(Off::Ahead(by)) if by >= Duration::from_hours(24)));
        heard.hear(&uri, &answer(404, Some(SystemTime::now())));
        assert_eq!(heard.clock(), Ok(()));
        heard.hear(&uri, &answer(200, None));
        assert_eq!(heard.clock(), Err(Off::Unknown));
    }

    #[test]
    fn a_watch_is_open_when_it_was_answered() {
        let heard = Heard::default();
        let pods = heard.open("pods");
        let told = || pods.notified().now_or_never().is_some();
        heard.hear(&Uri::from_static("https://a/api/v1/pods?limit=500"), &answer(200, None));
        heard.hear(&Uri::from_static("https://a/api/v1/pods?&watch=true&timeoutSeconds=290"), &answer(410, None));
        heard.hear(&Uri::from_static("https://a/api/v1/nodes?&watch=true&timeoutSeconds=290"), &answer(200, None));
        assert!(!told());
        heard.hear(&Uri::from_static("https://a/api/v1/pods?&watch=true&timeoutSeconds=290"), &answer(200, None));
        assert!(told() && !told());
    }
}

//! From what was asked at the server to `pull`.

use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::hop;
use crate::pull::Puller;
use crate::reply::{Body, Outcome, Reply, ReplySource};
use crate::server::route::Route;
use crate::server::{Answer, Asked};

impl Answer for Puller {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let Asked { route, method, range, query, promised, within, settings, follows } = asked;
            let ours = settings.is_some().then(|| route.registry().and_then(|registry| self.fingerprint(registry)));
            let ours = ours.map(|ours| ours.unwrap_or_else(|| hop::NO_SETTINGS.to_owned()));
            if ours != settings {
                return with_settings(nothing(), ours);
            }
            let query = query.as_deref();
            let puller = self.within(within).following(follows);
            let reply = match route {
                Route::Manifest { name, reference } if promised => {
                    puller.promised_manifest(&name, &reference, method).await
                }
                Route::Blob { name, digest } if promised => puller.promised_blob(&name, &digest, range, method).await,
                Route::Manifest { name, reference } => puller.manifest(&name, &reference, method).await,
                Route::Blob { name, digest } => puller.blob(&name, &digest, range, method).await,
                Route::Tags { name } => puller.tags(&name, query, method).await,
                Route::Catalog => puller.catalog(query, method).await,
                Route::Referrers { name, digest } => puller.referrers(&name, &digest, query, method).await,
                // The server answers these itself.
                Route::Base | Route::Probe | Route::Canary { .. } => nothing(),
            };
            with_settings(reply, ours)
        })
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(Puller::finish(self))
    }
}

/// Says to whoever named settings which ones counted.
fn with_settings(mut reply: Reply, settings: Option<String>) -> Reply {
    if let Some(settings) = settings.and_then(|settings| HeaderValue::from_str(&settings).ok()) {
        reply.headers.insert(hop::SETTINGS, settings);
    }
    reply
}

fn nothing() -> Reply {
    let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(0))]);
    let outcome = Outcome::new(ReplySource::None, "refused");
    Reply::new(StatusCode::NOT_FOUND, headers, Body::Empty, outcome)
}

//! The API server, as far as the cluster cache asks it: TokenReview, the keys that tokens are signed with, one Secret, one ConfigMap.
//!
//! Answers are read as text and parsed here: the client's own reading writes an answer that it does not understand into the log, and these
//! hold tokens and keys. Nothing is tried again here, and everything has a limit in time: whoever asks knows what else it can do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Client, Config};
use larder_process::causes::with_causes;
use larder_proxy::secret::Token;
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::name::ObjectName;

/// To a connection, with TLS.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// For one question, whoever waits for it.
const ANSWER: Duration = Duration::from_secs(10);

/// The manager of the fields that we write.
const MANAGER: &str = "larder-cache";

/// Why the API server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ApiError {
    /// It does not answer, or says that it cannot; or it does not know us any more, which it says of every token that kubelet could not
    /// renew while it was away.
    #[error("the API server does not answer: {0}")]
    Away(String),
    /// It does not let us.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The object is another one than was changed.
    #[error("somebody else changed it")]
    Conflict,
    /// Too many questions of ours are under way.
    #[error("too many questions to the API server are under way")]
    Busy,
    /// Its answer is none.
    #[error("the API server answers what cannot be understood: {0}")]
    Strange(String),
}

/// What the API server says of a token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reviewed {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub(crate) username: String,
    /// Those of the audiences asked for that the token is for. None: the API server did not look at audiences.
    pub(crate) audiences: Vec<String>,
}

/// The keys that tokens are signed with, as they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Who signs.
    pub(crate) issuer: String,
    /// A JWK set (RFC 7517 §5), JSON.
    pub(crate) keys: String,
}

/// Whoever can say whose a token is.
pub(crate) trait Reviews: fmt::Debug + Send + Sync + 'static {
    /// `None`: it is nobody's, or it is not for any of these audiences.
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, ApiError>>;

    /// The keys.
    fn keys(&self) -> BoxFuture<'_, Result<Published, ApiError>>;
}

/// An object's data with the version that a change has to name.
#[derive(Debug, Default)]
pub(crate) struct Object {
    pub(crate) version: String,
    pub(crate) data: BTreeMap<String, Bytes>,
}

/// What may be a secret.
pub(crate) type Bytes = HiddenBytes;

/// Bytes that are not shown and leave no copy behind.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct HiddenBytes(Zeroizing<Vec<u8>>);

impl HiddenBytes {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// Not to be shown.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HiddenBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HiddenBytes({})", self.0.len())
    }
}

/// Which objects are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Whoever keeps Secrets and such.
pub(crate) trait Objects: fmt::Debug + Send + Sync + 'static {
    /// The object; `None` if there is none.
    fn get<'a>(&'a self, kind: Kind, name: &'a ObjectName) -> BoxFuture<'a, Result<Option<Object>, ApiError>>;

    /// Changes these of its data and nothing else of it, if it still is of this version.
    fn patch<'a>(
        &'a self,
        kind: Kind,
        name: &'a ObjectName,
        version: &'a str,
        data: &'a BTreeMap<String, Bytes>,
    ) -> BoxFuture<'a, Result<(), ApiError>>;
}

/// The real one.
#[derive(Clone)]
pub(crate) struct ApiServer {
    client: Client,
    address: String,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// As the API server writes it: of a Secret in base64.
#[derive(Deserialize)]
struct Written {
    metadata: Metadata,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Serialize)]
struct Change<'a> {
    metadata: serde_json::Value,
    data: BTreeMap<&'a str, &'a str>,
}

impl ApiServer {
    /// With the credentials of `KUBECONFIG`, or else of the Pod. Asks nobody.
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context(
            "how is the API server reached? Run in a Pod with the token of its ServiceAccount, or set KUBECONFIG",
        )?;
        config.connect_timeout = Some(CONNECT);
        config.default_retry = false;
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).context("make a client for the API server")?;
        Ok(Self { client, address })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Zeroizing<String>, ApiError> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type).body(body);
        let request = request.map_err(|error| ApiError::Strange(error.to_string()))?;
        match timeout(ANSWER, self.client.request_text(request)).await {
            Ok(Ok(text)) => Ok(Zeroizing::new(text)),
            Ok(Err(error)) => Err(why(&error)),
            Err(_) => Err(ApiError::Away(format!("nothing came within {} s", ANSWER.as_secs()))),
        }
    }
}

fn why(error: &kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => ApiError::Conflict,
            code @ (401 | 429 | 500..) => ApiError::Away(format!("{code} {}", status.message)),
            code => ApiError::Refused { code, message: status.message.clone() },
        },
        // Its own text is "ServiceError"; what happened is below.
        other => ApiError::Away(with_causes(other)),
    }
}

fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    // The parser's words may hold a piece of a value.
    serde_json::from_str(text)
        .map_err(|error| ApiError::Strange(format!("line {}, column {}", error.line(), error.column())))
}

impl Reviews for ApiServer {
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, ApiError>> {
        Box::pin(async move {
            let spec = TokenReviewSpec { audiences: Some(audiences.to_vec()), token: Some(token.expose().to_owned()) };
            let review = TokenReview { spec, ..TokenReview::default() };
            let body = serde_json::to_vec(&review).map_err(|error| ApiError::Strange(error.to_string()))?;
            drop(review.spec.token.map(Zeroizing::new));
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            let text = self.ask(Method::POST, path, "application/json", body).await?;
            let answer: TokenReview = parsed(&text)?;
            drop(answer.spec.token.map(Zeroizing::new));
            let status = answer.status.unwrap_or_default();
            if status.authenticated != Some(true) {
                // An error beside it is of an authenticator that could not say (a webhook that is away), or of a token that is wrong in an
                // interesting way; the API server does not tell these apart.
                return Ok(None);
            }
            let username = status.user.and_then(|user| user.username).unwrap_or_default();
            Ok(Some(Reviewed { username, audiences: status.audiences.unwrap_or_default() }))
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Published, ApiError>> {
        Box::pin(async move {
            let discovery = self.ask(Method::GET, "/.well-known/openid-configuration", "application/json", Vec::new());
            let Discovery { issuer } = parsed(&discovery.await?)?;
            let keys = self.ask(Method::GET, "/openid/v1/jwks", "application/json", Vec::new()).await?;
            Ok(Published { issuer, keys: keys.to_string() })
        })
    }
}

fn address(kind: Kind, name: &ObjectName) -> String {
    format!("/api/v1/namespaces/{}/{}/{}", name.namespace, kind.path(), name.name)
}

impl Objects for ApiServer {
    fn get<'a>(&'a self, kind: Kind, name: &'a ObjectName) -> BoxFuture<'a, Result<Option<Object>, ApiError>> {
        Box::pin(async move {
            let text = match self.ask(Method::GET, &address(kind, name), "application/json", Vec::new()).await {
                Err(ApiError::Refused { code: 404, .. }) => return Ok(None),
                other => other?,
            };
            let Written { metadata, data } = parsed(&text)?;
            let mut object = Object { version: metadata.resource_version, data: BTreeMap::new() };
            for (key, text) in data.unwrap_or_default() {
                let text = Zeroizing::new(text);
                let bytes = match kind {
                    Kind::Secret => BASE64_STANDARD
                        .decode(text.as_bytes())
                        .map_err(|_| ApiError::Strange(format!("its {key} is no base64")))?,
                    Kind::ConfigMap => text.as_bytes().to_vec(),
                };
                object.data.insert(key, Bytes::new(bytes));
            }
            Ok(Some(object))
        })
    }

    fn patch<'a>(
        &'a self,
        kind: Kind,
        name: &'a ObjectName,
        version: &'a str,
        data: &'a BTreeMap<String, Bytes>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let texts = data.iter().map(|(key, bytes)| {
                let text = match kind {
                    Kind::Secret => BASE64_STANDARD.encode(bytes.expose()),
                    Kind::ConfigMap => String::from_utf8_lossy(bytes.expose()).into_owned(),
                };
                (key, Zeroizing::new(text))
            });
            let texts: Vec<_> = texts.collect();
            let data = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
            // A merge patch (RFC 7386) that names a version is refused with 409 where the object has another one.
            let change = Change { metadata: json!({ "resourceVersion": version }), data };
            let body = serde_json::to_vec(&change).map_err(|error| ApiError::Strange(error.to_string()))?;
            let path = format!("{}?fieldManager={MANAGER}", address(kind, name));
            self.ask(Method::PATCH, &path, "application/merge-patch+json", body).await.map(drop)
        })
    }
}

//! The token and the authorities, read from files that others replace: kubelet the projected token, somebody the ConfigMap.
//!
//! Invariant: a file that cannot be read leaves what was read before in force, and that is said once.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use larder_process::secret::Token;
use larder_process::small_file;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::config::ClusterCacheConfig;
use super::error::CacheError;
use super::transport::{Http, client};

/// What is needed to ask.
pub(super) struct Access {
    token: Token,
    pub(super) authorization: HeaderValue,
    ca_pem: Option<String>,
    pub(super) http: Http,
}

impl Access {
    /// Whether asking with the other one is another try.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.token == other.token && self.ca_pem == other.ca_pem
    }
}

/// Both files.
pub(super) struct Files {
    config: ClusterCacheConfig,
    connect: Duration,
    fresh: Duration,
    read: Mutex<State>,
}

#[derive(Default)]
struct State {
    access: Option<(Instant, Arc<Access>)>,
    /// What a person was told last.
    told: Option<CacheError>,
}

impl Files {
    pub(super) fn new(config: ClusterCacheConfig, connect: Duration, fresh: Duration) -> Self {
        Self { config, connect, fresh, read: Mutex::default() }
    }

    /// What they hold, read again when that is old; `anew`: in any case.
    pub(super) async fn access(&self, anew: bool) -> Result<Arc<Access>, CacheError> {
        let mut state = self.read.lock().await;
        if let Some((at, access)) = &state.access
            && !anew
            && at.elapsed() < self.fresh
        {
            return Ok(Arc::clone(access));
        }
        let before = state.access.as_ref().map(|(_, access)| Arc::clone(access));
        match self.read(before.as_ref()).await {
            Ok(access) => {
                state.told = None;
                state.access = Some((Instant::now(), Arc::clone(&access)));
                Ok(access)
            }
            Err(error) => {
                let is_news = state.told.as_ref() != Some(&error);
                let Some((at, access)) = &mut state.access else { return Err(error) };
                if is_news {
                    tracing::warn!("{error}; what was read before stays in force");
                }
                *at = Instant::now();
                let access = Arc::clone(access);
                state.told = Some(error);
                Ok(access)
            }
        }
    }

    async fn read(&self, before: Option<&Arc<Access>>) -> Result<Arc<Access>, CacheError> {
        let config = self.config.clone();
        // The files may be on a disk that hangs.
        let read = tokio::task::spawn_blocking(move || {
            let token = text_of(&config.token)?;
            let ca_pem = config.ca.as_deref().map(text_of).transpose()?;
            Ok((token, ca_pem))
        });
        let (mut token, ca_pem) = read.await.map_err(|error| self.wrong_token(error.to_string()))??;
        let token = Token::new(Zeroizing::new(std::mem::take(&mut *token).trim().to_owned()));
        let ca_pem = ca_pem.map(|mut text| std::mem::take(&mut *text));
        let authorization = token.header().ok_or_else(|| self.wrong_token("it holds what is no token".to_owned()))?;
        if let Some(before) = before
            && before.ca_pem == ca_pem
        {
            if before.token == token {
                return Ok(Arc::clone(before));
            }
            tracing::info!("the token for the cluster cache was read again");
            return Ok(Arc::new(Access { token, authorization, ca_pem, http: before.http.clone() }));
        }
        if before.is_some() {
            tracing::info!("the authorities of the cluster cache were read again");
        }
        let http = client(self.tls(ca_pem.as_deref())?, &self.config.url, self.connect);
        Ok(Arc::new(Access { token, authorization, ca_pem, http }))
    }

    fn wrong_token(&self, reason: String) -> CacheError {
        CacheError::File { path: self.config.token.clone(), reason }
    }

    fn tls(&self, ca_pem: Option<&str>) -> Result<ClientConfig, CacheError> {
        let path = self.config.ca.clone().unwrap_or_default();
        let wrong = |reason: String| CacheError::File { path: path.clone(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default().as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(format!("it is no PEM: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(format!("a certificate cannot be used: {error}")))?;
        }
        if ca_pem.is_some() && roots.is_empty() {
            return Err(wrong("it holds no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(format!("TLS cannot be set up: {error}")))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, CacheError> {
    let wrong = |reason: String| CacheError::File { path: path.to_owned(), reason };
    let text = small_file::read_text(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("it is not there (yet)".to_owned()),
        _ => wrong(error.to_string()),
    })?;
    if text.trim().is_empty() { Err(wrong("it is empty; somebody has to fill it".to_owned())) } else { Ok(text) }
}

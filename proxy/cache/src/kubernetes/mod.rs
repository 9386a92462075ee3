//! All that the cluster cache knows of Kubernetes: whose a token is ([`callers`](crate::callers)), its own certificate
//! ([`own_certificate`](crate::own_certificate)), and what objects say of registries ([`upstream_registries`]).
//!
//! [`Kubernetes::open`] reads what there is without the API server, so a start never waits for it; [`Kubernetes::start`] begins to ask it.

pub(crate) mod api_server;
pub(crate) mod name;
pub(crate) mod saved_folder;
mod upstream_registries;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;
use larder_proxy::metrics::{Metrics, OutcomeLabels};
use larder_proxy::server::gate::Callers;
use larder_proxy::server_certificate::ServerCertificate;
use larder_proxy::settings::SettingsBeside;

use self::api_server::ApiServer;
use self::saved_folder::SavedFolder;
use self::upstream_registries::UpstreamRegistries;
use crate::callers::{SavedKeys, TokenCallers, Whose};
use crate::own_certificate::{OwnCertificate, OwnCertificateConfig};

/// What a person says of it.
#[derive(Debug, Clone)]
pub(crate) struct KubernetesConfig {
    /// Who may ask for images.
    pub(crate) callers: Option<Whose>,
    /// Who may use the control API.
    pub(crate) control: Option<Whose>,
    /// Where things are kept for the time without the API server.
    pub(crate) saved: Option<PathBuf>,
    /// How long that time may be.
    pub(crate) without: Duration,
    /// Its own certificate.
    pub(crate) own_certificate: Option<OwnCertificateConfig>,
    /// What UpstreamRegistry objects say is part of the settings.
    pub(crate) upstream_registries: bool,
}

/// Connected as far as the machine alone allows.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    keys: Arc<SavedKeys>,
    callers: Option<Arc<TokenCallers>>,
    control: Option<Arc<TokenCallers>>,
    certificate: Option<OwnCertificate>,
    registries: Option<UpstreamRegistries>,
    counts: Counts,
}

/// Where outcomes are counted, once there is a place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<OnceLock<Arc<Metrics>>>);

impl Counts {
    pub(crate) fn count(&self, outcome: &'static str) {
        if let Some(metrics) = self.0.get() {
            metrics.cache_token_reviews.get_or_create(&OutcomeLabels { outcome }).inc();
        }
    }
}

impl Kubernetes {
    /// Reads credentials for the API server and what was saved. Needs a runtime; asks nobody.
    pub(crate) async fn open(config: KubernetesConfig) -> anyhow::Result<Self> {
        let KubernetesConfig { callers, control, saved, without, own_certificate, upstream_registries } = config;
        let api = Arc::new(ApiServer::connect().await?);
        let folder = saved.map(|path| SavedFolder::new(&path));
        let keys = Arc::new(SavedKeys::open(Arc::clone(&api) as Arc<_>, folder.clone(), without));
        let counts = Counts::default();
        let of = |whose: Whose| {
            TokenCallers::new(whose, Arc::clone(&api) as Arc<_>, Arc::clone(&keys), counts.clone()).map(Arc::new)
        };
        Ok(Self {
            callers: callers.map(of).transpose()?,
            control: control.map(of).transpose()?,
            registries: upstream_registries.then(|| UpstreamRegistries::open(folder.clone())),
            certificate: own_certificate.map(|config| OwnCertificate::open(config, Arc::clone(&api) as Arc<_>, folder)),
            keys,
            counts,
        })
    }

    /// Who may ask for images.
    pub(crate) fn callers(&self) -> Option<Arc<dyn Callers>> {
        self.callers.clone().map(|callers| callers as Arc<dyn Callers>)
    }

    /// Who may use the control API.
    pub(crate) fn control(&self) -> Option<Arc<dyn Callers>> {
        self.control.clone().map(|callers| callers as Arc<dyn Callers>)
    }

    /// The certificate to show; there may be none yet.
    pub(crate) fn certificate(&self) -> Option<Arc<ServerCertificate>> {
        self.certificate.as_ref().map(OwnCertificate::shown)
    }

    /// What is said of registries beside the file.
    pub(crate) fn settings_beside(&self) -> Option<Arc<dyn SettingsBeside>> {
        self.registries.as_ref().map(UpstreamRegistries::settings)
    }

    /// Begins to ask the API server.
    pub(crate) fn start(self, tasks: &Tasks, readiness: &Readiness, metrics: &Arc<Metrics>) {
        let Self { keys, callers, control, certificate, registries, counts } = self;
        let _ = counts.0.set(Arc::clone(metrics));
        for (name, callers) in [("token reviews", &callers), ("token reviews of control", &control)] {
            if let Some(callers) = callers {
                callers.tell(readiness.condition(name));
            }
        }
        if callers.is_some() || control.is_some() {
            tasks.spawn("saved keys", keys.follow(readiness.condition("API server"), tasks.shutdown().clone()));
        }
        if let Some(registries) = registries {
            registries.start(tasks, readiness);
        }
        if let Some(certificate) = certificate {
            let following = certificate.follow(readiness.condition("own certificate"), tasks.shutdown().clone());
            tasks.spawn("own certificate", following);
        }
    }
}

//! What a proxy has beside the usual that serves others than its own node: its files are read, then followed; the control API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;

use super::{CertificateConfig, ControlConfig, OpenError, ServiceConfig, certificate_watch};
use crate::control::{Control, HolderOf, Keeper, Listening};
use crate::followed;
use crate::metrics::Metrics;
use crate::origin::Standings;
use crate::pins::Pins;
use crate::pull::Puller;
use crate::server::Service;
use crate::server::gate::{AnyOf, Callers, Gate};
use crate::server_certificate::ServerCertificate;
use crate::static_tokens::StaticTokens;

/// For how long a service says that it is about to stop, so that those who ask it go elsewhere by themselves.
const NOTICE: Duration = Duration::from_secs(3);

/// A service whose files were read.
#[derive(Debug)]
pub(super) struct OpenService {
    certificate: Option<(Arc<ServerCertificate>, Arc<rustls::ServerConfig>)>,
    tokens: Option<Arc<StaticTokens>>,
    callers: Option<Arc<dyn Callers>>,
    anonymous: Vec<ipnet::IpNet>,
    control: Option<OpenControl>,
}

/// The control API, with its address taken.
#[derive(Debug)]
pub(super) struct OpenControl {
    listening: Listening,
    tokens: Option<Arc<StaticTokens>>,
    callers: Option<Arc<dyn Callers>>,
    holders: Vec<HolderOf>,
}

impl OpenService {
    /// Reads them, and takes the control API's address.
    pub(super) fn open(config: ServiceConfig) -> Result<Self, OpenError> {
        let certificate = match config.tls {
            Some(config) => {
                let certificate = match config {
                    CertificateConfig::Files { certificate, key } => ServerCertificate::open(&certificate, &key)?,
                    CertificateConfig::Held(certificate) => certificate,
                };
                let server = certificate.server_config().map_err(OpenError::Tls)?;
                Some((certificate, server))
            }
            None => None,
        };
        let tokens = config.tokens.map(|path| StaticTokens::open(&path)).transpose()?;
        let control = config.control.map(|ControlConfig { listen, tokens, callers, holders }| {
            let tokens = tokens.map(|path| StaticTokens::open(&path)).transpose()?;
            Ok::<_, OpenError>(OpenControl { listening: Listening::bind(listen)?, tokens, callers, holders })
        });
        let control = control.transpose()?;
        Ok(Self { certificate, tokens, callers: config.callers, anonymous: config.anonymous, control })
    }

    /// Where the control API is.
    pub(super) fn control_address(&self) -> Option<SocketAddr> {
        self.control.as_ref()?.listening.address()
    }

    /// Starts following the files.
    pub(super) fn start(
        self,
        tasks: &Tasks,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
    ) -> (Service, Option<OpenControl>) {
        let Self { certificate, tokens, callers, anonymous, control } = self;
        let follow = |name, tokens: Arc<StaticTokens>| {
            let load = move || tokens.load().map_err(|error| error.to_string());
            tasks.spawn(name, followed::follow(load, readiness.condition(name), tasks.shutdown().clone()));
        };
        if let Some(tokens) = control.as_ref().and_then(|control| control.tokens.clone()) {
            follow("control tokens", tokens);
        }
        if let Some(tokens) = tokens.clone() {
            follow("tokens", tokens);
        }
        let tls = certificate.map(|(certificate, server)| {
            let watch =
                certificate_watch::watch(Arc::clone(&certificate), readiness, metrics, tasks.shutdown().clone());
            tasks.spawn("certificate watch", watch);
            let load = move || certificate.load().map_err(|error| error.to_string());
            let condition = readiness.condition("certificate");
            tasks.spawn("certificate", followed::follow(load, condition, tasks.shutdown().clone()));
            server
        });
        (Service { gate: gate(tokens, callers, anonymous), tls, notice: NOTICE }, control)
    }
}

fn gate(tokens: Option<Arc<StaticTokens>>, callers: Option<Arc<dyn Callers>>, anonymous: Vec<ipnet::IpNet>) -> Gate {
    let tokens = tokens.map(|tokens| tokens as Arc<dyn Callers>);
    Gate { callers: Arc::new(AnyOf(tokens.into_iter().chain(callers).collect())), anonymous }
}

impl OpenControl {
    /// Starts serving it, and making pins complete.
    pub(super) fn start(
        self,
        pins: Arc<dyn Pins>,
        puller: &Puller,
        standings: Arc<Standings>,
        tls: Option<Arc<rustls::ServerConfig>>,
        tasks: &Tasks,
    ) {
        let Self { listening, tokens, callers, holders } = self;
        let keeper = Keeper::new(pins, puller.clone(), Arc::clone(&standings));
        tasks.spawn("pins", Arc::clone(&keeper).run(tasks.shutdown().clone()));
        tracing::info!(address = ?listening.address(), "control API");
        let control = Control { keeper, standings, gate: gate(tokens, callers, Vec::new()), holders, tls };
        tasks.spawn_fallible("control", control.serve(listening, tasks.shutdown().clone()));
    }
}

//! `larder-node run` and `larder-node agent`: from what was typed to a running agent, and its orderly end.
//!
//! The private mount comes first, while there is one thread; the supervising thread next, so that nothing is ever announced
//! unsupervised; then the runtime with the [`watch`](crate::watch_loop). At a planned end the engine is told first, then
//! our entries are taken back, and only then is the proxy asked to drain.

use crate::args::{AgentArgs, ClusterCacheArgs, PlacementArg, ProxyArgs, UserArgs};
use crate::child::{Own, ProxyProcess};
use crate::config::{Agent as Config, Store, User, cluster_cache};
use crate::handed_on::{Copies, HandedOn};
use crate::kubernetes::{Keeper, Kubernetes, Telling, last_known};
use crate::leftover;
use crate::metrics::Metrics;
use crate::node;
use crate::privileges;
use crate::probe::Seen;
use crate::run_folder::RunFolder;
use crate::status::Status;
use crate::supervisor::{Settings as SupervisorSettings, Supervisor};
use crate::watch_loop::{Said, Surrounding, WatchLoop};
use anyhow::Context as _;
use larder_node_agent::liveness::Limits;
use larder_node_agent::placement::{Announcer, PrivateMount};
use larder_process::admin::{AdminServer, MetricsText, PageKind, PageText, Scope};
use larder_process::logging::Format;
use larder_process::metrics_server::MetricsServer;
use larder_process::readiness::Readiness;
use larder_process::signals::stop_on_signals;
use larder_process::tasks::Tasks;
use larder_proxy::settings::Settings;
use larder_upstream_registries::merged;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The proxy's own limit for its drain is 30 s; what it does after is cutting.
const DRAIN: Duration = Duration::from_secs(40);

/// For the admin servers to end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Runs until SIGTERM. `own_proxy` is the proxy to start and its admin address; without it somebody else starts one.
pub(crate) fn run(args: &AgentArgs, log: Format, own_proxy: Option<(&ProxyArgs, SocketAddr)>) -> anyhow::Result<()> {
    let config = Config::from_args(args)?;
    let (by_file, damaged) = node::settings_after(&Settings::default(), config.registries.as_deref())?;
    if let Some(damaged) = damaged {
        tracing::error!(damaged, "one registry is left out; the others are served");
    }
    // By what an agent before this one read: nobody waits for the API server.
    let known = config.kubernetes.as_ref().and_then(|_| last_known::read(&config.engine));
    let by_both = known.as_ref().map_or_else(|| by_file.clone(), |known| merged(&by_file, known).0);
    // Also where somebody else starts the proxy: it is to read the folder.
    let user = User::from_args(&args.user)?;
    if let Some((proxy, _)) = own_proxy {
        // What the child would refuse, this process says.
        Store::from_args(&proxy.store)?;
        cluster_cache(&proxy.cluster_cache)?;
    }
    let mount = private_mount(&config)?;
    let folder = Arc::new(RunFolder::open(&config.engine.run_dir, user, &by_both.to_toml())?);
    // The proxy that is nobody reads them no more once they change.
    let handed_on = own_proxy.filter(|_| privileges::is_root()).map(|(proxy, _)| HandedOn::new(&proxy.cluster_cache));
    let copies = handed_on.map(|files| Copies::of(files, Arc::clone(&folder)));
    if own_proxy.is_some() {
        leftover::kill_all(folder.path());
    }
    let admin = AdminServer::bind(config.admin, Scope::All)?;
    let more_metrics = config.metrics.map(MetricsServer::bind);

    let announcer = Announcer::default();
    let process = match own_proxy {
        Some((proxy, admin)) => ProxyProcess::Own(Own::new(arguments(&config, proxy, &args.user, log, admin, &folder))),
        None => ProxyProcess::Others { address: config.listen.mirror, known: None },
    };
    let supervisor = Supervisor::start(SupervisorSettings {
        addresses: config.listen.addresses.clone(),
        mirror: config.listen.mirror,
        key: folder.key().clone(),
        process,
        announcer: announcer.clone(),
        limits: Limits::default(),
    })?;

    let readiness = Readiness::new();
    let (metrics, status) = (Arc::new(Metrics::new()), Arc::new(Mutex::new(Status::default())));
    let admin = admin.with_page("/status", PageKind::Json, status_page(&status));
    let pages = (readiness.clone(), metrics_text(&metrics, &readiness));
    let store = own_proxy.map(|(proxy, _)| format!("{}, at most {}", proxy.store.store, proxy.store.store_size));
    let surrounding = Surrounding {
        seen: Seen { address: config.listen.mirror, key: folder.key().clone() },
        config,
        mount,
        folder: Arc::clone(&folder),
        announcer: announcer.clone(),
        view: supervisor.view(),
        readiness,
        metrics,
        status,
        store,
    };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime")?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::new(CancellationToken::new());
        let shutdown = tasks.shutdown().clone();
        stop_on_signals(&shutdown).context("listen to signals")?;
        // Its conditions are there before anybody can ask whether we are ready.
        let kubernetes = surrounding.config.kubernetes.clone().map(|node| {
            let telling = Telling {
                status: Arc::clone(&surrounding.status),
                view: surrounding.view.clone(),
                announcer: announcer.clone(),
                readiness: surrounding.readiness.clone(),
                metrics: Arc::clone(&surrounding.metrics),
            };
            Kubernetes::start(&tasks, node, known, Keeper::new(&surrounding.config.engine), telling)
        });
        let mut watch = WatchLoop::new(surrounding, Said { by_file, by_both }, kubernetes);
        if let Some(copies) = &copies {
            tasks.spawn("handed on", copies.follow(shutdown.clone()));
        }
        tasks.spawn("proxy condition", watch.tell_of_proxy(shutdown.clone()));
        let (readiness, metrics) = pages;
        tasks.spawn_fallible("admin", admin.serve(readiness.clone(), Arc::clone(&metrics), shutdown.clone()));
        if let Some(server) = more_metrics {
            tasks.spawn("metrics", server.serve(readiness, metrics, shutdown.clone()));
        }
        let run = async {
            let ended = watch.run(&shutdown).await;
            shutdown.cancel();
            ended
        };
        // At once, whatever the loop is at: it may wait for a disk or an engine.
        let withdraw = async {
            shutdown.cancelled().await;
            tokio::task::block_in_place(|| supervisor.withdraw());
        };
        let (ended, ()) = tokio::join!(run, withdraw);
        let restored = tokio::task::block_in_place(|| watch.take_back());
        shutdown.cancel();
        let finished = tasks.finish(LAST_ANSWERS).await;
        ended.and(restored).and(finished.map_err(anyhow::Error::from))
    });
    supervisor.stop(DRAIN);
    ended
}

fn status_page(status: &Arc<Mutex<Status>>) -> PageText {
    let status = Arc::clone(status);
    Arc::new(move || {
        let status = status.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string_pretty(&*status).unwrap_or_default()
    })
}

fn metrics_text(metrics: &Arc<Metrics>, readiness: &Readiness) -> MetricsText {
    let (metrics, readiness) = (Arc::clone(metrics), readiness.clone());
    Arc::new(move || metrics.text(&readiness))
}

/// Where the node allows it and a person did not say otherwise.
fn private_mount(config: &Config) -> anyhow::Result<Option<PrivateMount>> {
    let point = config.engine.run_dir.join("larder-agent");
    match config.placement {
        PlacementArg::Run => Ok(None),
        PlacementArg::ByAgent => Ok(Some(PrivateMount::enter(&point)?)),
        PlacementArg::Auto => match PrivateMount::enter(&point) {
            Ok(mount) => Ok(Some(mount)),
            Err(error) => {
                tracing::warn!(%error, "no private mount: links lead into /run, which only a reboot or this agent empties");
                Ok(None)
            }
        },
    }
}

/// The proxy's command line.
fn arguments(
    config: &Config,
    proxy: &ProxyArgs,
    user: &UserArgs,
    log: Format,
    admin: SocketAddr,
    folder: &RunFolder,
) -> Vec<OsString> {
    let mut line: Vec<OsString> = leftover::CHILD.map(OsString::from).to_vec();
    line.push(folder.path().into());
    let mut flag = |name: &str, value: &str| {
        line.push(name.into());
        line.push(value.into());
    };
    for address in &config.listen.addresses {
        flag("--listen", &address.to_string());
    }
    flag("--log-format", log.as_str());
    flag("--admin", &admin.to_string());
    flag("--store", &proxy.store.store);
    flag("--store-size", &proxy.store.store_size);
    flag("--store-reserve", &proxy.store.store_reserve);
    flag("--user", &user.user);
    if let Some(metrics) = proxy.metrics {
        flag("--metrics", &metrics.to_string());
    }
    let ClusterCacheArgs { cache, cache_address, cache_ca, cache_token_file } = &proxy.cluster_cache;
    if let Some(cache) = cache {
        flag("--cache", cache);
    }
    for address in cache_address.iter().filter(|address| !address.is_empty()) {
        flag("--cache-address", address);
    }
    let files =
        [("--upstream-ca", &proxy.upstream_ca), ("--cache-ca", cache_ca), ("--cache-token-file", cache_token_file)];
    for (name, file) in files {
        if let Some(file) = file {
            line.extend([OsString::from(name), file.into()]);
        }
    }
    line
}

//! `larder-node proxy`: takes what needs privileges, gives them up, and only then starts a runtime.
//!
//! The order is the point: folders, key and addresses are opened as whoever started us ([`larder_proxy::program::open`]),
//! then the process becomes `--user` while it still has one thread, and no code that faces the network ever ran as root.

use crate::args::{PrepareStoreArgs, ProxyAloneArgs, StoreArgs};
use crate::config::{Listen, Store, User, cluster_cache};
use crate::{parent, privileges};
use anyhow::Context as _;
use larder_process::signals::stop_on_signals;
use larder_proxy::cluster_cache::ClusterCacheConfig;
use larder_proxy::program::{self, ProxyConfig, ProxyLimits, StoreConfig};
use larder_proxy::store::directory::{DirectoryConfig, DirectoryStore, Owner, make_parent};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a proxy that was started before its agent looks whether the run folder is there.
const LOOK_FOR_FOLDER: Duration = Duration::from_millis(100);

/// Runs until SIGTERM, or until standard input closes when asked to.
pub(crate) fn run(args: &ProxyAloneArgs) -> anyhow::Result<()> {
    let user = User::from_args(&args.user)?;
    let run_folder = match &args.run_folder {
        Some(folder) if !wait_for(folder)? => return Ok(()),
        Some(folder) => Some(held_open(folder)?),
        None => None,
    };
    let run_path = run_folder.as_ref().map(|(_, path)| path.clone());
    let cluster_cache = cluster_cache(&args.proxy.cluster_cache)?;
    let config = ProxyConfig {
        listen: Listen::from_args(&args.listen)?.addresses,
        admin: args.admin,
        metrics: args.proxy.metrics,
        store: store(&args.proxy.store, user)?,
        run_folder: run_path.clone(),
        registries: args.registries.registries.clone(),
        settings_beside: None,
        proxies: larder_proxy::origin::ProxyVariables::of_environment(),
        upstream_ca: args.proxy.upstream_ca.clone(),
        cluster_cache: cluster_cache.map(|config| ClusterCacheConfig { copies: run_path, ..config }),
        service: None,
        limits: ProxyLimits::default(),
    };
    if args.until_stdin_closes {
        parent::end_with_it()?;
    }
    let opened = program::open(config)?;
    privileges::drop_to(user)?;
    if args.until_stdin_closes {
        parent::end_with_it()?;
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
    let shutdown = CancellationToken::new();
    if args.until_stdin_closes {
        end_with_standard_input(shutdown.clone())?;
    }
    runtime.block_on(async {
        stop_on_signals(&shutdown).context("listen to signals")?;
        opened.run(shutdown).await.map_err(anyhow::Error::from)
    })
}

/// `larder-node prepare-store`: opens the store as whoever started us, which gives its folder to `--user`, and ends.
pub(crate) fn prepare_store(args: &PrepareStoreArgs) -> anyhow::Result<()> {
    if let StoreConfig::Directory(config) = store(&args.store, User::from_args(&args.user)?)? {
        let folder = config.root.clone();
        DirectoryStore::open(config)?;
        if privileges::is_root() {
            tracing::info!(folder = %folder.display(), user = args.user.user, "the store is the proxy's");
        } else {
            tracing::warn!(folder = %folder.display(), "made, but only root gives a folder away: it is whoever's started this");
        }
    }
    Ok(())
}

fn store(args: &StoreArgs, user: User) -> anyhow::Result<StoreConfig> {
    Ok(match Store::from_args(args)? {
        Store::Directory { folder, limit, reserve } => {
            make_parent(&folder).context("open the store")?;
            let mut config = DirectoryConfig::new(folder);
            config.limit = Some(limit);
            config.reserve = reserve;
            config.owner = Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
            StoreConfig::Directory(config)
        }
        Store::Memory { limit } => StoreConfig::Memory { limit },
    })
}

/// Waits until an agent has made the folder; false when a signal asked us to stop meanwhile.
///
/// Signals are taken from the start: the first process of a container gets none that it does not listen to.
fn wait_for(folder: &Path) -> anyhow::Result<bool> {
    let stop: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    stop.thread_block().context("hold signals back")?;
    let waited = until_made_or(&stop, folder);
    // The runtime listens to them from now on.
    stop.thread_unblock().context("take signals again")?;
    waited
}

fn until_made_or(stop: &SigSet, folder: &Path) -> anyhow::Result<bool> {
    let signals = SignalFd::with_flags(stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("take signals")?;
    let key = folder.join(program::KEY);
    let mut told = false;
    loop {
        let there = key.try_exists().with_context(|| {
            format!(
                "look into {}, which the agent opens for the group of its --user: give both the same",
                folder.display()
            )
        })?;
        if there {
            return Ok(true);
        }
        if signals.read_signal().context("take signals")?.is_some() {
            tracing::info!("stopped while waiting for the agent");
            return Ok(false);
        }
        if !told {
            tracing::info!(folder = %folder.display(), "waiting for the agent");
            told = true;
        }
        std::thread::sleep(LOOK_FOR_FOLDER);
    }
}

/// The folder under a name that still leads there when the folders above it are closed to `--user`.
fn held_open(folder: &Path) -> anyhow::Result<(File, PathBuf)> {
    let held = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    Ok((held, path))
}

/// Nobody writes to it: it ends when the process that started us does, however that ends.
fn end_with_standard_input(shutdown: CancellationToken) -> anyhow::Result<()> {
    let wait = move || {
        let mut ignored = [0; 64];
        while std::io::stdin().read(&mut ignored).is_ok_and(|length| length > 0) {}
        tracing::info!("the agent is gone: stopping");
        shutdown.cancel();
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(wait).context("start a thread")?;
    Ok(())
}

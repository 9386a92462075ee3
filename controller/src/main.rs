//! The program `larder-controller`: keeps the images that a cluster's Pods use in its cache.
//!
//! Text becomes what was typed ([`args`]), that becomes what is meant ([`config`]); the rest is the library. Exit status: 0 done, 1 failed, 2 wrong usage.

mod args;
mod config;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use larder_controller::cluster_cache::{ClusterCache, Limits};
use larder_controller::leader::{self, Candidate, Note, Witness};
use larder_controller::metrics::Metrics;
use larder_controller::work::{Shared, work};
use larder_controller::world::World;
use larder_controller::{api_server, watches};
use larder_process::admin::{AdminServer, MetricsText, PageKind, Scope};
use larder_process::metrics_server::MetricsServer;
use larder_process::readiness::Readiness;
use larder_process::signals::stop_on_signals;
use larder_process::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use args::{Command, RunArgs, Typed};
use config::Config;

/// One does the work, and the others run the watches, the lease and the admin server: more are of no use, and each takes memory (an arena of the allocator's),
/// however many processors a node has.
const THREADS: usize = 4;

/// After a stop: to give the lease back, which has a shorter limit of its own.
const STOPPING: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (typed, file) = match larder_process::command_line::parse::<Typed>(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    if let Err(error) = larder_process::logging::init(typed.log_format) {
        eprintln!("larder-controller: {error}");
        return ExitCode::from(2);
    }
    if let Some(file) = file {
        tracing::debug!(file = %file.display(), "options read");
    }
    let Command::Run(args) = typed.command;
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-controller: {error:#}");
            if error.is::<larder_process::command_line::Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Until SIGTERM.
fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = config::config(args)?;
    let threads = std::thread::available_parallelism().map_or(THREADS, |processors| processors.get().min(THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("start a runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let Config { cache, filters, settings, lease, times, admin, metrics: metrics_address } = config;
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown).context("listen to signals")?;
    let report = Arc::new(Mutex::new(String::new()));
    let page = {
        let report = Arc::clone(&report);
        Arc::new(move || match report.lock().unwrap_or_else(PoisonError::into_inner).as_str() {
            "" => r#"{"mode": null}"#.to_owned(),
            page => page.to_owned(),
        })
    };
    // Which images there are, and in which namespaces, is for whoever may list CachedImages, or get into this Pod.
    let admin = AdminServer::bind(admin, Scope::All)?.with_page("/report", PageKind::Json, page).with_lines_here();
    let scraped = metrics_address.map(MetricsServer::bind);
    let tasks = Tasks::new(shutdown.clone());
    let (readiness, metrics) = (Readiness::new(), Arc::new(Metrics::default()));
    let text: MetricsText = {
        let metrics = Arc::clone(&metrics);
        Arc::new(move || metrics.text())
    };
    tasks.spawn_fallible("admin", admin.serve(readiness.clone(), MetricsText::clone(&text), shutdown.clone()));
    if let Some(scraped) = scraped {
        tasks.spawn("metrics", scraped.serve(readiness.clone(), text, shutdown.clone()));
    }
    let (client, heard) = api_server::connect().await?;
    let identity = identity()?;
    tracing::info!(identity, cache = %cache.url, observe = settings.observe, %lease, "larder-controller");
    let world = Arc::new(World::new(filters));
    watches::start(&tasks, &client, &heard, &world, &readiness, &metrics);
    let note = Note::default();
    let shared = Arc::new(Shared {
        world,
        client: client.clone(),
        heard,
        cache: ClusterCache::new(cache, Limits::default())?,
        settings,
        metrics,
        readiness,
        word: Mutex::default(),
        note: note.clone(),
        report,
        identity: identity.clone(),
    });
    let witness = Arc::new(Told(Arc::clone(&shared)));
    let candidate = Candidate::new(client, lease, identity, times, witness).with_note(note);
    let leading = leader::lead(candidate, shutdown, move |leadership| work(Arc::clone(&shared), leadership));
    tasks.spawn_fallible("leader", leading);
    tasks.finish(STOPPING).await.map_err(anyhow::Error::from)
}

/// No other process's, nor an earlier one's: the host's name and random letters.
fn identity() -> anyhow::Result<String> {
    let host = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let host = host.unwrap_or_default();
    let mut random = [0_u8; 8];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut random).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(format!("{}_{:016x}", host.trim(), u64::from_be_bytes(random)))
}

/// What is told of the lead.
struct Told(Arc<Shared>);

impl Witness for Told {
    fn leads(&self, leads: bool) {
        self.0.metrics.leads(leads);
    }

    fn leader(&self, holder: &str) {
        tracing::debug!(holder, "who leads");
    }

    fn word(&self, word: Option<&str>) {
        let word = word.map(str::to_owned);
        let before = std::mem::replace(&mut *self.0.word.lock().unwrap_or_else(PoisonError::into_inner), word.clone());
        if before != word {
            // Not by a lock that a pass may have: the lease is renewed behind this.
            self.0.world.wake();
        }
    }
}

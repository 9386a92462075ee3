//! What a person types: flags, `LARDER_*` variables of the same names, and a `--config` file with the same words.
//!
//! Invariant: a flag beats a variable, a variable beats the file, the file beats the default; an unknown word in the file
//! is an error, as an unknown flag is. What it means is decided in [`crate::config`].

use clap::{Args, Parser, Subcommand, ValueEnum};
use larder_process::logging::Format;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

#[cfg(test)]
mod tests;

const AFTER_HELP: &str = "\
Try it without changing anything:
  larder-node plan         what would be changed on this node, as a diff
Then:
  larder-node run          until Ctrl-C; the node is left as it was found

LARDER_LOG says what is logged (info, debug, warn,larder_proxy=debug).
Exit status: 0 done, 1 failed, 2 wrong usage; plan --exit-code: 3 when there is something to change.";

/// Keeps container images pullable on this node while their registry is away.
///
/// It tells the node's own engine (containerd or CRI-O) to ask a proxy on 127.0.0.1:7439 first. The proxy answers from its store or
/// from the registry. When it is gone, the engine goes to the registry by itself, as if nothing had been there.
#[derive(Debug, Parser)]
#[command(name = "larder-node", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Typed {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How logs are written: text or json.
    #[arg(long, global = true, env = "LARDER_LOG_FORMAT", default_value = "text")]
    log_format: Format,
    /// A TOML file with any of these options: names without the dashes, for example cri-socket = "/run/x.sock".
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Typed {
    pub(crate) fn log_format(&self) -> Format {
        self.log_format
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Agent and proxy, two processes, until SIGTERM. Takes everything back at the end.
    Run(Box<RunArgs>),
    /// The proxy alone: a container beside the agent's, or a node that is configured in another way.
    Proxy(Box<ProxyAloneArgs>),
    /// Makes the store's folder and gives it to the proxy's user: for a proxy that is started without the right to.
    PrepareStore(PrepareStoreArgs),
    /// The agent alone: configures the engine and watches over a proxy that somebody else starts.
    Agent(Box<AgentArgs>),
    /// Checks that pulls go through the proxies: what helm test runs.
    #[command(subcommand)]
    Check(CheckCommand),
    /// What would be changed on this node, as a diff. Changes nothing.
    Plan(Box<PlanArgs>),
    /// Makes the changes once, without an agent that watches over them. A reboot takes links away; files (CRI-O) stay until restore.
    Apply(Box<ByHandArgs>),
    /// Takes back every change, byte for byte. Needs neither Kubernetes nor the network.
    Restore(Box<RestoreArgs>),
    /// What was found, what is placed where, what was left alone and why.
    Status(Box<ByHandArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    /// Health and metrics of the proxy.
    #[arg(
        long,
        env = "LARDER_PROXY_ADMIN",
        help_heading = "Addresses",
        value_name = "ADDR",
        default_value = "127.0.0.1:7440"
    )]
    pub(crate) proxy_admin: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyAloneArgs {
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    #[command(flatten)]
    pub(crate) user: UserArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) registries: RegistriesArgs,
    /// Health and metrics.
    #[arg(
        long,
        env = "LARDER_ADMIN",
        help_heading = "Addresses",
        value_name = "ADDR",
        default_value = "127.0.0.1:7440"
    )]
    pub(crate) admin: SocketAddr,
    /// The folder through which an agent tells the proxy about registries; waits until the agent made it.
    #[arg(long, env = "LARDER_RUN_FOLDER", help_heading = "Registries", value_name = "DIR")]
    pub(crate) run_folder: Option<PathBuf>,
    /// Ends when standard input does: how the proxy notices that the process that started it is gone.
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// What the agent needs, with or without a proxy of its own.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) user: UserArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) registries: RegistriesArgs,
    /// A registry that CRI-O, which has no entry for all others, shall ask the proxy for from the start; repeatable. Those that images of
    /// this node come from are learnt.
    #[arg(
        long = "registry",
        env = "LARDER_REGISTRY",
        help_heading = "Registries",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub(crate) named: Vec<String>,
    /// Health, status and metrics of the agent.
    #[arg(
        long,
        env = "LARDER_ADMIN",
        help_heading = "Addresses",
        value_name = "ADDR",
        default_value = "127.0.0.1:7441"
    )]
    pub(crate) admin: SocketAddr,
    /// The agent's metrics once more, where a scraper reaches them. While it is taken all else goes on, and it is tried again.
    #[arg(long, env = "LARDER_AGENT_METRICS", help_heading = "Addresses", value_name = "ADDR")]
    pub(crate) agent_metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,
    /// Where links lead: by-agent vanishes with the agent; run is a folder that a reboot empties; auto takes the first
    /// that this node allows.
    #[arg(long, env = "LARDER_PLACEMENT", help_heading = "Engine", value_enum, default_value_t = PlacementArg::Auto)]
    pub(crate) placement: PlacementArg,
}

/// What the agent has to do with Kubernetes: nothing, unless it is told to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct KubernetesArgs {
    /// Takes settings of registries from UpstreamRegistry objects too, and tells of this node in its NodeMirror. The API server is reached
    /// as from any Pod, or by KUBECONFIG; while it is away what was last read stays in force.
    #[arg(long, env = "LARDER_KUBERNETES", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) kubernetes: bool,
    /// This node's name in Kubernetes; needed with --kubernetes. In a Pod from the downward API: spec.nodeName.
    #[arg(long, env = "LARDER_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlacementArg {
    Auto,
    ByAgent,
    Run,
}

/// Which engine, and where its files are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// The engine of this node; others that answer here are passed over.
    #[arg(long, env = "LARDER_ENGINE", value_enum, default_value_t = EngineArg::Auto)]
    pub(crate) engine: EngineArg,
    /// The node's root directory [default: as the engine sees it].
    #[arg(long, env = "LARDER_HOST_ROOT", value_name = "DIR")]
    pub(crate) host_root: Option<PathBuf>,
    /// The engine's CRI socket [default: the known one that answers].
    #[arg(long, env = "LARDER_CRI_SOCKET", value_name = "PATH")]
    pub(crate) cri_socket: Option<PathBuf>,
    /// containerd's configuration, as containerd sees it [default: what the running containerd was given].
    #[arg(long, env = "LARDER_CONTAINERD_CONFIG", value_name = "FILE")]
    pub(crate) containerd_config: Option<PathBuf>,
    /// CRI-O's configuration, as CRI-O sees it [default: what the running CRI-O was given].
    #[arg(long, env = "LARDER_CRIO_CONFIG", value_name = "FILE")]
    pub(crate) crio_config: Option<PathBuf>,
    /// Where containerd reads no folder of registries, its configuration may be edited and it be restarted (running
    /// containers stay). Needs --engine-restart-command; undone by restore, not by a stop.
    #[arg(long, env = "LARDER_ALLOW_ENGINE_RESTART", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) allow_engine_restart: bool,
    /// How the engine is restarted on this node, for example "systemctl restart containerd". Split at white space; a line
    /// with quotes, variables or the like is given to /bin/sh. It must ask the node's service manager, and neither become the
    /// engine nor fork it, as shells and init scripts do: such an engine would end with this process and have its few rights. Where
    /// the engine is no unit of systemd: "systemd-run PROGRAM". One that was forked is found out, and the edit taken back.
    #[arg(long, env = "LARDER_ENGINE_RESTART_COMMAND", value_name = "CMD")]
    pub(crate) engine_restart_command: Option<String>,
    /// The command has to end, and then the engine to answer, within so many seconds each; else the edit is rolled back.
    #[arg(long, env = "LARDER_ENGINE_RESTART_LIMIT", value_name = "SECONDS", default_value_t = 120)]
    pub(crate) engine_restart_limit: u64,
    /// Keeps what was there before a change, in the node's root.
    #[arg(long, env = "LARDER_STATE_DIR", value_name = "DIR", default_value = "/var/lib/larder/node")]
    pub(crate) state_dir: PathBuf,
    /// Files of the running agent and what it tells its proxy. Links that lead into /run lead into this folder when it is
    /// below /run, else into /run/larder.
    #[arg(long, env = "LARDER_RUN_DIR", value_name = "DIR", default_value = "/run/larder")]
    pub(crate) run_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    Auto,
    Containerd,
    Crio,
}

/// Where the proxy is asked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
pub(crate) struct ListenArgs {
    /// Where the engine asks the proxy; repeatable, the first is what the engine is told
    /// [default: 127.0.0.1:7439, and the same port of IPv6 loopback where there is one].
    #[arg(long, env = "LARDER_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
}

/// What is known about registries.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistriesArgs {
    /// Settings of registries (endpoints, CA, insecure, skip; allow and deny), TOML. Read again when it changes.
    #[arg(long, env = "LARDER_REGISTRIES", value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
}

/// What the proxy needs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) cluster_cache: ClusterCacheArgs,
    /// The proxy's metrics once more, where a scraper reaches them. While it is taken all else goes on, and it is tried again.
    #[arg(long, env = "LARDER_METRICS", help_heading = "Addresses", value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Certificates (PEM) that are trusted for every registry beside the system's: those of a corporate proxy (HTTPS_PROXY) that opens
    /// TLS. Read at the start.
    #[arg(long, env = "LARDER_UPSTREAM_CA", value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareStoreArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) user: UserArgs,
}

/// Where images are kept, and how many.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct StoreArgs {
    /// Where images are kept: directory:DIR, or memory:SIZE for a try-out.
    #[arg(long, env = "LARDER_STORE", default_value = "directory:/var/lib/larder/store")]
    pub(crate) store: String,
    /// The store never grows beyond this: 500MB, 20GiB.
    #[arg(long, env = "LARDER_STORE_SIZE", value_name = "SIZE", default_value = "20GiB")]
    pub(crate) store_size: String,
    /// So much of the disk stays free, whoever fills it: a share or a size. Kubelet evicts Pods below 15% of the disk with
    /// images; below this nothing is kept any more, and old images go.
    #[arg(long, env = "LARDER_STORE_RESERVE", value_name = "PERCENT%|SIZE", default_value = "18%")]
    pub(crate) store_reserve: String,
}

/// Who is asked before the registries are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct ClusterCacheArgs {
    /// The cluster cache, asked before the registries: https://HOST:PORT, the name of a Service or of several machines.
    #[arg(long, env = "LARDER_CACHE", value_name = "URL")]
    pub(crate) cache: Option<String>,
    /// Where the cluster cache is asked while the name in --cache has no address (DNS is away), in a Pod the Service's address from the
    /// environment; repeatable. Its certificate is checked for the name in --cache all the same.
    #[arg(long, env = "LARDER_CACHE_ADDRESS", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub(crate) cache_address: Vec<String>,
    /// Certificates (PEM) that the cluster cache's is checked against [default: the platform's]. Read again when it changes; until it is
    /// there the cluster cache is not asked.
    #[arg(long, env = "LARDER_CACHE_CA", value_name = "FILE")]
    pub(crate) cache_ca: Option<PathBuf>,
    /// Holds the token that the cluster cache knows this node by. Read again when it changes; until it is there the cluster cache is not
    /// asked.
    #[arg(long, env = "LARDER_CACHE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) cache_token_file: Option<PathBuf>,
}

/// Whom the proxy runs as: it becomes that user, and the agent lets that group read what it hands over.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
pub(crate) struct UserArgs {
    /// Whom the proxy runs as when it is started by root: a number, or UID:GID.
    #[arg(long, env = "LARDER_USER", value_name = "UID", default_value = "65532")]
    pub(crate) user: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Pulls an image through this node's proxy, and keeps nothing of it.
    Pull(CheckPullArgs),
    /// Waits until every node that has Larder has a Pod that pulled.
    Nodes(CheckNodesArgs),
    /// Does nothing until SIGTERM.
    Stay,
}

#[derive(Debug, Args)]
pub(crate) struct CheckPullArgs {
    /// An image that anybody may pull.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: String,
    /// Where the proxy is asked.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7439")]
    pub(crate) proxy: SocketAddr,
    /// Fails as well when the cluster cache answers nothing of it for the proxy.
    #[arg(long)]
    pub(crate) cluster_cache: bool,
    /// Where the proxy counts its questions to the cluster cache.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7440")]
    pub(crate) admin: SocketAddr,
    /// How long it is tried.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CheckNodesArgs {
    /// A name whose addresses are those of all nodes that have Larder.
    #[arg(long, value_name = "NAME")]
    pub(crate) all: String,
    /// A name whose addresses are those of the nodes that pulled.
    #[arg(long, value_name = "NAME")]
    pub(crate) passed: String,
    /// How long it is waited.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) by_hand: ByHandArgs,
    /// Exit status 3 when there is something to change.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// A step by hand takes the very options that `run` was started with; those that are not about it change nothing.
#[derive(Debug, Args)]
pub(crate) struct ByHandArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) by_hand: ByHandArgs,
    /// Shows what would be taken back, and does not.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// For people, or for scripts.
    #[arg(long, env = "LARDER_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Reads the command line, and the file that it names. Says which file that was.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<(Typed, Option<PathBuf>), clap::Error> {
    larder_process::command_line::parse(line)
}

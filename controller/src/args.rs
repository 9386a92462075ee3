//! What a person types: flags, `LARDER_*` variables of the same names, and a `--config` file with the same words.
//!
//! What it means is decided in [`crate::config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use larder_process::logging::Format;
use url::Url;

use larder_controller::leader::LeaseName;

const AFTER_HELP: &str = "\
To see what would be cached, how large it is, and what is left out, without changing anything:
  larder-controller run --mode observe --cache https://larder-cache.larder-system.svc:7445 \\
    --cache-ca ca.pem --cache-token-file token
  curl http://127.0.0.1:7446/report

LARDER_LOG says what is logged (info, debug, warn,larder_controller=debug).
Exit status: 0 done, 1 failed, 2 wrong usage.";

/// Keeps the images that a cluster's Pods use in its cache.
///
/// It watches Pods and describes each image in an object (kubectl get cachedimages), which says whether that image can be pulled while its registry is
/// away. Of several replicas one works, the others wait.
#[derive(Debug, Parser)]
#[command(name = "larder-controller", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Typed {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How logs are written: text or json.
    #[arg(long, global = true, env = "LARDER_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: Format,
    /// A TOML file with any of these options: names without the dashes, for example expiry = "30d".
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn span(text: &str) -> Result<Duration, String> {
    larder_api::span::parse(text).map_err(|error| error.to_string())
}

fn lease(text: &str) -> Result<LeaseName, String> {
    text.parse().map_err(str::to_owned)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Works until SIGTERM.
    Run(Box<RunArgs>),
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Reports which images would be cached, with sizes, and changes nothing: see /report.
    Observe,
    /// Has the cluster cache fetch and keep them, and lets go what nobody uses any more.
    Manage,
}

/// `imagePullPolicy`, as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum PolicyArg {
    /// Asks the registry at every start.
    Always,
    /// Pulls what the node does not have.
    IfNotPresent,
    /// No node pulls it.
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What is changed.
    #[arg(long, env = "LARDER_MODE", value_name = "MODE", value_enum, default_value = "manage")]
    pub(crate) mode: ModeArg,
    /// The control API of the cluster cache: port 7445 of its Service, as a rule.
    #[arg(long, env = "LARDER_CACHE", help_heading = "Cluster cache", value_name = "URL")]
    pub(crate) cache: Url,
    /// A name whose addresses are those of the cache's replicas, if the URL's is that of a Service in front of them: each is asked how registries are doing.
    #[arg(long, env = "LARDER_CACHE_REPLICAS", help_heading = "Cluster cache", value_name = "NAME")]
    pub(crate) cache_replicas: Option<String>,
    /// Certificates (PEM) that vouch for it. Read again when they change.
    #[arg(long, env = "LARDER_CACHE_CA", help_heading = "Cluster cache", value_name = "FILE")]
    pub(crate) cache_ca: Option<PathBuf>,
    /// The token that it knows this program by. Read again when it changes.
    #[arg(long, env = "LARDER_CACHE_TOKEN_FILE", help_heading = "Cluster cache", value_name = "FILE")]
    pub(crate) cache_token_file: PathBuf,
    /// In whose name images are kept there. Two clusters with one bucket may have the same.
    #[arg(
        long,
        env = "LARDER_HOLDER",
        help_heading = "Cluster cache",
        value_name = "NAME",
        default_value = "larder-controller"
    )]
    pub(crate) holder: String,
    /// How many images are fetched at a time.
    #[arg(long, env = "LARDER_CONCURRENCY", help_heading = "Cluster cache", value_name = "COUNT", default_value = "8",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) concurrency: u16,
    /// Only namespaces with these labels: team=web, or tier!=test; several with commas. Images of others are left alone.
    #[arg(long, env = "LARDER_NAMESPACES", help_heading = "Which images", value_name = "SELECTOR")]
    pub(crate) namespaces: Option<String>,
    /// Only images that match: docker.io/library/*, ghcr.io/team/**; repeatable.
    #[arg(long, env = "LARDER_INCLUDE", help_heading = "Which images", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) include: Vec<String>,
    /// No images that match; repeatable. Beats --include.
    #[arg(long, env = "LARDER_EXCLUDE", help_heading = "Which images", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) exclude: Vec<String>,
    /// Images of which some use has one of these pull policies; Never as well for images that nodes get in another way, and that are to be kept too.
    #[arg(
        long,
        env = "LARDER_PULL_POLICIES",
        help_heading = "Which images",
        value_name = "POLICY",
        value_enum,
        value_delimiter = ',',
        default_value = "Always,IfNotPresent"
    )]
    pub(crate) pull_policies: Vec<PolicyArg>,
    /// So many images of one namespace at most, so that no tenant fills the API server's store; 0: as many as there are. Older ones stay.
    #[arg(
        long,
        env = "LARDER_IMAGES_PER_NAMESPACE",
        help_heading = "Which images",
        value_name = "COUNT",
        default_value = "2000"
    )]
    pub(crate) images_per_namespace: u64,
    /// So much of the cache for one namespace at most, so that no tenant fills it: 50GiB. Without it, or 0: as much as there is. Older images stay.
    #[arg(long, env = "LARDER_BYTES_PER_NAMESPACE", help_heading = "Which images", value_name = "SIZE")]
    pub(crate) bytes_per_namespace: Option<String>,
    /// Another bound for one namespace: team-a=images:500,bytes:200GiB; what it does not say is as for all, 0 is no bound. Repeatable; in the variable with
    /// semicolons.
    #[arg(
        long,
        env = "LARDER_NAMESPACE_BOUND",
        help_heading = "Which images",
        value_name = "NAMESPACE=BOUND",
        value_delimiter = ';'
    )]
    pub(crate) namespace_bound: Vec<String>,
    /// How long an image is kept after its last Pod, unless its own object says otherwise.
    #[arg(
        long,
        env = "LARDER_EXPIRY",
        help_heading = "For how long",
        value_name = "TIME",
        default_value = "30d",
        value_parser = span
    )]
    pub(crate) expiry: Duration,
    /// How often a registry is asked what a tag means now (HEAD, no pull quota).
    #[arg(
        long,
        env = "LARDER_MONITORING_INTERVAL",
        help_heading = "For how long",
        value_name = "TIME",
        default_value = "6h",
        value_parser = span
    )]
    pub(crate) monitoring_interval: Duration,
    /// Fetches what a tag means again when it has moved, unless an image or its registry says otherwise. Without it only images of Pods with imagePullPolicy:
    /// Always are.
    #[arg(long, env = "LARDER_FOLLOW", help_heading = "For how long", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) follow: bool,
    /// Health and metrics.
    #[arg(
        long,
        env = "LARDER_ADMIN",
        help_heading = "Addresses",
        value_name = "ADDR",
        default_value = "127.0.0.1:7446"
    )]
    pub(crate) admin: SocketAddr,
    /// Metrics once more, where a scraper reaches them.
    #[arg(long, env = "LARDER_METRICS", help_heading = "Addresses", value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The Lease that says which replica works.
    #[arg(
        long,
        env = "LARDER_LEASE",
        help_heading = "Replicas",
        value_name = "NAMESPACE/NAME",
        default_value = "larder-system/larder-controller",
        value_parser = lease
    )]
    pub(crate) lease: LeaseName,
    /// How long a replica that has fallen silent is waited for before another one works, at least 3s. Two thirds of it are what it works on without the API
    /// server.
    #[arg(
        long,
        env = "LARDER_LEASE_DURATION",
        help_heading = "Replicas",
        value_name = "TIME",
        default_value = "15s",
        value_parser = span
    )]
    pub(crate) lease_duration: Duration,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Typed;

    #[test]
    fn the_definition_is_consistent() {
        Typed::command().debug_assert();
    }

    #[test]
    fn what_a_newcomer_reads() {
        let mut command = Typed::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_help());
        insta::assert_snapshot!("help-run", command.find_subcommand_mut("run").unwrap().render_help());
    }
}

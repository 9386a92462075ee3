//! What a person types: flags, `LARDER_*` variables of the same names, and a `--config` file with the same words.
//!
//! What it means is decided in [`crate::config`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use larder_process::logging::Format;

use crate::store::StoreArgs;

const AFTER_HELP: &str = "\
For a try on this machine:
  echo \"me $(openssl rand -hex 32)\" >tokens
  larder-cache run --listen 127.0.0.1:7443 --store directory:/tmp/larder --token-file tokens
  skopeo copy --src-tls-verify=false --src-creds me:TOKEN docker://127.0.0.1:7443/docker.io/library/alpine:3 dir:alpine

LARDER_LOG says what is logged (info, debug, warn,larder_proxy=debug).
Exit status: 0 done, 1 failed, 2 wrong usage.";

/// Keeps the images of a whole cluster pullable while their registries are away.
///
/// Every node's larder-node asks it before it asks a registry, so each image crosses from its registry into the cluster once, and stays.
/// It is a registry to read from: docker.io/library/alpine is HOST:7443/docker.io/library/alpine here.
#[derive(Debug, Parser)]
#[command(name = "larder-cache", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Typed {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How logs are written: text or json.
    #[arg(long, global = true, env = "LARDER_LOG_FORMAT", default_value = "text", value_parser = log_format)]
    pub(crate) log_format: Format,
    /// A TOML file with any of these options: names without the dashes, for example store-size = "200GiB".
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn log_format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|error| format!("{error}"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves until SIGTERM, then lets what is under way end.
    Run(Box<RunArgs>),
    /// Forgets a cluster that is no more: its pins, tags and evidence leave the bucket, so that nothing waits for it any more.
    ///
    /// As long as a cluster on a bucket is silent nothing is removed for any of them. One that declared its pins within the hour is refused. What its pins kept goes a day or two later, unless somebody else
    /// wants it; so many pins less may set off the brake (release-brake).
    ForgetCluster(ForgetArgs),
    /// Says that so few pins as there are now are right, after a sudden drop stopped all removal.
    ///
    /// More than a quarter fewer pins than before are more often somebody's mistake (a controller that lost its state, a cluster that came back empty) than a wish. Then nothing leaves the bucket until this is
    /// said, in each cluster that waits for it.
    ReleaseBrake(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The cluster's --store-cluster.
    #[arg(value_name = "ID")]
    pub(crate) cluster: String,
    /// Says what would be forgotten, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The bucket, and whose word it is: --store-cluster is another cluster on it.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// Says how the brake stands, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The bucket, and whose word it is: --store-cluster is the cluster whose caches wait.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where images are kept.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Where nodes and people ask; repeatable.
    #[arg(
        long,
        env = "LARDER_LISTEN",
        help_heading = "Addresses",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "[::]:7443"
    )]
    pub(crate) listen: Vec<SocketAddr>,
    /// Health and metrics.
    #[arg(
        long,
        env = "LARDER_ADMIN",
        help_heading = "Addresses",
        value_name = "ADDR",
        default_value = "127.0.0.1:7444"
    )]
    pub(crate) admin: SocketAddr,
    /// Metrics once more, where a scraper reaches them.
    #[arg(long, env = "LARDER_METRICS", help_heading = "Addresses", value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The certificate that is shown (PEM), with those that vouch for it. Read again when it changes.
    #[arg(
        long,
        env = "LARDER_TLS_CERTIFICATE",
        help_heading = "Who may ask",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key (PEM). Read again when it changes.
    #[arg(
        long,
        env = "LARDER_TLS_KEY",
        help_heading = "Who may ask",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Plain HTTP beyond this machine: tokens cross the network in the clear. For where something else speaks TLS.
    #[arg(long, env = "LARDER_PLAIN_HTTP", help_heading = "Who may ask", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) plain_http: bool,
    /// Who may ask, one a line: NAME TOKEN. Read again when it changes.
    #[arg(long, env = "LARDER_TOKEN_FILE", help_heading = "Who may ask", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Networks whose machines may ask without a token: 10.0.0.0/8; repeatable.
    #[arg(
        long,
        env = "LARDER_ANONYMOUS_NETWORKS",
        help_heading = "Who may ask",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) anonymous_networks: Vec<IpNet>,
    /// Settings of registries (endpoints, CA, insecure, skip; allow and deny), TOML. Read again when it changes.
    #[arg(long, env = "LARDER_REGISTRIES", help_heading = "Registries", value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    /// Certificates (PEM) that are trusted for every registry beside the system's: those of a corporate proxy (HTTPS_PROXY) that opens
    /// TLS. Read at the start.
    #[arg(long, env = "LARDER_UPSTREAM_CA", help_heading = "Registries", value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
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
        for name in ["forget-cluster", "release-brake"] {
            insta::assert_snapshot!(
                format!("help-{name}"),
                command.find_subcommand_mut(name).unwrap().render_long_help()
            );
        }
        insta::assert_snapshot!("help-run", command.find_subcommand_mut("run").unwrap().render_help());
    }
}

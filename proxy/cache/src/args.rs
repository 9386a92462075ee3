//! What a person types: flags, `LARDER_*` variables of the same names, and a `--config` file with the same words.
//!
//! What it means is decided in [`crate::config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use larder_process::logging::Format;
use larder_proxy::program::HolderOf;
use rustls_pki_types::ServerName;

use crate::kubernetes::name::ObjectName;

use crate::redirect::RedirectArgs;
use crate::store::StoreArgs;

const AFTER_HELP: &str = "\
For a try on this machine:
  echo \"me $(openssl rand -hex 32)\" >tokens
  larder-cache run --listen 127.0.0.1:7443 --store directory:/tmp/larder --token-file tokens
  skopeo copy --src-tls-verify=false --src-creds me:TOKEN \\
    docker://127.0.0.1:7443/docker.io/library/alpine:3 dir:alpine

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
    #[arg(long, global = true, env = "LARDER_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: Format,
    /// A TOML file with any of these options: names without the dashes, for example store-size = "200GiB".
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match text.get(number.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 60 * 60,
        Some("d") => 24 * 60 * 60,
        _ => return Err("write a number with s, m, h or d, for example 24h".to_owned()),
    };
    let number = number.parse::<u32>().map_err(|error| error.to_string())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

fn certificate_name(text: &str) -> Result<String, String> {
    ServerName::try_from(text).map(|_| text.to_owned()).map_err(|_| "write a DNS name or an address".to_owned())
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
    /// Who is sent there.
    #[command(flatten)]
    pub(crate) redirect: RedirectArgs,
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
    /// Accounts of Kubernetes may ask by tokens for this audience, looked at by TokenReview; repeatable. The API server is that of the Pod,
    /// or of KUBECONFIG.
    #[arg(
        long,
        env = "LARDER_TOKEN_AUDIENCE",
        help_heading = "Who may ask",
        value_name = "AUDIENCE",
        value_delimiter = ',',
        requires = "accounts"
    )]
    pub(crate) token_audience: Vec<String>,
    /// Whose tokens these may be: ServiceAccounts; repeatable.
    #[arg(
        long,
        env = "LARDER_ACCOUNTS",
        help_heading = "Who may ask",
        value_name = "NAMESPACE/NAME",
        value_delimiter = ',',
        requires = "token_audience"
    )]
    pub(crate) accounts: Vec<ObjectName>,
    /// A folder for what is needed while the API server is away: the keys that tokens are signed with, the own certificate, and what
    /// UpstreamRegistry objects said.
    #[arg(long, env = "LARDER_SAVED_KEYS", help_heading = "Who may ask", value_name = "DIR")]
    pub(crate) saved_keys: Option<PathBuf>,
    /// How long saved keys are good for after the API server's last answer: 90m, 24h. Until then a token may be over, since nobody could
    /// renew it.
    #[arg(
        long,
        env = "LARDER_SAVED_KEYS_FOR",
        help_heading = "Who may ask",
        value_name = "TIME",
        default_value = "24h",
        value_parser = time
    )]
    pub(crate) saved_keys_for: Duration,
    /// Networks whose machines may ask without a token: 10.0.0.0/8; repeatable.
    #[arg(
        long,
        env = "LARDER_ANONYMOUS_NETWORKS",
        help_heading = "Who may ask",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) anonymous_networks: Vec<IpNet>,
    /// Makes and renews an authority and a certificate of its own in this Secret, which is there and empty at first. Several replicas share
    /// it.
    #[arg(
        long,
        env = "LARDER_OWN_CERTIFICATE",
        help_heading = "Own certificate",
        value_name = "NAMESPACE/SECRET",
        requires = "own_certificate_names",
        conflicts_with = "tls_certificate"
    )]
    pub(crate) own_certificate: Option<ObjectName>,
    /// What it is for: the host of the address that nodes have (--cache); repeatable.
    #[arg(
        long,
        env = "LARDER_OWN_CERTIFICATE_NAMES",
        help_heading = "Own certificate",
        value_name = "DNS",
        value_delimiter = ',',
        requires = "own_certificate",
        value_parser = certificate_name
    )]
    pub(crate) own_certificate_names: Vec<String>,
    /// The ConfigMap where nodes find the authority (ca.crt); it is there and empty at first.
    #[arg(
        long,
        env = "LARDER_AUTHORITY_CONFIGMAP",
        help_heading = "Own certificate",
        value_name = "NAMESPACE/NAME",
        requires = "own_certificate"
    )]
    pub(crate) authority_configmap: Option<ObjectName>,
    /// Where it is said which images to keep (docs/control-api.md), with the same certificate; off unless given. As a rule port 7445.
    #[arg(long, env = "LARDER_CONTROL", help_heading = "Control API", value_name = "ADDR")]
    pub(crate) control: Option<SocketAddr>,
    /// Who may say it, one a line: NAME TOKEN; others than those of --token-file. Read again when it changes.
    #[arg(
        long,
        env = "LARDER_CONTROL_TOKEN_FILE",
        help_heading = "Control API",
        value_name = "FILE",
        requires = "control"
    )]
    pub(crate) control_token_file: Option<PathBuf>,
    /// Accounts of Kubernetes may say it by tokens for this audience, another one than that of --token-audience; repeatable.
    #[arg(
        long,
        env = "LARDER_CONTROL_AUDIENCE",
        help_heading = "Control API",
        value_name = "AUDIENCE",
        value_delimiter = ',',
        requires = "control_accounts",
        requires = "control"
    )]
    pub(crate) control_audience: Vec<String>,
    /// Whose tokens these may be: ServiceAccounts; repeatable.
    #[arg(
        long,
        env = "LARDER_CONTROL_ACCOUNTS",
        help_heading = "Control API",
        value_name = "NAMESPACE/NAME",
        value_delimiter = ',',
        requires = "control_audience"
    )]
    pub(crate) control_accounts: Vec<ObjectName>,
    /// Who writes for which holder of pins, NAME or NAMESPACE/NAME as above: for no other holder, and nobody else for this one; repeatable.
    /// Who is not named writes for any other holder.
    #[arg(
        long,
        env = "LARDER_CONTROL_HOLDERS",
        help_heading = "Control API",
        value_name = "CALLER=HOLDER",
        value_delimiter = ',',
        requires = "control"
    )]
    pub(crate) control_holders: Vec<HolderOf>,
    /// Settings of registries (endpoints, CA, insecure, skip; allow and deny), TOML. Read again when it changes.
    #[arg(long, env = "LARDER_REGISTRIES", help_heading = "Registries", value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    /// Takes settings of registries from UpstreamRegistry objects too, as the agents of nodes do with the same flag; what the file says of a
    /// registry counts. The API server is that of the Pod, or of KUBECONFIG; while it is away what was last read stays in force, over a restart
    /// where there are --saved-keys.
    #[arg(long, env = "LARDER_KUBERNETES", help_heading = "Registries", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) kubernetes: bool,
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

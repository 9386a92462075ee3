//! What was typed, checked and with units: from here on nothing is text that may be wrong.

use std::fmt;

use anyhow::{Context as _, ensure};
use larder_proxy::origin::ProxyVariables;
use larder_proxy::program::{ProxyConfig, ProxyLimits, ServiceConfig};

use crate::args::RunArgs;

/// What was typed makes no sense: exit status 2, as for a flag that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("wrong usage")
    }
}

/// The proxy as a service.
pub(crate) fn config(args: &RunArgs) -> anyhow::Result<ProxyConfig> {
    checked(args).context(Usage)
}

fn checked(args: &RunArgs) -> anyhow::Result<ProxyConfig> {
    let tls = args.tls_certificate.clone().zip(args.tls_key.clone());
    if tls.is_none() && !args.plain_http {
        for address in &args.listen {
            ensure!(
                address.ip().to_canonical().is_loopback(),
                "--listen {address}: tokens would cross the network in the clear; give --tls-certificate and --tls-key, or \
                 --plain-http where something else speaks TLS"
            );
        }
    }
    ensure!(
        args.token_file.is_some() || !args.anonymous_networks.is_empty(),
        "nobody may ask: give --token-file FILE (NAME TOKEN, one a line) or --anonymous-networks CIDR"
    );
    Ok(ProxyConfig {
        listen: args.listen.clone(),
        admin: args.admin,
        metrics: args.metrics,
        store: args.store.config()?,
        run_folder: None,
        registries: args.registries.clone(),
        proxies: ProxyVariables::of_environment(),
        upstream_ca: args.upstream_ca.clone(),
        cluster_cache: None,
        service: Some(ServiceConfig {
            tls,
            tokens: args.token_file.clone(),
            anonymous: args.anonymous_networks.clone(),
        }),
        limits: ProxyLimits::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};

    fn of(words: &[&str]) -> Result<ProxyConfig, String> {
        let line = ["larder-cache", "run"].iter().chain(words).map(Into::into);
        let (typed, _) = larder_process::command_line::parse::<Typed>(line).map_err(|error| error.to_string())?;
        let Command::Run(args) = typed.command else { panic!("no run") };
        config(&args).map_err(|error| {
            assert!(error.is::<Usage>());
            format!("{error:#}")
        })
    }

    #[test]
    fn nothing_is_open_by_mistake() {
        let refused = |words: &[&str], part: &str| {
            let error = of(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        };
        refused(&["--token-file", "/t"], "in the clear");
        refused(&["--listen", "10.0.0.1:1", "--token-file", "/t"], "in the clear");
        refused(&["--listen", "127.0.0.1:1"], "nobody may ask");
        refused(&["--listen", "127.0.0.1:1", "--token-file", "/t", "--store", "directory:here"], "write directory:");
        refused(&["--tls-certificate", "/c"], "--tls-key");
        refused(&["--anonymous-networks", "10.0.0.0"], "10.0.0.0");
        let tls = ["--tls-certificate", "/c", "--tls-key", "/k"];
        assert!(of(&[&tls[..], &["--token-file", "/t"]].concat()).is_ok());
        assert!(of(&["--plain-http", "--token-file", "/t"]).is_ok());
        let open = of(&["--listen", "127.0.0.1:1,[::1]:1", "--anonymous-networks", "127.0.0.0/8,::1/128"]).unwrap();
        assert_eq!((open.listen.len(), open.service.unwrap().anonymous.len()), (2, 2));
    }
}

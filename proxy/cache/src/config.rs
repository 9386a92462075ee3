//! What was typed, checked and with units: from here on nothing is text that may be wrong.

use anyhow::{Context as _, bail, ensure};
use larder_process::command_line::Usage;
use larder_proxy::origin::ProxyVariables;
use larder_proxy::program::{CertificateConfig, ControlConfig, HolderOf, ProxyConfig, ProxyLimits, ServiceConfig};

use crate::args::RunArgs;
use crate::callers::Whose;
use crate::kubernetes::KubernetesConfig;
use crate::kubernetes::name::ObjectName;
use crate::own_certificate::OwnCertificateConfig;

/// All that is meant.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) proxy: ProxyConfig,
    /// What of it is Kubernetes'.
    pub(crate) kubernetes: Option<KubernetesConfig>,
}

/// The proxy as a service.
pub(crate) fn config(args: &RunArgs) -> anyhow::Result<Config> {
    checked(args).context(Usage)
}

fn checked(args: &RunArgs) -> anyhow::Result<Config> {
    let tls = args.tls_certificate.clone().zip(args.tls_key.clone());
    let tls = tls.map(|(certificate, key)| CertificateConfig::Files { certificate, key });
    let kubernetes = kubernetes(args);
    if tls.is_none() && args.own_certificate.is_none() && !args.plain_http {
        let listening = args.listen.iter().map(|address| ("--listen", address));
        for (flag, address) in listening.chain(args.control.iter().map(|address| ("--control", address))) {
            ensure!(
                address.ip().to_canonical().is_loopback(),
                "{flag} {address}: tokens would cross the network in the clear; give --tls-certificate and --tls-key, \
                 --own-certificate, or --plain-http where something else speaks TLS"
            );
        }
    }
    ensure!(
        args.token_file.is_some() || !args.token_audience.is_empty() || !args.anonymous_networks.is_empty(),
        "nobody may ask: give --token-file FILE (NAME TOKEN, one a line), --token-audience with --accounts, or \
         --anonymous-networks CIDR"
    );
    ensure!(
        args.control.is_none() || args.control_token_file.is_some() || !args.control_audience.is_empty(),
        "--control: nobody may use it: give --control-token-file FILE (NAME TOKEN, one a line), or --control-audience with \
         --control-accounts"
    );
    // Every node has a token for images, and none of them is to say what is kept.
    if let Some(audience) = args.control_audience.iter().find(|audience| args.token_audience.contains(audience)) {
        bail!("--control-audience {audience}: that is one of --token-audience; choose another one");
    }
    for HolderOf { caller, .. } in &args.control_holders {
        ensure!(
            args.control_token_file.is_some()
                || args.control_accounts.iter().any(|account| account.to_string() == *caller),
            "--control-holders {caller}=…: nobody has that name; it has to be one of --control-accounts, as there is no \
             --control-token-file"
        );
    }
    let store = args.store.config()?;
    let has_tls = tls.is_some() || args.own_certificate.is_some();
    let mut limits = ProxyLimits::of_a_cluster();
    limits.pull.redirects = args.redirect.redirects(&store, has_tls)?;
    let proxy = ProxyConfig {
        listen: args.listen.clone(),
        admin: args.admin,
        metrics: args.metrics,
        store,
        run_folder: None,
        registries: args.registries.clone(),
        settings_beside: None,
        proxies: ProxyVariables::of_environment(),
        upstream_ca: args.upstream_ca.clone(),
        cluster_cache: None,
        service: Some(ServiceConfig {
            tls,
            tokens: args.token_file.clone(),
            callers: None,
            anonymous: args.anonymous_networks.clone(),
            control: args.control.map(|listen| ControlConfig {
                listen,
                tokens: args.control_token_file.clone(),
                callers: None,
                holders: args.control_holders.clone(),
            }),
        }),
        limits,
    };
    Ok(Config { proxy, kubernetes })
}

/// `None`: nothing of it needs the API server.
fn kubernetes(args: &RunArgs) -> Option<KubernetesConfig> {
    let whose = |audiences: &[String], accounts: &[ObjectName]| {
        (!audiences.is_empty()).then(|| Whose::new(audiences.to_vec(), accounts))
    };
    let own_certificate = args.own_certificate.clone().map(|secret| OwnCertificateConfig {
        secret,
        names: args.own_certificate_names.iter().cloned().collect(),
        authority: args.authority_configmap.clone(),
    });
    let config = KubernetesConfig {
        callers: whose(&args.token_audience, &args.accounts),
        control: whose(&args.control_audience, &args.control_accounts),
        saved: args.saved_keys.clone(),
        without: args.saved_keys_for,
        own_certificate,
        upstream_registries: args.kubernetes,
    };
    let needed = config.callers.is_some()
        || config.control.is_some()
        || config.own_certificate.is_some()
        || config.upstream_registries;
    needed.then_some(config)
}

#[cfg(test)]
mod chart;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};

    fn of(words: &[&str]) -> Result<Config, String> {
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
        refused(&["--listen", "127.0.0.1:1", "--token-file", "/t", "--control", "127.0.0.1:2"], "--control-token-file");
        refused(
            &["--listen", "127.0.0.1:1", "--token-file", "/t", "--control", "10.0.0.1:2", "--control-token-file", "/c"],
            "--control 10.0.0.1:2",
        );
        let open = of(&["--listen", "127.0.0.1:1,[::1]:1", "--anonymous-networks", "127.0.0.0/8,::1/128"]).unwrap();
        assert_eq!((open.proxy.listen.len(), open.proxy.service.unwrap().anonymous.len()), (2, 2));
        assert!(open.kubernetes.is_none(), "who does not ask for it needs no API server");
        let objects =
            of(&["--listen", "127.0.0.1:1", "--token-file", "/t", "--kubernetes"]).unwrap().kubernetes.unwrap();
        assert!(objects.upstream_registries && objects.callers.is_none());
    }

    #[test]
    fn what_kubernetes_is_asked_for_has_to_be_said_in_full() {
        let callers = ["--token-audience", "larder-cache", "--accounts", "larder/node,larder/debug"];
        let own = ["--own-certificate", "larder/certificate", "--own-certificate-names", "cache.larder.svc,10.0.0.7"];
        for part in [&callers[..2], &callers[2..], &own[..2], &own[2..]] {
            assert!(of(&[part, &["--plain-http", "--token-file", "/t"]].concat()).is_err(), "{part:?}");
        }
        let both = of(&[&callers[..], &own[..], &["--saved-keys-for", "90m"]].concat()).unwrap();
        let kubernetes = both.kubernetes.unwrap();
        let accounts = ["larder/node", "larder/debug"].map(|name| name.parse().unwrap());
        assert_eq!(kubernetes.callers, Some(Whose::new(vec!["larder-cache".to_owned()], &accounts)));
        assert_eq!((&kubernetes.control, kubernetes.without.as_secs()), (&None, 5400));
        let control = ["--control", "127.0.0.1:1", "--control-accounts", "larder/controller", "--control-audience"];
        let control = |audience| of(&[&callers[..], &own[..], &control[..], &[audience]].concat());
        let controllers = [("larder/controller").parse().unwrap()];
        assert_eq!(
            control("larder-control").unwrap().kubernetes.unwrap().control,
            Some(Whose::new(vec!["larder-control".to_owned()], &controllers))
        );
        assert!(control("larder-cache").unwrap_err().contains("choose another one"));
        assert_eq!(kubernetes.own_certificate.unwrap().names.len(), 2);
        let files = ["--tls-certificate", "/c", "--tls-key", "/k"];
        assert!(of(&[&callers[..], &own[..], &files[..]].concat()).is_err(), "two certificates");
        for wrong in [["--own-certificate-names", "a/b"], ["--accounts", "node"], ["--saved-keys-for", "24"]] {
            assert!(of(&[&callers[..], &own[..], &wrong[..]].concat()).unwrap_err().contains("write"), "{wrong:?}");
        }
    }
}

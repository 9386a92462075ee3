//! What was typed, checked and with units: from here on nothing is text that may be wrong.

use crate::args::{
    AgentArgs, ClusterCacheArgs, EngineArg, EngineArgs, KubernetesArgs, ListenArgs, PlacementArg, StoreArgs, UserArgs,
};
use crate::engine_restart::RestartCommand;
use anyhow::{Context as _, bail};
use larder_node_agent::engine::detect::Kind;
use larder_oci::Registry;
use larder_process::command_line::Usage;
use larder_process::size::size;
use larder_proxy::cluster_cache::ClusterCacheConfig;
use larder_proxy::store::directory::Reserve;
use nix::unistd::{Gid, Uid};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The port that Larder asks for everywhere.
const PORT: u16 = 7439;

/// Where the proxy listens, and which of the addresses the engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    /// All of them; never empty.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The first one.
    pub(crate) mirror: SocketAddr,
}

impl Listen {
    pub(crate) fn from_args(args: &ListenArgs) -> anyhow::Result<Self> {
        Self::checked(args).context(Usage)
    }

    fn checked(args: &ListenArgs) -> anyhow::Result<Self> {
        let mut addresses = args.listen.clone();
        if addresses.is_empty() {
            addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
            // Asked for by name it would be an error where there is none; by default it is taken where there is.
            if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
                addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, PORT)));
            }
        }
        let Some(&first) = addresses.first() else { bail!("no address to listen on") };
        if first.port() == 0 {
            bail!("--listen {first}: the engine's files need a fixed port");
        }
        let mut mirror = first;
        if mirror.ip().is_unspecified() {
            mirror.set_ip(if mirror.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        Ok(Self { addresses, mirror })
    }

    /// As engines are told.
    pub(crate) fn mirror_url(&self) -> String {
        format!("http://{}", self.mirror)
    }
}

/// Which engine, and where its files are.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// `None`: as the engine sees it.
    pub(crate) host_root: Option<PathBuf>,
    pub(crate) cri_socket: Option<PathBuf>,
    pub(crate) containerd_config: Option<PathBuf>,
    pub(crate) crio_config: Option<PathBuf>,
    /// In the node's root.
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    /// `None`: whichever answers.
    pub(crate) kind: Option<Kind>,
    /// `None`: the engine's own configuration is never edited.
    pub(crate) restart: Option<Permission>,
}

/// To edit the engine's configuration and to restart it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) command: RestartCommand,
    /// For the command to end, and again for the engine to answer.
    pub(crate) limit: Duration,
}

impl Permission {
    fn from_args(args: &EngineArgs) -> anyhow::Result<Option<Self>> {
        if !args.allow_engine_restart {
            return Ok(None);
        }
        let line = args.engine_restart_command.as_deref().context(
            "--allow-engine-restart needs --engine-restart-command CMD, for example \"systemctl restart containerd\"",
        )?;
        let command = RestartCommand::parse(line).with_context(|| format!("--engine-restart-command {line:?}"))?;
        if args.engine_restart_limit == 0 {
            bail!("--engine-restart-limit 0: no engine restarts in no time");
        }
        Ok(Some(Self { command, limit: Duration::from_secs(args.engine_restart_limit) }))
    }
}

impl Engine {
    pub(crate) fn from_args(args: &EngineArgs) -> anyhow::Result<Self> {
        Self::checked(args).context(Usage)
    }

    fn checked(args: &EngineArgs) -> anyhow::Result<Self> {
        let absolute = |name: &str, path: &Path| {
            if path.is_absolute() {
                Ok(path.to_owned())
            } else {
                bail!("{name} {}: it must be absolute", path.display())
            }
        };
        let optional =
            |name: &str, path: &Option<PathBuf>| path.as_deref().map(|path| absolute(name, path)).transpose();
        Ok(Self {
            host_root: optional("--host-root", &args.host_root)?,
            cri_socket: optional("--cri-socket", &args.cri_socket)?,
            containerd_config: optional("--containerd-config", &args.containerd_config)?,
            crio_config: optional("--crio-config", &args.crio_config)?,
            state_dir: absolute("--state-dir", &args.state_dir)?,
            run_dir: absolute("--run-dir", &args.run_dir)?,
            kind: match args.engine {
                EngineArg::Auto => None,
                EngineArg::Containerd => Some(Kind::Containerd),
                EngineArg::Crio => Some(Kind::Crio),
            },
            restart: Permission::from_args(args)?,
        })
    }
}

/// The agent's part.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) engine: Engine,
    pub(crate) listen: Listen,
    pub(crate) registries: Option<PathBuf>,
    /// Registries that were named without anything else being said about them.
    pub(crate) named: BTreeSet<Registry>,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) placement: PlacementArg,
    /// `None`: nothing is known of Kubernetes.
    pub(crate) kubernetes: Option<NodeName>,
}

/// The name of this node in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeName(pub(crate) String);

impl NodeName {
    fn from_args(args: &KubernetesArgs) -> anyhow::Result<Option<Self>> {
        Self::checked(args).context(Usage)
    }

    fn checked(args: &KubernetesArgs) -> anyhow::Result<Option<Self>> {
        if !args.kubernetes {
            return Ok(None);
        }
        let name = args.node_name.as_deref().map(str::trim).filter(|name| !name.is_empty());
        let name =
            name.context("--kubernetes needs --node-name NAME, in a Pod from the downward API (spec.nodeName)")?;
        // A name goes into paths of the API server.
        let is_of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if name.len() > 253 || name.starts_with('.') || !name.bytes().all(is_of_names) {
            bail!("--node-name {name:?}: no Node can have this name; write it as kubectl get nodes does");
        }
        Ok(Some(Self(name.to_owned())))
    }
}

impl Agent {
    pub(crate) fn from_args(args: &AgentArgs) -> anyhow::Result<Self> {
        Ok(Self {
            engine: Engine::from_args(&args.engine)?,
            listen: Listen::from_args(&args.listen)?,
            registries: args.registries.registries.clone(),
            named: named(&args.named)?,
            admin: args.admin,
            metrics: args.agent_metrics,
            placement: args.placement,
            kubernetes: NodeName::from_args(&args.kubernetes)?,
        })
    }
}

/// The values of `--registry`.
pub(crate) fn named(words: &[String]) -> anyhow::Result<BTreeSet<Registry>> {
    let parse = |word: &String| {
        Registry::parse(word).with_context(|| format!("--registry {word:?}: name a host, or host:port")).context(Usage)
    };
    words.iter().map(parse).collect()
}

/// Where images are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// A folder, how large it may grow, and what stays free on its disk.
    Directory { folder: PathBuf, limit: u64, reserve: Reserve },
    /// Nowhere that outlives the process.
    Memory { limit: u64 },
}

impl Store {
    pub(crate) fn from_args(args: &StoreArgs) -> anyhow::Result<Self> {
        Self::checked(args).context(Usage)
    }

    fn checked(args: &StoreArgs) -> anyhow::Result<Self> {
        match args.store.split_once(':') {
            Some(("directory", folder)) if Path::new(folder).is_absolute() => {
                let limit = size(&args.store_size).with_context(|| format!("--store-size {}", args.store_size))?;
                let reserve = args.store_reserve.parse().map_err(anyhow::Error::msg);
                let reserve = reserve.with_context(|| format!("--store-reserve {}", args.store_reserve))?;
                Ok(Self::Directory { folder: PathBuf::from(folder), limit, reserve })
            }
            Some(("memory", limit)) => {
                Ok(Self::Memory { limit: size(limit).with_context(|| format!("--store {}", args.store))? })
            }
            _ => bail!("--store {}: write directory:/absolute/folder or memory:SIZE", args.store),
        }
    }
}

/// The cluster cache, if one is named.
pub(crate) fn cluster_cache(args: &ClusterCacheArgs) -> anyhow::Result<Option<ClusterCacheConfig>> {
    let ClusterCacheArgs { cache, cache_address, cache_ca, cache_token_file } = args;
    let Some(cache) = cache.as_deref().filter(|url| !url.is_empty()) else {
        if cache_ca.is_some() || cache_token_file.is_some() || cache_address.iter().any(|text| !text.is_empty()) {
            let words = "--cache-address, --cache-ca and --cache-token-file go with --cache URL";
            return Err(anyhow::anyhow!(words)).context(Usage);
        }
        return Ok(None);
    };
    let url = cache.parse().with_context(|| format!("--cache {cache}: write https://HOST:PORT")).context(Usage)?;
    let addresses = cache_address.iter().filter_map(|text| cache_address_of(text).transpose());
    let addresses = addresses.collect::<anyhow::Result<_>>().context(Usage)?;
    let config =
        ClusterCacheConfig { url, ca: cache_ca.clone(), token: cache_token_file.clone(), addresses, copies: None };
    config.check().context(Usage)?;
    Ok(Some(config))
}

/// `10.96.0.7:7443`, `[fd00::7]:7443`, and `fd00::7:7443`, which is what HOST:PORT makes of the environment of a Pod. What Kubernetes
/// has not filled in, because the Service came after the Pod, is none: the name is there all the same.
fn cache_address_of(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    let text = text.trim();
    if text.is_empty() || text.contains("$(") {
        if !text.is_empty() {
            tracing::warn!(
                address = text,
                "--cache-address was not filled in: the Service came after this Pod; its name alone is used"
            );
        }
        return Ok(None);
    }
    let bare = || {
        let (host, port) = text.rsplit_once(':')?;
        Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
    };
    let address = text.parse().ok().or_else(bare);
    address.map(Some).with_context(|| format!("--cache-address {text}: write ADDRESS:PORT, a name is for --cache"))
}

/// Whom the proxy runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl User {
    pub(crate) fn from_args(args: &UserArgs) -> anyhow::Result<Self> {
        Self::checked(args).context(Usage)
    }

    fn checked(args: &UserArgs) -> anyhow::Result<Self> {
        let text = &args.user;
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { bail!("--user {text}: write UID or UID:GID") };
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Listen, NodeName, cluster_cache};
    use crate::args::{ClusterCacheArgs, KubernetesArgs, ListenArgs};

    #[test]
    fn the_engine_is_told_the_first_address_by_number() {
        let listen = |addresses: &[&str]| {
            Listen::from_args(&ListenArgs { listen: addresses.iter().map(|a| a.parse().unwrap()).collect() })
        };
        assert_eq!(listen(&["127.0.0.1:1", "[::1]:1"]).unwrap().mirror_url(), "http://127.0.0.1:1");
        assert_eq!(listen(&["0.0.0.0:5"]).unwrap().mirror_url(), "http://127.0.0.1:5");
        assert_eq!(listen(&["[::1]:5"]).unwrap().mirror_url(), "http://[::1]:5");
        assert_eq!(listen(&[]).unwrap().mirror_url(), "http://127.0.0.1:7439");
        assert!(listen(&["127.0.0.1:0"]).is_err());
    }

    #[test]
    fn kubernetes_is_nothing_unless_it_is_told_and_then_this_node_has_a_name() {
        let of = |kubernetes: bool, name: Option<&str>| {
            let name = NodeName::from_args(&KubernetesArgs { kubernetes, node_name: name.map(str::to_owned) });
            name.map(|name| name.map(|name| name.0))
        };
        assert_eq!(of(false, None).unwrap(), None);
        assert_eq!(of(false, Some("one")).unwrap(), None);
        assert_eq!(of(true, Some("ip-10-0-0-1.example")).unwrap().as_deref(), Some("ip-10-0-0-1.example"));
        for wrong in [None, Some(""), Some("../one"), Some("One"), Some("a/b")] {
            assert!(of(true, wrong).unwrap_err().is::<super::Usage>(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_of_the_cluster_cache_is_a_number_and_one_that_was_not_filled_in_is_none() {
        let of = |text: &str| super::cache_address_of(text).map(|address| address.map(|address| address.to_string()));
        for (text, expected) in [
            ("10.96.0.7:7443", Some("10.96.0.7:7443")),
            ("[fd00::7]:7443", Some("[fd00::7]:7443")),
            ("fd00::7:7443", Some("[fd00::7]:7443")),
            ("$(LARDER_CACHE_SERVICE_HOST):$(LARDER_CACHE_SERVICE_PORT)", None),
            ("", None),
        ] {
            assert_eq!(of(text).unwrap().as_deref(), expected, "{text}");
        }
        for wrong in ["larder-cache:7443", "10.96.0.7", "10.96.0.7:", "10.96.0.7:x"] {
            assert!(of(wrong).unwrap_err().to_string().contains("write ADDRESS:PORT"), "{wrong}");
        }
    }

    #[test]
    fn a_cluster_cache_is_named_by_a_url() {
        let of = |cache: Option<&str>, token: Option<&str>| {
            let args = ClusterCacheArgs {
                cache: cache.map(str::to_owned),
                cache_address: Vec::new(),
                cache_ca: None,
                cache_token_file: token.map(Into::into),
            };
            cluster_cache(&args).map(|config| config.is_some())
        };
        assert!(!of(None, None).unwrap());
        assert!(of(Some("https://larder-cache.larder.svc:7443"), Some("/token")).unwrap());
        for (cache, token) in
            [(None, Some("/token")), (Some("larder-cache"), None), (Some("http://cache:1"), Some("/t"))]
        {
            assert!(of(cache, token).unwrap_err().is::<super::Usage>(), "{cache:?}");
        }
    }
}

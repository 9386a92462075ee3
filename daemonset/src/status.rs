//! What a person or a script is told about this node: by the running agent (`/status` of its admin address), else from a
//! look at the node.

use crate::args::{ByHandArgs, Output};
use crate::by_hand::{self, targets_in_use};
use crate::config::{Engine, Listen};
use crate::node::{self, Node};
use crate::probe;
use larder_node_agent::change::{Item, ItemState};
use larder_node_agent::confirm::Confirmation;
use larder_node_agent::engine::{Desired, Placed as PlacedEntry, Report};
use larder_proxy::settings::Settings;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The whole status, as `--output json` prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The agent that says so; `None` when none runs and this was only observed.
    pub(crate) agent: Option<Agent>,
    pub(crate) engine: Option<EngineStatus>,
    pub(crate) proxy: Option<Proxy>,
    /// `ready`, `needs-literal-path`, `needs-config-toml`, `cannot`.
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) placed: Vec<Placed>,
    pub(crate) left_alone: Vec<LeftAlone>,
    /// What a person should know, one sentence each.
    pub(crate) conditions: Vec<String>,
    /// `None`: the agent was not told of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<KubernetesStatus>,
}

/// What the agent has to do with Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KubernetesStatus {
    /// This node's name there.
    pub(crate) node: String,
    /// Where what is known of UpstreamRegistry objects is from: `api-server`, `disk` (an agent before this one read it) or `nothing`.
    pub(crate) source: String,
    /// Seconds since 1970 when the API server last said something of them.
    pub(crate) read_at: Option<u64>,
    /// How many there are.
    pub(crate) objects: usize,
    /// What of them is not in force, and why.
    pub(crate) left_out: Vec<String>,
    /// Seconds since 1970 when the NodeMirror was last written.
    pub(crate) written_at: Option<u64>,
}

impl KubernetesStatus {
    fn lines(&self, now: SystemTime) -> Vec<String> {
        let objects = match self.objects {
            1 => "1 UpstreamRegistry".to_owned(),
            many => format!("{many} UpstreamRegistry objects"),
        };
        let read = match (self.source.as_str(), self.read_at) {
            ("api-server", Some(at)) => format!("{objects}, last news from the API server {} ago", ago(now, at)),
            ("disk", _) => {
                format!("{objects}, as an agent before this one read them: the API server has not answered yet")
            }
            _ => "the API server has not answered yet: nothing is known of UpstreamRegistry objects".to_owned(),
        };
        let written = match self.written_at {
            Some(at) => format!("its NodeMirror was written {} ago", ago(now, at)),
            None => "its NodeMirror was not written yet".to_owned(),
        };
        let left_out = self.left_out.iter().map(|left| format!("left out: {left}"));
        [read, format!("node {}: {written}", self.node)].into_iter().chain(left_out).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Where links lead: `by-agent` or `run`; `file` where the engine is told by a file.
    pub(crate) placement: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineStatus {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    pub(crate) pid: Option<u32>,
    /// One word: `well`, `starting`, `stalled`, `dead`, `hung`, `held-off`, `stranger`, `stopping`.
    pub(crate) health: String,
    /// Who a stranger is, or what could not be done.
    pub(crate) detail: Option<String>,
    pub(crate) announced: bool,
    pub(crate) starts: u64,
    pub(crate) kills: u64,
    pub(crate) store: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// `None`: every registry without an entry of its own.
    pub(crate) registry: Option<String>,
    /// `default-link`, `registry-link`, `hosts-file-link`, `splice`, `registries-drop-in`.
    pub(crate) kind: String,
    pub(crate) path: PathBuf,
    /// Seconds since 1970 when the engine was last seen to ask the proxy by this kind of entry.
    pub(crate) confirmed_at: Option<u64>,
    /// Why it was not, if it was tried.
    pub(crate) not_seen: Option<String>,
    /// The engine failed before it asked anybody: it would without us as well.
    #[serde(default)]
    pub(crate) failed_by_itself: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftAlone {
    pub(crate) registry: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

/// A word of an enum as it is serialised.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl Status {
    /// Takes over what planning found, with the confirmation of each kind of placement.
    pub(crate) fn report(&mut self, report: &Report, confirmation: impl Fn(&PlacedEntry) -> Option<Confirmation>) {
        self.verdict = word(&report.readiness);
        self.reason.clone_from(&report.reason);
        let registry = |registry: &Option<larder_oci::Registry>| registry.as_ref().map(ToString::to_string);
        self.placed = report
            .placed
            .iter()
            .map(|placed| {
                let (confirmed_at, not_seen, failed_by_itself) = match confirmation(placed) {
                    Some(Confirmation::Confirmed { at }) => (Some(seconds(at)), None, false),
                    Some(Confirmation::NotAsked { reason }) => (None, Some(reason), false),
                    Some(Confirmation::NotSeen { reason, by_itself }) => (None, Some(reason), by_itself),
                    None => (None, None, false),
                };
                let (registry, kind) = (registry(&placed.registry), word(&placed.kind));
                Placed { registry, kind, path: placed.path.clone(), confirmed_at, not_seen, failed_by_itself }
            })
            .collect();
        self.left_alone = report
            .left_alone
            .iter()
            .map(|left| LeftAlone {
                registry: registry(&left.registry),
                path: left.path.clone(),
                reason: left.reason.clone(),
            })
            .collect();
        self.conditions.extend(report.conditions.iter().map(|condition| match &condition.path {
            Some(path) => format!("{}: {}: {}", condition.kind, path.display(), condition.message),
            None => format!("{}: {}", condition.kind, condition.message),
        }));
    }

    /// For people. `now` makes "confirmed … ago".
    pub(crate) fn text(&self, now: SystemTime) -> String {
        let mut page = String::new();
        let mut line = |label: &str, text: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "{label:<11}{text}");
        };
        match &self.agent {
            Some(agent) => line(
                "agent",
                &format!(
                    "running (process {}), {}",
                    agent.pid,
                    match agent.placement.as_str() {
                        "by-agent" => "links lead into the agent: they end with it",
                        "file" => "the engine is told by a file, and reads it when it is told to",
                        _ => "links lead into /run",
                    }
                ),
            ),
            None => line("agent", "not running"),
        }
        match &self.engine {
            Some(engine) => line(
                "engine",
                &format!("{} {} (process {}) at {}", engine.name, engine.version, engine.pid, engine.socket.display()),
            ),
            None => line("engine", "none found"),
        }
        if !self.verdict.is_empty() {
            line("", &format!("{}: {}", self.verdict, self.reason));
        }
        if let Some(proxy) = &self.proxy {
            let process = proxy.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let told =
                if proxy.announced { "the engine is told to ask it" } else { "the engine is not told to ask it" };
            line("proxy", &format!("{}{process} on {}, {told}", proxy.health, proxy.address));
            if let Some(detail) = &proxy.detail {
                line("", detail);
            }
            if proxy.starts > 1 || proxy.kills > 0 {
                line("", &format!("started {} times, killed {} times", proxy.starts, proxy.kills));
            }
            if let Some(store) = &proxy.store {
                line("store", store);
            }
        }
        for (index, placed) in self.placed.iter().enumerate() {
            let proof = match (placed.confirmed_at, &placed.not_seen) {
                (Some(at), _) => format!("configured: the engine asked us {} ago", ago(now, at)),
                (None, Some(reason)) => format!("not configured: {reason}"),
                (None, None) => "not tried yet".to_owned(),
            };
            let registry = placed.registry.as_deref().unwrap_or("every other registry");
            line(
                if index == 0 { "placed" } else { "" },
                &format!("{registry}: {} {}", placed.kind, placed.path.display()),
            );
            line("", &format!("  {proof}"));
        }
        for (index, left) in self.left_alone.iter().enumerate() {
            let registry = left.registry.as_deref().unwrap_or("every other registry");
            let text = format!("{registry}: {} ({})", left.reason, left.path.display());
            line(if index == 0 { "left alone" } else { "" }, &text);
        }
        let kubernetes = self.kubernetes.iter().flat_map(|kubernetes| kubernetes.lines(now));
        for (index, text) in kubernetes.enumerate() {
            line(if index == 0 { "kubernetes" } else { "" }, &text);
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            line(if index == 0 { "to know" } else { "" }, condition);
        }
        page
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn ago(now: SystemTime, at: u64) -> String {
    let seconds = now.duration_since(UNIX_EPOCH + Duration::from_secs(at)).map_or(0, |since| since.as_secs());
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// `larder-node status`.
///
/// Fails after it has printed what it knows when there is neither an agent nor an engine to tell about.
pub(crate) fn print(args: &ByHandArgs) -> anyhow::Result<ExitCode> {
    let status = match told_by_agent(args.run.agent.admin) {
        Some(status) => status,
        None => observed(args)?,
    };
    match args.output.output {
        Output::Text => print!("{}", status.text(SystemTime::now())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    let nothing = status.agent.is_none() && status.verdict.is_empty();
    Ok(if nothing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the agent that runs now says. Whoever else has its address says nothing that could be read as a status.
fn told_by_agent(admin: SocketAddr) -> Option<Status> {
    let answer = probe::get(admin, "/status", Duration::from_secs(3)).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// What can be seen without an agent.
fn observed(args: &ByHandArgs) -> anyhow::Result<Status> {
    let config = Engine::from_args(&args.run.agent.engine)?;
    let listen = Listen::from_args(&args.run.agent.listen)?;
    let file = args.run.agent.registries.registries.as_deref();
    let (settings, damaged) = node::settings_after(&Settings::default(), file)?;
    let runtime = by_hand::runtime()?;
    let node = match runtime.block_on(Node::by_hand(&config)) {
        Ok(node) => node,
        Err(error) => {
            return Ok(Status { conditions: vec![format!("{error:#}")], ..Status::default() });
        }
    };
    let registries = runtime.block_on(by_hand::registries(args, &node))?;
    let mut status = seen_on(&node, &node::desired(&listen, &settings, registries))?;
    status.conditions.extend(damaged);
    Ok(status)
}

fn seen_on(node: &Node, desired: &Desired) -> anyhow::Result<Status> {
    let mut status = Status { engine: engine(node), ..Status::default() };
    let observation = node.observe()?;
    let targets = targets_in_use(node)?.unwrap_or_else(|| PathBuf::from("/run/larder/not-placed"));
    let proposal = node.propose(&observation, desired, &targets)?;
    status.report(&proposal.report, |_| None);
    if let Some(edit) = &proposal.restart {
        status.conditions.push(format!("to do: {}", crate::engine_restart::advice(edit)));
    }
    // What planning would place is no news; what is in place already was placed by hand.
    status.placed.retain(|placed| proposal.plan.change(&placed.path).is_none());
    let mut ours = Vec::new();
    for folder in [&node.state_dir, &node.config_state_dir()] {
        ours.extend(larder_node_agent::change::inventory(&node.host, folder)?.items);
    }
    // A directory that was made for an entry which is in place belongs to it.
    let in_use = |item: &Item| status.placed.iter().any(|placed| placed.path.starts_with(&item.path));
    let left: Vec<_> = ours.iter().filter(|item| item.state != ItemState::InPlace || !in_use(item)).collect();
    let left = left.into_iter().map(|item| {
        format!("left on the node: {} ({}); larder-node restore removes it", item.path.display(), word(&item.state))
    });
    status.conditions.extend(left);
    if !status.placed.is_empty() {
        let advice = "placed by hand, and nobody watches over the proxy: larder-node restore takes it back";
        status.conditions.push(advice.to_owned());
    }
    Ok(status)
}

/// The running engine of a node.
pub(crate) fn engine(node: &Node) -> Option<EngineStatus> {
    node.running.as_ref().map(|running| EngineStatus {
        name: node.engine.name().to_owned(),
        version: running.version.clone(),
        pid: running.found.process.pid,
        socket: running.found.socket.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Agent, EngineStatus, KubernetesStatus, LeftAlone, Placed, Proxy, Status};
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    fn running() -> Status {
        let placed = |registry: Option<&str>, kind: &str, path: &str| Placed {
            registry: registry.map(str::to_owned),
            kind: kind.to_owned(),
            path: PathBuf::from(path),
            confirmed_at: None,
            not_seen: None,
            failed_by_itself: false,
        };
        let default = placed(None, "default-link", "/etc/containerd/certs.d/_default");
        let splice = placed(Some("reg.example.com"), "splice", "/etc/containerd/certs.d/reg.example.com/hosts.toml");
        Status {
            agent: Some(Agent { pid: 71, version: "0.1.0".to_owned(), placement: "by-agent".to_owned() }),
            engine: Some(EngineStatus {
                name: "containerd".to_owned(),
                version: "v2.1.9".to_owned(),
                pid: 12,
                socket: PathBuf::from("/run/containerd/containerd.sock"),
            }),
            proxy: Some(Proxy {
                address: "127.0.0.1:7439".to_owned(),
                pid: Some(72),
                health: "well".to_owned(),
                detail: None,
                announced: true,
                starts: 2,
                kills: 1,
                store: Some("directory:/var/lib/larder/store, at most 20GiB".to_owned()),
            }),
            verdict: "ready".to_owned(),
            reason: "containerd 2.1.9 reads /etc/containerd/certs.d".to_owned(),
            placed: vec![
                Placed { confirmed_at: Some(1_000_000), ..default },
                Placed { not_seen: Some("the engine did not ask us".to_owned()), ..splice },
            ],
            left_alone: vec![LeftAlone {
                registry: Some("docker.io".to_owned()),
                path: PathBuf::from("/etc/containerd/certs.d/docker.io"),
                reason: "it is redirected to harbor.example.com".to_owned(),
            }],
            conditions: vec!["degraded: registries file: line 3; the last good one stays in force".to_owned()],
            kubernetes: None,
        }
    }

    #[test]
    fn what_a_person_reads_of_a_running_agent() {
        insta::assert_snapshot!("status", running().text(UNIX_EPOCH + Duration::from_secs(1_000_300)));
    }

    #[test]
    fn what_a_person_reads_of_kubernetes() {
        let said = KubernetesStatus {
            node: "one".to_owned(),
            source: "api-server".to_owned(),
            read_at: Some(1_000_290),
            objects: 3,
            left_out: vec!["UpstreamRegistry x: it is not looked at".to_owned()],
            written_at: Some(1_000_000),
        };
        let from_disk =
            KubernetesStatus { source: "disk".to_owned(), written_at: None, left_out: Vec::new(), ..said.clone() };
        let nothing = KubernetesStatus { source: "nothing".to_owned(), objects: 0, ..from_disk.clone() };
        let pages = [said, from_disk, nothing].map(|kubernetes| {
            let status = Status { kubernetes: Some(kubernetes), ..Status::default() };
            status.text(UNIX_EPOCH + Duration::from_secs(1_000_300))
        });
        insta::assert_snapshot!("status-kubernetes", pages.join("\n"));
    }

    #[test]
    fn what_a_person_reads_where_nothing_is() {
        let status = Status { conditions: vec!["no CRI socket answers".to_owned()], ..Status::default() };
        insta::assert_snapshot!("status-nothing", status.text(UNIX_EPOCH));
    }

    #[test]
    fn what_a_script_reads() {
        insta::assert_snapshot!("status-json", serde_json::to_string_pretty(&running()).unwrap());
    }
}

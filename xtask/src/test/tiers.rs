//! The tiers, from many and small to few and real.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result};
use larder_test_bucket::Kind as Bucket;
use larder_test_parts::{CrioLine, EngineLine, LibraryLine, Line, Parts};

use super::fleets::fleets;
use super::{Arguments, Outcome};
use crate::workspace;

/// How long output may stay open and silent after its program has ended.
const QUIET: Duration = Duration::from_secs(2);

/// What is run as one.
#[derive(Clone, Copy)]
pub(crate) enum Tier {
    /// Properties, golden directories, and parts of Larder over real sockets: `cargo test`.
    Components,
    /// The store on a bucket, with real servers: `tests/bucket`.
    Bucket,
    /// Who may ask the cluster cache, with a real API server: `tests/callers`.
    Callers,
    /// The custom resources and the controller, with a real API server: `tests/controller`.
    Controller,
    /// A fixed number of runs of each fuzz target: `cargo xtask fuzz`.
    Fuzz,
    /// Everything that helm makes of values: `tests/chart`. Needs no cluster.
    Chart,
    /// One node with real engines: `tests/node`. Needs root.
    Node,
    /// Clusters on kind: `tests/kind`. Needs root, and minutes before the first case when its parts were never built.
    Kind,
}

impl Tier {
    const ALL: [Self; 8] = [
        Self::Components,
        Self::Bucket,
        Self::Callers,
        Self::Controller,
        Self::Fuzz,
        Self::Chart,
        Self::Node,
        Self::Kind,
    ];

    /// The tiers that are asked for.
    pub(crate) fn asked_for(arguments: &Arguments) -> Result<Vec<Self>> {
        let [first, second] = arguments.words.as_slice() else {
            let named = arguments.words.first().and_then(|word| Self::named(word));
            return Ok(named.map_or_else(|| Self::ALL.to_vec(), |tier| vec![tier]));
        };
        let tier = Self::named(first).with_context(|| format!("{first} is no tier, and {second} cannot be one"))?;
        Ok(vec![tier])
    }

    fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == word)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Components => "components",
            Self::Bucket => "bucket",
            Self::Callers => "callers",
            Self::Controller => "controller",
            Self::Fuzz => "fuzz",
            Self::Chart => "chart",
            Self::Node => "node",
            Self::Kind => "kind",
        }
    }

    pub(crate) fn run(self, arguments: &Arguments) -> Result<Outcome> {
        match self {
            Self::Components => components(arguments),
            Self::Bucket => bucket(arguments),
            Self::Callers => callers(arguments),
            Self::Controller => controller(arguments),
            Self::Fuzz => fuzz(arguments),
            Self::Chart => chart(arguments),
            Self::Node if !is_root() => Ok(Outcome::skipped(self.name(), "engines run as root only")),
            Self::Node => node(arguments),
            Self::Kind => match larder_test_kind::machine::unfit() {
                Some(reason) => Ok(Outcome::skipped(self.name(), &reason)),
                None => kind(arguments),
            },
        }
    }
}

fn components(arguments: &Arguments) -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args([
        "--exclude",
        "larder-test-bucket",
        "--exclude",
        "larder-test-callers",
        "--exclude",
        "larder-test-chart",
        "--exclude",
        "larder-test-controller",
        "--exclude",
        "larder-test-node",
    ]);
    if arguments.all {
        // Further into what may happen to a shared bucket: minutes in place of seconds.
        command.env("LARDER_EXPLORE", "deep");
    }
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    run(&mut command)
}

/// `MinIO` takes minutes to build, and is a second opinion; Azurite is used where somebody has installed it.
fn servers(arguments: &Arguments, azurite: bool) -> Vec<Bucket> {
    let mut servers = vec![Bucket::Versitygw, Bucket::FakeGcs];
    if arguments.all {
        servers.push(Bucket::Minio);
        servers.extend(azurite.then_some(Bucket::Azurite));
    }
    servers
}

fn bucket(arguments: &Arguments) -> Result<Outcome> {
    let azurite = larder_test_bucket::kind::azurite().is_some();
    let servers = servers(arguments, azurite);
    let mut skipped = Outcome::default();
    if arguments.all && !azurite {
        skipped = Outcome::skipped("bucket::azurite", "azurite-blob is not installed (npm install --global azurite)");
    }
    let parts = Parts::from_environment()?;
    for part in servers.iter().filter_map(|server| server.part()) {
        parts.module(part)?;
    }
    let larder_cache = workspace::build_program("larder-cache", "dev")?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "larder-test-bucket"]).env("LARDER_CACHE_PROGRAM", larder_cache);
    command.env("LARDER_BUCKET_SERVERS", servers.iter().map(|server| server.name()).collect::<Vec<_>>().join(","));
    if arguments.all {
        command.env("LARDER_TEST_RECORDS", "100000").env("LARDER_BUCKET_MINUTES", "5").env("LARDER_BUCKET_WHOLE", "1");
    }
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    let mut outcome = run(&mut command)?;
    outcome.add(skipped);
    Ok(outcome)
}

fn callers(arguments: &Arguments) -> Result<Outcome> {
    let parts = Parts::from_environment()?;
    for part in ["etcd", "kubernetes-1.34"] {
        parts.module(part)?;
    }
    let larder_cache = workspace::build_program("larder-cache", "dev")?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "larder-test-callers"]).env("LARDER_CACHE_PROGRAM", larder_cache);
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    run(&mut command)
}

fn controller(arguments: &Arguments) -> Result<Outcome> {
    let parts = Parts::from_environment()?;
    for part in ["etcd", "kubernetes-1.34", "distribution-3", "crane"] {
        parts.module(part)?;
    }
    let mut command = workspace::cargo();
    let larder_cache = workspace::build_program("larder-cache", "dev")?;
    let larder_controller = workspace::build_program("larder-controller", "dev")?;
    let larder_node = workspace::build_program("larder-node", "dev")?;
    command.args(["test", "--package", "larder-test-controller"]);
    command.env("LARDER_CACHE_PROGRAM", larder_cache).env("LARDER_CONTROLLER", larder_controller);
    command.env("LARDER_NODE", larder_node);
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    run(&mut command)
}

fn fuzz(arguments: &Arguments) -> Result<Outcome> {
    let mut targets = crate::fuzz::targets()?;
    if let Some(filter) = filter(arguments) {
        targets.retain(|target| format!("fuzz::{target}").contains(filter));
    }
    // No target at all would mean every one.
    if targets.is_empty() {
        return Ok(Outcome::default());
    }
    let mut command = workspace::cargo();
    run(command.args(["run", "--quiet", "--package", "xtask", "--", "fuzz"]).args(targets))
}

fn chart(arguments: &Arguments) -> Result<Outcome> {
    let helm = Parts::from_environment()?.helm()?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "larder-test-chart", "--no-fail-fast"]).env("LARDER_HELM", helm);
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    run(&mut command)
}

/// The library that reads `registries.conf`: the oldest that is in use, and that of the CRI-O that tests run.
const TYPICAL_LIBRARIES: [LibraryLine; 2] = [LibraryLine::V5_27, LibraryLine::V5_35];

fn node(arguments: &Arguments) -> Result<Outcome> {
    let parts = Parts::from_environment()?;
    let larder_node = workspace::build_program("larder-node", "dev")?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "larder-test-node", "--no-fail-fast"]);
    command.env("LARDER_NODE", larder_node);
    // Not LARDER_CACHE, which is where larder-node would look for the cluster cache.
    parts.module("versitygw")?;
    command.env("LARDER_CACHE_PROGRAM", workspace::build_program("larder-cache", "dev")?);
    let (full, smoke) = lines(arguments);
    command.env("LARDER_LINES", names(&full)).env("LARDER_SMOKE_LINES", names(&smoke));
    // Before the first case, whose own time it would be otherwise.
    for line in full.into_iter().chain(smoke) {
        parts.engine(line)?;
    }
    let libraries = if arguments.all { &LibraryLine::ALL[..] } else { &TYPICAL_LIBRARIES[..] };
    for line in libraries {
        parts.image_library(*line)?;
    }
    let libraries: Vec<&str> = libraries.iter().map(|line| line.as_str()).collect();
    command.env("LARDER_IMAGE_LIBRARIES", libraries.join(","));
    if let Some(filter) = filter(arguments) {
        command.args(["--", filter]);
    }
    run(&mut command)
}

fn kind(arguments: &Arguments) -> Result<Outcome> {
    let image = crate::image::build_for_tests()?.path;
    let mut outcome = Outcome::default();
    for fleet in fleets(arguments) {
        let workers = names(&fleet);
        println!("  workers: {workers}");
        let mut command = workspace::cargo();
        command.args(["test", "--package", "larder-test-kind", "--test", "kind"]);
        command.env("LARDER_IMAGE", &image).env("LARDER_KIND_WORKERS", workers);
        if let Some(filter) = filter(arguments) {
            command.args(["--", filter]);
        }
        outcome.add(run(&mut command)?);
    }
    Ok(outcome)
}

/// What the names of tests have to contain: the word after the tier's, or the only one when that names no tier.
fn filter(arguments: &Arguments) -> Option<&str> {
    match arguments.words.as_slice() {
        [_, word] => Some(word),
        [word] if Tier::named(word).is_none() => Some(word),
        _ => None,
    }
}

/// The lines on which every case is run, and those that get the smoke cases.
fn lines(arguments: &Arguments) -> (Vec<EngineLine>, Vec<EngineLine>) {
    if !arguments.engine_version.is_empty() {
        return (arguments.engine_version.clone(), Vec::new());
    }
    if arguments.all {
        return (EngineLine::all_that_pull(), Vec::new());
    }
    // Of containerd the oldest, the first that pulls through the transfer service, and the newest; of CRI-O the only one.
    let containerd = [Line::V1_6, Line::V2_1, Line::V2_4].map(EngineLine::Containerd);
    let crio = CrioLine::ALL.map(EngineLine::Crio);
    let typical = |line: &EngineLine| containerd.contains(line) || crio.contains(line);
    let (full, mut smoke): (Vec<_>, Vec<_>) = EngineLine::all().into_iter().partition(typical);
    // Of the library the one that differs most from the daemon's.
    smoke.push(EngineLine::Crio(CrioLine::Library(LibraryLine::V5_27)));
    (full, smoke)
}

fn names(lines: &[EngineLine]) -> String {
    lines.iter().map(EngineLine::to_string).collect::<Vec<_>>().join(",")
}

/// Runs test programs, shows what is worth it while they run, and counts. A process that tests left behind with their output still
/// open would keep a reader waiting for ever: it is a failure, not a hang.
fn run(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("could not run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut outcome = Outcome::default();
    let mut status = None;
    loop {
        match lines.recv_timeout(QUIET) {
            Ok(line) => {
                let line = line.context("could not read what cargo prints")?;
                let line = String::from_utf8_lossy(&line);
                if outcome.read(line.trim_end()) {
                    println!("  {line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if status.is_some() => {
                outcome.fail("a process that a test started still runs and holds the tests' output");
                break;
            }
            // Nothing for a while: either tests run, or only their leftovers do.
            Err(RecvTimeoutError::Timeout) => status = child.try_wait().context("could not wait for cargo")?,
        }
    }
    let status = status.map_or_else(|| child.wait(), Ok).context("could not wait for cargo")?;
    outcome.ended(status.success());
    Ok(outcome)
}

/// By the owner of this process's folder in /proc.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Outcome {
        run(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn what_a_test_program_prints_is_counted() {
        assert_eq!(
            shell("echo 'test a ... ok'; echo 'test b ... FAILED'; exit 1").counts(),
            "1 passed, 1 failed, 0 skipped"
        );
        assert_eq!(shell("echo 'test a ... ok'; kill -9 $$").counts(), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_process_left_behind_is_a_failure_and_no_hang() {
        let began = std::time::Instant::now();
        let outcome = shell("echo 'test a ... ok'; sleep 20 & exit 0");
        assert_eq!(outcome.counts(), "1 passed, 1 failed, 0 skipped");
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn every_line_and_server_is_tested_and_the_typical_ones_always() {
        let arguments = |all| Arguments { all, engine: None, engine_version: Vec::new(), words: Vec::new() };
        let (full, smoke) = lines(&arguments(false));
        assert_eq!(names(&full), "containerd-1.6,containerd-2.1,containerd-2.4,crio-1.34");
        assert_eq!(names(&smoke), "containerd-1.7,containerd-2.0,containerd-2.2,containerd-2.3,cimage-5.27");
        let (full, smoke) = lines(&arguments(true));
        assert_eq!((full.len(), smoke.len()), (EngineLine::all_that_pull().len(), 0));
        let servers = |all, azurite| servers(&arguments(all), azurite).iter().map(|one| one.name()).collect::<Vec<_>>();
        assert_eq!(servers(false, true), ["versitygw", "fake-gcs"]);
        assert_eq!(servers(true, false), ["versitygw", "fake-gcs", "minio"]);
        assert_eq!(servers(true, true), ["versitygw", "fake-gcs", "minio", "azurite"]);
    }

    #[test]
    fn a_tier_is_asked_for_by_its_name_and_all_without_one() {
        let asked = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let arguments = Arguments { all: false, engine: None, engine_version: Vec::new(), words };
            let tiers = Tier::asked_for(&arguments)?.into_iter().map(Tier::name).collect::<Vec<_>>().join(" ");
            anyhow::Ok((tiers, filter(&arguments).map(str::to_owned)))
        };
        assert_eq!(asked(&[]).unwrap(), ("components bucket callers controller fuzz chart node kind".to_owned(), None));
        assert_eq!(
            asked(&["proxy_killed"]).unwrap(),
            ("components bucket callers controller fuzz chart node kind".to_owned(), Some("proxy_killed".to_owned()))
        );
        assert_eq!(asked(&["kind"]).unwrap(), ("kind".to_owned(), None));
        assert_eq!(asked(&["kind", "pulls"]).unwrap(), ("kind".to_owned(), Some("pulls".to_owned())));
        assert!(asked(&["pulls", "kind"]).unwrap_err().to_string().contains("pulls is no tier"));
    }
}

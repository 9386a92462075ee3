//! Every case of one node, once for each line of an engine that is asked for.
//!
//! `LARDER_LINES` names the lines that get every case, `LARDER_SMOKE_LINES` those that get the smoke cases; `cargo xtask test` sets
//! both. Without them every case runs on the newest line of each engine that has a daemon.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test cases may fail loudly")]

mod agent;
mod by_design;
mod by_hand;
mod clients;
mod cluster_cache;
mod cluster_cache_trouble;
mod configuration;
mod crio;
mod crio_files;
mod crio_life;
mod crio_names;
mod crio_signatures;
mod detection;
mod disk;
mod freshness;
mod hanging_disk;
mod origin_trouble;
mod parallel;
mod private;
mod proxy;
mod pulls;
mod undo;

use std::process::ExitCode;

use anyhow::Result;
use larder_test_parts::{CrioLine, EngineLine, Line};
use libtest_mimic::{Arguments, Failed, Trial};

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: Run,
    /// Also on the lines that get a smoke test only.
    smoke: bool,
    /// Of an engine's lines on the newest only.
    newest: bool,
    /// The first line that has what it needs, and why.
    since: Option<(Line, &'static str)>,
    /// The first line that has it no more, and why.
    before: Option<(Line, &'static str)>,
}

/// What a case is about, and therefore what it is run on.
#[derive(Clone, Copy)]
enum Run {
    /// Something that every engine promises.
    Any(fn(EngineLine) -> Result<()>),
    /// How containerd reads its files.
    Containerd(fn(Line) -> Result<()>),
    /// How CRI-O reads its files.
    Crio(fn(CrioLine) -> Result<()>),
}

impl Case {
    /// A case of containerd, for every line that is tested in full.
    pub const fn new(name: &'static str, run: fn(Line) -> Result<()>) -> Self {
        Self::of(name, Run::Containerd(run))
    }

    /// A case of CRI-O.
    pub const fn crio(name: &'static str, run: fn(CrioLine) -> Result<()>) -> Self {
        Self::of(name, Run::Crio(run))
    }

    /// A case of every engine.
    pub const fn any(name: &'static str, run: fn(EngineLine) -> Result<()>) -> Self {
        Self::of(name, Run::Any(run))
    }

    const fn of(name: &'static str, run: Run) -> Self {
        Self { name, run, smoke: false, newest: false, since: None, before: None }
    }

    /// One that every line gets.
    #[must_use]
    pub const fn smoke(self) -> Self {
        Self { smoke: true, ..self }
    }

    /// One about what is behind the node's proxy, where no line differs from another: of each engine's lines that get every case the
    /// newest is enough.
    #[must_use]
    pub const fn newest(self) -> Self {
        Self { newest: true, ..self }
    }

    /// One that means something only from a line on.
    #[must_use]
    pub const fn since(self, line: Line, why: &'static str) -> Self {
        Self { since: Some((line, why)), ..self }
    }

    /// One that means something only up to a line.
    #[must_use]
    pub const fn before(self, line: Line, why: &'static str) -> Self {
        Self { before: Some((line, why)), ..self }
    }

    /// What is to be run on a line; `None` where it means nothing. What a line has nothing of is not a skipped test.
    fn on(self, line: EngineLine) -> Option<Box<dyn FnOnce() -> Result<()> + Send>> {
        match (self.run, line) {
            (Run::Any(_) | Run::Crio(_), EngineLine::Crio(CrioLine::Library(_)))
                if by_design::needs_a_daemon(self.name) =>
            {
                None
            }
            (Run::Any(run), line) => Some(Box::new(move || run(line))),
            (Run::Containerd(run), EngineLine::Containerd(line)) => {
                let exists = self.since.is_none_or(|(first, _)| line >= first)
                    && self.before.is_none_or(|(first, _)| line < first);
                exists.then(|| -> Box<dyn FnOnce() -> Result<()> + Send> { Box::new(move || run(line)) })
            }
            (Run::Crio(run), EngineLine::Crio(line)) => Some(Box::new(move || run(line))),
            (Run::Containerd(_), EngineLine::Crio(_)) | (Run::Crio(_), EngineLine::Containerd(_)) => None,
        }
    }
}

fn cases() -> Vec<Case> {
    [
        pulls::CASES,
        freshness::CASES,
        origin_trouble::CASES,
        private::CASES,
        configuration::CASES,
        by_design::CASES,
        by_hand::CASES,
        clients::CASES,
        cluster_cache::CASES,
        cluster_cache_trouble::CASES,
        crio::CASES,
        crio_files::CASES,
        crio_life::CASES,
        crio_names::CASES,
        crio_signatures::CASES,
        detection::CASES,
        parallel::CASES,
        proxy::CASES,
        agent::CASES,
        disk::CASES,
        hanging_disk::CASES,
        undo::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect()
}

/// Whether no later line of that engine is among these. A daemon of CRI-O counts for more than its library alone.
fn is_newest(line: EngineLine, lines: &[EngineLine]) -> bool {
    let is_later = |other: &EngineLine| match (line, other) {
        (EngineLine::Containerd(line), EngineLine::Containerd(other)) => *other > line,
        (EngineLine::Crio(CrioLine::Library(line)), EngineLine::Crio(CrioLine::Library(other))) => *other > line,
        (EngineLine::Crio(line), EngineLine::Crio(other)) => *other < line,
        _ => false,
    };
    !lines.iter().any(is_later)
}

fn lines(variable: &str) -> Option<Vec<EngineLine>> {
    let text = std::env::var(variable).ok()?;
    let words = text.split(',').filter(|word| !word.is_empty());
    Some(words.map(|word| word.parse().unwrap_or_else(|error| panic!("{variable}: {error}"))).collect())
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let newest = || vec![EngineLine::Containerd(Line::V2_4), EngineLine::Crio(CrioLine::V1_34)];
    let full = lines("LARDER_LINES").unwrap_or_else(newest);
    let smoke = lines("LARDER_SMOKE_LINES").unwrap_or_default();
    let mut trials = Vec::new();
    for line in EngineLine::all_that_pull() {
        for case in cases() {
            let asked_for = full.contains(&line) || (case.smoke && smoke.contains(&line));
            let asked_for = asked_for && (!case.newest || is_newest(line, &full));
            if let Some(run) = case.on(line).filter(|_| asked_for) {
                let name = format!("{line}::{}", case.name);
                trials.push(Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}")))));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

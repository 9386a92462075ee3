//! `cargo xtask bench`: Larder beside what a user would pick instead, in one run, as ratios. Never a pass or a fail.
//!
//! Every contender is a real program ([`server`]) in a folder and on a port of its own; the registry is the tests' fake one, whose
//! connections can be shaped, or nginx where it has to be fast. What keeps the numbers honest: contenders take turns (A B C, A B C, …)
//! and a ratio is formed within a turn; nothing waits to be written to disk when a turn begins; a cold blob is one that
//! nobody has ever seen. The rows are in [`row`], a family a file; they fill a [`sheet::Sheet`], which [`table`] prints.

mod blobs;
mod bucket_log;
mod client;
mod crowd;
mod load;
mod machine;
mod row;
mod scale;
mod server;
mod sheet;
mod stop;
mod table;
mod usage;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use larder_test_parts::Parts;

use crate::workspace;
use blobs::Blobs;
use row::Row;
use scale::Scale;
use stop::Stop;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these rows
    #[arg(value_enum, value_name = "ROW")]
    rows: Vec<Row>,

    /// Turns of each contender
    #[arg(long, value_name = "N", default_value_if("quick", "true", "1"), default_value = "5", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// Small sizes and short times: shows that it runs, not what it measures
    #[arg(long)]
    quick: bool,

    /// Measure this larder-node instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// Measure this larder-cache instead of building one
    #[arg(long, value_name = "FILE")]
    cache_program: Option<PathBuf>,

    /// Measure this larder-controller instead of building one
    #[arg(long, value_name = "FILE")]
    controller_program: Option<PathBuf>,
}

/// What every row needs.
struct Bench {
    parts: Parts,
    /// `larder-node`, built with the release profile when a row first needs it.
    program: OnceCell<PathBuf>,
    /// `larder-cache`, likewise.
    cache_program: OnceCell<PathBuf>,
    /// `larder-controller`, likewise.
    controller_program: OnceCell<PathBuf>,
    rounds: u16,
    scale: Scale,
    blobs: Blobs,
    stop: Stop,
}

impl Bench {
    /// Before each turn: nothing waits to be written to disk, and nobody wants an end.
    fn settle(&self) -> Result<()> {
        self.stop.check()?;
        nix::unistd::sync();
        Ok(())
    }

    /// `larder-node`.
    fn program(&self) -> Result<PathBuf> {
        built(&self.program, "larder-node")
    }

    /// `larder-cache`.
    fn cache_program(&self) -> Result<PathBuf> {
        built(&self.cache_program, "larder-cache")
    }

    /// `larder-controller`.
    fn controller_program(&self) -> Result<PathBuf> {
        built(&self.controller_program, "larder-controller")
    }
}

fn built(program: &OnceCell<PathBuf>, name: &str) -> Result<PathBuf> {
    if let Some(program) = program.get() {
        return Ok(program.clone());
    }
    let built = release(name)?;
    Ok(program.get_or_init(|| built).clone())
}

fn release(name: &str) -> Result<PathBuf> {
    eprintln!("building {name} (release)");
    workspace::build_program(name, "release")
}

fn there(program: &Path) -> Result<PathBuf> {
    program.canonicalize().with_context(|| format!("no program at {}", program.display()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let began = Instant::now();
    let machine = machine::line();
    let scale = if arguments.quick { Scale::QUICK } else { Scale::FULL };
    let given = |program: &Option<PathBuf>| -> Result<OnceCell<PathBuf>> {
        let program = program.as_deref().map(there).transpose()?;
        Ok(program.map(OnceCell::from).unwrap_or_default())
    };
    let mut bench = Bench {
        parts: Parts::from_environment()?,
        program: given(&arguments.program)?,
        cache_program: given(&arguments.cache_program)?,
        controller_program: given(&arguments.controller_program)?,
        rounds: arguments.rounds,
        scale,
        blobs: Blobs::new(scale.blob),
        stop,
    };
    let rows = if arguments.rows.is_empty() { Row::ALL.to_vec() } else { arguments.rows.clone() };
    let mut findings = Vec::new();
    let mut failed = false;
    for row in rows {
        eprintln!("measuring {} ({} rounds)", row.name(), bench.rounds);
        match row.measure(&mut bench) {
            Ok(found) => {
                eprintln!("{}", table::render(&found));
                findings.extend(found);
            }
            Err(error) if bench.stop.is_wanted() => return Err(error),
            // The other rows are worth having all the same.
            Err(error) => {
                eprintln!("{}: not measured: {error:#}", row.name());
                failed = true;
            }
        }
    }
    println!("{}", table::render(&findings));
    println!("{machine}");
    println!(
        "{} rounds of each, median (lowest–highest); {} sizes; {:.0} s",
        bench.rounds,
        if arguments.quick { "quick" } else { "full" },
        began.elapsed().as_secs_f64()
    );
    // Failed means that it could not be measured; what was measured has no verdict.
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

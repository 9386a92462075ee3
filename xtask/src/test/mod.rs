//! `cargo xtask test`: runs the tiers one after another ([`tiers`]), counts what they print ([`outcome`]), and compares what was
//! skipped with the list of what may be ([`skips`]).
//!
//! Invariant: the last line counts passed, failed and skipped over all tiers, and the exit status is zero only if nothing failed and
//! nothing was skipped that `tests/allowed-skips.txt` does not name.

mod fleets;
mod outcome;
mod skips;
mod tiers;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::workspace;
use larder_test_parts::EngineLine;
use outcome::Outcome;
use skips::AllowedSkips;
use tiers::Tier;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every case on every line of engines, not only what CI runs
    #[arg(long)]
    pub(crate) all: bool,

    /// Only this line of an engine, such as crio-1.34 (2.4 alone is containerd's), and every case on it; repeatable
    #[arg(long, value_name = "LINE", conflicts_with = "all")]
    pub(crate) engine_version: Vec<EngineLine>,

    /// What the nodes of clusters run, in the tier kind
    #[arg(long, value_name = "ENGINES", conflicts_with = "all")]
    pub(crate) engine: Option<fleets::Workers>,

    /// A tier (components, bucket, callers, controller, fuzz, chart, node, or kind), a word that names of tests have to contain, or both
    #[arg(value_name = "TIER|WORD", num_args = ..=2)]
    pub(crate) words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let allowed = AllowedSkips::read(&workspace::root().join("tests/allowed-skips.txt"))?;
    let mut total = Outcome::default();
    for tier in Tier::asked_for(arguments)? {
        println!("tier {}", tier.name());
        let began = Instant::now();
        let outcome = tier.run(arguments).unwrap_or_else(|error| {
            println!("  {error:#}");
            Outcome::broken()
        });
        println!("tier {}: {} in {:.0} s\n", tier.name(), outcome.counts(), began.elapsed().as_secs_f64());
        total.add(outcome);
    }
    for name in &total.failed_names {
        println!("failed: {name}");
    }
    let mut refused = 0;
    for skip in &total.skipped {
        let reason = skip.reason.as_deref().unwrap_or("no reason given");
        if allowed.permits(&skip.name) {
            println!("skipped: {} ({reason})", skip.name);
        } else {
            refused += 1;
            println!("skipped, and not in tests/allowed-skips.txt: {} ({reason})", skip.name);
        }
    }
    if total.passed == 0 {
        println!("no test ran");
    }
    println!("{}", total.counts());
    let good = total.failed == 0 && refused == 0 && total.passed > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

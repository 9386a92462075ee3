//! An OCI runtime for machines whose processes may never have every capability: runc, asked only for what can be had
//! ([`larder_test_kind::runtime`] says what is changed). It is Docker's runtime there, and the nodes' runc.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use larder_test_kind::bounds::Capabilities;
use larder_test_kind::runtime::Target;

/// Debian's runc, on the machine and on the nodes.
const RUNC: &str = "/usr/sbin/runc";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(target) = Target::of(&arguments) {
        let score =
            std::fs::read_to_string("/proc/self/oom_score_adj").context("could not read /proc/self/oom_score_adj")?;
        let score = score.trim().parse().context("/proc/self/oom_score_adj is not a number")?;
        target.bound(Capabilities::bounding()?, score)?;
    }
    Err(Command::new(RUNC).args(&arguments).exec()).with_context(|| format!("could not run {RUNC}"))
}

//! What a program and its children have used, from `/proc` (`proc_pid_stat(5)`, `proc_pid_smaps(5)`).

use anyhow::{Context as _, Result};
use larder_test_node::process::children;
use nix::unistd::Pid;

/// Clock ticks a second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;

/// Processor seconds, user and system, so far.
pub(super) fn processor_seconds(program: Pid) -> Result<f64> {
    sum(program, |pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command in parentheses may hold spaces; utime is the 12th word after it, stime the 13th.
        let (_, words) = stat.rsplit_once(')').context("stat has no command")?;
        let ticks: f64 = words.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    })
}

/// The most memory that it has had since it began, in MiB: `VmHWM`, without its children's.
pub(super) fn peak_mebibytes(program: Pid) -> Result<f64> {
    let path = format!("/proc/{program}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no line of that name")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Memory that is no file's, in MiB: what cannot be given back without swapping.
pub(super) fn anonymous_mebibytes(program: Pid) -> Result<f64> {
    sum(program, |pid| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).context("no line of that name")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024.0)
    })
}

fn sum(program: Pid, of: impl Fn(Pid) -> Result<f64>) -> Result<f64> {
    let mut sum = of(program).with_context(|| format!("failed to read what process {program} uses"))?;
    for (child, _) in children(program) {
        // One that ended meanwhile uses nothing.
        sum += of(child).unwrap_or(0.0);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_the_processor_or_not() {
        assert!(anonymous_mebibytes(Pid::this()).unwrap() > 0.1);
        assert!(peak_mebibytes(Pid::this()).unwrap() >= anonymous_mebibytes(Pid::this()).unwrap());
        assert!(processor_seconds(Pid::this()).unwrap() >= 0.0);
    }
}

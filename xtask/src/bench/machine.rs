//! What it was measured on, in one line. Ratios travel between machines, numbers do not.

use std::fs;

/// Processors, memory, kernel, and how busy it was before.
pub(super) fn line() -> String {
    let model = after("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor of unknown make".to_owned());
    let memory = after("/proc/meminfo", "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or_else(|| "memory unknown".to_owned(), |kib| format!("{} GiB", kib >> 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "machine: {cores} × {model}, {memory}, Linux {}; load before the start {}; loads, origin and servers share it",
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

fn after(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(key))?.split_once(':')?;
    Some(value.trim().to_owned())
}

//! What this process and its children can never have, by the kernel's bounding set.
//!
//! Without `CAP_SYS_RESOURCE` (inside some sandboxes) runc fails twice: it may not give a privileged container all capabilities, and it
//! may not lower an OOM score. There [`crate::runtime`] stands in front of it.

use anyhow::{Context as _, Result};

/// `CAP_SYS_RESOURCE`, as capability(7) and `linux/capability.h` number it.
const SYS_RESOURCE: u32 = 24;

/// Capabilities in the order of their numbers, as an OCI runtime configuration names them.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The bounding set of this process.
    pub fn bounding() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("could not read /proc/self/status")?;
        Self::parse(&status).context("/proc/self/status has no line CapBnd")
    }

    fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Whether a capability is in it, by its name such as `CAP_KILL`.
    pub fn has(self, name: &str) -> bool {
        let number = NAMES.iter().position(|known| *known == name);
        number.is_some_and(|number| self.0 >> number & 1 == 1)
    }

    /// Whether runc has to be asked for less than it would take.
    pub fn are_too_few(self) -> bool {
        self.0 >> SYS_RESOURCE & 1 == 0
    }
}

#[cfg(test)]
impl Capabilities {
    /// The one capability of a number.
    pub(crate) fn only(number: u32) -> Self {
        Self(1 << number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_bounding_set() {
        let bounded = Capabilities::parse("CapEff:\t0\nCapBnd:\t000001fffeffffff\n").unwrap();
        assert!(bounded.are_too_few() && !bounded.has("CAP_SYS_RESOURCE") && bounded.has("CAP_SYS_ADMIN"));
        let all = Capabilities::parse("CapBnd:\t000001ffffffffff\n").unwrap();
        assert!(!all.are_too_few() && NAMES.iter().all(|name| all.has(name)) && !all.has("CAP_NEW"));
    }
}

//! The short list of what may be skipped, each entry with its reason: `NAME: REASON`, where a final `*` in NAME stands for any rest.

use std::path::Path;

use anyhow::{Context, Result};

pub(crate) struct AllowedSkips(Vec<String>);

impl AllowedSkips {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let names = lines.map(|line| {
            let (name, reason) = line.split_once(": ").with_context(|| format!("no reason is given: {line}"))?;
            anyhow::ensure!(!name.is_empty() && !reason.trim().is_empty(), "no reason is given: {line}");
            Ok(name.to_owned())
        });
        Ok(Self(names.collect::<Result<_>>()?))
    }

    pub(crate) fn permits(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => allowed == name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_what_is_listed_with_a_reason() {
        let allowed =
            AllowedSkips::parse("# comment\n\ndisk::hangs: needs FUSE\nipv6::*: no IPv6 in some places\n").unwrap();
        assert!(allowed.permits("disk::hangs") && allowed.permits("ipv6::loopback"));
        assert!(!allowed.permits("disk::hangs::more") && !allowed.permits("node"));
        assert!(AllowedSkips::parse("disk::hangs\n").is_err());
    }
}

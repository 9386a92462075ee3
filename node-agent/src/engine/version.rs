//! An engine's version, as far as its behaviour depends on it.

use std::fmt;
use std::str::FromStr;

/// `major.minor.patch`; what follows (`~ds1`, `-gke.1`, `+k3s2`) does not change how files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1 or 2 for both engines.
    pub major: u64,
    /// The release line.
    pub minor: u64,
    /// Fixes; containerd's default `config_path` changed in one.
    pub patch: u64,
}

impl Version {
    /// A version by its numbers.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Not the version of an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {0:?} does not begin with major.minor")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    /// What the CRI `Version` call gives: `v2.1.9`, `1.6.20~ds1`, `2.2.0-rc.1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || VersionError(text.chars().take(64).collect());
        let mut numbers = text.trim().trim_start_matches('v').splitn(3, '.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part.get(..digits).and_then(|digits| digits.parse::<u64>().ok())
        });
        let mut next = || numbers.next().flatten();
        let (Some(major), Some(minor)) = (next(), next()) else { return Err(error()) };
        Ok(Self { major, minor, patch: next().unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_append_is_not_part_of_it() {
        for (text, version) in [
            ("v2.1.9", Version::new(2, 1, 9)),
            ("1.6.20~ds1", Version::new(1, 6, 20)),
            ("2.2.0-rc.1", Version::new(2, 2, 0)),
            ("1.7.23-k3s2", Version::new(1, 7, 23)),
            ("2.4", Version::new(2, 4, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        assert!("unknown".parse::<Version>().is_err());
        assert!("".parse::<Version>().is_err());
    }
}

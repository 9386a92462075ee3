//! The lines of engines that Larder is tried on.

use std::fmt;
use std::str::FromStr;

/// A line of containerd releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// No `_default` in a file without a `[host]` table, no limit for a mirror that hangs.
    V1_6,
    /// The last line with configuration version 2.
    V1_7,
    /// The first with configuration version 3.
    V2_0,
    /// The first to pull through the transfer service.
    V2_1,
    /// The first whose default is a list of configuration folders.
    V2_2,
    /// The first that gives up on a mirror that sends no headers.
    V2_3,
    /// The newest.
    V2_4,
}

impl Line {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [Self::V1_6, Self::V1_7, Self::V2_0, Self::V2_1, Self::V2_2, Self::V2_3, Self::V2_4];

    /// As people write it: `2.4`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_0 => "2.0",
            Self::V2_1 => "2.1",
            Self::V2_2 => "2.2",
            Self::V2_3 => "2.3",
            Self::V2_4 => "2.4",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let line = Self::ALL.into_iter().find(|line| line.as_str() == text);
        line.ok_or_else(|| {
            anyhow::anyhow!("no line {text} of containerd; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// A line of CRI-O releases. It has the numbers of the Kubernetes that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrioLine {
    /// The only one whose daemon can be built from a Go module.
    V1_34,
}

impl CrioLine {
    /// All of them, oldest first.
    pub const ALL: [Self; 1] = [Self::V1_34];

    /// As people write it: `1.34`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_34 => "1.34",
        }
    }
}

impl fmt::Display for CrioLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A line of any engine. It is written as its folder under `modules/` is called: `containerd-2.4`, `crio-1.34`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineLine {
    /// containerd.
    Containerd(Line),
    /// CRI-O.
    Crio(CrioLine),
}

impl EngineLine {
    /// All of them: containerd's first, each engine's from the oldest to the newest.
    pub fn all() -> Vec<Self> {
        let containerd = Line::ALL.into_iter().map(Self::Containerd);
        containerd.chain(CrioLine::ALL.into_iter().map(Self::Crio)).collect()
    }
}

impl fmt::Display for EngineLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd(line) => write!(formatter, "containerd-{line}"),
            Self::Crio(line) => write!(formatter, "crio-{line}"),
        }
    }
}

impl FromStr for EngineLine {
    type Err = anyhow::Error;

    /// `2.4` alone is a line of containerd.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = Self::all();
        let found = all.iter().find(|line| match line {
            Self::Containerd(containerd) => containerd.as_str() == text || line.to_string() == text,
            Self::Crio(_) => line.to_string() == text,
        });
        found.copied().ok_or_else(|| {
            let names: Vec<_> = all.iter().map(Self::to_string).collect();
            anyhow::anyhow!("no line {text} of any engine; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        for line in Line::ALL {
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
            assert_eq!(line.to_string().parse::<EngineLine>().unwrap(), EngineLine::Containerd(line));
        }
        for line in EngineLine::all() {
            assert_eq!(line.to_string().parse::<EngineLine>().unwrap(), line);
        }
        assert!("2".parse::<Line>().is_err());
        let error = "1.34".parse::<EngineLine>().unwrap_err().to_string();
        assert!(error.contains("crio-1.34"), "{error}");
    }
}

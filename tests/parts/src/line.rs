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
    /// Of the others there is the library that reads their files and pulls, in an engine of ours around it.
    Library(LibraryLine),
}

impl CrioLine {
    /// Those with their own daemon, oldest first.
    pub const ALL: [Self; 1] = [Self::V1_34];

    /// As people write it: `1.34`; of the library its own number.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_34 => "1.34",
            Self::Library(line) => line.as_str(),
        }
    }

    /// The library that it pulls with.
    pub fn library(self) -> LibraryLine {
        match self {
            // Of its first release, which is the one that there is: its `go.sum` says so.
            Self::V1_34 => LibraryLine::V5_35,
            Self::Library(line) => line,
        }
    }
}

impl fmt::Display for CrioLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A line of the library containers/image, which CRI-O, podman, skopeo and buildah pull with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LibraryLine {
    /// Of CRI-O 1.28.
    V5_27,
    /// Of CRI-O 1.29 and 1.30.
    V5_29,
    /// Of CRI-O 1.31.
    V5_32,
    /// Of CRI-O 1.32: the first to pass over a drop-in that is a link to nowhere.
    V5_34,
    /// Of CRI-O 1.33 and 1.34.0.
    V5_35,
    /// Of later releases of CRI-O 1.34.
    V5_36,
    /// Of CRI-O 1.35 and 1.36: the first under its new import path.
    V5_38,
    /// The newest, which no CRI-O has yet.
    V5_42,
}

impl LibraryLine {
    /// All of them, oldest first.
    pub const ALL: [Self; 8] =
        [Self::V5_27, Self::V5_29, Self::V5_32, Self::V5_34, Self::V5_35, Self::V5_36, Self::V5_38, Self::V5_42];

    /// As people write it: `5.27`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V5_27 => "5.27",
            Self::V5_29 => "5.29",
            Self::V5_32 => "5.32",
            Self::V5_34 => "5.34",
            Self::V5_35 => "5.35",
            Self::V5_36 => "5.36",
            Self::V5_38 => "5.38",
            Self::V5_42 => "5.42",
        }
    }

    /// The newest CRI-O that has it, as that says its version; of one that no CRI-O has, the one that might be next.
    pub fn crio(self) -> &'static str {
        match self {
            Self::V5_27 => "1.28.0",
            Self::V5_29 => "1.30.0",
            Self::V5_32 => "1.31.0",
            Self::V5_34 => "1.32.0",
            Self::V5_35 => "1.33.0",
            Self::V5_36 => "1.34.1",
            Self::V5_38 => "1.36.0",
            Self::V5_42 => "1.37.0",
        }
    }
}

impl fmt::Display for LibraryLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for LibraryLine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let line = Self::ALL.into_iter().find(|line| line.as_str() == text);
        line.ok_or_else(|| {
            anyhow::anyhow!("no line {text} of containers/image; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// A line of any engine. It is written as its folder under `modules/` is called: `containerd-2.4`, `crio-1.34`, `cimage-5.27`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineLine {
    /// containerd.
    Containerd(Line),
    /// CRI-O.
    Crio(CrioLine),
}

impl EngineLine {
    /// All that have a daemon: containerd's first, each engine's from the oldest to the newest.
    pub fn all() -> Vec<Self> {
        let containerd = Line::ALL.into_iter().map(Self::Containerd);
        containerd.chain(CrioLine::ALL.into_iter().map(Self::Crio)).collect()
    }

    /// Those, and the libraries of CRI-O. All of them pull images; the latter run no Pods.
    pub fn all_that_pull() -> Vec<Self> {
        let libraries = LibraryLine::ALL.into_iter().map(|line| Self::Crio(CrioLine::Library(line)));
        Self::all().into_iter().chain(libraries).collect()
    }

    /// Whether it can be a node of a cluster.
    pub fn runs_pods(self) -> bool {
        !matches!(self, Self::Crio(CrioLine::Library(_)))
    }
}

impl fmt::Display for EngineLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd(line) => write!(formatter, "containerd-{line}"),
            Self::Crio(CrioLine::Library(line)) => write!(formatter, "cimage-{line}"),
            Self::Crio(line) => write!(formatter, "crio-{line}"),
        }
    }
}

impl FromStr for EngineLine {
    type Err = anyhow::Error;

    /// `2.4` alone is a line of containerd.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = Self::all_that_pull();
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
        for line in EngineLine::all_that_pull() {
            assert_eq!(line.to_string().parse::<EngineLine>().unwrap(), line);
        }
        for line in LibraryLine::ALL {
            assert_eq!(line.to_string().parse::<LibraryLine>().unwrap(), line);
        }
        assert!("2".parse::<Line>().is_err());
        let error = "1.34".parse::<EngineLine>().unwrap_err().to_string();
        assert!(error.contains("crio-1.34"), "{error}");
    }
}

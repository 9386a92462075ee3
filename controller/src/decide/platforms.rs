//! For which machines an image is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `os/architecture[/variant]`, in the words of the OCI image specification, which are Go's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`, `windows`
    pub os: String,
    /// `amd64`, `arm64`, `arm`
    pub architecture: String,
    /// `v7`; none covers every variant.
    pub variant: Option<String>,
}

/// What a text that is no platform says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} is none: write os/architecture, such as linux/amd64, or os/architecture/variant")]
pub struct PlatformError(String);

impl Platform {
    /// Parses `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(80).collect());
        let is_word = |word: &&str| {
            !word.is_empty()
                && word.len() <= 32
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
        };
        let words: Vec<&str> = text.split('/').filter(is_word).collect();
        if words.len() != text.split('/').count() {
            return Err(error());
        }
        match words.as_slice() {
            [os, architecture] => {
                Ok(Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), variant: None })
            }
            [os, architecture, variant] => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: Some((*variant).to_owned()),
            }),
            _ => Err(error()),
        }
    }

    /// A node's, from its labels `kubernetes.io/os` and `kubernetes.io/arch`, else from `status.nodeInfo`. Without a
    /// variant, which no node tells. None while neither says anything: kubelet has not registered yet.
    pub fn of_node(labels: (Option<&str>, Option<&str>), node_info: (Option<&str>, Option<&str>)) -> Option<Self> {
        let said = |label: Option<&str>, info: Option<&str>| {
            label.filter(|word| !word.is_empty()).or(info).filter(|word| !word.is_empty()).map(str::to_owned)
        };
        let (os, architecture) = (said(labels.0, node_info.0)?, said(labels.1, node_info.1)?);
        Self::parse(&format!("{os}/{architecture}")).ok()
    }
}

impl Platform {
    /// Whether what is kept for this is kept for `other` too: without a variant it is for each.
    pub fn covers(&self, other: &Self) -> bool {
        let Self { os, architecture, variant } = self;
        *os == other.os && *architecture == other.architecture && (variant.is_none() || *variant == other.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// How long a platform counts that has no node any more.
pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// Platforms that have no node just now and had one: a pool that is scaled to nothing for the night comes back, and its images with it would have to.
///
/// Times are of the machine's uptime, which no clock that is set changes; whoever begins anew [learns](Self::learn) what is pinned, and counts from then. So
/// nothing is forgotten early.
#[derive(Debug, Clone, Default)]
pub struct Remembered(BTreeMap<Platform, Instant>);

impl Remembered {
    /// A node of it went, perhaps the last one.
    pub fn left(&mut self, platform: Platform, now: Instant) {
        self.0.insert(platform, now);
    }

    /// Images are kept for these, for a reason from before.
    pub fn learn(&mut self, platforms: BTreeSet<Platform>, now: Instant) {
        for platform in platforms {
            self.0.entry(platform).or_insert(now);
        }
    }

    /// Those of the nodes, and those that are remembered.
    pub fn and(&self, nodes: BTreeSet<Platform>, now: Instant) -> BTreeSet<Platform> {
        let counts = |left: Instant| now.saturating_duration_since(left) < REMEMBERED;
        let mut all = nodes;
        all.extend(self.0.iter().filter(|(_, left)| counts(**left)).map(|(platform, _)| platform.clone()));
        all
    }
}

/// What a pin asks for. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Platforms {
    /// Every platform that the image has: no body in the control API.
    #[default]
    All,
    /// These, at least one.
    These(Arc<BTreeSet<Platform>>),
}

impl Platforms {
    /// What `spec.platforms` of the image says, else the nodes'. While no node is known every platform is asked for:
    /// too much is better than a Pod that does not start.
    pub fn of(own: &BTreeSet<Platform>, nodes: &BTreeSet<Platform>) -> Self {
        let chosen = if own.is_empty() { nodes } else { own };
        if chosen.is_empty() { Self::All } else { Self::These(Arc::new(chosen.clone())) }
    }

    /// What satisfies both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::These(this), Self::These(that)) => Self::These(Arc::new(this.union(that).cloned().collect())),
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    /// As the control API writes them: none is all.
    pub fn of_words(words: &[String]) -> Self {
        let these: BTreeSet<Platform> = words.iter().filter_map(|text| Platform::parse(text).ok()).collect();
        if these.is_empty() { Self::All } else { Self::These(Arc::new(these)) }
    }

    /// The same, the other way round.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::These(these) => these.iter().map(ToString::to_string).collect(),
        }
    }

    /// What of this is not in `there`, in words.
    pub fn missing_in(&self, there: &Self) -> Vec<String> {
        match (self, there) {
            (_, Self::All) => Vec::new(),
            (Self::All, Self::These(_)) => vec!["its other platforms".to_owned()],
            (Self::These(wanted), Self::These(there)) => wanted
                .iter()
                .filter(|wanted| !there.iter().any(|there| there.covers(wanted)))
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// No more than so many, of which those in `first` come first.
    #[must_use]
    pub fn at_most(self, most: usize, first: &BTreeSet<Platform>) -> Self {
        match self {
            Self::These(these) if these.len() > most => {
                let rest = these.difference(first);
                Self::These(Arc::new(these.intersection(first).chain(rest).take(most).cloned().collect()))
            }
            asked => asked,
        }
    }
}

/// So many are remembered as what others may be equal to.
const MOST_ALIKE: usize = 16;

/// Those that are equal are one in memory: nearly all images of a cluster are kept for the same machines, and a set of its own for each of 100,000 would be
/// most of what is known of them.
#[derive(Debug, Default)]
pub struct Alike(Vec<Platforms>);

impl Alike {
    /// An equal one that was seen before, else this.
    pub fn one(&mut self, platforms: Platforms) -> Platforms {
        if let Some(known) = self.0.iter().find(|known| **known == platforms) {
            return known.clone();
        }
        if self.0.len() < MOST_ALIKE {
            self.0.push(platforms.clone());
        }
        platforms
    }
}

#[cfg(test)]
mod tests;

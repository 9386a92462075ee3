//! For which platforms an image is kept.

use std::collections::BTreeSet;
use std::fmt;

/// `os/architecture[/variant]`, in the words of images (`linux/arm64`, `linux/arm/v7`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform(String);

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} must be os/architecture or os/architecture/variant, as linux/amd64 or linux/arm/v7")]
pub struct PlatformError(String);

impl Platform {
    /// Two or three segments of `a-z`, `0-9`, `.`, `-`, `_`.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let segments: Vec<&str> = text.split('/').collect();
        let valid = |segment: &&str| {
            (1..=32).contains(&segment.len())
                && segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        };
        if (2..=3).contains(&segments.len()) && segments.iter().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PlatformError(text.chars().take(80).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an index's manifest of `platform` is of this one. Without a variant any will do; `arm64` and `arm64/v8` are the same.
    pub fn covers(&self, platform: &str) -> bool {
        let (own, other) = (usual(&self.0), usual(platform));
        other.strip_prefix(own).is_some_and(|variant| variant.is_empty() || variant.starts_with('/'))
    }
}

/// The variant that an architecture has anyway is left out (containerd's `platforms.Normalize` does so).
fn usual(platform: &str) -> &str {
    platform
        .strip_suffix("/arm64/v8")
        .map_or(platform, |os| platform.get(..os.len() + "/arm64".len()).unwrap_or(platform))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which platforms of an image are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// Every one that the index names.
    #[default]
    All,
    /// These, and of the others the index alone. Not empty.
    Only(BTreeSet<Platform>),
}

impl Platforms {
    /// Whether a manifest of an index is wanted. One that names no platform belongs to whatever is.
    pub fn want(&self, platform: Option<&str>) -> bool {
        match (self, platform) {
            (Self::All, _) | (Self::Only(_), None) => true,
            (Self::Only(wanted), Some(platform)) => wanted.iter().any(|wanted| wanted.covers(platform)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_platform_covers() {
        let platform = |text: &str| Platform::parse(text).unwrap();
        for (wanted, there, is_covered) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v3", true),
            ("linux/amd64", "linux/amd64x", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm/v7", "linux/arm", false),
            ("linux/arm", "linux/arm64", false),
            ("windows/amd64", "linux/amd64", false),
        ] {
            assert_eq!(platform(wanted).covers(there), is_covered, "{wanted} {there}");
        }
        let only = Platforms::Only([platform("linux/amd64")].into());
        assert!(only.want(None) && only.want(Some("linux/amd64")) && !only.want(Some("unknown/unknown")));
        assert!(Platforms::All.want(Some("unknown/unknown")));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "a/b/c/d",
            "Linux/amd64",
            "linux/../x y",
            &format!("a/{}", "b".repeat(33)),
        ] {
            assert!(Platform::parse(bad).is_err(), "{bad:?}");
        }
    }
}

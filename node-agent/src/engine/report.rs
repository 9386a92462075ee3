//! What planning found, in words for a person and in values for the status: what is placed where, what was left alone and
//! why, and what a human must do. Nothing here decides anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use larder_oci::Registry;
use serde::Serialize;

/// Whether the engine can be made to ask us, and what that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// Links in the directories that the engine reads are enough.
    Ready,
    /// The engine takes a colon list for one path: a directory of that literal name is needed as well.
    NeedsLiteralPath,
    /// The engine reads no registry directories: its `config.toml` must name one, and it must be restarted.
    NeedsConfigToml,
    /// Its configuration excludes a mirror of ours.
    #[default]
    Cannot,
}

impl fmt::Display for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ready => "ready",
            Self::NeedsLiteralPath => "needs the literal path",
            Self::NeedsConfigToml => "needs config.toml",
            Self::Cannot => "cannot",
        })
    }
}

/// How the engine is told, from the least intrusive to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementKind {
    /// A directory link for every registry without a directory of its own.
    DefaultLink,
    /// A directory link for one registry, ahead of what would have been found otherwise.
    RegistryLink,
    /// `hosts.toml` itself a link, in a directory that holds certificates only.
    HostsFileLink,
    /// Our block inside an administrator's file: it outlives us until it is removed.
    Splice,
    /// An entry in our drop-in beside `registries.conf`: CRI-O keeps what it read until it is told to read again.
    RegistriesDropIn,
}

/// One place where the engine is told to ask us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The registry, or `None` for every registry that has no place of its own.
    pub registry: Option<Registry>,
    /// How.
    pub kind: PlacementKind,
    /// Where, as the engine sees it.
    pub path: PathBuf,
}

/// A registry that keeps what the administrator gave it, without us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// The registry, or `None` for every registry that has no directory of its own.
    pub registry: Option<Registry>,
    /// The directory that says so, as the engine sees it.
    pub path: PathBuf,
    /// Why, as a fragment.
    pub reason: String,
}

/// Something that a person should know, and perhaps act upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// A stable word for machines: `Redirected`, `LegacyMirrors`, `ForeignEdit`…
    pub kind: &'static str,
    /// The file or directory that it is about, if it is about one.
    pub path: Option<PathBuf>,
    /// One sentence.
    pub message: String,
}

/// How the administrator's engine reached a registry itself, for our proxy to do the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OriginHint {
    /// Certificates to trust, PEM, all files joined.
    pub ca_pem: Option<String>,
    /// The certificate is not checked, or plain http is used.
    pub insecure: bool,
}

/// What planning found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it takes.
    pub readiness: Readiness,
    /// Why, in a sentence.
    pub reason: String,
    /// What is placed where, also what was there already.
    pub placed: Vec<Placed>,
    /// What was left alone.
    pub left_alone: Vec<LeftAlone>,
    /// What a person should know.
    pub conditions: Vec<Condition>,
    /// CA and insecure of registries that keep their own origin.
    pub origin_hints: BTreeMap<Registry, OriginHint>,
}

impl fmt::Display for Report {
    /// For a person: one fact a line, nothing twice.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: {}", self.readiness, self.reason)?;
        let everything = "every other registry";
        let name = |registry: &Option<Registry>| registry.as_ref().map_or(everything, Registry::as_str).to_owned();
        for Placed { registry, kind, path } in &self.placed {
            writeln!(formatter, "asks us: {} by {} {}", name(registry), kind, path.display())?;
        }
        for LeftAlone { registry, path, reason } in &self.left_alone {
            writeln!(formatter, "left alone: {} ({}): {reason}", name(registry), path.display())?;
        }
        for (registry, OriginHint { ca_pem, insecure }) in &self.origin_hints {
            let authority = if ca_pem.is_some() { " a certificate authority" } else { "" };
            let unchecked = if *insecure { " that nothing is checked" } else { "" };
            writeln!(formatter, "told the proxy about {registry}:{authority}{unchecked}")?;
        }
        for Condition { kind, path, message } in &self.conditions {
            if self.left_alone.iter().any(|left| Some(&left.path) == path.as_ref()) {
                continue;
            }
            let path = path.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default();
            writeln!(formatter, "{kind}{path}: {message}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlacementKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::DefaultLink | Self::RegistryLink => "the link",
            Self::HostsFileLink => "the linked file",
            Self::Splice => "a block in",
            Self::RegistriesDropIn => "an entry in",
        })
    }
}

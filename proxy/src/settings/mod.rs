//! What the operator says about registries: endpoints, certificates, policies, and what may be pulled at all.
//!
//! The file is settings, not an allow-list: a registry that is not named here is served with the defaults. A value of
//! these types is checked: endpoints are absolute http(s) URLs without credentials, plain http only beside
//! `insecure = true`, certificates are PEM that parses. Whoever reads them need not check again.
//!
//! `file` turns TOML into [`Settings`] and back, `said` takes the same words from elsewhere, `in_force` leaves single registries out whose certificates are damaged, `pattern` says what
//! `allow` and `deny` match, `watch` replaces the shared value when the file changes and keeps the last good one when the new one is wrong,
//! `beside` is for whoever says something beside the file.

mod beside;
mod file;
mod in_force;
mod pattern;
mod said;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_oci::{Algorithm, Digest, Registry};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::store::Name;

pub use beside::{Joined, SettingsBeside};
pub use file::{LARGEST, SettingsError};
pub use pattern::{Pattern, PatternError};
pub use said::{Said, SaidError};
pub use watch::{SettingsFile, SettingsFileError};

/// The settings as every request reads them: one atomic load, replaced whole by a reload.
pub type SharedSettings = Arc<ArcSwap<Settings>>;

/// Everything that the registries file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is said about single registries; [`Settings::registry`] fills in the defaults for the rest.
    pub registries: BTreeMap<Registry, RegistrySettings>,
    /// When not empty, only what one of these matches is served.
    pub allow: Vec<Pattern>,
    /// What one of these matches is never served, whatever `allow` says.
    pub deny: Vec<Pattern>,
}

/// How one registry is reached and what its refusals mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Where to ask, in order of preference; empty means the registry itself.
    pub endpoints: Vec<Url>,
    /// Certificates (PEM, one or more) that are trusted for this registry beside the platform's.
    pub ca_pem: Option<String>,
    /// Plain http, and certificates that do not verify, are accepted.
    pub insecure: bool,
    /// Refuse at once, so that the engine asks the registry itself.
    pub skip: bool,
    /// What happens to content that we hold when the registry says that it does not exist any more.
    pub on_origin_404: Policy,
    /// What happens to content that we hold when the registry answers 401 or 403 to an anonymous request.
    pub on_origin_denied: Policy,
}

/// What to do with content that we hold and that the origin no longer gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Serve it: a deleted image stays pullable.
    #[default]
    Serve,
    /// Refuse it as the origin does.
    Refuse,
}

impl RegistrySettings {
    /// What tells whether somebody else was told the same of where this registry is asked, and of what its word means; `None` where nothing
    /// was said of that. `ca_pem` and `insecure` are not part of it: who has them not fails to reach the registry, and says so.
    pub fn fingerprint(&self) -> Option<String> {
        let Self { endpoints, ca_pem: _, insecure: _, skip: _, on_origin_404, on_origin_denied } = self;
        if endpoints.is_empty() && *on_origin_404 == Policy::Serve && *on_origin_denied == Policy::Serve {
            return None;
        }
        // Neither a URL nor a word of these holds a line's end.
        let mut lines: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        lines.extend([format!("{on_origin_404:?}"), format!("{on_origin_denied:?}")]);
        let text = lines.join("\n");
        Some(Digest::of(Algorithm::Sha256, text.as_bytes()).hex().to_owned())
    }
}

impl Settings {
    /// The settings of one registry, the defaults when the file does not name it.
    pub fn registry(&self, registry: &Registry) -> RegistrySettings {
        self.registries.get(registry).cloned().unwrap_or_default()
    }

    /// [`RegistrySettings::fingerprint`] of one registry.
    pub fn fingerprint(&self, registry: &Registry) -> Option<String> {
        self.registries.get(registry)?.fingerprint()
    }

    /// Whether the file names the registry, which is what makes a private or loopback origin reachable.
    pub fn lists(&self, registry: &Registry) -> bool {
        self.registries.contains_key(registry)
    }

    /// Whether `allow` and `deny` let a repository be served. `deny` wins; an empty `allow` allows everything.
    pub fn permits(&self, name: &Name) -> bool {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        !matches(&self.deny) && (self.allow.is_empty() || matches(&self.allow))
    }

    /// The settings as a value that requests share and a reload replaces.
    pub fn shared(self) -> SharedSettings {
        Arc::new(ArcSwap::from_pointee(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For what follows a file, or somebody else.
    pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[test]
    fn a_fingerprint_is_of_where_a_registry_is_asked_and_what_its_word_means() {
        let of = |toml: &str| {
            let settings =
                Settings::parse_toml(&format!("[registries.\"a.example\"]\n{toml}"), std::path::Path::new("/"));
            settings.unwrap().fingerprint(&Registry::parse("a.example").unwrap())
        };
        assert_eq!(of(""), None);
        assert_eq!(of("insecure = true"), None);
        let (b, c) = ("\"https://b.example\"", "\"https://c.example\"");
        let different = [
            of(&format!("endpoints = [{b}]")),
            of(&format!("endpoints = [{c}]")),
            of(&format!("endpoints = [{b}, {c}]")),
            of(&format!("endpoints = [{c}, {b}]")),
            of("on-origin-404 = \"refuse\""),
            of("on-origin-denied = \"refuse\""),
        ];
        let all: std::collections::BTreeSet<_> = different.iter().flatten().collect();
        assert_eq!(all.len(), different.len());
        assert_eq!(of(&format!("endpoints = [{b}]\ninsecure = true")), different[0], "it is reached or not");
    }
}

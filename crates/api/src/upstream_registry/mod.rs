//! UpstreamRegistry: one registry, how it is asked, and how it is doing.

pub mod name;
mod reasons;
mod status;

use std::time::Duration;

use kube::CustomResource;
use larder_oci::{Registry, RegistryError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::Column;
use crate::schema;
use crate::span::{self, SpanError};

pub use reasons::{Accepted, AllCached, Reachable};
pub use status::{ImageCounts, MOST_ERRORS, Quota, UpstreamError, UpstreamRegistryStatus};

/// Most endpoints of a registry.
pub const MOST_ENDPOINTS: usize = 8;
/// Most prefixes of a registry that have something said of them.
pub const MOST_PREFIXES: usize = 64;

/// What `kubectl get` prints.
pub(crate) const COLUMNS: &[Column] = &[
    Column::new("Registry", "string", ".spec.registry", "The host, as images name it."),
    Column::new("Reachable", "string", ".status.conditions[?(@.type=='Reachable')].status", "Whether it answers."),
    Column::new(
        "Safe",
        "string",
        ".status.conditions[?(@.type=='AllCached')].status",
        "True: every image of it that is wanted is cached, so nothing is lost if it dies now.",
    ),
    Column::new("Images", "integer", ".status.images.known", "Images of it that are wanted."),
    Column::new("Cached", "integer", ".status.images.cached", "How many of them are in the cache."),
    Column::new("Gone", "integer", ".status.images.missingUpstream", "How many of them it no longer has."),
    Column::new("Quota", "integer", ".status.quota.remaining", "Pulls that it still allows."),
    Column::new("Age", "date", ".metadata.creationTimestamp", "How long it has been there."),
    Column::wide("Latency", "integer", ".status.latencyMilliseconds", "Milliseconds until it answers."),
    Column::wide("Since", "date", ".status.reachableSince", "Since when it answers."),
    Column::wide("Skip", "boolean", ".spec.skip", "Whether it is left to the engine."),
];

/// What is said of a registry: the same words as in the registries file and in the chart.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "UpstreamRegistry",
    plural = "upstreamregistries",
    shortname = "upr",
    category = "larder",
    status = "UpstreamRegistryStatus",
    derive = "PartialEq",
    doc = "A registry that images of this cluster come from: how it is asked, and how it is doing."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::upstream_registry()))]
pub struct UpstreamRegistrySpec {
    /// The registry, as host or host:port in lower case (Docker Hub is docker.io). It cannot be changed. The object's name is made of
    /// it: docker.io, or registry.example.com.port-5000 for registry.example.com:5000.
    #[schemars(length(min = 1, max = 261), extend("x-kubernetes-validations" = schema::registry()))]
    pub registry: String,
    /// Where to ask, in order of preference. Empty: the registry itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::endpoints")]
    pub endpoints: Vec<String>,
    /// Certificates (PEM text) that are trusted for this registry beside those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131_072))]
    pub ca: Option<String>,
    /// Accept plain http, and certificates that do not verify.
    #[serde(default)]
    pub insecure: bool,
    /// Leave this registry to the engine: nothing of it is cached.
    #[serde(default)]
    pub skip: bool,
    /// What happens to an image that is cached when the registry says that it does not exist any more: serve or refuse.
    #[serde(default, rename = "onOrigin404")]
    pub on_origin_404: Policy,
    /// What happens to an image that is cached when the registry answers 401 or 403 for it: serve or refuse.
    #[serde(default)]
    pub on_origin_denied: Policy,
    /// How much is asked of the registry by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Pacing>,
    /// How often the registry is asked for each image that is wanted, as 6h or 1d; it costs no quota of pulls. Nothing: the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), extend("x-kubernetes-validations" = schema::span()))]
    pub monitoring_interval: Option<String>,
    /// How long images of it are kept after their last use, as 30d. Nothing: the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), extend("x-kubernetes-validations" = schema::span()))]
    pub expiry: Option<String>,
    /// Whether images of it are fetched again when their tags have moved. Those of a Pod of imagePullPolicy Always are, whatever this is. Nothing: the controller's
    /// default, which is no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// What is said otherwise for parts of the registry. Of several that match the longest counts, whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_PREFIXES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["prefix"])
    )]
    pub prefixes: Vec<Prefix>,
}

/// What happens to an image that is cached and that the registry no longer gives.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    #[default]
    #[expect(missing_docs, reason = "described where it is used: a comment here would be a schema of its own")]
    Serve,
    #[expect(missing_docs, reason = "as above")]
    Refuse,
}

/// How much is asked of a registry. What pulls of nodes ask is not held back by it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pacing {
    /// How many images of it are fetched at the same time. Nothing: the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub images_at_a_time: Option<i32>,
    /// How many percent of the registry's quota are left to pulls. Nothing: the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub keep_quota_percent: Option<i32>,
}

/// What is said of a part of a registry.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prefix {
    /// The first segments of repositories: library matches library/nginx and not libraryx.
    #[schemars(length(min = 1, max = 255), extend("x-kubernetes-validations" = schema::prefix()))]
    pub prefix: String,
    /// Leave these images to the engine: nothing of them is cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,
    /// How often the registry is asked for each of these images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), extend("x-kubernetes-validations" = schema::span()))]
    pub monitoring_interval: Option<String>,
    /// How long these images are kept after their last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), extend("x-kubernetes-validations" = schema::span()))]
    pub expiry: Option<String>,
    /// Whether these images are fetched again when their tags have moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

impl Prefix {
    /// How often the registry is asked, if that is said here.
    pub fn monitoring_interval(&self) -> Result<Option<Duration>, SpanError> {
        self.monitoring_interval.as_deref().map(span::parse).transpose()
    }

    /// How long images are kept, if that is said here.
    pub fn expiry(&self) -> Result<Option<Duration>, SpanError> {
        self.expiry.as_deref().map(span::parse).transpose()
    }

    /// Whether a repository is one of these.
    pub fn matches(&self, repository: &str) -> bool {
        repository.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl UpstreamRegistrySpec {
    /// The registry, parsed.
    pub fn registry(&self) -> Result<Registry, RegistryError> {
        Registry::parse(&self.registry)
    }

    /// How often the registry is asked for each image, if that is said for all of it.
    pub fn monitoring_interval(&self) -> Result<Option<Duration>, SpanError> {
        self.monitoring_interval.as_deref().map(span::parse).transpose()
    }

    /// How long images are kept after their last use, if that is said for all of it.
    pub fn expiry(&self) -> Result<Option<Duration>, SpanError> {
        self.expiry.as_deref().map(span::parse).transpose()
    }

    /// What is said of the part that a repository is in: the longest prefix that it begins with.
    pub fn prefix_of(&self, repository: &str) -> Option<&Prefix> {
        self.prefixes.iter().filter(|prefix| prefix.matches(repository)).max_by_key(|prefix| prefix.prefix.len())
    }

    /// A part that is not to be skipped although one above it is, or the whole registry. There is no such thing where images are pulled: what is skipped a
    /// proxy refuses, without exceptions.
    pub fn exception(&self) -> Option<&Prefix> {
        let is_skipped = |above: &Prefix| above.skip == Some(true);
        self.prefixes.iter().find(|part| match part.skip {
            Some(true) => false,
            Some(false) if self.skip => true,
            // What says nothing of it goes by the registry, and not by the part above.
            None if self.skip => false,
            Some(false) | None => self.prefixes.iter().any(|above| is_skipped(above) && above.matches(&part.prefix)),
        })
    }
}

impl UpstreamRegistry {
    /// The object of a registry, of which nothing is said.
    pub fn of(registry: &Registry) -> Self {
        let spec = UpstreamRegistrySpec { registry: registry.to_string(), ..UpstreamRegistrySpec::default() };
        Self::new(&name::of(registry), spec)
    }

    /// Whether it has the only name that its registry can have. The API server has seen to it, but for odd names.
    pub fn has_the_name_of_its_registry(&self) -> bool {
        let Ok(registry) = self.spec.registry() else { return false };
        self.metadata.name.as_deref() == Some(name::of(&registry).as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let prefix = |text: &str| Prefix { prefix: text.to_owned(), ..Prefix::default() };
        let spec = UpstreamRegistrySpec {
            prefixes: vec![prefix("team"), prefix("team/app"), prefix("library")],
            ..UpstreamRegistrySpec::default()
        };
        let of = |repository: &str| spec.prefix_of(repository).map(|prefix| prefix.prefix.as_str());
        assert_eq!(of("team/app"), Some("team/app"));
        assert_eq!(of("team/app/a"), Some("team/app"));
        assert_eq!(of("team/application"), Some("team"));
        assert_eq!(of("teams/a"), None);
    }

    #[test]
    fn an_exception_is_below_what_is_skipped() {
        let of = |skip: bool, parts: &[(&str, Option<bool>)]| {
            let prefix = |(text, skip): &(&str, Option<bool>)| Prefix {
                prefix: (*text).to_owned(),
                skip: *skip,
                ..Prefix::default()
            };
            let prefixes = parts.iter().map(prefix).collect();
            let spec = UpstreamRegistrySpec { skip, prefixes, ..UpstreamRegistrySpec::default() };
            spec.exception().map(|part| part.prefix.clone())
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(of(false, &[("team", yes), ("team/app", no)]).unwrap(), "team/app");
        assert_eq!(of(false, &[("team/app", None), ("team", yes)]).unwrap(), "team/app");
        assert_eq!(of(true, &[("team", None), ("library", no)]).unwrap(), "library", "of the registry itself");
        for (skip, parts) in [
            (false, [("team", yes), ("teams", no)]),
            (false, [("team", no), ("team/app", yes)]),
            (false, [("team", None), ("team/app", no)]),
            (true, [("team", yes), ("team/app", None)]),
        ] {
            assert_eq!(of(skip, &parts), None, "{skip} {parts:?}");
        }
    }

    #[test]
    fn the_words_are_those_of_the_chart() {
        let spec = UpstreamRegistrySpec { registry: "docker.io".to_owned(), ..UpstreamRegistrySpec::default() };
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            serde_json::json!({
                "registry": "docker.io", "insecure": false, "skip": false, "onOrigin404": "serve", "onOriginDenied": "serve",
            })
        );
    }
}

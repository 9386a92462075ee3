//! What the API server checks, and how it merges: the parts of schemas that have no Rust type.
//!
//! Rules (CEL) rather than patterns where a person types something, because a rule has a message that says what to do. A rule costs the
//! API server by the longest text that it may be asked about, so every text and every list has its bound.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::Condition;
use crate::cached_image::MOST_PLATFORMS;
use crate::upstream_registry::MOST_ENDPOINTS;

/// The longest reference: a registry, a repository, a tag and a sha512 digest.
pub(crate) const LONGEST_IMAGE: u32 = 261 + 1 + 255 + 1 + 128 + 1 + 135;

/// As `larder_oci::Registry` writes them: a host, or host:port.
const HOST: &str = r"(localhost|[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])";
const PORT: &str =
    r":(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|[1-5][0-9][0-9][0-9][0-9]|[1-9][0-9]{0,3})";
const REPOSITORY: &str = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*";
const TAG: &str = r":[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";
const DIGEST: &str = "(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})";

/// One rule: what must hold, and what to do where it does not.
fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A text within a text of CEL.
fn quoted(pattern: &str) -> String {
    format!("r'{pattern}'")
}

/// A reference in full, as `larder_oci::ImageReference` prints it, with a tag or a digest.
pub(crate) fn image() -> Value {
    let whole = quoted(&format!("^{HOST}({PORT})?/{REPOSITORY}({TAG})?(@{DIGEST})?$"));
    json!([
        rule("self == oldSelf", "an image is another object: delete this one and make one for the other image"),
        rule(
            &format!("self.matches({whole})"),
            "write the image in full, as registry/repository:tag or registry/repository@sha256:…, in lower case: docker.io/library/alpine:3",
        ),
        rule(
            r"self.matches(r'^(localhost/|[^/]*[.:][^/]*/)')",
            "begin with the registry: an image of Docker Hub is docker.io/library/NAME:TAG or docker.io/OWNER/NAME:TAG",
        ),
        rule(
            r"self.matches(r'(:[^/@:]+|@[^/@]+)$')",
            "name a tag or a digest: what a Pod writes without one is :latest",
        ),
        rule(r"!self.matches(r':[^/@:]+@')", "a digest says all: leave the tag away",),
        rule(
            r"!self.startsWith('docker.io/') || self.matches(r'^docker\.io/[^/@:]+/')",
            "Docker Hub keeps its own images in library: write docker.io/library/NAME",
        ),
        rule(
            "!self.startsWith('index.docker.io/') && !self.startsWith('registry-1.docker.io/')",
            "Docker Hub is written docker.io here",
        ),
    ])
}

/// A registry, as `larder_oci::Registry` prints it.
pub(crate) fn registry() -> Value {
    let whole = quoted(&format!("^{HOST}({PORT})?$"));
    json!([
        rule("self == oldSelf", "a registry is another object: delete this one and make one for the other registry"),
        rule(
            &format!("self.matches({whole})"),
            "write a host, or host:port, in lower case, without https:// and without a path: docker.io, or registry.example.com:5000",
        ),
        rule("self != 'index.docker.io' && self != 'registry-1.docker.io'", "Docker Hub is written docker.io here",),
    ])
}

/// How long something is: see [`crate::span`].
pub(crate) fn span() -> Value {
    json!([rule(
        "self.matches('^([0-9]{1,5}d)?([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && self.matches('[1-9]')",
        "write days, hours, minutes and seconds in this order, and more than nothing: 30d, 12h, 1d12h, 90m",
    )])
}

/// Platforms, as `larder-oci` and the control API write them.
pub(crate) fn platforms(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": MOST_PLATFORMS,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 64,
            "x-kubernetes-validations": [rule(
                "self.matches('^[a-z0-9_.-]+/[a-z0-9_.-]+(/[a-z0-9_.-]+)?$')",
                "write os/architecture, or os/architecture/variant: linux/amd64, linux/arm/v7",
            )],
        },
    })
}

/// Where a registry is asked.
pub(crate) fn endpoints(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": MOST_ENDPOINTS,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "maxLength": 512,
            "x-kubernetes-validations": [rule(
                r"self.matches(r'^https?://[^\s/?#@]+(/[^\s?#@]*)?$')",
                "write https://HOST, https://HOST:PORT or with a path, without credentials, query or fragment: https://mirror.example.com",
            )],
        },
    })
}

/// A part of a registry: repositories that begin so.
pub(crate) fn prefix() -> Value {
    let whole = quoted(&format!("^{REPOSITORY}$"));
    json!([rule(
        &format!("self.matches({whole})"),
        "write the first segments of a repository, without the registry and without a slash at the end: library, or team/app",
    )])
}

pub(crate) fn digest_pattern() -> String {
    format!("^{DIGEST}$")
}

/// What must hold of a whole spec of a registry.
pub(crate) fn upstream_registry() -> Value {
    json!([
        rule(
            "!(self.skip && has(self.endpoints) && size(self.endpoints) > 0)",
            "a registry that is skipped is asked by the engine itself: take endpoints away, or skip",
        ),
        rule(
            "self.insecure || !has(self.endpoints) || self.endpoints.all(endpoint, !endpoint.startsWith('http://'))",
            "an endpoint with plain http needs insecure: true",
        ),
    ])
}

/// The name of a registry's object, as [`crate::upstream_registry::name`] makes it.
pub(crate) fn name_of_registry() -> Value {
    json!([rule(
        // Hosts that can be names, with or without a port, and that do not themselves end as a name that we make up does.
        r"self.spec.registry.matches(r'^[a-z0-9.-]+(:[0-9]+)?$') && !self.spec.registry.matches(r'^([^:]*\.)?(port|odd)-[^.:]*(:[0-9]+)?$') && size(self.spec.registry.replace(':', '.port-')) <= 253 ? self.metadata.name == self.spec.registry.replace(':', '.port-') : self.metadata.name.matches(r'(^|\.)odd-[a-z2-7]{16}$')",
        "the name has to be that of the registry, so that there is one object of it: docker.io, or registry.example.com.port-5000 for registry.example.com:5000 (docs/api.md says the rest)",
    )])
}

/// Conditions by the conventions of the API, one of a type, each bounded.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut condition = Condition::json_schema(generator);
    let object = condition.ensure_object();
    let mut bound = |name: &str, more: Value| {
        let property = object.get_mut("properties").and_then(|properties| properties.get_mut(name));
        if let (Some(Value::Object(property)), Value::Object(more)) = (property, more) {
            property.extend(more);
        }
    };
    bound("type", json!({ "description": "What is so, or not.", "maxLength": 64, "pattern": "^[A-Z][A-Za-z]*$" }));
    bound("status", json!({ "description": "True, False or Unknown.", "enum": ["True", "False", "Unknown"] }));
    bound(
        "reason",
        json!({ "description": "Why, in a word for machines.", "maxLength": 64, "minLength": 1, "pattern": "^[A-Z][A-Za-z0-9]*$" }),
    );
    bound("message", json!({ "description": "Why, and what to do, in a sentence for a person.", "maxLength": 2048 }));
    bound(
        "observedGeneration",
        json!({ "description": "The generation of the spec that this is about.", "minimum": 0 }),
    );
    bound(
        "lastTransitionTime",
        json!({ "description": "Since when the status is what it is.", "format": "date-time", "type": "string" }),
    );
    object.insert("description".to_owned(), json!("One thing that is so, or not, with the reason."));
    schemars::json_schema!({
        "type": "array",
        "items": condition,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// A moment.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "string", "format": "date-time" })
}

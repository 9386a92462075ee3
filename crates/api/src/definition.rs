//! Whole definitions, as the API server takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::{CachedImage, NodeMirror, UpstreamRegistry};

/// One of each kind.
pub fn all() -> [CustomResourceDefinition; 3] {
    [CachedImage::crd(), UpstreamRegistry::crd(), NodeMirror::crd()]
}

/// The same as values, ready to be sent.
pub fn values() -> serde_json::Result<Vec<Value>> {
    all().iter().map(serde_json::to_value).collect()
}

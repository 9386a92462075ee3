//! A `CachedImage`, or what can be read of one that is of another definition: its name, and the text of its `spec.image`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use larder_api::CachedImage;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// One of them.
#[derive(Debug, Clone)]
pub(super) enum Guarded {
    /// As it should be.
    Image(Box<CachedImage>),
    /// It cannot be read.
    Unreadable {
        /// `metadata`
        metadata: Box<ObjectMeta>,
        /// `spec.image`, if that is a text.
        image: Option<String>,
        /// Why not.
        error: String,
    },
}

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let error = match CachedImage::deserialize(&value) {
            Ok(object) => return Ok(Self::Image(Box::new(object))),
            Err(error) => error.to_string(),
        };
        let metadata = value.get("metadata").ok_or_else(|| D::Error::missing_field("metadata"))?;
        let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
        let image = value.pointer("/spec/image").and_then(serde_json::Value::as_str).map(str::to_owned);
        Ok(Self::Unreadable { metadata: Box::new(metadata), image, error })
    }
}

impl Resource for Guarded {
    type DynamicType = ();
    type Scope = <CachedImage as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        CachedImage::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        CachedImage::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        CachedImage::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        CachedImage::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Image(object) => object.meta(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Image(object) => object.meta_mut(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_one_that_cannot_be_read_its_name_and_image_are_known() {
        let read = |spec| -> Guarded {
            serde_json::from_value(json!({
                "apiVersion": "larder.dev/v1alpha1", "kind": "CachedImage", "metadata": { "name": "it", "uid": "u" }, "spec": spec,
            }))
            .unwrap()
        };
        assert!(matches!(read(json!({ "image": "nginx:1" })), Guarded::Image(_)));
        let odd = read(json!({ "image": "nginx:1", "retain": "for ever" }));
        assert_eq!(odd.meta().name.as_deref(), Some("it"));
        assert!(matches!(odd, Guarded::Unreadable { image: Some(image), .. } if image == "nginx:1"));
        assert!(matches!(read(json!({ "image": { "name": "nginx" } })), Guarded::Unreadable { image: None, .. }));
    }
}

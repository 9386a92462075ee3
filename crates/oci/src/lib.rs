//! Vocabulary of container images.
//!
//! Each type is parsed once, where a value enters the program; a value that exists is valid. No IO, nothing async,
//! nothing of Larder's own.

mod challenge;
mod digest;
mod error_body;
mod manifest;
pub mod media_type;
mod range;
mod reference;
mod registry;
mod repository;
mod tag;

pub use challenge::Challenge;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error_body::{ErrorBody, ErrorCode};
pub use manifest::{ChildDescriptor, Children, ManifestError, children};
pub use range::{ByteRange, ContentRange, RangeError};
pub use reference::{ImageReference, ManifestReference, ReferenceError};
pub use registry::{Registry, RegistryError};
pub use repository::{Repository, RepositoryError};
pub use tag::{Tag, TagError};

/// Implements what every validated string has in common: `Display`, `FromStr` and serde as a string.
macro_rules! string_type {
    ($type:ident, $error:ident) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use string_type;

//! Errors as registries write them (distribution specification, "Error Codes").

use std::fmt;

/// The specification's codes that a pull can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Blob unknown to the registry.
    BlobUnknown,
    /// The request was refused.
    Denied,
    /// The digest is malformed, or is not that of the content.
    DigestInvalid,
    /// Manifest unknown.
    ManifestUnknown,
    /// The repository name or the reference is malformed.
    NameInvalid,
    /// Repository unknown.
    NameUnknown,
    /// The origin or the cache can't answer now.
    Unavailable,
    /// Credentials are needed.
    Unauthorized,
    /// The operation is not supported.
    Unsupported,
}

impl ErrorCode {
    /// The code as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

/// One error in the form that clients of registries understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    code: ErrorCode,
    message: String,
}

impl ErrorBody {
    /// An error with a message for a person.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// `{"errors":[{"code":…,"message":…}]}`
    pub fn to_json(&self) -> String {
        serde_json::json!({ "errors": [{ "code": self.code.as_str(), "message": self.message }] }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_specification() {
        assert_eq!(
            ErrorBody::new(ErrorCode::NameInvalid, "a \"b\"").to_json(),
            r#"{"errors":[{"code":"NAME_INVALID","message":"a \"b\""}]}"#
        );
    }
}

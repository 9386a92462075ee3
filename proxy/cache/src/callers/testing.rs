//! Tokens and keys for tests.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use super::claims::Whose;
use super::keys::KeySet;
use crate::kubernetes::api_server::Published;

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
pub(crate) const NODE: &str = "system:serviceaccount:larder:node";

pub(crate) fn whose() -> Whose {
    Whose::new(vec!["larder-cache".to_owned()], &["larder/node".parse().unwrap()])
}

/// Signed by nobody.
pub(crate) fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({"alg": "none", "typ": "JWT"})), part(claims), "")
}

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;

/// Signs as an API server does.
pub(crate) struct Signer {
    id: String,
    pair: KeyPair,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), pair: KeyPair::generate().unwrap() }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(self.pair.serialized_der())).unwrap()
    }

    pub(crate) fn published(&self) -> Published {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.pair.der_bytes()[1..].split_at(32);
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}]});
        Published { issuer: ISSUER.to_owned(), keys: keys.to_string() }
    }

    pub(super) fn keys(&self) -> KeySet {
        KeySet::new(self.published()).unwrap()
    }
}

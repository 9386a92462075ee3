//! What a token says of itself, and whose tokens count.

use std::collections::BTreeSet;

use larder_proxy::secret::Token;
use serde::Deserialize;

use crate::kubernetes::name::ObjectName;

/// Tokens of ServiceAccounts have some 1,000 bytes.
const LONGEST: usize = 8 * 1024;

/// Whose tokens count, and for what they have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whose {
    /// One of them has to be in the token.
    pub(crate) audiences: Vec<String>,
    /// Their subjects, `system:serviceaccount:NAMESPACE:NAME`.
    subjects: BTreeSet<String>,
}

/// What a token of a ServiceAccount says (RFC 7519 §4.1).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    pub(crate) aud: Audience,
    /// Seconds since 1970.
    pub(crate) exp: u64,
    #[serde(default)]
    pub(crate) nbf: Option<u64>,
    #[serde(rename = "kubernetes.io", default)]
    bound: Option<Bound>,
}

/// One or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
struct Bound {
    node: Option<Named>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    name: String,
}

impl Whose {
    pub(crate) fn new(audiences: Vec<String>, accounts: &[ObjectName]) -> Self {
        Self { audiences, subjects: accounts.iter().map(ObjectName::subject).collect() }
    }

    /// Whether these claims are of an account and for an audience of ours, whoever vouches for them.
    pub(crate) fn cover(&self, claims: &Claims) -> bool {
        let ours = |audience: &String| self.audiences.contains(audience);
        let audience = match &claims.aud {
            Audience::One(audience) => ours(audience),
            Audience::Several(audiences) => audiences.iter().any(ours),
        };
        audience && self.subjects.contains(&claims.sub)
    }

    /// What a token says, if that is what a token of ours would say. Nobody vouches for it yet: this only spares the API server those that
    /// cannot be good.
    pub(crate) fn on_its_face(&self, token: &Token) -> Option<Claims> {
        let text = token.expose();
        if text.len() > LONGEST {
            return None;
        }
        let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(text).ok()?;
        self.cover(&claims).then_some(claims)
    }
}

impl Claims {
    /// For the log: the account, and the node where its Pod runs, if the token tells.
    pub(crate) fn name(&self) -> String {
        let account = self.sub.trim_start_matches("system:serviceaccount:").replacen(':', "/", 1);
        match self.bound.as_ref().and_then(|bound| bound.node.as_ref()) {
            Some(node) => format!("{account} on {}", node.name),
            None => account,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::callers::testing::{NODE, token, whose};

    #[test]
    fn only_what_could_be_ours_is_asked_about() {
        let whose = whose();
        let claims = |token: &str| whose.on_its_face(&Token::new(Zeroizing::new(token.to_owned())));
        let good = json!({"iss": "i", "sub": NODE, "aud": ["other", "larder-cache"], "exp": 1,
            "kubernetes.io": {"namespace": "larder", "node": {"name": "node-1", "uid": "u"}}});
        assert_eq!(claims(&token(&good)).unwrap().name(), "larder/node on node-1");
        let one = json!({"sub": NODE, "aud": "larder-cache", "exp": 1});
        assert_eq!(claims(&token(&one)).unwrap().name(), "larder/node");
        for wrong in [
            json!({"sub": NODE, "aud": ["other"], "exp": 1}),
            json!({"sub": "system:serviceaccount:larder:other", "aud": ["larder-cache"], "exp": 1}),
            json!({"sub": "system:serviceaccount:other:node", "aud": ["larder-cache"], "exp": 1}),
            json!({"sub": NODE, "aud": [], "exp": 1}),
            json!({"sub": NODE, "aud": ["larder-cache"]}),
            json!({"aud": ["larder-cache"], "exp": 1}),
            json!({"sub": NODE, "aud": ["larder-cache"], "exp": 1, "more": "x".repeat(LONGEST)}),
        ] {
            assert!(claims(&token(&wrong)).is_none(), "{wrong:.200}");
        }
        for garbage in ["", "a", "a.b.c", "..", &"x".repeat(100_000)] {
            assert!(claims(garbage).is_none(), "{garbage:.20}");
        }
    }
}

//! The keys that tokens are signed with, and what they say of a token. Pure: the time comes in as a value.

use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use larder_proxy::secret::Token;

use super::claims::{Claims, Whose};
use crate::kubernetes::api_server::Published;

/// How far two clocks may be apart.
const LEEWAY: Duration = Duration::from_mins(1);

/// More keys than that no issuer has.
const MOST: usize = 64;

/// The keys of an issuer, each usable.
#[derive(Clone)]
pub(super) struct KeySet {
    pub(super) published: Published,
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    public: DecodingKey,
}

/// What is to be said of a token's signature alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// A known key made it.
    Good,
    /// The key that it names is known, and did not make it; or there is none.
    Wrong,
    /// There are keys, and it names none of them.
    OfUnknownKey,
    /// There are no keys to look at it with.
    NoKeys,
}

/// Why keys do not vouch for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It names a key that is none of these: one that is newer, or of another cluster.
    UnknownKey,
    /// Its time is over.
    Expired,
    /// Anything else: signature, issuer, audience, account, too early.
    Bad,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| &key.id).collect();
        formatter.debug_struct("KeySet").field("issuer", &self.published.issuer).field("keys", &ids).finish()
    }
}

impl KeySet {
    /// Reads a JWK set. Keys of a kind that API servers do not sign with are left out; there has to be one at least.
    pub(super) fn new(published: Published) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if published.issuer.is_empty() {
            return Err("they name no issuer".to_owned());
        }
        let set: Set =
            serde_json::from_str(&published.keys).map_err(|error| format!("they are no JWK set: {error}"))?;
        let keys = set.keys.into_iter().filter_map(|key| usable(&serde_json::from_value(key).ok()?));
        let keys: Vec<Key> = keys.take(MOST).collect();
        if keys.is_empty() {
            return Err("there is no key for RS256 or ES256 among them".to_owned());
        }
        Ok(Self { published, keys })
    }

    /// Whether a token names one of the keys.
    pub(super) fn names_key_of(&self, token: &Token) -> bool {
        jsonwebtoken::decode_header(token.expose()).is_ok_and(|header| self.named_by(&header).next().is_some())
    }

    /// The keys that a token may be of: without the name of one that is any of them.
    fn named_by<'a>(&'a self, header: &'a jsonwebtoken::Header) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(|key| header.kid.is_none() || key.id == header.kid)
    }

    /// Whether the key that a token names made its signature, whatever the token says: an issuer may have had other names and audiences.
    pub(super) fn signature(&self, token: &Token) -> Signature {
        let Ok(header) = jsonwebtoken::decode_header(token.expose()) else { return Signature::Wrong };
        let mut signature = Signature::OfUnknownKey;
        for key in self.named_by(&header) {
            let mut validation = Validation::new(key.algorithm);
            validation.required_spec_claims.clear();
            (validation.validate_exp, validation.validate_aud) = (false, false);
            if jsonwebtoken::decode::<Claims>(token.expose(), &key.public, &validation).is_ok() {
                return Signature::Good;
            }
            // Without a name it may be of a key that is none of these.
            if header.kid.is_some() {
                signature = Signature::Wrong;
            }
        }
        signature
    }

    /// What a token says, if a key vouches for it, it is one of ours, and its time has come and was not over at `lasting`.
    pub(super) fn verify(
        &self,
        token: &Token,
        whose: &Whose,
        now: SystemTime,
        lasting: SystemTime,
    ) -> Result<Claims, Wrong> {
        let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| Wrong::Bad)?;
        let mut why = Wrong::UnknownKey;
        for key in self.named_by(&header) {
            let mut validation = Validation::new(key.algorithm);
            validation.set_issuer(&[&self.published.issuer]);
            validation.set_audience(&whose.audiences);
            validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
            // By our own clock, below.
            validation.validate_exp = false;
            match jsonwebtoken::decode::<Claims>(token.expose(), &key.public, &validation) {
                Ok(decoded) => return in_time(decoded.claims, whose, now, lasting),
                Err(_) => why = Wrong::Bad,
            }
        }
        Err(why)
    }
}

fn in_time(claims: Claims, whose: &Whose, now: SystemTime, lasting: SystemTime) -> Result<Claims, Wrong> {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (now, lasting) = (seconds(now), seconds(lasting));
    let leeway = LEEWAY.as_secs();
    if !whose.cover(&claims) || claims.nbf.is_some_and(|from| now.saturating_add(leeway) < from) {
        return Err(Wrong::Bad);
    }
    if claims.exp.saturating_add(leeway) < lasting {
        return Err(Wrong::Expired);
    }
    Ok(claims)
}

/// The algorithm is the key's and never the token's own choice (RFC 8725 §3.1).
fn usable(jwk: &Jwk) -> Option<Key> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    if !signs || jwk.common.key_algorithm.is_some_and(|said| said != name) {
        return None;
    }
    Some(Key { id: jwk.common.key_id.clone(), algorithm, public: DecodingKey::from_jwk(jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::callers::testing::{ISSUER, NODE, Signer, whose};

    const NOON: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// At noon; of an API server that was there then, or an hour before.
    fn verdict(keys: &KeySet, token: &str, away: bool) -> Result<String, Wrong> {
        let token = Token::new(Zeroizing::new(token.to_owned()));
        keys.verify(&token, &whose(), at(NOON), at(if away { NOON - 3600 } else { NOON })).map(|claims| claims.name())
    }

    #[test]
    fn a_token_is_what_a_key_vouches_for_and_nothing_else() {
        let (signer, other) = (Signer::new("a"), Signer::new("a"));
        let keys = signer.keys();
        let good = json!({"iss": ISSUER, "sub": NODE, "aud": ["larder-cache"], "exp": NOON + 60, "nbf": NOON - 60});
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = good.clone();
            claims[name] = value;
            signer.sign(&claims)
        };
        assert_eq!(verdict(&keys, &signer.sign(&good), false), Ok("larder/node".to_owned()));
        for (name, value) in [
            ("iss", json!("https://another")),
            ("sub", json!("system:serviceaccount:larder:other")),
            ("aud", json!(["https://kubernetes.default.svc"])),
            ("nbf", json!(NOON + 61)),
            ("exp", json!(null)),
        ] {
            assert_eq!(verdict(&keys, &with(name, value), true), Err(Wrong::Bad), "{name}");
        }
        assert_eq!(verdict(&keys, &other.sign(&good), true), Err(Wrong::Bad), "another key of the same name");
        assert_eq!(verdict(&keys, &Signer::new("b").sign(&good), true), Err(Wrong::UnknownKey));
        let expired = with("exp", json!(NOON - 61));
        assert_eq!(verdict(&keys, &expired, false), Err(Wrong::Expired));
        assert!(verdict(&keys, &expired, true).is_ok(), "nobody could renew it");
        assert_eq!(verdict(&keys, &with("exp", json!(NOON - 3661)), true), Err(Wrong::Expired), "it was over before");
        assert!(verdict(&keys, &with("exp", json!(NOON - 60)), false).is_ok(), "clocks differ");
        let whole = signer.sign(&good);
        let (unsigned, _) = whole.rsplit_once('.').unwrap();
        for cut in [format!("{unsigned}."), unsigned.to_owned(), String::new(), crate::callers::testing::token(&good)] {
            assert!(verdict(&keys, &cut, true).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_no_set_of_keys_is_said() {
        let wrong = |issuer: &str, keys: &str| {
            KeySet::new(Published { issuer: issuer.to_owned(), keys: keys.to_owned() }).unwrap_err()
        };
        assert!(wrong("", "{}").contains("issuer"));
        assert!(wrong(ISSUER, "{").contains("no JWK set"));
        assert!(wrong(ISSUER, r#"{"keys":[]}"#).contains("no key"));
        let shared = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"},{"kty":"what"},{"kty":"RSA"}]}"#;
        assert!(wrong(ISSUER, shared).contains("no key"), "a secret that is shared would be everybody's signature");
    }
}

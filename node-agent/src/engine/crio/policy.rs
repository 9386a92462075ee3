//! One `policy.json`: whether images of a registry have to be signed (`signature/policy_config.go`, `policy_eval.go`).
//!
//! Exactly one scope counts for an image, the narrowest that has its name. It is read as strictly as the library reads it,
//! and where we know less than the library, a signature is taken to be asked for. Which files there are says `policies`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// What it says of images from registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    default: Requirements,
    /// By host, host and beginning of a path, whole reference, `*.` and a domain, or nothing for all of them.
    scopes: BTreeMap<String, Requirements>,
}

/// What one scope asks of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Requirements {
    /// The first requirement that only signatures can meet.
    signed: Option<&'static str>,
}

/// That signatures are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// `signedBy` and the like.
    requirement: &'static str,
    /// Of what; `None` for everything of which nothing else is said.
    scope: Option<String>,
}

impl fmt::Display for Demand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(formatter, "{} for {scope}", self.requirement),
            None => write!(formatter, "{} by default", self.requirement),
        }
    }
}

impl Policy {
    /// Fails with a fragment that says where.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // What is written as a list would be taken for the fields in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err("is no signature policy: it is no JSON object".to_owned());
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| {
            // Its own words repeat what others wrote, at any length.
            format!("is no signature policy (line {}, column {})", error.line(), error.column())
        })?;
        let Unique(mut transports) = file.transports;
        let scopes = transports.remove("docker").map_or_else(BTreeMap::new, |Unique(scopes)| scopes);
        Ok(Self { default: file.default, scopes })
    }

    /// Whether images whose names begin with `host` (and its port) may have to be signed; `wildcards` are the scopes that
    /// are for that host, the narrowest first.
    pub(super) fn demand(&self, host: &str, wildcards: &[String]) -> Option<Demand> {
        let is_below = |scope: &str| scope.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'));
        let narrower = self.scopes.iter().filter(|(scope, _)| is_below(scope));
        let wider = [host].into_iter().chain(wildcards.iter().map(String::as_str)).chain([""]);
        let of_all = wider.into_iter().find_map(|scope| self.scopes.get_key_value(scope));
        let of_all = of_all.map_or((None, &self.default), |(scope, of_all)| (Some(scope), of_all));
        narrower.map(|(scope, requirements)| (Some(scope), requirements)).chain([of_all]).find_map(|(scope, asked)| {
            let scope = scope.filter(|scope| !scope.is_empty()).cloned();
            Some(Demand { requirement: asked.signed?, scope })
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Requirements,
    #[serde(default)]
    transports: Unique<Unique<Requirements>>,
}

/// An object in which no key is there twice (`ParanoidUnmarshalJSONObject`).
struct Unique<Value>(BTreeMap<String, Value>);

impl<Value> Default for Unique<Value> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, Value: Deserialize<'de>> Deserialize<'de> for Unique<Value> {
    fn deserialize<From: Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
        struct Keys<Value>(PhantomData<Value>);

        impl<'de, Value: Deserialize<'de>> Visitor<'de> for Keys<Value> {
            type Value = Unique<Value>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<Map: MapAccess<'de>>(self, mut map: Map) -> Result<Self::Value, Map::Error> {
                let mut all = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if all.insert(key, value).is_some() {
                        return Err(Map::Error::custom("a key is there twice"));
                    }
                }
                Ok(Unique(all))
            }
        }

        from.deserialize_map(Keys(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<From: Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
        let all = Vec::<Requirement>::deserialize(from)?;
        if all.is_empty() {
            return Err(From::Error::custom("no requirement"));
        }
        Ok(Self { signed: all.into_iter().find_map(|Requirement(signed)| signed) })
    }
}

/// What only a signature can meet; nothing where everything is accepted, or nothing is.
struct Requirement(Option<&'static str>);

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<From: Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Requirement;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a requirement")
            }

            fn visit_map<Map: MapAccess<'de>>(self, mut map: Map) -> Result<Self::Value, Map::Error> {
                let (mut kind, mut has_more) = (None::<String>, false);
                while let Some(key) = map.next_key::<String>()? {
                    if key != "type" {
                        has_more = true;
                        map.next_value::<IgnoredAny>()?;
                    } else if kind.replace(map.next_value()?).is_some() {
                        return Err(Map::Error::custom("a type is there twice"));
                    }
                }
                match kind.as_deref() {
                    None => Err(Map::Error::custom("no type")),
                    Some("insecureAcceptAnything" | "reject") if has_more => {
                        Err(Map::Error::custom("more than a type"))
                    }
                    Some("insecureAcceptAnything" | "reject") => Ok(Requirement(None)),
                    Some("signedBy") => Ok(Requirement(Some("signedBy"))),
                    Some("sigstoreSigned") => Ok(Requirement(Some("sigstoreSigned"))),
                    Some("signedBaseLayer") => Ok(Requirement(Some("signedBaseLayer"))),
                    Some(_) => Ok(Requirement(Some("a type that is not known here"))),
                }
            }
        }

        from.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCEPT: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
    const REJECT: &str = r#"[{"type":"reject"}]"#;
    const SIGNED: &str = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]"#;

    fn policy(default: &str, scopes: &[(&str, &str)]) -> Policy {
        let scopes: Vec<String> = scopes.iter().map(|(scope, asked)| format!("{scope:?}:{asked}")).collect();
        let text = format!(r#"{{"default":{default},"transports":{{"docker":{{{}}}}}}}"#, scopes.join(","));
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn demand(policy: &Policy, host: &str) -> Option<String> {
        let wildcards = ["*.b.example".to_owned(), "*.example".to_owned()];
        policy.demand(host, &wildcards).map(|demand| demand.to_string())
    }

    #[test]
    fn the_narrowest_scope_counts() {
        for (default, scopes, expected) in [
            (ACCEPT, vec![], None),
            (REJECT, vec![], None),
            (SIGNED, vec![], Some("signedBy by default")),
            (SIGNED, vec![("", ACCEPT)], None),
            (SIGNED, vec![("", REJECT)], None),
            (ACCEPT, vec![("", SIGNED)], Some("signedBy by default")),
            (SIGNED, vec![("*.example", ACCEPT)], None),
            (ACCEPT, vec![("*.example", SIGNED)], Some("signedBy for *.example")),
            (ACCEPT, vec![("*.example", SIGNED), ("*.b.example", ACCEPT)], None),
            (SIGNED, vec![("*.example", SIGNED), ("a.b.example", ACCEPT)], None),
            (SIGNED, vec![("a.b.example/x", ACCEPT)], Some("signedBy by default")),
            (ACCEPT, vec![("a.b.example", SIGNED)], Some("signedBy for a.b.example")),
            (ACCEPT, vec![("a.b.example/x/y", SIGNED)], Some("signedBy for a.b.example/x/y")),
            (ACCEPT, vec![("a.b.example/x:1", SIGNED)], Some("signedBy for a.b.example/x:1")),
            (ACCEPT, vec![("a.b.examples", SIGNED), ("a.b.example:5000", SIGNED), ("*.test", SIGNED)], None),
        ] {
            assert_eq!(demand(&policy(default, &scopes), "a.b.example").as_deref(), expected, "{default} {scopes:?}");
        }
    }

    #[test]
    fn other_transports_do_not_matter() {
        let text = format!(r#"{{"default":{ACCEPT},"transports":{{"docker-daemon":{{"":{SIGNED}}},"x":{{}}}}}}"#);
        assert_eq!(demand(&Policy::parse(text.as_bytes()).unwrap(), "a.b.example"), None);
        assert!(Policy::parse(format!(r#"{{"default":{ACCEPT}}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn one_requirement_of_several_is_enough() {
        let sigstore = r#"[{"type":"insecureAcceptAnything"},{"type":"sigstoreSigned","fulcio":{"a":[1]}}]"#;
        assert_eq!(demand(&policy(sigstore, &[]), "a.example").as_deref(), Some("sigstoreSigned by default"));
        let newer = r#"[{"type":"tomorrow"}]"#;
        assert!(demand(&policy(ACCEPT, &[("a.example", newer)]), "a.example").unwrap().contains("not known"));
    }

    #[test]
    fn what_the_library_refuses_is_refused() {
        for text in [
            "",
            "null",
            "{}",
            "[[{\"type\":\"reject\"}]]",
            r#"{"default":[]}"#,
            r#"{"default":null}"#,
            r#"{"default":[{"type":"insecureAcceptAnything","x":1}]}"#,
            r#"{"default":[{"type":"reject","type":"reject"}]}"#,
            r#"{"default":[{"Type":"insecureAcceptAnything"}]}"#,
            r#"{"default":[["insecureAcceptAnything"]]}"#,
            r#"{"default":[{"type":"reject"}],"other":1}"#,
            r#"{"default":[{"type":"reject"}],"transports":null}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}]} x"#,
        ] {
            assert!(Policy::parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!(r#"{{"default":[{{"type":"signedBy","x":{}"#, "[".repeat(100_000));
        assert!(Policy::parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in r#"[\[\]{}:,"a-z. ]{0,60}"#, bytes: Vec<u8>) {
            let _ = Policy::parse(&bytes);
            let _ = Policy::parse(format!(r#"{{"default":{text}"#).as_bytes());
        }
    }
}

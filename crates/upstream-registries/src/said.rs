//! What one UpstreamRegistry says, in the words of the registries file. Every byte is somebody's: the API server may have taken it under other rules.

use larder_api::UpstreamRegistrySpec;
use larder_api::upstream_registry::{self as api, MOST_ENDPOINTS, MOST_PREFIXES};
use larder_oci::{Registry, Repository};
use larder_proxy::settings::{Pattern, Policy, RegistrySettings, Said, SaidError};

/// Longest text of certificates, as the API server bounds it.
const LONGEST_CA: usize = 131_072;

/// What it means for pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// Nothing: the registry is known, and pulled from by the defaults. An object that the controller made of a Pod's image is so, and must
    /// not count as a word of the administrator's (who names a registry lets it be at a private address).
    Nothing,
    Something(OfRegistry),
    /// A person has to change it.
    Wrong(String),
}

/// What is said of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfRegistry {
    /// Of the whole registry.
    pub settings: RegistrySettings,
    /// Parts of it that are left to the engine: the patterns of `deny`, which refuse as `skip` does.
    pub skipped: Vec<Pattern>,
}

impl OfRegistry {
    /// As if there were no Larder.
    pub fn left_to_the_engine() -> Self {
        Self { settings: RegistrySettings { skip: true, ..RegistrySettings::default() }, skipped: Vec::new() }
    }
}

pub(crate) fn of(registry: &Registry, spec: &UpstreamRegistrySpec) -> Words {
    if spec.endpoints.len() > MOST_ENDPOINTS {
        return Words::Wrong(format!("endpoints: there are {}, name {MOST_ENDPOINTS} at most", spec.endpoints.len()));
    }
    let ca_pem = spec.ca.as_ref().filter(|text| !text.trim().is_empty());
    if ca_pem.is_some_and(|text| text.len() > LONGEST_CA) {
        return Words::Wrong(format!(
            "ca: it is longer than {LONGEST_CA} characters; keep the certificates that are needed"
        ));
    }
    let policy = |policy: api::Policy| match policy {
        api::Policy::Serve => Policy::Serve,
        api::Policy::Refuse => Policy::Refuse,
    };
    let said = Said {
        endpoints: spec.endpoints.clone(),
        ca_pem: ca_pem.cloned(),
        insecure: spec.insecure,
        skip: spec.skip,
        on_origin_404: policy(spec.on_origin_404),
        on_origin_denied: policy(spec.on_origin_denied),
    };
    let skipped = match skipped(registry, spec) {
        Ok(skipped) => skipped,
        Err(wrong) => return Words::Wrong(wrong),
    };
    match RegistrySettings::checked(said) {
        Ok(settings) if settings == RegistrySettings::default() && skipped.is_empty() => Words::Nothing,
        Ok(settings) => Words::Something(OfRegistry { settings, skipped }),
        Err(SaidError::Endpoint { endpoint, reason }) => {
            // The word of the file is another one here.
            Words::Wrong(format!("endpoint {endpoint:?}: {}", reason.replace("`insecure = true`", "insecure: true")))
        }
        Err(error) => Words::Wrong(error.to_string()),
    }
}

/// The prefixes that are skipped.
fn skipped(registry: &Registry, spec: &UpstreamRegistrySpec) -> Result<Vec<Pattern>, String> {
    if spec.prefixes.len() > MOST_PREFIXES {
        return Err(format!("prefixes: there are {}, name {MOST_PREFIXES} at most", spec.prefixes.len()));
    }
    let pattern = |prefix: &api::Prefix| {
        let repository = Repository::parse(&prefix.prefix).map_err(|error| format!("prefix: {error}"))?;
        Pattern::parse(&format!("{registry}/{repository}/**")).map_err(|error| format!("prefix: {error}"))
    };
    spec.prefixes.iter().filter(|prefix| prefix.skip == Some(true)).map(pattern).collect()
}

/// What is said and is not so where images are pulled: a part below what is skipped is skipped with it, for `deny` knows no exceptions.
pub(crate) fn passed_over(spec: &UpstreamRegistrySpec) -> Option<String> {
    let shown: String = spec.exception()?.prefix.chars().take(100).collect();
    Some(format!(
        "prefix {shown:?} is below what is skipped, and nodes and the cluster cache skip it too; skip the parts beside it one by one instead, or say skip: \
         true of it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: &UpstreamRegistrySpec) -> Words {
        super::of(&spec.registry().unwrap(), spec)
    }

    fn spec(json: &str) -> UpstreamRegistrySpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_part_that_is_skipped_is_left_to_the_engine() {
        let parts = r#"{"registry": "[::1]:5000", "prefixes": [{"prefix": "team", "skip": true}, {"prefix": "library", "expiry": "1d"}]}"#;
        let Words::Something(words) = of(&spec(parts)) else { panic!("it says something") };
        assert_eq!(words.settings, RegistrySettings::default());
        assert_eq!(words.skipped.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["[::1]:5000/team/**"]);
        let below = r#"{"registry": "a.example", "prefixes": [{"prefix": "team", "skip": true}, {"prefix": "team/app", "skip": false}]}"#;
        let below = spec(below);
        assert!(matches!(of(&below), Words::Something(_)) && passed_over(&below).unwrap().contains("team/app"));
        let of_all =
            spec(r#"{"registry": "a.example", "skip": true, "prefixes": [{"prefix": "team", "skip": false}]}"#);
        assert!(matches!(of(&of_all), Words::Something(_)) && passed_over(&of_all).unwrap().contains("team"));
        let beside = r#"{"registry": "a.example", "prefixes": [{"prefix": "team", "skip": true}, {"prefix": "teams", "skip": false}]}"#;
        assert!(matches!(of(&spec(beside)), Words::Something(_)) && passed_over(&spec(beside)).is_none());
        let nothing = r#"{"registry": "a.example", "prefixes": [{"prefix": "team", "expiry": "1d"}, {"prefix": "team/app", "skip": false}]}"#;
        assert_eq!(of(&spec(nothing)), Words::Nothing);
        let star = r#"{"registry": "a.example", "prefixes": [{"prefix": "**", "skip": true}]}"#;
        assert!(matches!(of(&spec(star)), Words::Wrong(_)), "a prefix is no pattern");
    }

    #[test]
    fn the_words_of_an_object_are_those_of_the_file() {
        let words = of(&spec(
            r#"{"registry": "a.example", "endpoints": ["http://b.example/x"], "insecure": true, "onOrigin404": "refuse"}"#,
        ));
        let Words::Something(OfRegistry { settings, .. }) = words else { panic!("{words:?}") };
        assert_eq!(settings.endpoints.first().unwrap().as_str(), "http://b.example/x");
        assert_eq!((settings.insecure, settings.skip), (true, false));
        assert_eq!((settings.on_origin_404, settings.on_origin_denied), (Policy::Refuse, Policy::Serve));
        assert_eq!(of(&spec(r#"{"registry": "a.example", "ca": " "}"#)), Words::Nothing);
        // What is the controller's alone says nothing of pulls.
        let of_controller =
            r#"{"registry": "a.example", "expiry": "3d", "monitoringInterval": "1h", "pacing": {"imagesAtATime": 1}}"#;
        assert_eq!(of(&spec(of_controller)), Words::Nothing);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        for (object, expected) in [
            (
                r#"{"registry": "a.example", "endpoints": ["http://b.example"]}"#.to_owned(),
                "plain http needs insecure: true beside it",
            ),
            (r#"{"registry": "a.example", "endpoints": ["b.example"]}"#.to_owned(), "write for example"),
            (r#"{"registry": "a.example", "ca": "no certificate"}"#.to_owned(), "ca: "),
            (
                format!(r#"{{"registry": "a.example", "ca": "{}"}}"#, "a".repeat(LONGEST_CA + 1)),
                "keep the certificates",
            ),
            (format!(r#"{{"registry": "a.example", "endpoints": [{}]}}"#, ["\"x\""; 9].join(",")), "name 8 at most"),
        ] {
            let Words::Wrong(said) = of(&spec(&object)) else { panic!("{object}") };
            assert!(said.contains(expected) && said.len() < 500, "{said}");
        }
    }
}

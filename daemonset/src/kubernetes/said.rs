//! What one UpstreamRegistry says, in the words of the registries file. Every byte is somebody's: the API server may have taken it under other rules.

use larder_api::UpstreamRegistrySpec;
use larder_api::upstream_registry::{self as api, MOST_ENDPOINTS};
use larder_proxy::settings::{Policy, RegistrySettings, Said, SaidError};

/// Longest text of certificates, as the API server bounds it.
const LONGEST_CA: usize = 131_072;

/// What it means for pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Words {
    /// Nothing: the registry is known, and pulled from by the defaults. An object that the controller made of a Pod's image is so, and must
    /// not count as a word of the administrator's (who names a registry lets it be at a private address).
    Nothing,
    Something(RegistrySettings),
    /// A person has to change it.
    Wrong(String),
}

pub(super) fn of(spec: &UpstreamRegistrySpec) -> Words {
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
    match RegistrySettings::checked(said) {
        Ok(settings) if settings == RegistrySettings::default() => Words::Nothing,
        Ok(settings) => Words::Something(settings),
        Err(SaidError::Endpoint { endpoint, reason }) => {
            // The word of the file is another one here.
            Words::Wrong(format!("endpoint {endpoint:?}: {}", reason.replace("`insecure = true`", "insecure: true")))
        }
        Err(error) => Words::Wrong(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> UpstreamRegistrySpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_words_of_an_object_are_those_of_the_file() {
        let words = of(&spec(
            r#"{"registry": "a.example", "endpoints": ["http://b.example/x"], "insecure": true, "onOrigin404": "refuse"}"#,
        ));
        let Words::Something(settings) = words else { panic!("{words:?}") };
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
            (
                format!(r#"{{"registry": "a.example", "endpoints": [{}]}}"#, vec!["\"x\""; 9].join(",")),
                "name 8 at most",
            ),
        ] {
            let Words::Wrong(said) = of(&spec(&object)) else { panic!("{object}") };
            assert!(said.contains(expected) && said.len() < 500, "{said}");
        }
    }
}

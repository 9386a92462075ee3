//! `WWW-Authenticate` of an origin: whatever it holds, the outcome is bounded by it, and written down properly it is read the same.

#![no_main]

use larder_oci::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &str| {
    let challenges = Challenge::parse_all(value);
    let held: usize = challenges.iter().map(size).sum();
    assert!(held <= value.len(), "more came out than went in: {challenges:?}");
    let written = challenges.iter().map(write).collect::<Vec<_>>().join(", ");
    assert_eq!(Challenge::parse_all(&written), challenges, "written as {written}");
    // A list may be split into several headers, and schemes have no case (RFC 9110 §5.3, §11.1).
    for challenge in &challenges {
        assert_eq!(Challenge::parse_all(&write(challenge)), [challenge.clone()]);
        if let Challenge::Other(scheme) = challenge {
            assert_eq!(Challenge::parse_all(&scheme.to_ascii_uppercase()), [challenge.clone()]);
        }
    }
});

/// Bytes that came from the header; each challenge has at least one.
fn size(challenge: &Challenge) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match challenge {
        Challenge::Bearer { realm, service, scope } => "bearer".len() + realm.len() + length(service) + length(scope),
        Challenge::Basic { realm } => "basic".len() + length(realm),
        Challenge::Other(scheme) => scheme.len().max(1),
    }
}

/// With every text quoted (RFC 9110 §5.6.4).
fn write(challenge: &Challenge) -> String {
    let parameter = |name: &str, text: &String| {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{name}=\"{escaped}\"")
    };
    let (scheme, parameters) = match challenge {
        Challenge::Bearer { realm, service, scope } => {
            ("Bearer", vec![("realm", Some(realm)), ("service", service.as_ref()), ("scope", scope.as_ref())])
        }
        Challenge::Basic { realm } => ("Basic", vec![("realm", realm.as_ref())]),
        Challenge::Other(scheme) => (scheme.as_str(), Vec::new()),
    };
    let parameters = parameters.into_iter().filter_map(|(name, text)| Some(parameter(name, text?)));
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    format!("{scheme} {parameters}")
}

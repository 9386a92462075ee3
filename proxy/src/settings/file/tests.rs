use std::fmt::Write as _;
use std::fs;

use proptest::prelude::*;

use super::*;

use crate::authorities::SOUND as CERTIFICATE;

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse_toml(text, Path::new("/nowhere"))
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), CERTIFICATE).unwrap();
    let settings = Settings::parse_toml(
        r#"
        allow = ["quay.io", "docker.io/library/*"]
        deny = ["**/miner"]

        [registries."index.docker.io"]
        endpoints = ["https://mirror.example.com/hub", "https://registry-1.docker.io"]
        ca = "ca.pem"
        on-origin-404 = "refuse"
        on-origin-denied = "serve"

        [registries."localhost:5000"]
        endpoints = ["http://localhost:5001"]
        insecure = true
        skip = true
        "#,
        folder.path(),
    )
    .unwrap();
    insta::assert_snapshot!(settings.to_toml());
    assert_eq!(parse(&settings.to_toml()).unwrap(), settings, "the text needs no other file");
    let name = |registry: &str, repository: &str| crate::store::Name {
        registry: Registry::parse(registry).unwrap(),
        repository: larder_oci::Repository::parse(repository).unwrap(),
    };
    assert!(settings.permits(&name("quay.io", "a/b")) && settings.permits(&name("docker.io", "library/nginx")));
    assert!(!settings.permits(&name("quay.io", "a/miner")), "deny wins");
    assert!(!settings.permits(&name("gcr.io", "a")), "what allow does not name is not allowed");
    assert!(Settings::default().permits(&name("gcr.io", "a")));
    assert_eq!(settings.registry(&Registry::docker_hub()).on_origin_404, Policy::Refuse);
    assert_eq!(settings.registry(&Registry::parse("gcr.io").unwrap()), RegistrySettings::default());
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Settings::default());
    assert_eq!(Settings::default().to_toml(), "");
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    let mut said = String::new();
    for text in [
        "[registries.\"quay.io\"]\nendpoint = [\"https://a.example.com\"]",
        "[registries.\"quay.io\"]\nskip = \"yes\"",
        "[registries.\"quay.io\"]\non-origin-404 = \"panic\"",
        "[registries.\"quay.io\"\n",
        "registry = 1",
        "[registries.\"https://quay.io\"]\n",
        "[registries.\"docker.io\"]\n[registries.\"index.docker.io\"]\n",
        "[registries.\"quay.io\"]\nendpoints = [\n  \"https://a.example.com\",\n  \"http://b.example.com\",\n]",
        "[registries.\"quay.io\"]\nendpoints = [\"a.example.com\"]",
        "[registries.\"quay.io\"]\nendpoints = [\"ftp://a.example.com\"]",
        "[registries.\"quay.io\"]\nendpoints = [\"https://me:secret@a.example.com\"]",
        "[registries.\"quay.io\"]\nendpoints = [\"https://a.example.com?x=1\"]",
        "[registries.\"quay.io\"]\nca = \"missing.pem\"",
        "[registries.\"quay.io\"]\nca_pem = \"no certificate\"",
        "[registries.\"quay.io\"]\nca_pem = \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\"",
        "[registries.\"quay.io\"]\nca = \"a.pem\"\nca_pem = \"b\"",
        "deny = [\"Quay.io\"]",
    ] {
        writeln!(said, "--- {text}\n{}\n", parse(text).unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(said);
}

fn settings() -> impl Strategy<Value = Settings> {
    let policy = || prop_oneof![Just(Policy::Serve), Just(Policy::Refuse)];
    let registry = (
        "[a-z]{1,9}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?",
        proptest::collection::vec("[a-z]{1,5}", 0..3),
        any::<[bool; 3]>(),
        policy(),
        policy(),
    )
        .prop_map(|(name, hosts, [with_ca, insecure, skip], on_origin_404, on_origin_denied)| {
            let scheme = if insecure { "http" } else { "https" };
            let endpoints =
                hosts.iter().map(|host| Url::parse(&format!("{scheme}://{host}.example.com/x")).unwrap()).collect();
            let ca_pem = with_ca.then(|| CERTIFICATE.to_owned());
            let settings = RegistrySettings { endpoints, ca_pem, insecure, skip, on_origin_404, on_origin_denied };
            (Registry::parse(&name).unwrap(), settings)
        });
    let patterns = || {
        proptest::collection::vec("[a-z*]{1}(/[a-z]{1,3}){0,2}".prop_map(|text| Pattern::parse(&text).unwrap()), 0..3)
    };
    (proptest::collection::btree_map("[a-z]{1,3}", registry, 0..4), patterns(), patterns())
        .prop_map(|(registries, allow, deny)| Settings { registries: registries.into_values().collect(), allow, deny })
}

proptest! {
    /// What the agent writes is what the proxy reads.
    #[test]
    fn writing_and_reading_change_nothing(settings in settings()) {
        prop_assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
    }

    /// No text makes it panic.
    #[test]
    fn any_text_is_settings_or_an_error(text in "(\\[registries\\.\"?|allow|deny|=|\\[|\\]|\"|\n|\\PC){0,20}") {
        let _ = parse(&text);
    }
}

//! The registries file and the UpstreamRegistry objects, as one. Pure.
//!
//! What the file says of a registry counts, whole: it is there without an API server, and endpoints and certificates of two authors mixed would be
//! neither's. An object that says something else of it is told of, not an error.

use crate::Known;
use larder_proxy::settings::{LARGEST, RegistrySettings, Settings};

/// What the proxy reads is bounded; this much of it is left to what the engine's own files say of registries.
const LEFT_FREE: usize = 128 * 1024;

/// Both, and what a person should know.
pub fn merged(file: &Settings, known: &Known) -> (Settings, Vec<String>) {
    let mut settings = file.clone();
    let mut told = known.left_out.clone();
    let most = usize::try_from(LARGEST).unwrap_or(usize::MAX).saturating_sub(LEFT_FREE);
    let mut size = file.to_toml().len();
    let mut too_large = Vec::new();
    for (registry, said) in &known.said {
        if let Some(by_file) = file.registries.get(registry) {
            if *by_file != said.settings || !said.skipped.is_empty() {
                told.push(format!(
                    "UpstreamRegistry of {registry}: the registries file (registries in the chart's values) says something else of it, and counts; \
                     take it away there, or say the same here"
                ));
            }
            continue;
        }
        // One of which parts are skipped, and nothing else is said, is not named: see `said::Words::Nothing`.
        let is_named = said.settings != RegistrySettings::default();
        let registries = is_named.then(|| (registry.clone(), said.settings.clone())).into_iter().collect();
        let one = Settings { registries, deny: said.skipped.clone(), ..Settings::default() };
        let more = one.to_toml().len();
        if size.saturating_add(more) > most {
            too_large.push(registry.as_str());
            continue;
        }
        size += more;
        settings.registries.extend(one.registries);
        settings.deny.extend(one.deny);
    }
    if let Some(first) = too_large.first() {
        told.push(format!(
            "all that is said of registries is more than {most} bytes: {} UpstreamRegistry objects, the newest, are not in force ({first} is one); shorten \
             their ca to the certificates that are needed",
            too_large.len()
        ));
    }
    (settings, told)
}

/// As one condition.
pub fn condition(told: &[String]) -> Option<String> {
    const NAMED: usize = 5;
    let named: Vec<&str> = told.iter().take(NAMED).map(String::as_str).collect();
    let more = told.len().saturating_sub(NAMED);
    let all = named.join("; ");
    (!named.is_empty()).then(|| if more == 0 { all } else { format!("{all}; and {more} more") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OfRegistry;
    use larder_oci::Registry;
    use larder_proxy::settings::Pattern;

    fn registry(name: &str) -> Registry {
        Registry::parse(name).unwrap()
    }

    fn of(settings: RegistrySettings) -> OfRegistry {
        OfRegistry { settings, skipped: Vec::new() }
    }

    #[test]
    fn the_file_counts_and_an_object_that_says_something_else_is_told_of() {
        let by_file = RegistrySettings { insecure: true, ..RegistrySettings::default() };
        let file = Settings {
            registries: [(registry("a.example"), by_file.clone()), (registry("b.example"), by_file.clone())].into(),
            ..Settings::default()
        };
        let said = vec![
            (registry("a.example"), OfRegistry::left_to_the_engine()),
            (registry("b.example"), of(by_file.clone())),
            (registry("c.example"), OfRegistry::left_to_the_engine()),
        ];
        let known = Known { said, left_out: vec!["UpstreamRegistry d: wrong".to_owned()], ..Known::default() };
        let (settings, told) = merged(&file, &known);
        assert_eq!(settings.registry(&registry("a.example")), by_file);
        assert_eq!(settings.registry(&registry("c.example")), OfRegistry::left_to_the_engine().settings);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("a.example") && told[1].contains("counts"), "{told:?}");
        assert_eq!(condition(&told).unwrap(), told.join("; "));
        let many: Vec<_> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(condition(&many).unwrap(), "0; 1; 2; 3; 4; and 2 more");
        assert_eq!(condition(&[]), None);
        assert_eq!(merged(&file, &Known::default()), (file, Vec::new()));
    }

    #[test]
    fn a_part_that_is_skipped_makes_no_private_address_reachable() {
        let pattern = Pattern::parse("a.example/team/**").unwrap();
        let words = OfRegistry { settings: RegistrySettings::default(), skipped: vec![pattern.clone()] };
        let known = Known { said: vec![(registry("a.example"), words)], ..Known::default() };
        let (settings, told) = merged(&Settings::default(), &known);
        assert_eq!((settings.deny.as_slice(), told.len()), ([pattern].as_slice(), 0));
        assert!(!settings.lists(&registry("a.example")));
    }

    #[test]
    fn the_proxy_can_read_it_however_much_is_said() {
        let large = RegistrySettings { ca_pem: Some("a".repeat(131_072)), ..RegistrySettings::default() };
        let mut said: Vec<_> =
            (0..20).map(|number| (registry(&format!("{number}.example")), of(large.clone()))).collect();
        said.push((registry("small.example"), OfRegistry::left_to_the_engine()));
        let (settings, told) = merged(&Settings::default(), &Known { said, ..Known::default() });
        assert!(settings.to_toml().len() < usize::try_from(LARGEST).unwrap() - LEFT_FREE);
        assert_eq!((settings.registries.len(), told.len()), (7, 1), "{told:?}");
        assert!(settings.lists(&registry("0.example")) && settings.lists(&registry("small.example")));
        assert!(told[0].contains("14 UpstreamRegistry objects") && told[0].contains("6.example"), "{told:?}");
    }
}

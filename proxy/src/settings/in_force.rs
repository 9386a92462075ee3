//! What is in force of a file in which the certificates of single registries are damaged: all the rest.
//!
//! Such a registry is reached as it was before, or else left to the engine, and a person is told. It is not served without its
//! certificates: it could not be asked then, so what is cached would be given as if it were away, old tags and all. Left to the engine, a pull is
//! what it is without us. What is said of it beside that (`skip`, policies) counts at once: somebody may be waiting for it.

use std::path::Path;

use super::{RegistrySettings, Settings, SettingsError};

impl Settings {
    /// Reads the text of a registries file as far as it can be used, after `known` was in force, and says what a person should mend.
    /// Relative `ca` paths are looked up in `base`.
    pub fn in_force_after(known: &Self, text: &str, base: &Path) -> Result<(Self, Option<String>), SettingsError> {
        let (mut settings, damaged) = Self::parse_leniently(text, base)?;
        let left_to_the_engine = RegistrySettings { skip: true, ..RegistrySettings::default() };
        let mut words = Vec::new();
        for (registry, error) in damaged {
            let before = known.registries.get(&registry).filter(|before| **before != left_to_the_engine);
            words.push(match before {
                Some(_) => format!("{error}; mend it: until then {registry} is reached as before"),
                None => format!("{error}; mend it: until then {registry} is left to the engine, as without Larder"),
            });
            if let Some(said) = settings.registries.get_mut(&registry) {
                *said = before.map_or(left_to_the_engine.clone(), |before| said.reached_as(before));
            }
        }
        Ok((settings, (!words.is_empty()).then(|| words.join("; "))))
    }
}

impl RegistrySettings {
    /// These words about a registry that is reached as `before`. Endpoints and what they are trusted by belong together: other
    /// endpoints are asked only with certificates of their own.
    fn reached_as(&self, before: &Self) -> Self {
        let insecure = if self.endpoints == before.endpoints { self.insecure } else { before.insecure };
        Self { endpoints: before.endpoints.clone(), ca_pem: before.ca_pem.clone(), insecure, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorities::SOUND;
    use larder_oci::Registry;

    const DAMAGED: &str = "[registries.\"a.example\"]\nca = \"a.pem\"\n[registries.\"b.example\"]\ninsecure = true\n";

    fn registry(settings: &Settings, name: &str) -> RegistrySettings {
        settings.registry(&Registry::parse(name).unwrap())
    }

    #[test]
    fn a_damaged_certificate_is_about_its_registry_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(Settings::parse_toml(DAMAGED, folder.path()).is_err(), "a person who types is told at once");
        let nothing = Settings::default();
        let (settings, words) = Settings::in_force_after(&nothing, DAMAGED, folder.path()).unwrap();
        assert!(registry(&settings, "a.example").skip && !registry(&settings, "b.example").skip);
        assert!(registry(&settings, "b.example").insecure, "the rest counts");
        let words = words.unwrap().replace(folder.path().to_str().unwrap(), "/etc/larder");
        insta::assert_snapshot!(words, @"line 2, column 6: ca /etc/larder/a.pem of a.example: its certificate 1 is damaged: BadEncoding; mend it: until then a.example is left to the engine, as without Larder");
        // The next look finds it as it is.
        let again = Settings::in_force_after(&settings, DAMAGED, folder.path()).unwrap();
        assert!(again.0 == settings && again.1.unwrap().contains("left to the engine"));

        std::fs::write(folder.path().join("a.pem"), SOUND).unwrap();
        let (mended, words) = Settings::in_force_after(&settings, DAMAGED, folder.path()).unwrap();
        assert_eq!((registry(&mended, "a.example").ca_pem.as_deref(), words), (Some(SOUND), None));
        assert!(!registry(&mended, "a.example").skip);

        // Gone for a moment, as a file that is replaced is.
        std::fs::remove_file(folder.path().join("a.pem")).unwrap();
        let (kept, words) = Settings::in_force_after(&mended, DAMAGED, folder.path()).unwrap();
        assert_eq!(kept, mended);
        assert!(words.unwrap().contains("a.example is reached as before"));
    }

    #[test]
    fn what_is_said_beside_a_damaged_certificate_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.pem"), SOUND).unwrap();
        let known = Settings::parse_toml("[registries.\"a.example\"]\nca = \"a.pem\"\n", folder.path()).unwrap();
        let after = |words: &str| {
            let text = format!("[registries.\"a.example\"]\nca_pem = \"damaged\"\n{words}");
            let (settings, damaged) = Settings::in_force_after(&known, &text, folder.path()).unwrap();
            assert!(damaged.is_some());
            registry(&settings, "a.example")
        };
        let before = registry(&known, "a.example");
        assert_eq!(after("skip = true"), RegistrySettings { skip: true, ..before.clone() });
        let refuse = RegistrySettings { on_origin_404: crate::settings::Policy::Refuse, ..before.clone() };
        assert_eq!(after("on-origin-404 = \"refuse\""), refuse);
        assert_eq!(after("insecure = true"), RegistrySettings { insecure: true, ..before.clone() });
        // Who moves it elsewhere has not said how to trust the new place.
        assert_eq!(after("endpoints = [\"http://elsewhere.example\"]\ninsecure = true"), before);
    }

    #[test]
    fn what_is_no_settings_at_all_is_an_error() {
        for text in ["x = 1", "[registries.\"a.example\"]\nca = \"a.pem\"\nca_pem = \"b\""] {
            assert!(Settings::in_force_after(&Settings::default(), text, Path::new("/nowhere")).is_err(), "{text}");
        }
    }
}

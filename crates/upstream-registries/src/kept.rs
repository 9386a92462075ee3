//! What is known as text of a file, for the process that comes after this one. Pure: whoever keeps it knows where.
//!
//! It is checked as anything else is that is read: what of it cannot be used is left out, for it will be said again.

use std::collections::BTreeSet;
use std::path::Path;

use larder_oci::Registry;
use larder_proxy::settings::Settings;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Known, OfRegistry};

/// Largest such text, in bytes: what is handed to a proxy has its own bound, and JSON spells line ends as two characters.
pub const LARGEST_TEXT: u64 = 8 * 1024 * 1024;

const VERSION: u32 = 1;

/// Why a text is as none.
#[derive(Debug, Error)]
pub enum NotKept {
    /// It is of another version of Larder.
    #[error("it is of another Larder (version {0}): not read")]
    OfAnother(u32),
    /// It is no such text.
    #[error("it is damaged ({0}), and written anew once the API server says something")]
    Damaged(serde_json::Error),
}

/// As it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    objects: usize,
    /// Of which something is said, the oldest first.
    registries: Vec<One>,
    named: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct One {
    registry: String,
    /// The words of the registries file.
    settings: String,
}

impl Known {
    /// All of it, but for what cannot be used, and the newest of what would make it longer than it may be to be read: so much is not in force either
    /// ([`merged`](crate::merged)).
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let named = self.named.iter().map(ToString::to_string).collect();
        let mut written = Written { version: VERSION, objects: self.objects, registries: Vec::new(), named };
        let mut left = LARGEST_TEXT.saturating_sub(length(&written)?);
        for (registry, words) in &self.said {
            let one = One { registry: registry.to_string(), settings: text(registry, words) };
            let bytes = length(&one)? + ",".len() as u64;
            if bytes <= left {
                left -= bytes;
                written.registries.push(one);
            }
        }
        serde_json::to_string(&written)
    }

    /// What a process before this one knew.
    pub fn of_text(text: &[u8]) -> Result<Self, NotKept> {
        let written: Written = serde_json::from_slice(text).map_err(NotKept::Damaged)?;
        if written.version != VERSION {
            return Err(NotKept::OfAnother(written.version));
        }
        let said = written.registries.into_iter().filter_map(|one| {
            let registry = Registry::parse(&one.registry).ok()?;
            let settings = Settings::parse_toml(&one.settings, Path::new("/"));
            let settings =
                settings.inspect_err(|error| tracing::warn!(%registry, %error, "not known from before")).ok()?;
            let words = OfRegistry { settings: settings.registries.get(&registry)?.clone(), skipped: settings.deny };
            Some((registry, words))
        });
        let said = said.collect();
        let named = written.named.iter().filter_map(|name| Registry::parse(name).ok()).collect();
        Ok(Self { said, named, left_out: Vec::new(), objects: written.objects })
    }
}

fn length(written: &impl Serialize) -> Result<u64, serde_json::Error> {
    serde_json::to_string(written).map(|text| text.len() as u64)
}

fn text(registry: &Registry, OfRegistry { settings, skipped }: &OfRegistry) -> String {
    let registries = [(registry.clone(), settings.clone())].into();
    Settings { registries, deny: skipped.clone(), ..Settings::default() }.to_toml()
}

#[cfg(test)]
mod tests {
    use larder_proxy::settings::{Pattern, RegistrySettings};

    use super::*;

    #[test]
    fn what_was_known_is_there_for_the_next_process() {
        let registry = |name: &str| Registry::parse(name).unwrap();
        let parts = OfRegistry {
            settings: RegistrySettings::default(),
            skipped: vec![Pattern::parse("[::1]:5000/team/**").unwrap()],
        };
        let said = vec![(registry("[::1]:5000"), parts), (registry("a.example"), OfRegistry::left_to_the_engine())];
        let known = Known { said, named: [registry("b.example:5000")].into(), left_out: Vec::new(), objects: 7 };
        assert_eq!(Known::of_text(known.to_text().unwrap().as_bytes()).unwrap(), known);
        let wrong = Known { left_out: vec!["of an object".to_owned()], ..known.clone() };
        assert_eq!(Known::of_text(wrong.to_text().unwrap().as_bytes()).unwrap(), known, "it is said again");
    }

    #[test]
    fn what_is_too_much_is_left_out_and_the_rest_can_be_read() {
        // Each as large as an object may be, and together more than may be in force; a small one behind them is.
        let authority = format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", "AAAA\n".repeat(24_000));
        let large = RegistrySettings { ca_pem: Some(authority), ..RegistrySettings::default() };
        let registry = |number: usize| Registry::parse(&format!("{number}.example")).unwrap();
        let mut said: Vec<_> = (0..75)
            .map(|number| (registry(number), OfRegistry { settings: large.clone(), skipped: Vec::new() }))
            .collect();
        said.push((registry(75), OfRegistry::left_to_the_engine()));
        let known = Known { said, named: BTreeSet::new(), left_out: Vec::new(), objects: 76 };
        let text = known.to_text().unwrap();
        assert!(text.len() as u64 <= LARGEST_TEXT, "{}", text.len());
        let written: Written = serde_json::from_str(&text).unwrap();
        let names: BTreeSet<&str> = written.registries.iter().map(|one| one.registry.as_str()).collect();
        assert!(names.len() < 76, "{names:?}");
        let (in_force, _) = crate::merged(&Settings::default(), &known);
        assert!(in_force.registries.keys().all(|registry| names.contains(registry.as_str())), "{names:?}");
    }

    #[test]
    fn what_is_damaged_is_as_none_and_single_words_are_left_out() {
        for text in ["", "{", "[]"] {
            assert!(matches!(Known::of_text(text.as_bytes()), Err(NotKept::Damaged(_))), "{text}");
        }
        let another = r#"{"version": 2, "objects": 0, "registries": [], "named": []}"#;
        assert!(matches!(Known::of_text(another.as_bytes()), Err(NotKept::OfAnother(2))));
        let known = Known::of_text(
            br#"{"version": 1, "objects": 3, "named": ["://", "b.example"], "registries": [
                {"registry": "a.example", "settings": "[registries.\"a.example\"]\nskip = true\n"},
                {"registry": "c.example", "settings": "[registries.\"c.example\"]\nendpoints = [\"nonsense\"]\n"},
                {"registry": "d.example", "settings": "[registries.\"e.example\"]\nskip = true\n"}]}"#,
        );
        let known = known.unwrap();
        assert_eq!((known.said.len(), known.named.len(), known.objects), (1, 1, 3));
    }
}

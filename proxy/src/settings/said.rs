//! What is said of one registry in the words of the registries file, and elsewhere: an object of Kubernetes. Checked by the same rules.

use thiserror::Error;

use super::file::{certificates, endpoint};
use super::{Policy, RegistrySettings};

/// The words, nothing of them checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Where to ask, in order of preference.
    pub endpoints: Vec<String>,
    /// Certificates, PEM.
    pub ca_pem: Option<String>,
    /// Plain http, and certificates that do not verify, are accepted.
    pub insecure: bool,
    /// Left to the engine.
    pub skip: bool,
    /// `on-origin-404`.
    pub on_origin_404: Policy,
    /// `on-origin-denied`.
    pub on_origin_denied: Policy,
}

/// Why they cannot be used. Whoever wrote them has to change them.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SaidError {
    /// One of the endpoints.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As it was written, but for credentials.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates.
    #[error("ca: {reason}")]
    Certificates {
        /// What is wrong with them.
        reason: String,
    },
}

impl RegistrySettings {
    /// The settings that these words are.
    pub fn checked(said: Said) -> Result<Self, SaidError> {
        let Said { endpoints, ca_pem, insecure, skip, on_origin_404, on_origin_denied } = said;
        let endpoints = endpoints.iter().map(|text| {
            endpoint(text, insecure).map_err(|reason| {
                // What stands before an @ may be a password, and this text ends up in logs.
                let shown = text.rsplit('@').next().unwrap_or_default().chars().take(200).collect();
                SaidError::Endpoint { endpoint: shown, reason }
            })
        });
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let ca_pem = ca_pem.map(certificates).transpose().map_err(|reason| SaidError::Certificates { reason })?;
        Ok(Self { endpoints, ca_pem, insecure, skip, on_origin_404, on_origin_denied })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorities::SOUND;

    #[test]
    fn the_rules_are_those_of_the_file() {
        let endpoints = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let said = Said {
            endpoints: endpoints(&["https://a.example/hub"]),
            ca_pem: Some(SOUND.to_owned()),
            ..Said::default()
        };
        let settings = RegistrySettings::checked(said).unwrap();
        assert_eq!((settings.endpoints.len(), settings.ca_pem.as_deref()), (1, Some(SOUND)));
        assert_eq!(RegistrySettings::checked(Said::default()).unwrap(), RegistrySettings::default());
        for (endpoint, expected) in [
            ("http://a.example", "endpoint \"http://a.example\": plain http needs `insecure = true` beside it"),
            (
                "https://me:secret@a.example",
                "endpoint \"a.example\": there are credentials in it; requests to origins are anonymous",
            ),
        ] {
            let said = Said { endpoints: endpoints(&[endpoint]), ..Said::default() };
            assert_eq!(RegistrySettings::checked(said).unwrap_err().to_string(), expected);
        }
        let damaged = Said { ca_pem: Some("none".to_owned()), ..Said::default() };
        assert!(matches!(RegistrySettings::checked(damaged), Err(SaidError::Certificates { .. })));
    }
}

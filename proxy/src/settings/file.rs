//! The registries file: TOML text ↔ [`Settings`].
//!
//! Reading refuses what it does not know and says where and what to write instead; writing puts certificates inline, so
//! that the text alone is everything (the agent hands it to a proxy that sees no host files).
//! `parse_toml(to_toml(x)) == x` holds for every valid value.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use larder_oci::{Registry, RegistryError};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Spanned;
use url::Url;

use super::pattern::Pattern;
use super::{Policy, RegistrySettings, Settings};
use crate::authorities::{authorities, read};

/// Largest registries file that is read, in bytes.
pub const LARGEST: u64 = 1024 * 1024;

/// Why a registries file is not used. The person who wrote the file has to change it; trying again does not help.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No TOML, an unknown key or a value of the wrong kind; the message shows the line.
    #[error("{}", .0.to_string().trim_end())]
    Toml(Box<toml::de::Error>),
    /// The text is TOML, but what it says makes no sense.
    #[error("line {line}, column {column}: {message}")]
    Value {
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong and what to write instead.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    registries: BTreeMap<Spanned<String>, RegistryText>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryText {
    #[serde(default)]
    endpoints: Vec<Spanned<String>>,
    ca: Option<Spanned<PathBuf>>,
    ca_pem: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    skip: bool,
    #[serde(default, rename = "on-origin-404")]
    on_origin_404: Policy,
    #[serde(default, rename = "on-origin-denied")]
    on_origin_denied: Policy,
}

#[derive(Serialize)]
struct FileOut<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allow: &'a [Pattern],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    deny: &'a [Pattern],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    registries: BTreeMap<&'a str, RegistryOut<'a>>,
}

#[derive(Serialize)]
struct RegistryOut<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_pem: Option<&'a str>,
    insecure: bool,
    skip: bool,
    #[serde(rename = "on-origin-404")]
    on_origin_404: Policy,
    #[serde(rename = "on-origin-denied")]
    on_origin_denied: Policy,
}

/// Turns a byte offset of the file into an error that a person can find.
struct Place<'a> {
    text: &'a str,
}

impl Place<'_> {
    fn error(&self, span: &Range<usize>, message: String) -> SettingsError {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        SettingsError::Value {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            message,
        }
    }
}

impl Settings {
    /// Reads the text of a registries file; relative `ca` paths are looked up in `base`, the file's own folder.
    pub fn parse_toml(text: &str, base: &Path) -> Result<Self, SettingsError> {
        let (settings, damaged) = Self::parse_leniently(text, base)?;
        damaged.into_iter().next().map_or(Ok(settings), |(_, error)| Err(error))
    }

    /// The same; registries whose certificates cannot be used are there without them, and named.
    pub(super) fn parse_leniently(
        text: &str,
        base: &Path,
    ) -> Result<(Self, BTreeMap<Registry, SettingsError>), SettingsError> {
        let FileText { registries, allow, deny } =
            toml::from_str(text).map_err(|error| SettingsError::Toml(Box::new(error)))?;
        let place = Place { text };
        let mut settings =
            Self { registries: BTreeMap::new(), allow: patterns(&allow, &place)?, deny: patterns(&deny, &place)? };
        let mut damaged = BTreeMap::new();
        for (key, value) in registries {
            let registry = Registry::parse(key.get_ref()).map_err(|error| {
                let message = match error {
                    RegistryError::Scheme { .. } => error.to_string(),
                    other => format!("{other}; the name is a host, or host:port"),
                };
                place.error(&key.span(), message)
            })?;
            let (value, error) = value.check(&registry, &place, base)?;
            damaged.extend(error.map(|error| (registry.clone(), error)));
            if settings.registries.insert(registry.clone(), value).is_some() {
                return Err(place.error(
                    &key.span(),
                    format!(
                        "{} is another spelling of {registry}, which is there already; keep one of them",
                        key.get_ref()
                    ),
                ));
            }
        }
        Ok((settings, damaged))
    }

    /// The settings as TOML text that needs no other file: certificates are inline.
    pub fn to_toml(&self) -> String {
        let registries =
            self.registries.iter().map(|(registry, settings)| (registry.as_str(), settings.out())).collect();
        // Maps, strings and booleans only: nothing here can fail to be TOML. An empty file would be the defaults, which
        // is what a reader falls back to in any case.
        toml::to_string(&FileOut { allow: &self.allow, deny: &self.deny, registries }).unwrap_or_default()
    }
}

impl RegistrySettings {
    fn out(&self) -> RegistryOut<'_> {
        let Self { endpoints, ca_pem, insecure, skip, on_origin_404, on_origin_denied } = self;
        RegistryOut {
            endpoints: endpoints.iter().map(Url::as_str).collect(),
            ca_pem: ca_pem.as_deref(),
            insecure: *insecure,
            skip: *skip,
            on_origin_404: *on_origin_404,
            on_origin_denied: *on_origin_denied,
        }
    }
}

impl RegistryText {
    /// What was said, and what is wrong with its certificates, which are left out then.
    fn check(
        self,
        registry: &Registry,
        place: &Place<'_>,
        base: &Path,
    ) -> Result<(RegistrySettings, Option<SettingsError>), SettingsError> {
        let Self { endpoints, ca, ca_pem, insecure, skip, on_origin_404, on_origin_denied } = self;
        let endpoints = endpoints
            .iter()
            .map(|text| {
                endpoint(text.get_ref(), insecure).map_err(|reason| {
                    // What stands before an @ may be a password, and this text ends up in logs.
                    let shown = text.get_ref().rsplit('@').next().unwrap_or_default();
                    place.error(&text.span(), format!("endpoint {shown:?} of {registry}: {reason}"))
                })
            })
            .collect::<Result<_, _>>()?;
        let ca_pem = match (ca, ca_pem) {
            (None, None) => Ok(None),
            (Some(ca), Some(_)) => {
                return Err(place.error(&ca.span(), format!("{registry} has both ca and ca_pem; keep one of them")));
            }
            (Some(ca), None) => {
                let path = base.join(ca.get_ref());
                let pem = read(&path).map_err(|error| format!("it cannot be read: {error}")).and_then(certificates);
                pem.map(Some)
                    .map_err(|reason| place.error(&ca.span(), format!("ca {} of {registry}: {reason}", path.display())))
            }
            (None, Some(pem)) => {
                let span = pem.span();
                let pem = certificates(pem.into_inner());
                pem.map(Some).map_err(|reason| place.error(&span, format!("ca_pem of {registry}: {reason}")))
            }
        };
        let (ca_pem, error) = ca_pem.map_or_else(|error| (None, Some(error)), |ca_pem| (ca_pem, None));
        Ok((RegistrySettings { endpoints, ca_pem, insecure, skip, on_origin_404, on_origin_denied }, error))
    }
}

fn patterns(texts: &[Spanned<String>], place: &Place<'_>) -> Result<Vec<Pattern>, SettingsError> {
    let parse = |text: &Spanned<String>| {
        Pattern::parse(text.get_ref()).map_err(|error| place.error(&text.span(), error.to_string()))
    };
    texts.iter().map(parse).collect()
}

pub(super) fn endpoint(text: &str, insecure: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write for example \"https://mirror.example.com\""))?;
    match url.scheme() {
        "https" => {}
        "http" if insecure => {}
        "http" => return Err("plain http needs `insecure = true` beside it".to_owned()),
        other => return Err(format!("the scheme {other} is not known; it is https (or http with `insecure = true`)")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("there is no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("there are credentials in it; requests to origins are anonymous".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("there is a query or fragment in it, which has no meaning here".to_owned());
    }
    Ok(url)
}

pub(super) fn certificates(pem: String) -> Result<String, String> {
    authorities(&pem).map(|_| pem).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

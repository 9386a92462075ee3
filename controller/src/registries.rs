//! `UpstreamRegistries` as the API server has them, and what they say.
//!
//! An object that says something that nobody can do says nothing but that: the rest of it holds. What one says that goes holds a little longer (`going`).

mod going;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kube::{Resource as _, ResourceExt as _};
use larder_api::upstream_registry::Accepted;
use larder_api::{UpstreamRegistry, UpstreamRegistrySpec, UpstreamRegistryStatus};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::decide::registry::{Part, Registries as Rules, Said};
use crate::world::{Gone, Source, State, is_ours_alone};

use going::Going;

/// An `UpstreamRegistry`, as far as it is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
    /// `metadata.generation`
    pub generation: Option<i64>,
    /// The controller made it, and nobody has edited it.
    pub is_ours_alone: bool,
    /// Whether what it says is in force, and if not, why.
    pub accepted: (Accepted, String),
    /// `spec`
    pub spec: UpstreamRegistrySpec,
    /// `status`
    pub status: UpstreamRegistryStatus,
}

impl Upstream {
    /// As it came.
    pub fn of(object: UpstreamRegistry) -> Option<Self> {
        let is_ours_alone = is_ours_alone(object.managed_fields());
        let accepted = accepted(&object);
        let meta = object.meta();
        Some(Self {
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            resource_version: meta.resource_version.clone()?,
            generation: meta.generation,
            is_ours_alone,
            accepted,
            status: object.status.unwrap_or_default(),
            spec: object.spec,
        })
    }

    fn state(&self) -> State<'_> {
        State { uid: &self.uid, version: &self.resource_version }
    }

    /// Whether it is of its registry: one of another name is not looked at.
    pub fn counts(&self) -> bool {
        self.accepted.0 != Accepted::WrongName
    }

    /// The registry's name, in full.
    pub fn registry(&self) -> Option<Box<str>> {
        self.spec.registry().ok().map(|registry| Box::from(registry.as_str()))
    }

    /// What it says, as far as that can be understood.
    fn said(&self) -> Said {
        let UpstreamRegistrySpec { skip, pacing, prefixes, .. } = &self.spec;
        let interval = sensible(self.spec.monitoring_interval().ok().flatten());
        let expiry = sensible(self.spec.expiry().ok().flatten());
        let number = |value: Option<i32>| value.and_then(|value| u64::try_from(value).ok());
        let at_a_time = number(pacing.as_ref().and_then(|pacing| pacing.images_at_a_time));
        let part = |prefix: &larder_api::upstream_registry::Prefix| Part {
            skip: prefix.skip,
            interval: sensible(prefix.monitoring_interval().ok().flatten()),
            expiry: sensible(prefix.expiry().ok().flatten()),
            follow: prefix.follow,
        };
        Said {
            skip: *skip,
            interval,
            expiry,
            follow: self.spec.follow,
            images_at_a_time: at_a_time.and_then(|number| usize::try_from(number).ok()),
            keep_quota: number(pacing.as_ref().and_then(|pacing| pacing.keep_quota_percent)),
            prefixes: prefixes.iter().map(|prefix| (prefix.prefix.clone(), part(prefix))).collect(),
        }
    }
}

/// Nothing is asked without a pause, and nothing is kept for no time at all.
fn sensible(span: Option<Duration>) -> Option<Duration> {
    span.map(|span| span.max(Duration::from_secs(1)))
}

/// Whether what its spec says is in force.
fn accepted(object: &UpstreamRegistry) -> (Accepted, String) {
    let spec = &object.spec;
    let invalid = |words: String| (Accepted::Invalid, words);
    let registry = match spec.registry() {
        Ok(registry) => registry,
        Err(error) => return invalid(format!("spec.registry {:?}: {error}", spec.registry)),
    };
    if !object.has_the_name_of_its_registry() {
        let name = larder_api::upstream_registry::name::of(&registry);
        return (
            Accepted::WrongName,
            format!(
                "the object of {registry} is called {name}: this one is not looked at; make that one and delete this"
            ),
        );
    }
    if let Some(words) = spec.ca.as_deref().and_then(wrong_certificates) {
        return (Accepted::InvalidCertificates, words);
    }
    let spans = [("spec.monitoringInterval", spec.monitoring_interval()), ("spec.expiry", spec.expiry())];
    let of_prefixes = spec.prefixes.iter().flat_map(|prefix| {
        [("monitoringInterval", prefix.monitoring_interval()), ("expiry", prefix.expiry())]
            .map(|(field, span)| (format!("spec.prefixes {}: {field}", prefix.prefix), span))
    });
    let all = spans.into_iter().map(|(field, span)| (field.to_owned(), span)).chain(of_prefixes);
    for (field, span) in all {
        if let Err(error) = span {
            return invalid(format!("{field}: {error}"));
        }
    }
    for endpoint in &spec.endpoints {
        match url::Url::parse(endpoint) {
            Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && spec.insecure) => {}
            Ok(url) if url.scheme() == "http" => {
                return invalid(format!("spec.endpoints {endpoint}: http wants spec.insecure: true"));
            }
            _ => return invalid(format!("spec.endpoints {endpoint:?}: write it as https://mirror.example.com")),
        }
    }
    if let Some(part) = spec.exception() {
        return invalid(format!(
            "spec.prefixes {}: it is below what is skipped (a shorter prefix, or the registry), and nodes and the cluster cache skip it too, so none of its images \
             can be kept: say skip: true of it, or skip the parts beside it one by one instead",
            part.prefix
        ));
    }
    (Accepted::Valid, "what it says is in force".to_owned())
}

fn wrong_certificates(pem: &str) -> Option<String> {
    let (mut roots, mut number) = (RootCertStore::empty(), 0);
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        number += 1;
        let added = match certificate {
            Ok(certificate) => roots.add(certificate).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:?}")),
        };
        if let Err(error) = added {
            return Some(format!("spec.ca: certificate {number} cannot be used: {error}"));
        }
    }
    roots
        .is_empty()
        .then(|| "spec.ca: there is no certificate in it; write PEM text (-----BEGIN CERTIFICATE-----)".into())
}

/// Registries of which something else is said than before.
pub type Changed = BTreeSet<Box<str>>;

/// All of them.
#[derive(Debug, Default)]
pub struct Registries {
    /// By name.
    objects: BTreeMap<String, Upstream>,
    /// Which of them is a registry's.
    names: BTreeMap<Box<str>, String>,
    /// What they say, of those that say something.
    pub rules: Rules,
    /// The API server knows the kind.
    is_known: bool,
    gone: Gone,
    going: Going,
}

impl Registries {
    /// A state of one of them.
    pub fn object(&mut self, object: Upstream, source: Source, now: Instant) -> Changed {
        let before = self.objects.get(&object.name);
        if !self.gone.is_news(object.state(), before.map(Upstream::state), source, now) {
            return Changed::new();
        }
        self.going.stays(&object.name);
        let is_as_before =
            before.is_some_and(|before| before.spec == object.spec && before.counts() == object.counts());
        self.objects.insert(object.name.clone(), object);
        if is_as_before { Changed::new() } else { self.compile() }
    }

    /// One of them is gone; `None`: of whatever UID it was.
    pub fn gone(&mut self, name: &str, uid: Option<&str>, now: Instant) -> Changed {
        let known = self.objects.get(name).map(|object| object.uid.clone());
        if let Some(uid) = uid.or(known.as_deref()) {
            self.gone.insert(uid, now);
        }
        if known.is_none_or(|known| uid.is_some_and(|uid| *uid != known)) {
            return Changed::new();
        }
        if self.objects.get(name).is_some_and(|object| object.counts() && object.said() != Said::default()) {
            self.going.goes(name, now);
            return Changed::new();
        }
        self.objects.remove(name);
        self.compile()
    }

    /// Those of them that went some time ago are believed to be gone.
    pub fn believe(&mut self, now: Instant) -> Changed {
        // While there is no such kind nothing follows.
        if !self.is_known {
            return Changed::new();
        }
        let believed = self.going.take_believed(now);
        for name in &believed {
            self.objects.remove(name);
        }
        if believed.is_empty() { Changed::new() } else { self.compile() }
    }

    /// All of them were listed, or there is no such kind.
    pub fn listed(&mut self, is_known: bool, now: Instant) {
        if is_known && !self.is_known {
            self.going.kind_is_back(now);
        }
        self.is_known = is_known;
    }

    /// Whether there is such a kind.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The API server has no such object, as it says to a write.
    pub fn missing(&mut self, name: &str, uid: &str, now: Instant) -> Changed {
        if self.gone.is_missed(uid, now) { self.gone(name, Some(uid), now) } else { Changed::new() }
    }

    /// What all of them say together.
    fn compile(&mut self) -> Changed {
        let counting = || self.objects.values().filter(|object| object.counts());
        self.names = counting().filter_map(|object| Some((object.registry()?, object.name.clone()))).collect();
        let said = counting().filter_map(|object| Some((object.registry()?, object.said())));
        // Most are there to be told, and say nothing.
        let rules = Rules(said.filter(|(_, said)| *said != Said::default()).collect());
        let before = std::mem::replace(&mut self.rules, rules);
        let all = before.0.keys().chain(self.rules.0.keys());
        all.filter(|registry| before.of(registry) != self.rules.of(registry)).cloned().collect()
    }

    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = &Upstream> {
        self.objects.values().filter(|object| !self.going.contains(&object.name))
    }

    /// A registry's, as long as what it says holds.
    pub fn of(&self, registry: &str) -> Option<&Upstream> {
        self.objects.get(self.names.get(registry)?)
    }
}

#[cfg(test)]
mod tests;

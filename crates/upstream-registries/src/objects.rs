//! The UpstreamRegistry objects, as far as whoever pulls needs them. Pure.
//!
//! Invariant: an object that cannot be used is about its registry alone: that is reached as before, or else left to the engine, as a registry of the
//! file is whose certificates are damaged. It is not served by the defaults, for what was meant to be said of it may be that it must not be.

use crate::said::{self, OfRegistry, Words};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use larder_api::UpstreamRegistry;
use larder_api::upstream_registry::name;
use larder_oci::Registry;
use std::collections::{BTreeMap, BTreeSet};

/// So many objects are looked at: the first by name, which is the order of the API server's list.
const MOST: usize = 1024;
/// So many registries of which nothing is said are named to an engine that has to be told of each (CRI-O); they come from images.
const MOST_NAMED: usize = 64;

/// What all of them say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Of which registries something is said, the oldest object first.
    pub said: Vec<(Registry, OfRegistry)>,
    /// Those of which nothing is.
    pub named: BTreeSet<Registry>,
    /// What cannot be used, a sentence each.
    pub left_out: Vec<String>,
    /// How many objects there are.
    pub objects: usize,
}

impl Known {
    pub(crate) fn of(&self, registry: &Registry) -> Option<&OfRegistry> {
        self.said.iter().find(|(known, _)| known == registry).map(|(_, words)| words)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.said.is_empty() && self.named.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// Seconds since 1970.
    created: i64,
    registry: Option<Registry>,
    /// `None`: nothing is in force of it.
    words: Option<Words>,
    wrong: Option<String>,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    kept: BTreeMap<String, Kept>,
    listing: BTreeMap<String, Kept>,
    /// Beyond [`MOST`].
    crowd: BTreeSet<String>,
}

/// What an event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    Something,
    /// Something is not there any more.
    Less,
}

impl Objects {
    /// Takes an event in. `before` is what was in force until now, also by the word of a process before this one.
    pub(crate) fn apply(&mut self, event: Event<DeserializeGuard<UpstreamRegistry>>, before: &Known) -> News {
        match event {
            Event::Init => {
                self.listing.clear();
                self.crowd.clear();
                News::Nothing
            }
            Event::InitApply(object) => {
                let name = object.name_any();
                if self.listing.len() < MOST {
                    let kept = kept(object, before);
                    self.listing.insert(name, kept);
                } else {
                    self.crowd.insert(name);
                }
                News::Nothing
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.kept, std::mem::take(&mut self.listing));
                let is_less = before.keys().any(|name| !self.kept.contains_key(name));
                if is_less { News::Less } else { News::Something }
            }
            Event::Apply(object) => {
                let name = object.name_any();
                if self.kept.len() >= MOST && !self.kept.contains_key(&name) {
                    self.crowd.insert(name);
                    return News::Something;
                }
                let kept = kept(object, before);
                if self.kept.get(&name) == Some(&kept) {
                    return News::Nothing;
                }
                self.crowd.remove(&name);
                self.kept.insert(name, kept);
                News::Something
            }
            Event::Delete(object) => {
                let name = object.name_any();
                self.crowd.remove(&name);
                self.kept.remove(&name);
                News::Less
            }
        }
    }

    /// What they say.
    pub(crate) fn known(&self) -> Known {
        let mut known = Known { objects: self.kept.len() + self.crowd.len(), ..Known::default() };
        let mut by_age: Vec<_> = self.kept.iter().collect();
        by_age.sort_by_key(|(name, kept)| (kept.created, *name));
        let mut unnamed = 0;
        for (name, kept) in by_age {
            if let Some(wrong) = &kept.wrong {
                known.left_out.push(format!("UpstreamRegistry {name}: {wrong}"));
            }
            let Some(registry) = &kept.registry else { continue };
            match &kept.words {
                Some(Words::Something(words)) => known.said.push((registry.clone(), words.clone())),
                Some(Words::Nothing) if known.named.len() < MOST_NAMED => drop(known.named.insert(registry.clone())),
                Some(Words::Nothing) => unnamed += 1,
                Some(Words::Wrong(_)) | None => {}
            }
        }
        if unnamed > 0 {
            tracing::debug!(unnamed, "more registries than CRI-O is told of without a word in their UpstreamRegistry");
        }
        if !self.crowd.is_empty() {
            let many = self.crowd.len();
            known
                .left_out
                .push(format!("{many} more UpstreamRegistry objects than the {MOST} that are looked at: delete some"));
        }
        known
    }
}

fn kept(object: DeserializeGuard<UpstreamRegistry>, before: &Known) -> Kept {
    let object = match object.0 {
        Ok(object) => object,
        Err(error) => {
            // Its name is that of its registry, where it is not an odd one.
            let registry = error.metadata.name.as_deref().and_then(of_name);
            let created = created(error.metadata.creation_timestamp.as_ref());
            let wrong = format!("it cannot be read: {}", error.error);
            return wrong_one(created, registry, &wrong, before);
        }
    };
    let created = created(object.metadata.creation_timestamp.as_ref());
    let registry = match object.spec.registry() {
        Ok(registry) => registry,
        Err(error) => {
            let wrong = format!("spec.registry: {error}; it is not looked at");
            return Kept { created, registry: None, words: None, wrong: Some(short(&wrong)) };
        }
    };
    if !object.has_the_name_of_its_registry() {
        let wrong = format!("it is not looked at: the object of {registry} is named {}", name::of(&registry));
        return Kept { created, registry: None, words: None, wrong: Some(short(&wrong)) };
    }
    match said::of(&registry, &object.spec) {
        Words::Wrong(wrong) => wrong_one(created, Some(registry), &wrong, before),
        words => {
            let wrong = said::passed_over(&object.spec);
            Kept { created, registry: Some(registry), words: Some(words), wrong }
        }
    }
}

fn wrong_one(created: i64, registry: Option<Registry>, wrong: &str, before: &Known) -> Kept {
    let left_to_the_engine = OfRegistry::left_to_the_engine();
    let Some(of) = registry else {
        return Kept { created, registry: None, words: None, wrong: Some(format!("{}; mend it", short(wrong))) };
    };
    let known = before.of(&of).filter(|known| **known != left_to_the_engine);
    let (words, until) = match known {
        Some(words) => (words.clone(), "is reached as before"),
        None => (left_to_the_engine, "is left to the engine, as without Larder"),
    };
    let wrong = format!("{}; mend it: until then {of} {until}", short(wrong));
    Kept { created, registry: Some(of), words: Some(Words::Something(words)), wrong: Some(wrong) }
}

/// The registry that an object of this name is about.
fn of_name(text: &str) -> Option<Registry> {
    let host_and_port =
        text.rsplit_once(".port-").map_or_else(|| text.to_owned(), |(host, port)| format!("{host}:{port}"));
    Registry::parse(&host_and_port).ok().filter(|registry| name::of(registry) == text)
}

fn created(time: Option<&larder_api::Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, spec: &Value) -> DeserializeGuard<UpstreamRegistry> {
        let object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
            "metadata": { "name": name, "creationTimestamp": "2026-01-02T03:04:05Z" }, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    fn listed(objects: &mut Objects, all: Vec<DeserializeGuard<UpstreamRegistry>>, before: &Known) -> News {
        objects.apply(Event::Init, before);
        for object in all {
            assert_eq!(objects.apply(Event::InitApply(object), before), News::Nothing);
        }
        objects.apply(Event::InitDone, before)
    }

    fn registry(name: &str) -> Registry {
        Registry::parse(name).unwrap()
    }

    #[test]
    fn what_is_said_is_known_and_what_is_not_is_a_name() {
        let (mut objects, before) = (Objects::default(), Known::default());
        let all = vec![
            object("a.example", &json!({ "registry": "a.example", "insecure": true })),
            object("b.example.port-5000", &json!({ "registry": "b.example:5000" })),
        ];
        assert_eq!(listed(&mut objects, all.clone(), &before), News::Something);
        let known = objects.known();
        assert!(
            known.of(&registry("a.example")).unwrap().settings.insecure
                && known.of(&registry("b.example:5000")).is_none()
        );
        assert_eq!(known.named, BTreeSet::from([registry("b.example:5000")]));
        assert_eq!((known.left_out.len(), known.objects), (0, 2));
        // A new status is an event too.
        assert_eq!(objects.apply(Event::Apply(all[0].clone()), &known), News::Nothing);
        assert_eq!(objects.apply(Event::Delete(all[0].clone()), &known), News::Less);
        assert!(objects.known().said.is_empty());
        assert_eq!(listed(&mut objects, vec![all[0].clone()], &known), News::Less);
    }

    #[test]
    fn what_is_wrong_is_about_its_registry_alone() {
        let (mut objects, before) = (Objects::default(), Known::default());
        let good = object("a.example", &json!({ "registry": "a.example", "endpoints": ["https://m.example"] }));
        let bad = |name: &str| object(name, &json!({ "registry": name, "endpoints": ["nonsense"] }));
        listed(&mut objects, vec![good, bad("b.example")], &before);
        let known = objects.known();
        assert!(known.of(&registry("b.example")).unwrap().settings.skip, "it was never right");
        assert!(known.left_out.first().unwrap().contains("b.example is left to the engine"), "{:?}", known.left_out);
        objects.apply(Event::Apply(bad("a.example")), &known);
        let after = objects.known();
        assert_eq!(after.of(&registry("a.example")), known.of(&registry("a.example")));
        assert!(after.left_out.first().unwrap().contains("a.example is reached as before"), "{:?}", after.left_out);
        // Another process, which finds what this one knew.
        let mut again = Objects::default();
        listed(&mut again, vec![bad("a.example"), bad("b.example")], &after);
        assert_eq!(again.known(), after);
        // What was left to the engine once is so still when its object is.
        again.apply(Event::Apply(object("b.example", &json!({ "registry": "b.example" }))), &after);
        assert_eq!(again.known().of(&registry("b.example")), None);
    }

    #[test]
    fn what_is_no_object_of_a_registry_is_named_and_not_looked_at() {
        let (mut objects, before) = (Objects::default(), Known::default());
        let all = vec![
            object("x", &json!({ "registry": "a.example", "skip": true })),
            object("y", &json!({ "registry": "https://a.example" })),
            object("z", &json!({ "registry": 5 })),
            object("c.example", &json!({ "registry": "c.example", "skip": "perhaps" })),
        ];
        listed(&mut objects, all, &before);
        let known = objects.known();
        insta::assert_snapshot!(known.left_out.join("\n"));
        assert_eq!(known.said.len(), 2, "an object that has the name of a registry is about it");
        assert!(known.of(&registry("c.example")).unwrap().settings.skip);
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut objects, before) = (Objects::default(), Known::default());
        let all: Vec<_> = (0..MOST + 5)
            .map(|number| {
                object(&format!("{number:05}.example"), &json!({ "registry": format!("{number:05}.example") }))
            })
            .collect();
        listed(&mut objects, all.clone(), &before);
        let known = objects.known();
        assert_eq!((known.objects, known.named.len(), known.left_out.len()), (MOST + 5, MOST_NAMED, 1));
        assert!(known.left_out[0].starts_with("5 more"), "{:?}", known.left_out);
        objects.apply(Event::Delete(all[0].clone()), &known);
        assert_eq!(objects.apply(Event::Apply(all[MOST].clone()), &known), News::Something);
        assert_eq!(objects.known().objects, MOST + 4);
    }
}

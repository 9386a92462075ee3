//! Registries that images of this node come from, for engines that have to be told each by name (CRI-O).
//!
//! Learnt from the images that the engine has, so from what was really pulled and not from what a Pod merely names. What was
//! learnt outlives the image: the day on which it is gone from the engine and its registry away is the day it is for. Kept
//! in a small file beside the journal. Bounded, and whoever was there first stays: nobody who may create Pods can make a
//! node's configuration grow without end, or push a registry out of it.

use crate::node::Node;
use larder_cri::Image;
use larder_node_agent::confirm::NOWHERE;
use larder_node_agent::host::{Attributes, Host, HostError};
use larder_oci::Registry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// So many are learnt; the settings may name more.
const MOST: usize = 64;
/// One of which no image was seen for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24 * 30);
/// What is written down of when an image was last seen is this exact, so that the file is seldom written.
const EXACT: Duration = Duration::from_hours(24);
const LARGEST_FILE: u64 = 64 * 1024;

/// What was learnt on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// When an image of it was last seen, in seconds since 1970.
    registries: BTreeMap<Registry, u64>,
    /// How many could not be taken in.
    too_many: usize,
}

/// The same, as it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    registries: BTreeMap<String, u64>,
}

impl InUse {
    /// What an agent before this one learnt. A file that cannot be read is as none.
    pub(crate) fn read(node: &Node) -> Self {
        let path = file(&node.state_dir);
        let contents = match node.host.read(&path, LARGEST_FILE) {
            Ok(contents) => contents,
            Err(HostError::NotFound { .. }) => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, "registries that were in use are not known");
                return Self::default();
            }
        };
        let written: Written = match serde_json::from_slice(&contents.bytes) {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "registries that were in use are not known");
                return Self::default();
            }
        };
        let registries = written.registries.into_iter().take(MOST);
        let registries = registries.filter_map(|(name, seen)| Some((Registry::parse(&name).ok()?, seen)));
        Self { registries: registries.collect(), too_many: 0 }
    }

    /// Learns from what the engine has now. True when that is worth keeping.
    pub(crate) fn learn(&mut self, images: &[Image], now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let before = self.registries.clone();
        self.registries.retain(|_, seen| now.saturating_sub(*seen) < FORGOTTEN_AFTER.as_secs());
        self.too_many = 0;
        let references = images.iter().flat_map(|image| image.digests.iter().chain(&image.tags));
        for registry in references.filter_map(|reference| registry_of(reference)).collect::<BTreeSet<_>>() {
            let room = self.registries.len() < MOST;
            match self.registries.get_mut(&registry) {
                Some(seen) if now.saturating_sub(*seen) < EXACT.as_secs() => {}
                Some(seen) => *seen = now,
                None if room => drop(self.registries.insert(registry, now)),
                None => self.too_many += 1,
            }
        }
        self.registries != before
    }

    pub(crate) fn registries(&self) -> BTreeSet<Registry> {
        self.registries.keys().cloned().collect()
    }

    /// What a person should know.
    pub(crate) fn condition(&self) -> Option<String> {
        let many = self.too_many;
        (many > 0).then(|| {
            format!("images come from more than {MOST} registries; {many} are pulled from directly unless the settings name them")
        })
    }

    pub(crate) fn keep(&self, node: &Node) -> anyhow::Result<()> {
        let path = file(&node.state_dir);
        node.host.make_parents(&path)?;
        let registries = self.registries.iter().map(|(registry, seen)| (registry.to_string(), *seen)).collect();
        let bytes = serde_json::to_vec(&Written { registries })?;
        Ok(node.host.write(&path, &bytes, &Attributes::new(0o600), &node.host.occupant(&path)?)?)
    }
}

/// What a look by hand goes by: what an agent learnt, and what the engine has now; nothing where the engine needs no names.
pub(crate) async fn now(node: &Node) -> BTreeSet<Registry> {
    if !node.engine.needs_names() {
        return BTreeSet::new();
    }
    let mut in_use = InUse::read(node);
    if let Some(running) = &node.running {
        match running.cri.list_images().await {
            Ok(images) => drop(in_use.learn(&images, SystemTime::now())),
            Err(error) => tracing::warn!(%error, "the engine's images are not known"),
        }
    }
    in_use.registries()
}

/// Forgets everything, as part of leaving nothing behind.
pub(crate) fn forget(node: &Node) -> Result<(), HostError> {
    let path = file(&node.state_dir);
    if node.host.exists(&path)? { node.host.remove(&path, &node.host.occupant(&path)?) } else { Ok(()) }
}

fn file(state_dir: &Path) -> PathBuf {
    let mut name = state_dir.file_name().unwrap_or_default().to_owned();
    name.push("-registries.json");
    state_dir.with_file_name(name)
}

/// Of an image's reference as an engine lists it. Images that were never pulled are called `localhost/…`; a name without a
/// dot or a port is no registry that anybody else could reach.
fn registry_of(reference: &str) -> Option<Registry> {
    let registry = Registry::parse(reference.split_once('/')?.0).ok()?;
    let is_local = registry.host() == "localhost" || registry.as_str() == NOWHERE;
    let is_complete = registry.host().contains(['.', ':']) || registry.as_str().contains(':');
    (is_complete && !is_local).then_some(registry)
}

#[cfg(test)]
mod tests {
    use super::{EXACT, FORGOTTEN_AFTER, InUse, MOST, forget};
    use crate::node::Node;
    use larder_cri::Image;
    use larder_node_agent::engine::crio::Crio;
    use larder_node_agent::host::RootedHost;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    fn image(reference: &str) -> Image {
        Image { id: "1".to_owned(), tags: Vec::new(), digests: vec![format!("{reference}@sha256:1")], size: 1 }
    }

    fn names(in_use: &InUse) -> Vec<String> {
        in_use.registries().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_pulled_is_learnt_and_what_was_never_is_not() {
        let mut in_use = InUse::default();
        let images = ["docker.io/library/a", "b.example:5000/c", "localhost/d", "localhost:7439/e", "single/f", "g"];
        let images = [&images[..], &["larder.invalid/h", "A.EXAMPLE/i"]].concat();
        assert!(in_use.learn(&images.into_iter().map(image).collect::<Vec<_>>(), UNIX_EPOCH));
        assert_eq!(names(&in_use), ["a.example", "b.example:5000", "docker.io"]);
    }

    #[test]
    fn what_was_learnt_is_there_for_the_next_agent_until_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let node = Node {
            host: RootedHost::open(root.path()).unwrap(),
            root: root.path().to_owned(),
            engine: Box::new(Crio::at(None)),
            running: None,
            state_dir: PathBuf::from("/var/lib/larder/node"),
        };
        let mut in_use = InUse::default();
        in_use.learn(&[image("a.example/b")], UNIX_EPOCH);
        // The second time the folders are there.
        for _ in 0..2 {
            in_use.keep(&node).unwrap();
            assert_eq!(InUse::read(&node), in_use);
        }
        forget(&node).unwrap();
        assert_eq!(InUse::read(&node), InUse::default());
    }

    #[test]
    fn it_outlives_its_image_and_is_forgotten_in_the_end() {
        let mut in_use = InUse::default();
        let start = UNIX_EPOCH + Duration::from_hours(24 * 365);
        assert!(in_use.learn(&[image("a.example/b")], start));
        assert!(!in_use.learn(&[], start + FORGOTTEN_AFTER - Duration::from_secs(1)));
        assert_eq!(names(&in_use), ["a.example"]);
        assert!(in_use.learn(&[], start + FORGOTTEN_AFTER));
        assert!(names(&in_use).is_empty());
    }

    #[test]
    fn an_image_that_stays_is_written_down_once_a_day() {
        let mut in_use = InUse::default();
        let images = [image("a.example/b")];
        assert!(in_use.learn(&images, UNIX_EPOCH));
        assert!(!in_use.learn(&images, UNIX_EPOCH + EXACT - Duration::from_secs(1)));
        assert!(in_use.learn(&images, UNIX_EPOCH + EXACT));
    }

    #[test]
    fn there_are_only_so_many_and_the_first_stay() {
        let mut in_use = InUse::default();
        in_use.learn(&[image("a.example/first")], UNIX_EPOCH);
        let crowd: Vec<_> = (0..1000).map(|number| image(&format!("{number}.example/x"))).collect();
        in_use.learn(&crowd, UNIX_EPOCH);
        assert_eq!(in_use.registries().len(), MOST);
        assert!(names(&in_use).contains(&"a.example".to_owned()));
        assert!(in_use.condition().unwrap().contains("937 are pulled"), "{:?}", in_use.condition());
        in_use.learn(&[], UNIX_EPOCH);
        assert_eq!(in_use.condition(), None);
    }
}

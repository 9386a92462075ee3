//! Where everything lies in the bucket (`docs/store.md`). Pure.
//!
//! No value from outside can reach beyond the prefix or meet another value's key: digests are lower-case hexadecimal, a registry's
//! segment has no slash, every segment of a repository begins with a letter or digit, so never with our `_`, and what comes from
//! people is hashed. No key is the beginning of another one's path, since a gateway over a folder cannot have both.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use larder_oci::{Algorithm, Digest, Registry, Repository, Tag};
use object_store::path::Path;

use super::address::ClusterId;
use crate::store::removal::{Key, Owner, PinName, Unique};
use crate::store::{Name, StoreError};

/// Layout version that this program writes, and the newest that it reads.
pub(super) const VERSION: u64 = 1;

/// Longest file name of a gateway over a folder, less what it may add.
const LONGEST_SEGMENT: usize = 200;

/// One upload of a blob, written `seed.attempt`: never used again, so that a delete that arrives late can only hit what it was meant for. In the order of the
/// uploaders' clocks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(String);

const MILLISECONDS: usize = 12;
/// As the removal protocol wants it: 128 bits that nobody else has.
const RANDOM: usize = 32;

impl Generation {
    /// A new one, from a clock and bytes that nobody else has.
    pub(super) fn new(now: SystemTime, random: [u8; RANDOM / 2]) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX) & 0xffff_ffff_ffff;
        let mut text = format!("{milliseconds:0MILLISECONDS$x}");
        for byte in random {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        // Whoever copies an object under the same seed counts on.
        text.push_str(".0");
        Self(text)
    }

    /// The last part of a key; `None` if it is not ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (seed, attempt) = text.split_once('.')?;
        let fits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
        let is_seed = (1..=64).contains(&seed.len()) && seed.bytes().all(fits);
        let is_attempt = attempt.parse::<u32>().is_ok_and(|number| number.to_string() == attempt);
        (is_seed && is_attempt).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What names are made of that nobody else has.
    pub(super) fn seed(&self) -> &str {
        self.0.split_once('.').map_or(&self.0, |(seed, _)| seed)
    }
}

impl From<&Unique> for Generation {
    fn from(unique: &Unique) -> Self {
        Self(unique.to_string())
    }
}

/// A folder of objects that each belong to one of another folder, under the same key below it.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) folder: String,
    /// Where what they belong to is.
    pub(super) of: String,
}

impl Beside {
    /// What an object of the folder belongs to: where that is, and its key. `None`: it is not ours.
    pub(super) fn belongs_to(&self, layout: &Layout, object: &str) -> Option<(String, Key)> {
        let place = format!("{}{}", self.of, object.strip_prefix(&self.folder)?);
        let key = Key::parse(layout.within(&place)?)?;
        Some((place, key))
    }
}

/// Keys of one cluster in one bucket.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// With its slash at the end, if it is not empty.
    prefix: String,
    cluster: ClusterId,
}

impl Layout {
    pub(super) fn new(prefix: &str, cluster: ClusterId) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { prefix, cluster }
    }

    /// A key or folder of the removal protocol, which has no slash at its end here.
    pub(super) fn below(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.strip_suffix('/').unwrap_or(key))
    }

    /// The other way round.
    pub(super) fn within<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
    }

    /// The note that a pin is complete; `None` if it is no pin.
    pub(super) fn completed(&self, pin: &Key) -> Option<String> {
        let Key::Pin(name, unique) = pin else { return None };
        Some(format!("{}/{unique}", self.completed_of(name)))
    }

    /// The notes of the pins of a name.
    pub(super) fn completed_of(&self, name: &PinName) -> String {
        format!("{}/{}", self.completed_by(&name.owner), name.image)
    }

    /// Those of a holder's pins.
    pub(super) fn completed_by(&self, owner: &Owner) -> String {
        format!("{}clusters/{}/complete/{}", self.prefix, owner.cluster, owner.holder)
    }

    /// What belongs to something else: everybody's checksums to blobs, this cluster's notes to pins.
    pub(super) fn beside(&self) -> [Beside; 2] {
        let (complete, pins) = (self.of_cluster("complete"), self.of_cluster("pins"));
        [Beside { folder: self.below("checksums"), of: self.below("blobs") }, Beside { folder: complete, of: pins }]
    }

    pub(super) fn version(&self) -> String {
        format!("{}version", self.prefix)
    }

    /// The folder of a blob's generations.
    pub(super) fn generations(&self, digest: &Digest) -> String {
        format!("{}blobs/{}/{}", self.prefix, digest.algorithm().as_str(), digest.hex())
    }

    pub(super) fn blob(&self, digest: &Digest, generation: &Generation) -> String {
        format!("{}/{}", self.generations(digest), generation.as_str())
    }

    pub(super) fn checksums(&self, digest: &Digest, generation: &Generation) -> String {
        let algorithm = digest.algorithm().as_str();
        format!("{}checksums/{algorithm}/{}/{}", self.prefix, digest.hex(), generation.as_str())
    }

    /// Notes of uploads in parts that are under way, or were left.
    pub(super) fn uploads(&self) -> String {
        format!("{}uploads", self.prefix)
    }

    pub(super) fn upload(&self, generation: &Generation) -> String {
        format!("{}/{}", self.uploads(), generation.as_str())
    }

    fn of_cluster(&self, kind: &str) -> String {
        format!("{}clusters/{}/{kind}", self.prefix, self.cluster.as_str())
    }

    fn of_name(&self, kind: &str, name: &Name) -> String {
        let mut registry = name.registry.path_segment();
        if registry.len() > LONGEST_SEGMENT {
            // No host name has a tilde.
            registry = format!("~{}", Digest::of(Algorithm::Sha256, registry.as_bytes()).hex());
        }
        // A colon, as in an IPv6 address, is written otherwise by one server or another.
        let registry = registry.replace(':', "+");
        format!("{}/{registry}/{}/_", self.of_cluster(kind), name.repository.as_str())
    }

    pub(super) fn link(&self, name: &Name, digest: &Digest) -> String {
        format!("{}/{}-{}", self.of_name("links", name), digest.algorithm().as_str(), digest.hex())
    }

    /// The folder of all links.
    pub(super) fn links(&self) -> String {
        self.of_cluster("links")
    }

    /// The folder of a repository's links.
    pub(super) fn links_of(&self, name: &Name) -> String {
        self.of_name("links", name)
    }

    /// Sorts behind every link of a repository, and before those of the next.
    pub(super) fn behind_links(&self, name: &Name) -> String {
        format!("{}/~", self.of_name("links", name))
    }

    /// Whose link a key is; `None` if it is none, or of a registry whose name is too long to stand in it.
    pub(super) fn name_of_link(&self, key: &str) -> Option<Name> {
        Some(parted(key, &self.links())?.0)
    }

    /// The same, and of what it is.
    pub(super) fn link_of(&self, key: &str) -> Option<(Name, Digest)> {
        let (name, last) = parted(key, &self.links())?;
        let (algorithm, hex) = last.split_once('-')?;
        Some((name, Digest::parse(&format!("{algorithm}:{hex}")).ok()?))
    }

    /// The folder of all tags.
    pub(super) fn all_tags(&self) -> String {
        self.of_cluster("tags")
    }

    /// Which tag of whom a key is of; `None` as of links.
    pub(super) fn tag_of(&self, key: &str) -> Option<(Name, Tag)> {
        let (name, last) = parted(key, &self.all_tags())?;
        Some((name, Tag::parse(last).ok()?))
    }

    /// The folder of a repository's tags.
    pub(super) fn tags(&self, name: &Name) -> String {
        self.of_name("tags", name)
    }

    pub(super) fn tag(&self, name: &Name, tag: &Tag) -> String {
        format!("{}/{}", self.tags(name), tag.as_str())
    }
}

/// Whose record a key below a folder of them is, and its last part.
fn parted<'a>(key: &'a str, folder: &str) -> Option<(Name, &'a str)> {
    let (name, last) = key.strip_prefix(folder)?.strip_prefix('/')?.rsplit_once("/_/")?;
    let (registry, repository) = name.split_once('/')?;
    let registry = Registry::from_path_segment(&registry.replace('+', ":")).ok()?;
    Some((Name { registry, repository: Repository::parse(repository).ok()? }, last))
}

/// A key as the client of buckets wants it.
pub(super) fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::Bucket {
        operation: "form a key",
        place: key.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn layout(prefix: &str) -> Layout {
        Layout::new(prefix, "one".parse().unwrap())
    }

    fn name(registry: &str, repository: &str) -> Name {
        Name { registry: Registry::parse(registry).unwrap(), repository: Repository::parse(repository).unwrap() }
    }

    #[test]
    fn keys_are_those_of_the_documentation() {
        let (layout, digest) = (layout("a/b"), Digest::of(Algorithm::Sha256, b"x"));
        let generation = Generation::new(SystemTime::UNIX_EPOCH + Duration::from_millis(0x1234), [0xab; 16]);
        assert_eq!(generation.as_str(), "000000001234abababababababababababababababab.0");
        assert_eq!(Generation::parse(generation.as_str()), Some(generation.clone()));
        for text in ["", "ab", ".0", "ab.", "AB.0", "ab.00", "ab.x", "a/b.0", "ab.0.0"] {
            assert_eq!(Generation::parse(text), None, "{text}");
        }
        let hex = digest.hex();
        assert_eq!(layout.blob(&digest, &generation), format!("a/b/blobs/sha256/{hex}/{}", generation.as_str()));
        assert_eq!(
            layout.checksums(&digest, &generation),
            format!("a/b/checksums/sha256/{hex}/{}", generation.as_str())
        );
        let name = name("reg.example.com:5000", "team/app");
        assert_eq!(
            layout.link(&name, &digest),
            format!("a/b/clusters/one/links/reg.example.com__5000/team/app/_/sha256-{hex}")
        );
        assert_eq!(layout.name_of_link(&layout.link(&name, &digest)).as_ref(), Some(&name));
        let tag = Tag::parse("v1").unwrap();
        assert_eq!(layout.name_of_link(&layout.tag(&name, &tag)), None);
        assert_eq!(layout.link_of(&layout.link(&name, &digest)), Some((name.clone(), digest.clone())));
        assert_eq!(layout.tag_of(&layout.tag(&name, &tag)), Some((name.clone(), tag.clone())));
        assert_eq!(layout.tag(&name, &tag), "a/b/clusters/one/tags/reg.example.com__5000/team/app/_/v1");
        assert_eq!(Layout::new("", "one".parse().unwrap()).version(), "version");
    }

    #[test]
    fn a_later_generation_sorts_behind_an_earlier_one() {
        let at = |seconds, random| Generation::new(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), [random; 16]);
        assert!(at(1, 255) < at(2, 0) && at(2, 0) < at(4_000_000_000, 0));
    }

    proptest! {
        #[test]
        fn no_key_is_another_ones_or_lies_below_it(
            names in proptest::collection::vec(("[a-z]{1,3}(\\.[a-z]{1,3})?(:[1-9][0-9]{0,3})?", "[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,3}", "[A-Za-z0-9_][A-Za-z0-9._-]{0,6}"), 1..8),
        ) {
            let layout = layout("");
            let mut keys = HashSet::new();
            let mut wanted = HashSet::new();
            for (registry, repository, tag) in &names {
                let Ok(registry) = Registry::parse(registry) else { continue };
                let Ok(repository) = Repository::parse(repository) else { continue };
                let (name, tag) = (Name { registry, repository }, Tag::parse(tag).unwrap());
                wanted.insert((name.clone(), tag.as_str().to_owned()));
                keys.insert(layout.tag(&name, &tag));
            }
            prop_assert_eq!(keys.len(), wanted.len());
            for key in &keys {
                prop_assert!(path(key).is_ok());
                let below = format!("{key}/");
                prop_assert!(keys.iter().all(|other| !other.starts_with(&below)));
            }
        }
    }
}

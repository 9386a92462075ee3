//! What a pin reaches: the index as a whole, and of the platforms that are wanted everything.

use std::collections::{BTreeSet, HashMap, VecDeque};

use larder_oci::{Children, Digest, ImageReference, ManifestReference};

use crate::pins::{Content, MAXIMUM_DIGESTS, Platforms};
use crate::pull::{Code, Puller, Unkept};
use crate::store::Name;

/// An index in an index in an index is something that nobody makes.
const DEEPEST: usize = 3;

/// What there is to keep.
pub(super) struct Plan {
    pub(super) name: Name,
    pub(super) content: Content,
    /// Configurations and layers, each with its size.
    pub(super) blobs: Vec<(Digest, u64)>,
}

/// What of an index there is to keep.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The manifests of these platforms.
    For(&'a Platforms),
    /// Those that are among these, as it was found out before.
    Of(&'a BTreeSet<Digest>),
}

/// Finds out what an image is. Index and manifests are in the store after that.
pub(super) async fn plan(puller: &Puller, image: &ImageReference, kept: Wanted<'_>) -> Result<Plan, Unkept> {
    let name = Name { registry: image.registry.clone(), repository: image.repository.clone() };
    let root = puller.find(&name, &image.manifest_reference()).await?;
    let mut digests = BTreeSet::from([root.digest.clone()]);
    let mut bytes = root.bytes.len() as u64;
    let mut blobs: HashMap<Digest, u64> = HashMap::new();
    let mut waiting = VecDeque::from([(root.bytes, 0)]);
    while let Some((document, depth)) = waiting.pop_front() {
        let children = larder_oci::children(&document)
            .map_err(|error| Unkept::later(Code::Broken, format!("a manifest of {image} is not one: {error}")))?;
        for digest in wanted(&children, kept, image)? {
            if depth >= DEEPEST || digests.len() >= MAXIMUM_DIGESTS {
                let words = format!("{image} reaches more manifests than any image has");
                return Err(Unkept::refused(Code::TooLarge, words));
            }
            if digests.insert(digest.clone()) {
                let found = puller.find(&name, &ManifestReference::Digest(digest)).await?;
                bytes += found.bytes.len() as u64;
                waiting.push_back((found.bytes, depth + 1));
            }
        }
        for blob in children.blobs.into_iter().filter(|blob| !is_elsewhere(&blob.media_type)) {
            if digests.insert(blob.digest.clone()) {
                bytes = bytes.saturating_add(blob.size);
                blobs.insert(blob.digest, blob.size);
            }
        }
        if digests.len() > MAXIMUM_DIGESTS {
            let words = format!("{image} reaches more than {MAXIMUM_DIGESTS} digests");
            return Err(Unkept::refused(Code::TooLarge, words));
        }
    }
    let content = Content { root: root.digest, digests, bytes };
    Ok(Plan { name, content, blobs: blobs.into_iter().collect() })
}

/// The manifests of an index to keep. That of other platforms some are missing is no error, as long as one that is wanted is there.
fn wanted(children: &Children, kept: Wanted<'_>, image: &ImageReference) -> Result<Vec<Digest>, Unkept> {
    let wanted: Vec<Digest> = children
        .manifests
        .iter()
        .filter(|manifest| match kept {
            Wanted::For(platforms) => platforms.want(manifest.platform.as_deref()),
            Wanted::Of(digests) => digests.contains(&manifest.digest),
        })
        .map(|manifest| manifest.digest.clone())
        .collect();
    if wanted.is_empty() && !children.manifests.is_empty() {
        let there: BTreeSet<&str> =
            children.manifests.iter().filter_map(|manifest| manifest.platform.as_deref()).collect();
        let there: Vec<&str> = there.into_iter().take(20).collect();
        let words =
            format!("{image} is there for none of the platforms that are wanted; it is there for {}", there.join(", "));
        return Err(Unkept::refused(Code::NoPlatform, words));
    }
    Ok(wanted)
}

/// A layer that its registry need not have: engines fetch it from where its manifest says.
fn is_elsewhere(media_type: &str) -> bool {
    media_type.contains("foreign") || media_type.contains("nondistributable")
}

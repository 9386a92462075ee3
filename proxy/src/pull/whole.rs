//! Whether everything that a manifest promises is in the store.

use std::collections::VecDeque;

use larder_oci::{ChildDescriptor, Children, Digest};

use super::Shared;
use super::held;
use crate::store::Name;

/// Manifests that are looked into for one index: of one platform there are a few (variants, compressions), and an index in an index is
/// something that nobody makes.
const MANIFESTS: usize = 16;

impl Shared {
    /// What a stored manifest or index names, whoever delivered it.
    pub(super) async fn stored_children(&self, digest: &Digest) -> Option<Children> {
        let blob = self.stored(digest).await?;
        larder_oci::children(&held::read_document(&blob).await.ok()?).ok()
    }

    /// Whether this repository may deliver all of an image from the store: all blobs of a manifest; of an index, those of a manifest
    /// for this machine's platform, which is the one that an engine here asks for next.
    pub(super) async fn is_whole(&self, name: &Name, children: &Children) -> bool {
        if children.manifests.is_empty() {
            return self.holds_blobs(name, children).await;
        }
        let mut waiting: VecDeque<Digest> = candidates(&children.manifests).cloned().collect();
        for _ in 0..MANIFESTS {
            let Some(digest) = waiting.pop_front() else { return false };
            if self.held(name, &digest).await.is_none() {
                continue;
            }
            let Some(children) = self.stored_children(&digest).await else { continue };
            if !children.manifests.is_empty() {
                waiting.extend(candidates(&children.manifests).cloned());
            } else if self.holds_blobs(name, &children).await {
                return true;
            }
        }
        false
    }

    async fn holds_blobs(&self, name: &Name, children: &Children) -> bool {
        for blob in &children.blobs {
            if self.held(name, &blob.digest).await.is_none() {
                return false;
            }
        }
        true
    }
}

/// The manifests of an index that an engine on this machine could choose; where none says so, any.
pub(super) fn candidates(manifests: &[ChildDescriptor]) -> impl Iterator<Item = &Digest> {
    let own = platform();
    let fits = move |descriptor: &&ChildDescriptor| {
        let platform = descriptor.platform.as_deref().unwrap_or_default();
        platform.strip_prefix(own.as_str()).is_some_and(|variant| variant.is_empty() || variant.starts_with('/'))
    };
    let all = !manifests.iter().any(|descriptor| fits(&descriptor));
    manifests.iter().filter(move |descriptor| all || fits(descriptor)).map(|descriptor| &descriptor.digest)
}

/// `os/architecture` of this machine, in the words of images.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        same => same,
    };
    format!("linux/{architecture}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::digest;

    #[test]
    fn which_manifests_an_engine_here_could_choose() {
        let own = platform();
        let chosen = |platforms: &[Option<String>]| {
            let manifests: Vec<_> = platforms
                .iter()
                .enumerate()
                .map(|(number, platform)| ChildDescriptor {
                    digest: digest(number.to_string().as_bytes()),
                    size: 1,
                    media_type: String::new(),
                    platform: platform.clone(),
                })
                .collect();
            let chosen: Vec<_> = candidates(&manifests).cloned().collect();
            manifests.iter().map(|descriptor| chosen.contains(&descriptor.digest)).collect::<Vec<_>>()
        };
        let other = Some("plan9/mips".to_owned());
        let some = |platform: String| Some(platform);
        assert_eq!(
            chosen(&[other.clone(), some(own.clone()), some(format!("{own}/v3")), some(format!("{own}x")), None]),
            [false, true, true, false, false]
        );
        assert_eq!(chosen(&[other, None]), [true, true]);
    }
}

//! What most cases need: an origin with an image, an engine, and Larder between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use larder_oci::Digest;
use larder_test_origin::{Access, Image, ImageSpec, Origin};
use tempfile::TempDir;

use crate::containerd::{Containerd, ContainerdOptions};
use crate::engine::{self, Engine};
use crate::larder::{Larder, LarderOptions};
use larder_test_parts::{EngineLine, Line};

/// One node, everything of which ends with it. Cases that mean nothing of one engine only have a `Node<dyn Engine>`.
pub struct Node<E: Engine + ?Sized = Containerd> {
    // In the order in which they are dropped: who uses something goes before it.
    /// Larder, on this node.
    pub larder: Larder,
    /// The engine.
    pub engine: Box<E>,
    /// The registry that references name.
    pub origin: Origin,
    /// What the registry holds as `team/app:v1`.
    pub image: Image,
    /// The case's folder.
    pub folder: TempDir,
}

/// The settings that make `origin` reachable for the proxy: it is on loopback, without TLS.
pub fn listed(origin: &Origin) -> String {
    format!("[registries.\"{}\"]\ninsecure = true\n", origin.registry())
}

/// A folder for one case, short because a socket's path may have 108 bytes only.
pub fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("ldr")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/tmp")?)
}

impl Node<dyn Engine> {
    /// An engine of any line, and an image of 300 kB.
    pub fn on(line: EngineLine) -> Result<Self> {
        Self::on_with_image(line, &ImageSpec::default())
    }

    /// With an image of this form.
    pub fn on_with_image(line: EngineLine, spec: &ImageSpec) -> Result<Self> {
        Self::on_with(line, spec, |_, _| Ok(LarderOptions::default()))
    }

    /// With options of Larder too; `prepare` sees engine and origin before it starts.
    pub fn on_with(
        line: EngineLine,
        spec: &ImageSpec,
        prepare: impl FnOnce(&(dyn Engine + 'static), &Origin) -> Result<LarderOptions>,
    ) -> Result<Self> {
        Self::around(spec, |folder| engine::start(line, folder), prepare)
    }
}

impl Node {
    /// An engine of `line` with one folder for hosts.toml, and an image of 300 kB.
    pub fn start(line: Line) -> Result<Self> {
        Self::with_image(line, &ImageSpec::default())
    }

    /// With an image of this form.
    pub fn with_image(line: Line, spec: &ImageSpec) -> Result<Self> {
        Self::with(line, ContainerdOptions::default(), spec, |_, _| Ok(LarderOptions::default()))
    }

    /// With everything chosen; `prepare` sees engine and origin before Larder starts. The origin is listed unless the options list something.
    pub fn with(
        line: Line,
        options: ContainerdOptions,
        spec: &ImageSpec,
        prepare: impl FnOnce(&Containerd, &Origin) -> Result<LarderOptions>,
    ) -> Result<Self> {
        Self::around(spec, |folder| Ok(Box::new(Containerd::start(line, folder, options)?)), prepare)
    }
}

impl<E: Engine + ?Sized> Node<E> {
    /// Around any engine, which `start` starts below the case's folder.
    pub fn around(
        spec: &ImageSpec,
        start: impl FnOnce(&Path) -> Result<Box<E>>,
        prepare: impl FnOnce(&E, &Origin) -> Result<LarderOptions>,
    ) -> Result<Self> {
        let folder = folder()?;
        let origin = Origin::start();
        let image = Image::build(spec);
        origin.push("team/app", "v1", &image);
        let engine = start(folder.path())?;
        let mut options = prepare(&engine, &origin)?;
        if options.registries.is_empty() {
            options.registries = listed(&origin);
        }
        let larder = Larder::start(&*engine, folder.path(), &options)?;
        Ok(Self { larder, engine, origin, image, folder })
    }

    /// `team/app:v1` of the origin.
    pub fn by_tag(&self) -> String {
        format!("{}/team/app:v1", self.origin.registry())
    }

    /// The same image by digest.
    pub fn by_digest(&self) -> String {
        self.digest_reference(&self.image.index)
    }

    /// Any image of that repository by digest.
    pub fn digest_reference(&self, digest: &Digest) -> String {
        format!("{}/team/app@{digest}", self.origin.registry())
    }

    /// Pulls by tag, so that it is in the cache, removes it from the engine and forgets what the origin was asked.
    pub fn warm(&self) -> Result<()> {
        self.warm_and_keep_log()?;
        self.origin.clear_log();
        Ok(())
    }

    /// The same, and does not forget.
    pub fn warm_and_keep_log(&self) -> Result<()> {
        self.engine.pull(&self.by_tag())?;
        self.wait_until_stored()?;
        self.engine.remove(&self.by_tag())
    }

    /// Waits until every blob of the host's platform is in the store: committed, not on its way.
    pub fn wait_until_stored(&self) -> Result<()> {
        crate::wait::until("every blob is in the store", Duration::from_secs(10), || {
            for digest in &self.image.host_platform().blobs {
                anyhow::ensure!(self.stored(digest).is_some(), "{digest} is not");
            }
            Ok(())
        })
    }

    /// The file of a blob in the store, when it is there.
    pub fn stored(&self, digest: &Digest) -> Option<PathBuf> {
        blob_in(&self.larder.store(), digest)
    }

    /// Requests that the origin saw from Larder, not from the engine itself.
    pub fn asked_by_larder(&self) -> usize {
        self.origin.log().iter().filter(|access| from_larder(access)).count()
    }

    /// Requests that the origin saw from the engine itself.
    pub fn asked_by_engine(&self) -> usize {
        self.origin
            .log()
            .iter()
            .filter(|access| {
                access.header("user-agent").is_some_and(|agent| agent.starts_with(self.engine.user_agent()))
            })
            .count()
    }
}

/// Whether a request came from Larder, not from an engine.
pub fn from_larder(access: &Access) -> bool {
    access.header("user-agent").is_some_and(|agent| agent.starts_with("larder"))
}

/// The file of a blob in a store's folder, when it is there.
pub fn blob_in(store: &Path, digest: &Digest) -> Option<PathBuf> {
    walkdir::WalkDir::new(store.join("blobs"))
        .into_iter()
        .flatten()
        .find(|entry| entry.file_type().is_file() && entry.file_name().to_str() == Some(digest.hex()))
        .map(walkdir::DirEntry::into_path)
}

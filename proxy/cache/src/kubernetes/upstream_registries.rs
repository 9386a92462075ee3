//! What UpstreamRegistry objects say, beside the registries file: merged with it as nodes merge theirs ([`larder_upstream_registries`]).
//!
//! Invariant: nobody waits for the API server. What was last known is in the folder of `--saved-keys`, from which a start takes it at once; without that folder
//! it is known until the process ends.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use larder_process::readiness::Readiness;
use larder_process::tasks::Tasks;
use larder_proxy::settings::{Settings, SettingsBeside};
use larder_upstream_registries::{Known, LARGEST_TEXT, Watching, condition, keep, merged};
use tokio::sync::watch;

use super::api_server::CONNECT;
use super::saved_folder::SavedFolder;

/// Where it is kept.
const FILE: &str = "upstream-registries.json";

/// Which rights it takes.
const RIGHTS: &str = "docs/cluster-cache-rights.yaml";

/// What is known, before anybody was asked.
#[derive(Debug)]
pub(crate) struct UpstreamRegistries {
    watching: Watching,
    folder: Option<SavedFolder>,
}

impl UpstreamRegistries {
    /// Reads what a process before this one knew. Blocks.
    pub(crate) fn open(folder: Option<SavedFolder>) -> Self {
        let known = folder.as_ref().and_then(read);
        Self { watching: Watching::new(known), folder }
    }

    /// For whoever pulls by it.
    pub(crate) fn settings(&self) -> Arc<dyn SettingsBeside> {
        Arc::new(OfObjects(Mutex::new(self.watching.known())))
    }

    /// Begins to follow the objects.
    pub(crate) fn start(self, tasks: &Tasks, readiness: &Readiness) {
        let Self { watching, folder } = self;
        let (known, reading) = (watching.known(), watching.reading());
        if let Some(folder) = folder {
            let shutdown = tasks.shutdown().clone();
            // A task of its own, for disks hang.
            tasks.spawn("last known registries", async move {
                let path = folder.path(FILE);
                let keeping = keep(known, reading, &path, move |known| write(&folder, known));
                shutdown.run_until_cancelled(keeping).await;
            });
        }
        let trouble = readiness.condition("upstream registries watch");
        tasks.spawn("upstream registries watch", watching.follow(trouble, RIGHTS, CONNECT, tasks.shutdown().clone()));
    }
}

fn read(folder: &SavedFolder) -> Option<Known> {
    let path = folder.path(FILE);
    let bytes = folder.read_large(FILE, LARGEST_TEXT).inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "what UpstreamRegistry objects said is not known until the API server says it");
    });
    let known = Known::of_text(&bytes.ok()??);
    known.inspect_err(|error| tracing::warn!(path = %path.display(), "{error}")).ok()
}

/// The file and the objects, as one.
#[derive(Debug)]
struct OfObjects(Mutex<watch::Receiver<Arc<Known>>>);

impl SettingsBeside for OfObjects {
    fn name(&self) -> &'static str {
        "upstream registries"
    }

    fn with(&self, file: &Settings) -> (Settings, Option<String>) {
        let known = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).borrow_and_update());
        let (settings, told) = merged(file, &known);
        (settings, condition(&told))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        // What `with` has seen this one has seen too.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            if known.changed().await.is_err() {
                // The process ends.
                std::future::pending::<()>().await;
            }
        })
    }
}

fn write(folder: &SavedFolder, known: &Known) -> io::Result<()> {
    folder.write(FILE, &known.to_text()?)
}

#[cfg(test)]
mod tests {
    use larder_oci::Registry;
    use larder_proxy::settings::RegistrySettings;
    use larder_upstream_registries::OfRegistry;

    use super::*;

    fn registry(name: &str) -> Registry {
        Registry::parse(name).unwrap()
    }

    #[test]
    fn what_was_last_known_is_in_force_before_anybody_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let saved = SavedFolder::new(&folder.path().join("saved"));
        assert_eq!(*UpstreamRegistries::open(None).watching.known().borrow(), Arc::new(Known::default()));
        assert!(
            !UpstreamRegistries::open(Some(saved.clone()))
                .settings()
                .with(&Settings::default())
                .0
                .lists(&registry("a.example"))
        );
        let said = vec![(registry("a.example"), OfRegistry::left_to_the_engine())];
        let known = Known { said, objects: 1, ..Known::default() };
        write(&saved, &known).unwrap();
        let settings = UpstreamRegistries::open(Some(saved.clone())).settings();
        let (both, wrong) = settings.with(&Settings::default());
        assert_eq!((both.registry(&registry("a.example")).skip, wrong), (true, None));
        // As on nodes: where both name a registry the file counts, and that is told.
        let by_file = RegistrySettings { insecure: true, ..RegistrySettings::default() };
        let file = Settings { registries: [(registry("a.example"), by_file.clone())].into(), ..Settings::default() };
        let (both, wrong) = settings.with(&file);
        assert_eq!(both.registry(&registry("a.example")), by_file);
        assert!(wrong.unwrap().contains("UpstreamRegistry of a.example"));
        saved.write(FILE, "damaged").unwrap();
        let (none, wrong) = UpstreamRegistries::open(Some(saved)).settings().with(&Settings::default());
        assert_eq!((none, wrong), (Settings::default(), None));
    }
}

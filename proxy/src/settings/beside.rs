//! Whoever says things of registries beside the file, and both as one.
//!
//! Invariant: what is in force is always what was last made of the two, whole. How they are merged is the other's business, who knows where its words come
//! from; here it is only seen to that a change of either is in force at once.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use larder_process::readiness::Condition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Settings, SettingsFile, SharedSettings};

/// Somebody who says things of registries beside the file, at any time.
pub trait SettingsBeside: fmt::Debug + Send + Sync + 'static {
    /// What they are called where it is told what is wrong with them.
    fn name(&self) -> &'static str;

    /// Everything, where the file says `file`; and what a person should mend.
    fn with(&self, file: &Settings) -> (Settings, Option<String>);

    /// Ends when [`SettingsBeside::with`] may say something else than it last did.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

/// Both.
#[derive(Debug)]
pub struct Joined {
    file: SharedSettings,
    file_changes: watch::Receiver<()>,
    /// Without a file nothing else keeps the channel open.
    _nothing: Option<watch::Sender<()>>,
    beside: Arc<dyn SettingsBeside>,
    shared: SharedSettings,
}

impl Joined {
    /// As they are now. Without a file its part is the defaults.
    pub fn new(file: Option<&SettingsFile>, beside: Arc<dyn SettingsBeside>) -> Self {
        let (file, file_changes, nothing) = if let Some(file) = file {
            (file.shared(), file.changes(), None)
        } else {
            let (sender, receiver) = watch::channel(());
            (Settings::default().shared(), receiver, Some(sender))
        };
        let shared = beside.with(&file.load()).0.shared();
        Self { file, file_changes, _nothing: nothing, beside, shared }
    }

    /// What they are called.
    pub fn name(&self) -> &'static str {
        self.beside.name()
    }

    /// What is in force, which [`Joined::follow`] replaces.
    pub fn shared(&self) -> SharedSettings {
        Arc::clone(&self.shared)
    }

    /// Follows both until `shutdown`. Never fails.
    pub async fn follow(mut self, condition: Condition, shutdown: CancellationToken) {
        loop {
            self.join(&condition);
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.file_changes.changed() => if changed.is_err() {
                    // Nobody follows the file any more: the process ends.
                    return shutdown.cancelled().await;
                },
                () = self.beside.changed() => {}
            }
        }
    }

    fn join(&self, condition: &Condition) {
        let (settings, wrong) = self.beside.with(&self.file.load());
        if settings != **self.shared.load() {
            tracing::info!(registries = settings.registries.len(), "{} are in force", self.name());
            self.shared.store(Arc::new(settings));
        }
        match wrong {
            None => drop(condition.clear()),
            Some(wrong) => {
                if condition.set(wrong.clone()) {
                    tracing::error!("{}: {wrong}", self.name());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use larder_oci::Registry;
    use larder_process::readiness::Readiness;

    use super::super::RegistrySettings;
    use super::super::tests::until;
    use super::*;
    use crate::metrics::Metrics;

    /// Says of one registry that it is skipped, where the file says nothing of it.
    #[derive(Debug)]
    struct Skipping(Mutex<watch::Receiver<&'static str>>);

    impl SettingsBeside for Skipping {
        fn name(&self) -> &'static str {
            "the others' words"
        }

        fn with(&self, file: &Settings) -> (Settings, Option<String>) {
            let name = *self.0.lock().unwrap().borrow_and_update();
            let Ok(registry) = Registry::parse(name) else { return (file.clone(), Some(format!("{name:?}"))) };
            let mut settings = file.clone();
            settings
                .registries
                .entry(registry)
                .or_insert(RegistrySettings { skip: true, ..RegistrySettings::default() });
            (settings, None)
        }

        fn changed(&self) -> BoxFuture<'_, ()> {
            let mut receiver = self.0.lock().unwrap().clone();
            Box::pin(async move {
                if receiver.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        }
    }

    #[tokio::test]
    async fn a_change_of_either_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.toml");
        std::fs::write(&path, "").unwrap();
        let file = SettingsFile::open(&path).unwrap();
        let (words, receiver) = watch::channel("a.example");
        let joined = Joined::new(Some(&file), Arc::new(Skipping(Mutex::new(receiver))));
        let shared = joined.shared();
        let is_skipped = |name: &str| shared.load().registry(&Registry::parse(name).unwrap()).skip;
        assert!(is_skipped("a.example"), "before anybody is served");

        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let following = tokio::spawn(joined.follow(readiness.condition("beside"), shutdown.clone()));
        let metrics = Arc::new(Metrics::new());
        let of_file = tokio::spawn(file.follow(readiness.condition("file"), metrics, shutdown.clone()));
        words.send("b.example").unwrap();
        until("other words count", || is_skipped("b.example") && !is_skipped("a.example")).await;
        std::fs::write(&path, "[registries.\"b.example\"]\ninsecure = true").unwrap();
        until("the file counts", || !is_skipped("b.example")).await;
        words.send("://").unwrap();
        until("what is wrong shows", || readiness.report().to_string().contains("beside: \"://\"")).await;
        assert!(shared.load().lists(&Registry::parse("b.example").unwrap()), "the file stays in force");
        words.send("c.example").unwrap();
        until("what was mended counts", || is_skipped("c.example") && readiness.report().lines.is_empty()).await;
        // Nobody says anything any more.
        drop(words);
        std::fs::write(&path, "").unwrap();
        until("the file still counts", || !shared.load().lists(&Registry::parse("b.example").unwrap())).await;
        assert!(is_skipped("c.example"));
        shutdown.cancel();
        following.await.unwrap();
        of_file.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_file_there_are_only_the_others_words() {
        let (words, receiver) = watch::channel("a.example");
        let joined = Joined::new(None, Arc::new(Skipping(Mutex::new(receiver))));
        let shared = joined.shared();
        let shutdown = CancellationToken::new();
        let following = tokio::spawn(joined.follow(Readiness::new().condition("beside"), shutdown.clone()));
        words.send("b.example").unwrap();
        until("other words count", || shared.load().lists(&Registry::parse("b.example").unwrap())).await;
        assert_eq!(shared.load().registries.len(), 1);
        shutdown.cancel();
        following.await.unwrap();
    }
}

//! What is to be pinned yet, in a file: `LOOKS REGISTRY/REPOSITORY@DIGEST`, one a line. A restart goes on with it.
//!
//! Replaced as a whole. It need not survive a power cut, and a line that cannot be read is worth no more than a use that was not noted.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_oci::ImageReference;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::{Image, MOST};
use crate::store::Name;

/// Longer than a line for each of [`MOST`] images.
const LARGEST: u64 = 8 << 20;

/// A disk that takes longer is left alone: pins are more than this file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Before that nothing is written: it would take the place of what an earlier process left.
    is_read: AtomicBool,
    written: Arc<Mutex<Option<String>>>,
    /// A write that did not end in time.
    late: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, is_read: AtomicBool::default(), written: Arc::default(), late: tokio::sync::Mutex::default() }
    }

    /// What an earlier process left.
    pub(super) async fn read(&self) -> Vec<(Image, u32)> {
        let path = self.path.clone();
        let reading = timeout(PATIENCE, spawn_blocking(move || read(&path))).await;
        self.is_read.store(matches!(reading, Ok(Ok(_))), Ordering::Relaxed);
        match reading {
            Ok(Ok(Ok(text))) => text.lines().filter_map(parsed).take(MOST).collect(),
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Ok(Ok(Err(error))) => {
                tracing::warn!(path = %self.path.display(), %error, "what was to be pinned before the start cannot be read");
                Vec::new()
            }
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// Writes what is to be pinned, if that is not what is there.
    pub(super) async fn write(&self, noted: &HashMap<Image, u32>) {
        if !self.is_read.load(Ordering::Relaxed) {
            return;
        }
        let mut late = self.late.lock().await;
        if late.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let text = rendered(noted);
        let is_there = self.written.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&text);
        if is_there {
            return;
        }
        let (path, written) = (self.path.clone(), Arc::clone(&self.written));
        let mut writing = spawn_blocking(move || match replace(&path, &text) {
            Ok(()) => *written.lock().unwrap_or_else(PoisonError::into_inner) = Some(text),
            // The store's own health says what is wrong with the disk.
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "what is to be pinned yet cannot be written down");
            }
        });
        *late = if timeout(PATIENCE, &mut writing).await.is_err() { Some(writing) } else { None };
    }
}

fn rendered(noted: &HashMap<Image, u32>) -> String {
    let mut lines: Vec<String> =
        noted.iter().map(|((name, digest), looks)| format!("{looks} {name}@{digest}")).collect();
    lines.sort_unstable();
    lines.iter().fold(String::new(), |mut text, line| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line}");
        text
    })
}

fn parsed(line: &str) -> Option<(Image, u32)> {
    let (looks, image) = line.split_once(' ')?;
    let image = ImageReference::parse(image).ok()?;
    let name = Name { registry: image.registry, repository: image.repository };
    Some(((name, image.digest?), looks.parse().ok()?))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use larder_oci::{Algorithm, Digest};

    use super::*;
    use crate::fetch::testing::name;

    #[tokio::test]
    async fn it_is_read_as_it_was_written_and_what_is_damaged_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        let journal = || Journal::new(path.clone());
        assert!(journal().read().await.is_empty());
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let noted = HashMap::from([((name("team/app"), digest("one")), 0), ((name("other"), digest("two")), 7)]);
        let first = journal();
        first.write(&noted).await;
        assert!(!path.exists(), "it was not read yet");
        first.read().await;
        first.write(&noted).await;
        let second = journal();
        assert_eq!(second.read().await.into_iter().collect::<HashMap<_, _>>(), noted);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("\n0\n0 reg.example.com/app:1\nx reg.example.com/app\n{text}3 cut@sha256:ab"))
            .unwrap();
        assert_eq!(journal().read().await.into_iter().collect::<HashMap<_, _>>(), noted);
        second.write(&HashMap::new()).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

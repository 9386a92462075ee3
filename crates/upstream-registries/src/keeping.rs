//! Has it written down what the API server said. Where, and how, whoever calls it knows.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::{Known, Reading};

/// After it could not be written.
const AGAIN: Duration = Duration::from_mins(1);

/// Has `write` write down what is known, whenever that is something new, and again where it could not; `path` is where, for a person. What comes from the disk
/// is not written there again. Never ends. `write` blocks for as long as a disk hangs: this is for a task of its own.
pub async fn keep<Write, Error>(
    mut known: watch::Receiver<Arc<Known>>,
    reading: Reading,
    path: &Path,
    write: Write,
) -> std::convert::Infallible
where
    Write: Fn(&Known) -> Result<(), Error> + Send + Sync + 'static,
    Error: Display + Send + 'static,
{
    let write = Arc::new(write);
    let mut is_kept = true;
    loop {
        let now = Arc::clone(&known.borrow_and_update());
        if reading.has_read() {
            let write = Arc::clone(&write);
            let written = tokio::task::spawn_blocking(move || write(&now)).await;
            let error = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(error) => Some(error.to_string()),
            };
            let was_kept = std::mem::replace(&mut is_kept, error.is_none());
            if let Some(error) = error.filter(|_| was_kept) {
                tracing::warn!(
                    path = %path.display(), error,
                    "what UpstreamRegistry objects say is known until this process ends only; it is tried again each minute"
                );
            }
        }
        tokio::select! {
            changed = known.changed() => if changed.is_err() {
                // The process ends.
                return std::future::pending().await;
            },
            () = tokio::time::sleep(AGAIN), if !is_kept => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A disk, and whether it is full.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<usize>)>>);

    impl Disk {
        fn write(&self, known: &Known) -> Result<(), String> {
            let mut disk = self.0.lock().unwrap();
            disk.1.push(known.objects);
            if disk.0 { Err("it is full".to_owned()) } else { Ok(()) }
        }

        fn is_full(&self, is_full: bool) {
            self.0.lock().unwrap().0 = is_full;
        }

        /// How many objects there were, each time that somebody wrote.
        fn written(&self) -> Vec<usize> {
            self.0.lock().unwrap().1.clone()
        }
    }

    fn known(objects: usize) -> Arc<Known> {
        Arc::new(Known { objects, ..Known::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn the_api_servers_word_is_written_down_and_again_where_it_could_not_be() {
        let (sender, receiver) = watch::channel(known(1));
        let (reading, disk) = (Reading::new(true), Disk::default());
        let (keeping, to) = (reading.clone(), disk.clone());
        let kept = keep(receiver, keeping, Path::new("/known.json"), move |known| to.write(known));
        let mut kept = std::pin::pin!(kept);
        let mut within = async |time| {
            tokio::time::timeout(time, &mut kept).await.unwrap_err();
        };
        within(AGAIN * 2).await;
        assert_eq!(disk.written(), [0; 0], "it comes from there");
        sender.send_replace(known(2));
        within(AGAIN * 2).await;
        assert_eq!(disk.written(), [0; 0], "nobody has heard the API server");

        reading.read();
        sender.send_replace(known(3));
        within(AGAIN * 5).await;
        assert_eq!(disk.written(), [3]);

        disk.is_full(true);
        sender.send_replace(known(4));
        within(AGAIN * 2 + AGAIN / 2).await;
        assert_eq!(disk.written(), [3, 4, 4, 4]);
        disk.is_full(false);
        within(AGAIN * 5).await;
        assert_eq!(disk.written(), [3, 4, 4, 4, 4], "until it could");
    }
}

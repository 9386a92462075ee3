//! Real disks that are full, read-only, or frozen. Mounting needs root.

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::store::StoreHealth;
use crate::store::conformance::content;

/// A mounted file system; unmounted when dropped.
struct Mounted {
    at: PathBuf,
    frozen: bool,
    _folder: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{program}: {said}"))
}

impl Mounted {
    fn tmpfs(options: &str) -> Result<Self, String> {
        let (folder, at) = Self::folder();
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()])?;
        Ok(Self { at, frozen: false, _folder: folder })
    }

    fn ext4() -> Result<Self, String> {
        let (folder, at) = Self::folder();
        let image = folder.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", image.to_str().unwrap()])?;
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])?;
        Ok(Self { at, frozen: false, _folder: folder })
    }

    fn folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("mounted");
        std::fs::create_dir(&at).unwrap();
        (folder, at)
    }

    fn remount(&self, option: &str) {
        run("mount", &["-o", &format!("remount,{option}"), self.at.to_str().unwrap()]).unwrap();
    }

    fn freeze(&mut self, frozen: bool) {
        run("fsfreeze", &[if frozen { "-f" } else { "-u" }, self.at.to_str().unwrap()]).unwrap();
        self.frozen = frozen;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.frozen {
            self.freeze(false);
        }
        let _ = run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_turns_caching_off_and_on() {
    let mounted = match Mounted::tmpfs("size=8m") {
        Ok(mounted) => mounted,
        Err(reason) => return skipped("a_full_disk_turns_caching_off_and_on", &reason),
    };
    let store = DirectoryStore::open(config(&mounted.at)).unwrap();
    let _running = background(&store);
    let held = put(&store, &content(1, 3 << 20)).await.unwrap();
    let stranger = mounted.at.join("stranger");
    std::fs::write(&stranger, content(2, 3 << 20)).unwrap();
    let mut partial = store.create(&sha256(b"endless"), None).await.unwrap();
    let chunk = content(3, 256 << 10);
    let mut written = 0;
    let error = loop {
        match partial.append(&chunk) {
            Ok(()) => written += chunk.len() as u64,
            Err(error) => break error,
        }
        assert!(written < 8 << 20);
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!((partial.written(), partial.file().metadata().unwrap().len()), (written, written));
    assert_eq!(store.health(), StoreHealth::Full);
    assert!(matches!(store.create(&sha256(b"other"), None).await, Err(StoreError::Full { .. })));
    assert!(store.blob(&sha256(&content(1, 3 << 20))).await.unwrap().is_some(), "reading goes on");
    std::fs::remove_file(stranger).unwrap();
    until("there is room again", || store.health() == StoreHealth::Ok).await;
    partial.append(&chunk).unwrap();
    drop((partial, held));
    // Now it makes room by itself.
    for seed in 10..20 {
        drop(put(&store, &content(seed, 2 << 20)).await.unwrap());
    }
    assert!(store.stats().evicted_blobs > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_stays_free_for_others() {
    let mounted = match Mounted::tmpfs("size=8m") {
        Ok(mounted) => mounted,
        Err(reason) => return skipped("room_stays_free_for_others", &reason),
    };
    let config = DirectoryConfig { reserve: Reserve::Percent(25), ..config(&mounted.at) };
    let store = DirectoryStore::open(config).unwrap();
    let _running = background(&store);
    for seed in 0..20 {
        drop(put(&store, &content(seed, 1 << 20)).await.unwrap());
        let available = store.shared.folder.room().unwrap().available;
        // Records of a few hundred bytes are not made room for: the margin above kubelet's bounds is there for them.
        assert!(available >= (2 << 20) - (64 << 10), "{available} after {seed}");
    }
    // Others take what they like: the store gives way, and stops caching when it has nothing left to give.
    let mut stranger = std::fs::File::create(mounted.at.join("stranger")).unwrap();
    for seed in 0..26 {
        std::io::Write::write_all(&mut stranger, &content(seed, 256 << 10)).unwrap();
        if seed < 20 {
            until("it gave way", || store.shared.folder.room().unwrap().available >= (2 << 20) - (64 << 10)).await;
        }
    }
    until("it has given up", || store.health() == StoreHealth::Full).await;
    drop(stranger);
    std::fs::remove_file(mounted.at.join("stranger")).unwrap();
    until("there is room again", || store.health() == StoreHealth::Ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_read() {
    let mounted = match Mounted::tmpfs("size=8m") {
        Ok(mounted) => mounted,
        Err(reason) => return skipped("a_read_only_disk_is_read", &reason),
    };
    let bytes = content(1, 100_000);
    let store = DirectoryStore::open(config(&mounted.at)).unwrap();
    drop(put(&store, &bytes).await.unwrap());
    drop(store);
    mounted.remount("ro");
    let store = DirectoryStore::open(config(&mounted.at)).expect("there is something to read");
    let _running = background(&store);
    assert_eq!(store.blob(&sha256(&bytes)).await.unwrap().unwrap().len(), 100_000);
    let refused = store.put_bytes(&sha256(b"x"), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    assert_eq!(store.health(), StoreHealth::ReadOnly);
    assert!(store.blob(&sha256(&bytes)).await.unwrap().is_some());
    mounted.remount("rw");
    until("it can be written again", || store.health() == StoreHealth::Ok).await;
    store.put_bytes(&sha256(b"x"), Bytes::from_static(b"x")).await.unwrap();
}

#[test]
fn a_read_only_disk_without_a_store_says_so() {
    let mounted = match Mounted::tmpfs("size=8m,ro") {
        Ok(mounted) => mounted,
        Err(reason) => return skipped("a_read_only_disk_without_a_store_says_so", &reason),
    };
    let refused = DirectoryStore::open(config(&mounted.at)).unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused:?}");
}

/// What the test hook in `gate` plays, done by a real file system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_file_system_holds_nobody_up() {
    let mut mounted = match Mounted::ext4() {
        Ok(mounted) => mounted,
        Err(reason) => return skipped("a_frozen_file_system_holds_nobody_up", &reason),
    };
    let config = DirectoryConfig {
        answer_within: Duration::from_millis(200),
        durable_within: Duration::from_millis(500),
        ..config(&mounted.at)
    };
    let store = DirectoryStore::open(config).unwrap();
    let _running = background(&store);
    let bytes = content(1, 1 << 20);
    let mut partial = store.create(&sha256(&bytes), None).await.unwrap();
    partial.append(&bytes[..1000]).unwrap();
    mounted.freeze(true);
    let writing = {
        let rest = bytes.slice(1000..);
        tokio::task::spawn_blocking(move || {
            partial.append(&rest).unwrap();
            partial
        })
    };
    until("it is noticed", || store.health() == StoreHealth::NotAnswering).await;
    let refused = store.put_bytes(&sha256(b"x"), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(StoreError::NotAnswering { .. })), "{refused:?}");
    mounted.freeze(false);
    let partial = writing.await.unwrap();
    until("it answers again", || store.health() == StoreHealth::Ok).await;
    drop(partial.commit(Checksums::of(&bytes)).unwrap());
    assert_eq!(store.blob(&sha256(&bytes)).await.unwrap().unwrap().len(), 1 << 20);
}

//! Which folders are opened, by whom, and with which rights.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use super::*;
use crate::store::conformance::content;
use crate::store::directory::Owner;

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = folder();
    let bytes = content(1, 10_000);
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    drop(put(&store, &bytes).await.unwrap());
    let mut partial = store.create(&sha256(b"later"), None).await.unwrap();
    partial.append(b"la").unwrap();
    drop((partial, store));
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    assert_eq!(store.blob(&sha256(&bytes)).await.unwrap().unwrap().len(), 10_000);
    assert_eq!(store.create(&sha256(b"later"), None).await.unwrap().existing(), 2);
    let _running = background(&store);
    until("the blobs are counted", || store.stats().counted).await;
    assert_eq!((store.stats().blobs, store.stats().bytes), (1, 12_288));
}

#[test]
fn a_newer_layout_is_refused() {
    let folder = folder();
    drop(DirectoryStore::open(config(folder.path())).unwrap());
    std::fs::write(folder.path().join("version"), r#"{"version":2,"more":"than we know"}"#).unwrap();
    let refused = DirectoryStore::open(config(folder.path())).unwrap_err();
    assert!(matches!(refused, StoreError::NewerLayout { found: 2, known: 1, .. }), "{refused:?}");
    assert!(refused.to_string().contains("layout version 2"), "{refused}");
    for nonsense in ["", "1", r#"{"version":0}"#, "{\"version\":"] {
        std::fs::write(folder.path().join("version"), nonsense).unwrap();
        let refused = DirectoryStore::open(config(folder.path())).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{nonsense:?}: {refused:?}");
    }
}

#[test]
fn somebody_elses_folder_is_left_alone() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
    let refused = DirectoryStore::open(config(folder.path())).unwrap_err();
    assert!(matches!(&refused, StoreError::NotAStore { entry, .. } if entry == "thesis.tex"), "{refused:?}");
    assert_eq!(files_below(folder.path(), ".").len(), 1);
    std::fs::remove_file(folder.path().join("thesis.tex")).unwrap();
    DirectoryStore::open(config(folder.path())).expect("a new volume is nobody's");
}

#[test]
fn a_store_has_one_process() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let refused = DirectoryStore::open(config(folder.path())).unwrap_err();
    assert!(
        matches!(refused, StoreError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{refused:?}"
    );
    assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())), "{refused}");
    drop(store);
    DirectoryStore::open(config(folder.path())).expect("its lock went with it");
}

#[test]
fn what_a_crash_left_behind_is_cleaned() {
    let folder = folder();
    drop(DirectoryStore::open(config(folder.path())).unwrap());
    let orphan = format!("partial/sha256-{}.json", sha256(b"orphan").hex());
    let unfinished = format!("partial/sha256-{}", sha256(b"unfinished").hex());
    for (path, text) in [("temporary/7", "half a rec"), (&orphan, "{}"), (&unfinished, "un"), ("partial/strange", "?")]
    {
        std::fs::write(folder.path().join(path), text).unwrap();
    }
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    assert_eq!(files_below(folder.path(), "temporary"), []);
    assert_eq!(files_below(folder.path(), "partial"), [(unfinished, 2)]);
    assert_eq!(store.stats().partials, 1);
}

/// Run by [`only_the_folder_itself_is_needed`] in a process of its own: it changes into the store, opens it, gives up root
/// and its working directory, and goes on.
#[test]
#[ignore = "a child of another test"]
fn child_without_rights() {
    let Some(root) = std::env::var_os("LARDER_TEST_STORE") else {
        return skipped("child_without_rights", "run by its parent only");
    };
    let wanted = Owner { uid: 65_534, gid: 65_534 };
    std::env::set_current_dir(root).unwrap();
    let store = DirectoryStore::open(DirectoryConfig { owner: Some(wanted), ..config(Path::new(".")) }).unwrap();
    std::env::set_current_dir("/").unwrap();
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setgid(wanted.gid.into()).unwrap();
    nix::unistd::setuid(wanted.uid.into()).unwrap();
    assert!(std::fs::read_dir(std::env::var_os("LARDER_TEST_STORE").unwrap()).is_err(), "the path is closed to us now");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _running = background(&store);
        let earlier = content(1, 5000);
        assert_eq!(store.blob(&sha256(&earlier)).await.unwrap().expect("what root stored").len(), 5000);
        let bytes = content(2, 100_000);
        drop(put(&store, &bytes).await.unwrap());
        store.put_bytes(&sha256(b"small"), Bytes::from_static(b"small")).await.unwrap();
        let name =
            crate::store::Name { registry: "reg.example.com".parse().unwrap(), repository: "a/b".parse().unwrap() };
        let record = crate::store::TagRecord { digest: sha256(&bytes), checked_at: UNIX_EPOCH };
        store.put_tag(&name, &"v1".parse().unwrap(), record).await.unwrap();
        until("the blobs are counted", || store.stats().counted).await;
        assert_eq!(store.stats().blobs, 3);
        store.remove_damaged(&sha256(&earlier)).await.unwrap();
        assert!(store.blob(&sha256(&earlier)).await.unwrap().is_none());
        assert_eq!(store.health(), crate::store::StoreHealth::Ok);
    });
}

#[tokio::test]
async fn only_the_folder_itself_is_needed() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only_the_folder_itself_is_needed", "needs root, to give it up");
    }
    let above = folder();
    let root = above.path().join("store");
    std::fs::set_permissions(above.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    // It belonged to root before: all that is in it has to change hands.
    let store = DirectoryStore::open(config(&root)).unwrap();
    drop(put(&store, &content(1, 5000)).await.unwrap());
    drop(store);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "store::directory::tests::opening::child_without_rights"])
        .env("LARDER_TEST_STORE", &root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert_eq!(root.metadata().unwrap().uid(), 65_534);
}

//! What lies in the bucket is what the documentation says, and a bucket of somebody else is left alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_proxy::store::{Store as _, StoreError};
use larder_test_bucket::{Fault, Kind};

use crate::world::{Case, Replica, World, content, link, name, sha256, until};

pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    // MinIO's files are its own.
    if kind != Kind::Versitygw {
        return Vec::new();
    }
    vec![
        ("objects_lie_where_the_documentation_says", |world| Box::pin(objects(world))),
        ("without_checksums_nothing_leaves_before_all_is_verified", |world| Box::pin(no_checksums(world))),
        ("a_newer_version_is_refused_and_so_is_what_is_not_ours", |world| Box::pin(versions(world))),
    ]
}

fn only_entry(folder: &Path) -> PathBuf {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{}", folder.display());
    entries[0].clone()
}

async fn objects(world: World) {
    let world = world.fresh();
    let (large, small) = (content(200, 10 << 20), content(201, 2_000));
    let replica = world.replica().await;
    replica.put(&large).await;
    replica.store.put_bytes(&sha256(&small), small.clone()).await.unwrap();
    replica.store.put_link(&name("team/app"), link(&sha256(&small))).await.unwrap();
    let root = world.server().objects().join(world.prefix());
    assert_eq!(std::fs::read(root.join("version")).unwrap(), b"{\"version\":1}");
    for bytes in [&large, &small] {
        let object = only_entry(&root.join("blobs/sha256").join(sha256(bytes).hex()));
        assert!(std::fs::read(object).unwrap() == *bytes, "an object is the blob's bytes and nothing else");
    }
    let of_large = format!("blobs/sha256/{}", sha256(&large).hex());
    let generation = only_entry(&root.join(&of_large));
    let checksums = only_entry(&root.join(of_large.replace("blobs", "checksums")));
    assert_eq!(checksums.file_name(), generation.file_name());
    assert!(!root.join("checksums/sha256").join(sha256(&small).hex()).exists());
    let record = format!("clusters/one/links/reg.example.com/team/app/_/sha256-{}", sha256(&small).hex());
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(root.join(record)).unwrap()).unwrap();
    assert_eq!((record["version"].as_u64(), record["repository"].as_str()), (Some(1), Some("team/app")));
    let uploads = std::fs::read_dir(root.join("uploads")).map_or(0, Iterator::count);
    assert_eq!(uploads, 0, "no upload is under way");
}

async fn no_checksums(world: World) {
    let world = world.fresh();
    let bytes = content(210, 6 << 20);
    let digest = sha256(&bytes);
    let writer = world.replica().await;
    writer.put(&bytes).await;
    assert!(writer.until_kept(&digest, Duration::from_mins(2)).await, "waited in vain: the bucket has it");
    drop(writer);
    let checksums = world.server().objects().join(world.prefix()).join("checksums");
    std::fs::remove_dir_all(checksums).unwrap();
    let faults = world.faults();
    let reader = world.replica_with(|config| {
        config.endpoint = Some(world.behind(&faults));
        // However slowly it comes, nobody gives it up.
        config.first_bytes_within = Duration::from_mins(1);
        config.silence = Duration::from_mins(1);
    });
    let reader = reader.await;
    // It cannot arrive before we say so.
    faults.set(Fault::Slow(64 << 10));
    assert!(reader.get(&digest).await.is_none(), "whoever cannot wait turns elsewhere");
    // It is still coming: nobody else is to wait for it in vain, at the origin's expense.
    let is_left_out = async || reader.store.blob(&digest).await.unwrap().is_none();
    assert!(until(Duration::from_mins(1), is_left_out).await, "waited in vain: it is seen that it has no checksums");
    faults.set(Fault::None);
    assert!(
        until(Duration::from_mins(1), async || reader.whole(&digest).await.is_some_and(|got| got == bytes)).await,
        "waited in vain: the reader finds it"
    );
}

async fn versions(world: World) {
    let world = world.fresh();
    let root = world.server().objects().join(world.prefix());
    std::fs::create_dir_all(&root).unwrap();
    for (text, wanted) in
        [("{\"version\":2}", "version 2"), ("hello", "prefix of its own"), ("{\"version\":0}", "never was")]
    {
        std::fs::write(root.join("version"), text).unwrap();
        let (config, copies) = world.config("one");
        let error = Replica::open(config, copies).await.map(|_| ()).unwrap_err();
        assert_eq!(matches!(error, StoreError::NewerLayout { found: 2, .. }), text.contains('2'));
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(std::fs::read_to_string(root.join("version")).unwrap(), text, "nothing was changed");
    }
    std::fs::write(root.join("version"), "{\"version\":1}").unwrap();
    let (config, copies) = world.config("one");
    Replica::open(config, copies).await.unwrap();
}

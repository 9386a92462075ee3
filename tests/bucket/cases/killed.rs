//! A process that is killed while it uploads, and one that uploads the same blob at the same time.

use std::process::{Command, ExitCode};
use std::time::Duration;

use larder_proxy::store::Store as _;
use larder_proxy::store::bucket::Operation;
use larder_test_bucket::{Fault, Kind};

use crate::world::{Case, Replica, World, configured, content, sha256, until};

const CHILD: &str = "LARDER_TEST_UPLOADS_TO";
const LENGTH: usize = 40 << 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("nothing_of_a_killed_upload_is_ever_a_blob", |world| Box::pin(killed(world))),
        ("two_processes_may_upload_one_blob", |world| Box::pin(together(world))),
    ]
}

/// In the process that is to be killed: uploads, and says when it is done.
pub(crate) fn child() -> Option<ExitCode> {
    let (endpoint, bucket) = std::env::var(CHILD).ok()?.split_once(' ').map(|(e, p)| (e.to_owned(), p.to_owned()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let copies = tempfile::tempdir().unwrap();
        let config = configured(&bucket, &endpoint, "one", &copies);
        let replica = Replica::open(config, copies).await.unwrap();
        replica.put(&content(300, LENGTH)).await;
        assert!(replica.store.keeps(&sha256(&content(300, LENGTH))).await.unwrap());
    });
    Some(ExitCode::SUCCESS)
}

fn start(endpoint: &str, world: &World) -> std::process::Child {
    let this = std::env::current_exe().unwrap();
    Command::new(this).env(CHILD, format!("{endpoint} {}", world.bucket())).spawn().unwrap()
}

async fn killed(world: World) {
    let world = world.fresh();
    let digest = sha256(&content(300, LENGTH));
    let observer = world.replica_with(|config| {
        config.upload_age = Duration::ZERO;
        config.removal.alone = Duration::ZERO;
    });
    let observer = observer.await;
    let faults = world.faults();
    faults.set(Fault::SlowUp(10 << 20));
    let mut child = start(&world.behind(&faults), &world);
    // Some of its parts are on their way, or there.
    assert!(until(Duration::from_secs(30), async || faults.touched() > 60).await, "waited in vain: parts are uploaded");
    assert!(child.try_wait().unwrap().is_none(), "it is still at it");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(faults);

    assert!(!observer.store.keeps(&digest).await.unwrap());
    assert!(observer.store.blob(&digest).await.unwrap().is_none());
    assert_eq!(observer.store.sweep().await.unwrap(), 0, "nobody can tell that it does not go on");
    assert_eq!(observer.store.expire_uploads().await.unwrap(), 1, "what it left is found and given up");
    assert_eq!(observer.store.expire_uploads().await.unwrap(), 0);
    // Azure has no word for it, and lets parts go after a week.
    let given_up = u64::from(world.kind() != Kind::Azurite);
    assert_eq!(observer.requests(Operation::Abort), given_up);
    assert_eq!(observer.store.sweep().await.unwrap(), 1, "its checksums");
    assert_eq!(observer.store.sweep().await.unwrap(), 0);
    assert!(!observer.store.keeps(&digest).await.unwrap());
    observer.put(&content(300, LENGTH)).await;
    assert!(observer.store.keeps(&digest).await.unwrap());
    assert_eq!(observer.store.sweep().await.unwrap(), 0, "those of a blob that came stay");
}

async fn together(world: World) {
    let world = world.fresh();
    let digest = sha256(&content(300, LENGTH));
    let mut children = [0; 2].map(|_| start(&world.server().endpoint(), &world));
    for child in &mut children {
        let ended = until(Duration::from_mins(2), async || child.try_wait().unwrap().is_some()).await;
        if !ended {
            child.kill().unwrap();
        }
        assert!(child.wait().unwrap().success(), "both uploads end well: {ended}");
    }
    assert!(world.replica().await.whole(&digest).await.unwrap() == content(300, LENGTH));
}

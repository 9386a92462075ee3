//! More records than anybody wants in memory.

use larder_proxy::store::MAXIMUM_LISTED_TAGS;
use larder_proxy::store::Store as _;
use larder_proxy::store::bucket::Operation;
use larder_test_bucket::Kind;

use crate::world::{Case, World, name};

pub(crate) fn cases(kind: Kind) -> Vec<Case> {
    // Records are made as files, beside the server: asking it for each would take minutes.
    match kind {
        Kind::Versitygw => vec![(NAME, |world| Box::pin(many(world)))],
        Kind::Minio | Kind::FakeGcs | Kind::Azurite => Vec::new(),
    }
}

const NAME: &str = "many_records_are_not_read_into_memory";

/// Set where nothing else runs in the process, whose memory would be measured with it.
const ALONE: &str = "LARDER_TEST_ALONE";

/// Of which only the first are wanted. `LARDER_TEST_RECORDS` says another number.
const RECORDS: usize = 20_000;

/// The most memory that this process ever held, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

async fn many(world: World) {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().unwrap();
        let mut alone = tokio::process::Command::new(this);
        alone
            .args(["--exact", &format!("versitygw::{NAME}")])
            .env(ALONE, "1")
            .env("LARDER_BUCKET_SERVERS", "versitygw");
        alone.kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_mins(5), alone.output()).await;
        let output = output.expect("waited in vain: the process of its own ends").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let world = world.fresh();
    let replica = world.replica().await;
    let folder = world.server().objects().join(world.prefix()).join("clusters/one/tags/reg.example.com/many/_");
    std::fs::create_dir_all(&folder).unwrap();
    let records = std::env::var("LARDER_TEST_RECORDS").map_or(RECORDS, |number| number.parse().unwrap());
    for number in 0..records {
        std::fs::write(folder.join(format!("v{number:06}")), b"{}").unwrap();
    }
    let (before, lists) = (resident(), replica.requests(Operation::List));
    let tags = replica.store.tags(&name("many")).await.unwrap();
    assert_eq!(tags.len(), MAXIMUM_LISTED_TAGS);
    assert!(tags.iter().enumerate().all(|(number, tag)| tag.as_str() == format!("v{number:06}")));
    let pages = replica.requests(Operation::List) - lists;
    assert!(pages <= 11, "{pages} pages for what is wanted, not for what there is");
    let grown = resident() - before;
    assert!(grown < 8, "{grown} MiB more at its highest");
}

//! SIGKILL at any moment, many times: no wrong byte is ever found, and what is left behind does not grow.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::*;
use crate::store::conformance::content;
use crate::store::{CHUNK, Link, Name, PartialOrigin, TagRecord};

const KILLS: u64 = 60;
const KILL_LIMIT: u64 = 3 << 20;
const PARTIALS: usize = 8;
/// Assemblies and small writes that the child has under way at a time.
const WRITERS: u64 = 6;

fn kill_config(root: &Path) -> DirectoryConfig {
    DirectoryConfig {
        limit: Some(KILL_LIMIT),
        maximum_partials: PARTIALS,
        sweep_every: Duration::from_millis(20),
        scrub_rate: 1 << 30,
        ..config(root)
    }
}

fn name(number: u64) -> Name {
    Name {
        registry: "reg.example.com".parse().unwrap(),
        repository: format!("r{}/x{}", number % 5, number % 7).parse().unwrap(),
    }
}

fn bytes_of(number: u64) -> Bytes {
    content(number, usize::try_from(number % 13).unwrap() * 25_000 + 300)
}

async fn write(store: Arc<DirectoryStore>, start: u64) {
    for number in start.. {
        let number = number * 31 % 997;
        let (bytes, name) = (bytes_of(number), name(number));
        let digest = sha256(&bytes);
        if number % 3 == 0 {
            let _ = store.put_bytes(&digest, bytes.clone()).await;
        } else if let Ok(mut partial) = store.create(&digest, Some(bytes.len() as u64)).await {
            let etag = Some(number.to_string());
            let _ = partial.set_origin(PartialOrigin { name: name.clone(), etag, total: Some(bytes.len() as u64) });
            let existing = usize::try_from(partial.existing()).unwrap();
            let mut seen = vec![0; existing];
            std::os::unix::fs::FileExt::read_exact_at(&*partial.file(), &mut seen, 0).unwrap();
            assert_eq!(seen, bytes[..existing], "what was left unfinished is a beginning");
            let written = bytes[existing..].chunks(50_000).try_for_each(|chunk| partial.append(chunk));
            match number % 7 {
                0 => partial.keep(),
                1 => drop(partial.discard()),
                _ if written.is_ok() => drop(partial.commit(Checksums::of(&bytes))),
                _ => drop(partial),
            }
        }
        let record = TagRecord { digest: digest.clone(), checked_at: SystemTime::now() };
        let _ = store.put_tag(&name, &format!("t{}", number % 11).parse().unwrap(), record).await;
        let size = Some(bytes.len() as u64);
        let link =
            Link { digest: digest.clone(), media_type: None, size, public: true, confirmed_at: SystemTime::now() };
        let _ = store.put_link(&name, link).await;
        if number % 17 == 0 {
            let _ = store.remove_damaged(&digest).await;
        }
    }
}

/// Run by [`nothing_is_lost_or_wrong_after_kills`] in a process of its own, until it is killed.
#[test]
#[ignore = "a child of another test"]
fn child_that_writes() {
    let Some(root) = std::env::var_os("LARDER_TEST_STORE") else {
        return skipped("child_that_writes", "run by its parent only");
    };
    let round: u64 = std::env::var("LARDER_TEST_ROUND").unwrap().parse().unwrap();
    let store = DirectoryStore::open(kill_config(Path::new(&root))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _running = background(&store);
        println!("writing");
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&store), round * 101 + writer * 167))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[tokio::test]
async fn nothing_is_lost_or_wrong_after_kills() {
    // On a disk, whose operations take their time, and whose every step the kill may therefore hit.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (mut blobs_seen, mut checksums_seen, mut left_over) = (0, 0, 0);
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "store::directory::tests::kill::child_that_writes"])
            .env("LARDER_TEST_STORE", root)
            .env("LARDER_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.is_ok_and(|line| line.ends_with("writing"))), "the child came up");
        // Any moment is the right one.
        tokio::time::sleep(Duration::from_micros(round * 7919 % 120_000)).await;
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it was still writing: {status}");
        left_over += files_below(root, "temporary").len();
        assert!(files_below(root, "temporary").len() <= 64, "no more than there were operations");

        let store = DirectoryStore::open(kill_config(root)).unwrap();
        let blobs = files_below(root, "blobs");
        for (path, length) in &blobs {
            let digest = format!("sha256:{}", path.rsplit('/').next().unwrap()).parse::<Digest>().unwrap();
            let bytes = std::fs::read(root.join(path)).unwrap();
            assert_eq!(sha256(&bytes), digest, "{path} after kill {round}");
            assert_eq!(store.blob(&digest).await.unwrap().unwrap().len(), *length);
            if bytes.len() > CHUNK {
                let written = std::fs::read(root.join(layout::checksums(&digest))).unwrap();
                assert_eq!(written, Checksums::of(&bytes).encode(&digest), "{path} after kill {round}");
                checksums_seen += 1;
            }
        }
        blobs_seen += blobs.len();
        for (path, _) in files_below(root, "names") {
            let record = std::fs::read(root.join(&path)).unwrap();
            serde_json::from_slice::<serde_json::Value>(&record).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        assert_eq!(files_below(root, "temporary"), []);
        let unfinished = files_below(root, "partial");
        assert!(unfinished.len() <= 2 * (PARTIALS + 64), "{unfinished:?}");
        let bytes: u64 = blobs.iter().chain(&unfinished).map(|(_, length)| length).sum();
        // Also when it was never given the time to count what there is.
        assert!(bytes <= KILL_LIMIT, "{bytes} bytes after kill {round}");
    }
    assert!(blobs_seen > 0 && left_over > 0, "the kills hit something: {blobs_seen} blobs, {left_over} left over");
    assert!(checksums_seen > 0, "some of the blobs are large enough to have checksums");
    let store = DirectoryStore::open(kill_config(root)).unwrap();
    let _running = background(&store);
    until("it is within its bounds again", || {
        let stats = store.stats();
        stats.counted && stats.partials <= PARTIALS as u64 && stats.bytes + stats.partial_bytes <= KILL_LIMIT
    })
    .await;
    assert_eq!(store.stats().damaged_blobs, 0);
}

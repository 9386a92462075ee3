//! The store on a bucket, with real servers.
//!
//! `LARDER_BUCKET_SERVERS` names them (versitygw and fake-gcs by default; `minio` as a second opinion on S3, `azurite` where it is installed: `npm install
//! --global azurite`), `LARDER_BUCKET_WHOLE` runs every case on fake-gcs, too; `cargo xtask test` sets them. Every case has a prefix of its own in the bucket, or a server of its own where it does something to it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod churn;
mod client;
mod corporate;
mod credentials;
mod killed;
mod large;
mod layout;
mod listing;
mod programs;
mod pulls;
mod redirect;
mod replicas;
mod trouble;
mod world;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use larder_proxy::store::Store;
use larder_proxy::store::conformance;
use larder_test_bucket::{AZURE, CREDENTIALS, Kind, google};
use libtest_mimic::{Arguments, Trial};

use world::World;

fn main() -> ExitCode {
    // The store reads its credentials from the environment, which a process with threads does not change.
    let account = google::account_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a key can be made");
    let account = account.to_str().expect("its path is text");
    let credentials = [&CREDENTIALS[..], &AZURE, &[(google::ACCOUNT, account)]].concat();
    if credentials.iter().any(|(name, value)| std::env::var(name).as_deref() != Ok(*value)) {
        let this = std::env::current_exe().expect("this program has a path");
        let error = Command::new(this).args(std::env::args_os().skip(1)).envs(credentials).exec();
        panic!("this program could not be run again: {error}");
    }
    if let Some(code) = killed::child().or_else(churn::child) {
        return code;
    }
    let arguments = Arguments::from_args();
    let servers = std::env::var("LARDER_BUCKET_SERVERS").unwrap_or_else(|_| "versitygw,fake-gcs".to_owned());
    let mut trials = Vec::new();
    for name in servers.split(',').filter(|name| !name.is_empty()) {
        let kind = Kind::named(name).unwrap();
        let world = World::new(kind);
        for (case, run) in conformance::cases() {
            let world = world.clone();
            trials.push(trial(format!("{name}::conformance::{case}"), async move || {
                let replica = world.replica_with(|config| {
                    config.copies.limit = Some(conformance::LIMIT);
                    // What another case of this suite wrote a moment ago is not there in this one's prefix.
                    config.absent_for = std::time::Duration::from_millis(100);
                });
                let replica = replica.await;
                run(Arc::clone(&replica.store) as Arc<dyn Store>).await;
                let stats = replica.store.stats();
                assert!(stats.answers && stats.owed_blobs == 0 && stats.owed_records == 0, "{stats:?}");
            }));
        }
        for (case, run) in larder_proxy::pins::conformance::cases() {
            let world = world.clone();
            trials.push(trial(format!("{name}::conformance::{case}"), async move || {
                let replica = world.replica().await;
                run((replica.store.pins(), Arc::clone(&replica.store) as Arc<dyn Store>)).await;
            }));
        }
        // What differs between providers; the rest is the same for all of them, and one of them suffices for it from day to day.
        let mut cases = [large::cases(), redirect::cases(kind), credentials::cases(kind)].concat();
        if kind != Kind::FakeGcs || std::env::var_os("LARDER_BUCKET_WHOLE").is_some() {
            cases.extend(
                [
                    replicas::cases(),
                    trouble::cases(),
                    layout::cases(kind),
                    killed::cases(),
                    pulls::cases(),
                    programs::cases(),
                    churn::cases(kind),
                    corporate::cases(kind),
                    listing::cases(kind),
                ]
                .concat(),
            );
        }
        for (case, run) in cases {
            let world = world.clone();
            trials.push(trial(format!("{name}::{case}"), async move || run(world).await));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// `LARDER_TEST_TIMES` shows how long each took.
fn trial<F: Future<Output = ()>>(name: String, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let began = std::time::Instant::now();
        runtime.block_on(run());
        if std::env::var_os("LARDER_TEST_TIMES").is_some() {
            eprintln!("{:.1} s", began.elapsed().as_secs_f64());
        }
        runtime.shutdown_background();
        Ok(())
    })
}

//! A planned stop in the middle of a pull.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_stop_waits_for_what_was_promised_and_promises_nothing_new() {
    let mut stage = Stage::with_quiet(Duration::from_secs(20));
    stage.origin.push("team/app", "v2", &artifact("a new image"));
    assert_eq!(stage.manifest("v1").await.0, 200);
    // Between the manifest and what comes next there is no request at all.
    stage.shutdown.cancel();
    let began = std::time::Instant::now();
    assert_eq!(stage.manifest("v2").await, (502, Vec::new()));
    stage.manifests().await;
    stage.blobs().await;
    (&mut stage.running).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "nobody is waited for any more: {:?}", began.elapsed());
    assert!(TcpStream::connect(stage.address).await.is_err());
    tokio::task::block_in_place(|| drop(stage.origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_any_more_is_not_waited_for_to_the_end_of_the_drain() {
    let quiet = Duration::from_secs(1);
    let stage = Stage::with_quiet(quiet);
    stage.manifests().await;
    let began = std::time::Instant::now();
    stage.end().await;
    let took = began.elapsed();
    assert!(took < ProxyLimits::default().drain / 2, "{took:?}");
}

//! Against the fake engine over a real unix socket.

use tonic::Code;

use super::*;
use crate::fake_engine::FakeEngine;

const SOON: Duration = Duration::from_secs(5);

fn engine() -> (tempfile::TempDir, FakeEngine, Cri) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let engine = FakeEngine::default();
    engine.serve(&socket);
    let cri = Cri::connect(&socket).unwrap();
    (folder, engine, cri)
}

#[tokio::test]
async fn asks_what_the_engine_is() {
    let (_folder, _, cri) = engine();
    let version = cri.version().await.unwrap();
    assert_eq!((version.runtime_name.as_str(), version.runtime_version.as_str()), ("fake", "v1.2.3"));
    let status = cri.status().await.unwrap();
    assert!(status.runtime_ready);
    assert_eq!(status.info.get("config").map(String::as_str), Some("{}"));
}

#[tokio::test]
async fn sees_and_removes_images() {
    let (_folder, engine, cri) = engine();
    assert!(cri.image_present("present").await.unwrap());
    assert!(!cri.image_present("other").await.unwrap());
    let images = cri.list_images().await.unwrap();
    assert_eq!(images, [cri.image("present").await.unwrap().unwrap()]);
    assert_eq!((images[0].size, images[0].digests[0].as_str()), (7, "present@sha256:2"));
    cri.remove_image("present").await.unwrap();
    assert_eq!(*engine.removed.lock().unwrap(), ["present"]);
}

#[tokio::test]
async fn sees_containers_by_what_their_pods_say() {
    let (_folder, _, cri) = engine();
    let container = |id: &str, image: &str, running| Container { id: id.to_owned(), image: image.to_owned(), running };
    let containers = cri.list_containers().await.unwrap();
    assert_eq!(containers, [container("1", "present", true), container("2", "sha256:1", false)]);
}

#[tokio::test]
async fn pulls_with_and_without_credentials() {
    let (_folder, engine, cri) = engine();
    let pulled = async |auth| {
        assert_eq!(cri.pull_image("present", auth, SOON).await.unwrap(), "sha256:1");
        engine.pulled.lock().unwrap().take().unwrap()
    };
    assert_eq!(pulled(None).await, (String::new(), String::new(), "present".to_owned()));
    let auth = Auth::new("someone", "secret");
    assert_eq!(pulled(Some(auth)).await, ("someone".to_owned(), "secret".to_owned(), "present".to_owned()));
}

#[tokio::test]
async fn tells_a_refusal_from_a_lost_engine() {
    let (folder, _, cri) = engine();
    let refused = cri.pull_image("absent", None, SOON).await.unwrap_err();
    assert!(
        matches!(&refused, CriError::Refused { code: Code::NotFound, message, .. } if message == "no such image"),
        "{refused:?}"
    );

    let nobody = Cri::connect(&folder.path().join("nobody.sock")).unwrap();
    let lost = nobody.version().await.unwrap_err();
    assert!(matches!(&lost, CriError::Connection { call: "Version", .. }), "{lost:?}");
    assert!(lost.to_string().contains("nobody.sock") && lost.to_string().contains("No such file"), "{lost}");
}

#[tokio::test]
async fn a_pull_beyond_its_deadline_is_cancelled_in_the_engine() {
    let (_folder, engine, cri) = engine();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    *engine.hanging.lock().unwrap() = Some(sender);
    let limit = Duration::from_millis(200);
    let error = cri.pull_image("hang", None, limit).await.unwrap_err();
    assert!(matches!(error, CriError::TimedOut { after, call: "PullImage", .. } if after == limit), "{error:?}");
    assert_eq!(tokio::time::timeout(SOON, receiver.recv()).await.expect("the engine goes on pulling"), None);
}

#[tokio::test]
async fn connects_again_after_the_engine_was_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let cri = Cri::connect(&socket).unwrap();
    assert!(cri.version().await.is_err(), "not started yet");

    // In a runtime of its own, so that its connections end with it, as those of a process do.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    {
        let _inside = process.enter();
        FakeEngine::default().serve(&socket);
    }
    cri.version().await.unwrap();
    process.shutdown_background();
    std::fs::remove_file(&socket).unwrap();
    let gone = cri.version().await.unwrap_err();
    assert!(matches!(gone, CriError::Connection { .. }), "{gone:?}");

    FakeEngine::default().serve(&socket);
    cri.version().await.unwrap();
}

#[test]
fn a_restart_that_nobody_noticed_costs_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let start = || {
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = process.enter();
        FakeEngine::default().serve(&socket);
        drop(inside);
        process
    };
    // It runs during calls only, so what happens to its connection in between is news to it.
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cri = client.block_on(async { Cri::connect(&socket).unwrap() });
    for restarts in 0..20 {
        let process = start();
        let version = client.block_on(cri.version());
        assert!(version.is_ok(), "after {restarts} restarts: {version:?}");
        process.shutdown_timeout(SOON);
        std::fs::remove_file(&socket).unwrap();
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_a_socket_is_refused() {
    let long = format!("/{}", "x".repeat(SOCKET_PATH_LIMIT));
    for path in ["run/cri.sock", "", "unix:///run/cri.sock", "/run/a\0b", &long] {
        assert!(matches!(Cri::connect(Path::new(path)), Err(CriError::SocketPath { .. })), "{path}");
    }
}

//! Whoever reads the log may go away (a pipe of a container runtime): the process has to live on.

use std::process::{Command, Stdio};

/// What the child is told apart by.
const CHILD: &str = "LARDER_TEST_LOGS_INTO_NOTHING";

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    if std::env::var_os(CHILD).is_some() {
        larder_process::logging::init(larder_process::logging::Format::Text).unwrap();
        tracing::info!("into nothing");
        assert!(std::panic::catch_unwind(|| panic!("into nothing as well")).is_err());
        tracing::info!("still here");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact", "a_log_that_nobody_reads_ends_nothing"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let status = child.wait().unwrap();
    assert!(status.success(), "the child ended with {status}");
}

//! Closing a connection so that the other side sees an end and not a reset.
//!
//! A socket that is closed while bytes of the client lie unread makes the kernel send RST, and containerd gives a pull up
//! after a reset where it resumes after an end. So: FIN first, then read and drop what still comes, for a bounded time.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long, and how much, is still read from a client that was told that nothing more comes.
const LONGEST: Duration = Duration::from_secs(2);
const MOST: u64 = 1024 * 1024;

/// Sends FIN, then drains.
pub(super) async fn close_gently(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        if stream.shutdown().await.is_ok() {
            let mut scratch = [0; 4096];
            let mut rest = (&mut stream).take(MOST);
            while matches!(rest.read(&mut scratch).await, Ok(read) if read > 0) {}
        }
    };
    // Whoever sends on for longer than this has had its FIN.
    let _ = timeout(LONGEST, drain).await;
}

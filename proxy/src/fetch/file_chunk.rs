//! One chunk of a file for one reader.
//!
//! What a reader wants was mostly written a moment ago and is in memory: then the kernel gives it without waiting
//! (`RWF_NOWAIT`) and no thread is changed. What it would have to wait for is read on a blocking thread, with a limit, since
//! a disk that hangs must not hang a pull.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// At least one and at most `length` bytes at `offset`; an error where the file ends.
pub(super) async fn read(file: &Arc<File>, offset: u64, length: usize, patience: Duration) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let at_hand = preadv2(file, &mut [IoSliceMut::new(&mut buffer)], offset, ReadWriteFlags::NOWAIT);
    // Zero is the end of the file, or a kernel that does not like the flag here: ask again properly. So is any error.
    if let Ok(read @ 1..) = at_hand {
        buffer.truncate(read);
        return Ok(buffer.into());
    }
    let file = Arc::clone(file);
    let waited = spawn_blocking(move || {
        let read = loop {
            match file.read_at(&mut buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        buffer.truncate(read);
        Ok::<_, io::Error>(buffer)
    });
    match timeout(patience, waited).await {
        Ok(Ok(Ok(buffer))) if buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(read)) => read.map(Bytes::from),
        Ok(Err(_)) => Err(io::Error::other("the reading thread ended")),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

//! Reading a stored blob so that no byte of it leaves unchecked.
//!
//! Invariant: what [`CheckedRange`] hands out is part of a chunk that was read whole and passed its check. A chunk that does
//! not, cannot be read, or is not all there any more hands out nothing: the blob is condemned, so the next request for it
//! is a miss, and the reader gets an error, which the socket's side turns into a cut. An engine goes on after a cut by
//! asking for the rest, which then comes from the origin; after a wrong byte it would fail for hours.
//!
//! The kernel gives a chunk at once when it has the pages (`RWF_NOWAIT`), else it is read on a blocking thread with a time limit,
//! so that a disk that hangs ends one reply and blocks nobody. A chunk that is still arriving from where the store keeps it is waited for,
//! as long as anything comes. One chunk is in memory for each reader, and its buffer
//! is used again once nobody holds a part of it.
//!
//! The seam for sending without a copy: a chunk's [`extent`] is checked first and handed out after, and nothing but
//! [`CheckedRange::start`] and `passed` knows that the two share a buffer. A writer that can `sendfile` needs a sibling of
//! [`CheckedRange::poll_next`] that checks the extent in the page cache (mapped, or read into a buffer that stays) and hands out file and
//! offsets instead of bytes. What lies between the check and the send is then the page cache, not the disk.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::StoredBlob;
use super::checksums::extent;

/// How long a disk may take for one chunk.
const DISK: Duration = Duration::from_secs(10);

/// A range of a stored blob, read chunk by chunk.
pub struct CheckedRange {
    blob: StoredBlob,
    /// What was not read yet.
    range: Range<u64>,
    /// Read and checked, but not handed out yet.
    ready: Option<Bytes>,
    /// The chunk that somebody has or had; its memory is used again when it is done with.
    last: Bytes,
    reading: Option<BoxFuture<'static, io::Result<Bytes>>>,
    /// Whether the file system can say that a read would have to wait.
    can_try: bool,
}

impl CheckedRange {
    /// `range` lies within the blob.
    pub fn new(blob: StoredBlob, range: Range<u64>) -> Self {
        Self { blob, range, ready: None, last: Bytes::new(), reading: None, can_try: true }
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start) + self.ready.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }

    /// Reads and checks the first chunk, so that one who knows of its damage can still answer otherwise. Of an
    /// empty range nothing is read; an empty blob is checked all the same.
    pub async fn begin(&mut self, patience: Duration) -> io::Result<()> {
        if self.blob.len() == 0 && !self.blob.check().passes(0, b"") {
            return Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing is left of the stored file")));
        }
        if let Some(arriving) = self.blob.still_arriving() {
            // Its own first chunk may be far ahead; what matters here is that anything comes at all.
            let begun = tokio::time::timeout(patience, arriving.begun()).await;
            return begun.map_err(|_| io::ErrorKind::TimedOut)?;
        }
        if self.ready.is_none() {
            let first = std::future::poll_fn(|context| self.poll_next(context));
            let first = tokio::time::timeout(patience, first).await.map_err(|_| io::ErrorKind::TimedOut)?;
            self.ready = first.transpose()?;
        }
        Ok(())
    }

    /// The next part; `None` at the end of the range. After an error there is nothing more to be had.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(ready) = self.ready.take() {
            return Poll::Ready(Some(Ok(ready)));
        }
        if self.reading.is_none() {
            if self.range.is_empty() {
                return Poll::Ready(None);
            }
            if let Some(chunk) = self.start() {
                return Poll::Ready(Some(self.passed(chunk)));
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let chunk = ready!(reading.as_mut().poll(context));
        self.reading = None;
        Poll::Ready(Some(self.passed(chunk)))
    }

    /// The chunk that the range begins in, if the kernel has it in memory; else a thread begins to read it.
    fn start(&mut self) -> Option<io::Result<Bytes>> {
        let extent = extent(self.blob.len(), self.range.start);
        let mut buffer = std::mem::take(&mut self.last).try_into_mut().unwrap_or_default();
        buffer.resize(usize::try_from(extent.end - extent.start).unwrap_or(0), 0);
        let mut filled = 0;
        if self.can_try
            && let Some(file) = self.blob.file()
        {
            match try_read(file, &mut buffer, extent.start) {
                Ok(read) if read == buffer.len() => return Some(checked(&self.blob, extent.start, buffer)),
                Ok(read) => filled = read,
                // A file system that does not know the question, or an error that the real read will tell.
                Err(_) => self.can_try = false,
            }
        }
        self.reading = Some(Box::pin(read_on_a_thread(self.blob.clone(), buffer, extent.start, filled)));
        None
    }

    /// The wanted part of a chunk that was read and checked.
    fn passed(&mut self, chunk: io::Result<Bytes>) -> io::Result<Bytes> {
        let chunk = chunk.map_err(|error| self.failed(error))?;
        let extent = extent(self.blob.len(), self.range.start);
        let until = extent.end.min(self.range.end);
        let within = |offset: u64| usize::try_from(offset - extent.start).unwrap_or(chunk.len()).min(chunk.len());
        let part = chunk.slice(within(self.range.start)..within(until));
        self.range.start = until;
        self.last = chunk;
        Ok(part)
    }

    fn failed(&mut self, error: io::Error) -> io::Error {
        self.range = 0..0;
        if is_damage(&error) {
            self.blob.condemn(&error);
        }
        error
    }
}

impl std::fmt::Debug for CheckedRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CheckedRange")
            .field("blob", &self.blob)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Whether the disk has lost the bytes, rather than being slow or out of reach.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        || matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG))
}

fn checked(blob: &StoredBlob, offset: u64, buffer: BytesMut) -> io::Result<Bytes> {
    if blob.check().passes(offset, &buffer) {
        return Ok(buffer.freeze());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the stored bytes at {offset} are not those that were written"),
    ))
}

/// Reads what the kernel has in memory; less when it would have to wait for the disk.
fn try_read(file: &File, buffer: &mut BytesMut, offset: u64) -> io::Result<usize> {
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Reads the rest of a chunk, of which the first `filled` bytes are there.
async fn read_on_a_thread(blob: StoredBlob, mut buffer: BytesMut, offset: u64, filled: usize) -> io::Result<Bytes> {
    let file = blob.file_until(offset + buffer.len() as u64).await?;
    let read = tokio::task::spawn_blocking(move || {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        file.read_exact_at(rest, offset + filled as u64)?;
        checked(&blob, offset, buffer)
    });
    match tokio::time::timeout(DISK, read).await {
        Ok(Ok(result)) => result,
        Ok(Err(ended)) => Err(io::Error::other(ended)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk did not answer for 10 s")),
    }
}

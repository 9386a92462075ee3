//! What `fetch` promises, seen from a request.

mod any_course;
mod origin_trouble;
mod sharing;
mod store_trouble;

use larder_oci::{ByteRange, Digest};

use super::testing::{Stage, name, soon};
use super::{FetchError, Opened, OpenedBody};

/// Opens a blob of `team/app`.
async fn open(stage: &Stage, digest: &Digest, range: Option<ByteRange>) -> Result<OpenedBody, FetchError> {
    match stage.fetcher.open(&name("team/app"), digest, range, false, soon()).await? {
        Opened::Body(body) => Ok(body),
        other => panic!("no body: {other:?}"),
    }
}

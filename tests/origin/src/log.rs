//! The access log: what the registry was asked, as it saw it.

use std::time::Instant;

/// One request.
#[derive(Clone, Debug)]
pub struct Access {
    /// When its head had been read.
    pub at: Instant,
    /// GET, HEAD, …
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query without `?`, may be empty.
    pub query: String,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status that was sent; 0 when none was.
    pub status: u16,
    /// Bytes of the body that were handed to the socket.
    pub sent: u64,
}

impl Access {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Whether it asked for a blob's bytes.
    pub fn is_blob_get(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/")
    }

    /// Whether it asked for a manifest's bytes, which is what registries count as a pull.
    pub fn is_manifest_get(&self) -> bool {
        self.method == "GET" && self.path.contains("/manifests/")
    }
}

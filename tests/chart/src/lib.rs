//! What the cases of the chart have in common: the real helm, and the objects of a rendering.
//!
//! No cluster is needed: what an API server says of the objects is the cluster suite's business.

pub mod helm;
pub mod nodes;
pub mod objects;
pub mod schema;

use std::path::{Path, PathBuf};

/// The clone.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    repository().join("chart")
}

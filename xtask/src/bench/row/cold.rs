//! One client, one cold blob, and an origin that is as fast as this machine: what is left is what a cache costs.

use anyhow::Result;
use larder_test_node::node::folder;

use super::Row;
use crate::bench::Bench;
use crate::bench::load::at_once;
use crate::bench::server::{Cache, Files};
use crate::bench::sheet::{Compared, Finding, Sheet};

const WALL: &str = "one client, cold, s";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = Files::start(bench, folder.path(), "direct")?;
    let caches = [Cache::Larder, Cache::Nginx, Cache::Varnish, Cache::Registry2, Cache::Registry3]
        .into_iter()
        .map(|cache| cache.start(bench, folder.path(), origin.server.address))
        .collect::<Result<Vec<_>>>()?;
    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        let path = origin.hold_blob(&bench.blobs.fresh(bench.scale.blob))?;
        for server in std::iter::once(&origin.server).chain(&caches) {
            bench.settle()?;
            sheet.note(WALL, server.name, at_once(server.address, &server.target(&path), 1)?.wall);
        }
    }
    let wall = sheet.finding(Row::Cold, WALL, Compared::Ratio);
    Ok(wall
        .map(|finding| {
            finding.goal("× direct ≤ 2.5").noted(format!("{}; direct is nginx with sendfile", bench.scale.blob_size()))
        })
        .into_iter()
        .collect())
}

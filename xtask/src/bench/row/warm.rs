//! A blob that is in the store: how fast it leaves, and what that costs.

use anyhow::Result;
use larder_test_node::node::folder;

use super::{GIB, Row, float};
use crate::bench::Bench;
use crate::bench::load::{as_much_as_goes, at_once};
use crate::bench::server::{Cache, Files};
use crate::bench::sheet::{Compared, Finding, Sheet};

const CONNECTIONS: [usize; 3] = [1, 8, 64];

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let files = Files::start(bench, folder.path(), "nginx files")?;
    let path = files.hold_blob(&bench.blobs.fresh(bench.scale.blob))?;
    let mut caches = Vec::new();
    for cache in [Cache::Larder, Cache::Varnish, Cache::Registry3] {
        let server = cache.start(bench, folder.path(), files.server.address)?;
        // The first time it is fetched, the second time Larder looks once whether its file is whole.
        for _ in 0..3 {
            at_once(server.address, &server.target(&path), 1)?;
        }
        caches.push(server);
    }
    let mut sheet = Sheet::default();
    let speed = |connections: usize| format!("GiB/s, {connections} connections (more is better)");
    let cost = |connections: usize| format!("processor s per GiB, {connections} connections");
    for _ in 0..bench.rounds {
        for connections in CONNECTIONS {
            for server in std::iter::once(&files.server).chain(&caches) {
                bench.settle()?;
                let before = server.processor_seconds()?;
                let (bytes, took) =
                    as_much_as_goes(server.address, &server.target(&path), connections, bench.scale.load)?;
                let gibibytes = float(bytes) / GIB;
                sheet.note(&speed(connections), server.name, gibibytes / took);
                sheet.note(&cost(connections), server.name, (server.processor_seconds()? - before) / gibibytes);
            }
        }
    }
    let quantities = CONNECTIONS.into_iter().flat_map(|connections| [speed(connections), cost(connections)]);
    let found = quantities.filter_map(|quantity| sheet.finding(Row::Warm, &quantity, Compared::Ratio));
    Ok(found.map(|finding| finding.goal("beside nginx")).collect())
}

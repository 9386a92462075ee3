//! Many clients that can hardly read: what each of them costs in memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use larder_test_node::node::folder;

use super::{Row, next_blob, shaped_origin};
use crate::bench::Bench;
use crate::bench::client::Client;
use crate::bench::load::at_once;
use crate::bench::server::{Cache, Files, Server};
use crate::bench::sheet::{Compared, Finding, Sheet};

const READERS: usize = 256;
const IDLE: &str = "nobody reads, anonymous MiB";
const STORED: &str = "256 readers of a stored blob, anonymous MiB";
const IN_FLIGHT: &str = "256 readers of a blob in flight, anonymous MiB";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        stored(bench, &mut sheet)?;
        in_flight(bench, &mut sheet)?;
    }
    let findings = [
        sheet
            .finding(Row::SlowReaders, IDLE, Compared::NotAtAll)
            .map(|finding| finding.noted("after the blob was served")),
        sheet.finding(Row::SlowReaders, STORED, Compared::Ratio).map(|finding| finding.noted("each reads 80 kB/s")),
        sheet.finding(Row::SlowReaders, IN_FLIGHT, Compared::Ratio).map(|finding| {
            finding.noted("varnish keeps the blob itself in memory; registry asks the origin for each reader")
        }),
    ];
    Ok(findings.into_iter().flatten().collect())
}

// A server that was busy once keeps memory, so each turn has new ones.
fn stored(bench: &mut Bench, sheet: &mut Sheet) -> Result<()> {
    let folder = folder()?;
    let files = Files::start(bench, folder.path(), "nginx files")?;
    let path = files.hold_blob(&bench.blobs.fresh(bench.scale.blob))?;
    let measure = |server: &Server, sheet: &mut Sheet| -> Result<()> {
        bench.settle()?;
        let target = server.target(&path);
        for _ in 0..3 {
            at_once(server.address, &target, 1)?;
        }
        sheet.note(IDLE, server.name, server.anonymous_mebibytes()?);
        sheet.note(STORED, server.name, most_memory(server, &target, bench.scale.load)?);
        Ok(())
    };
    measure(&files.server, sheet)?;
    for cache in [Cache::Larder, Cache::Nginx, Cache::Registry3] {
        measure(&cache.start(bench, folder.path(), files.server.address)?, sheet)?;
    }
    Ok(())
}

fn in_flight(bench: &mut Bench, sheet: &mut Sheet) -> Result<()> {
    let folder = folder()?;
    let origin = shaped_origin(bench);
    let (path, _) = next_blob(bench, &origin, bench.scale.blob);
    for cache in [Cache::Larder, Cache::Varnish, Cache::Registry3] {
        bench.settle()?;
        let server = cache.start(bench, folder.path(), origin.address())?;
        sheet.note(IN_FLIGHT, server.name, most_memory(&server, &server.target(&path), bench.scale.load)?);
    }
    Ok(())
}

/// The most memory that the server was seen with while all of them read a little at a time.
fn most_memory(server: &Server, target: &str, lasting: Duration) -> Result<f64> {
    let mut readers = (0..READERS).map(|_| Client::connect_narrow(server.address)).collect::<Result<Vec<_>>>()?;
    for reader in &mut readers {
        reader.ask(target, None)?;
    }
    let began = Instant::now();
    let mut most: f64 = 0.0;
    while began.elapsed() < lasting {
        for reader in &mut readers {
            reader.take(8 * 1024)?;
        }
        most = most.max(server.anonymous_mebibytes()?);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(most)
}

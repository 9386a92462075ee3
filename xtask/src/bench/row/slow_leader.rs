//! A client that can hardly read asks first. Whoever comes after it must not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use larder_test_node::node::folder;

use super::{Row, next_blob, shaped_origin};
use crate::bench::Bench;
use crate::bench::client::Client;
use crate::bench::load::at_once;
use crate::bench::server::{Cache, Server};
use crate::bench::sheet::{Compared, Finding, Sheet};

const FOLLOWERS: usize = 8;
const WALL: &str = "until all 8 followers have all, s";

pub(super) fn measure(bench: &mut Bench) -> Result<Vec<Finding>> {
    let folder = folder()?;
    let origin = shaped_origin(bench);
    let direct = Server::direct(origin.address());
    let caches = [Cache::Larder, Cache::Nginx, Cache::Varnish]
        .into_iter()
        .map(|cache| cache.start(bench, folder.path(), origin.address()))
        .collect::<Result<Vec<_>>>()?;
    let mut sheet = Sheet::default();
    for _ in 0..bench.rounds {
        let (path, _) = next_blob(bench, &origin, bench.scale.blob);
        bench.settle()?;
        sheet.note(WALL, direct.name, at_once(direct.address, &path, 1)?.wall);
        for server in &caches {
            bench.settle()?;
            sheet.note(WALL, server.name, behind_a_slow_one(server, &server.target(&path))?);
        }
    }
    let wall = sheet.finding(Row::SlowLeader, WALL, Compared::Ratio);
    Ok(wall
        .map(|finding| finding.goal("× direct ≤ 1.2").noted("the leader reads 80 kB/s; origin as for the herd"))
        .into_iter()
        .collect())
}

/// Seconds that the followers took, who ask when the leader has its first bytes.
fn behind_a_slow_one(server: &Server, target: &str) -> Result<f64> {
    let mut leader = Client::connect_narrow(server.address)?;
    leader.ask(target, None)?;
    leader.take(1)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let slowly = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                leader.take(8 * 1024)?;
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        let herd = at_once(server.address, target, FOLLOWERS);
        over.store(true, Ordering::Relaxed);
        slowly.join().map_err(|_| anyhow!("the leader ended by a panic"))??;
        Ok(herd?.wall)
    })
}

//! Kinds of load: all at the same moment, as much as goes, at a steady pace.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::client::Client;
use super::sheet::median;

/// What clients that asked at the same moment saw, in seconds from that moment on.
pub(super) struct Herd {
    /// Until the last one had all.
    pub(super) wall: f64,
    /// Until half of them had their first byte.
    pub(super) first: f64,
    /// Until the last one had its first byte.
    pub(super) last_first: f64,
}

/// So many clients ask for the whole of it at the same moment.
pub(super) fn at_once(host: SocketAddr, target: &str, clients: usize) -> Result<Herd> {
    all_at_once(vec![(host, vec![target.to_owned()]); clients])
}

/// Each of these clients asks its host for the first of its targets at the same moment, and then for the others, one after the other.
/// First bytes are those of the first.
pub(super) fn all_at_once(clients: Vec<(SocketAddr, Vec<String>)>) -> Result<Herd> {
    let gate = Barrier::new(clients.len());
    let connect = |(host, targets)| Ok((Client::connect(host)?, targets));
    let connected = clients.into_iter().map(connect).collect::<Result<Vec<(Client, Vec<String>)>>>()?;
    let together = |(mut client, targets): (Client, Vec<String>)| -> Result<(Instant, Instant, Instant)> {
        gate.wait();
        let asked = Instant::now();
        let mut first = None;
        for target in &targets {
            client.ask(target, None)?;
            let byte = client.take_all()?;
            first.get_or_insert(byte);
        }
        Ok((asked, first.ok_or_else(|| anyhow!("a client that wants nothing"))?, Instant::now()))
    };
    let times = side_by_side(connected, together)?;
    let asked = times.iter().map(|(asked, _, _)| *asked).min().ok_or_else(|| anyhow!("a herd of nobody"))?;
    let firsts: Vec<f64> = times.iter().map(|(_, first, _)| (*first - asked).as_secs_f64()).collect();
    Ok(Herd {
        wall: times.iter().map(|(_, _, end)| (*end - asked).as_secs_f64()).fold(0.0, f64::max),
        first: median(&firsts),
        last_first: firsts.iter().copied().fold(0.0, f64::max),
    })
}

/// So many connections take the same thing again and again for a while. Bytes, and the seconds that they took.
pub(super) fn as_much_as_goes(
    host: SocketAddr,
    target: &str,
    connections: usize,
    lasting: Duration,
) -> Result<(u64, f64)> {
    let connected = (0..connections).map(|_| Client::connect(host)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let again_and_again = |mut client: Client| -> Result<u64> {
        let mut bytes = 0;
        while began.elapsed() < lasting {
            client.ask(target, None)?;
            loop {
                let taken = client.take(u64::MAX)?;
                bytes += taken;
                if taken == 0 || began.elapsed() >= lasting {
                    break;
                }
            }
        }
        Ok(bytes)
    };
    let bytes = side_by_side(connected, again_and_again)?.into_iter().sum();
    Ok((bytes, began.elapsed().as_secs_f64()))
}

/// So many requests a second over so many connections, each at its time whatever became of the ones before it. The latency that 99 of 100
/// stayed below, in milliseconds, counted from when the request was due: a server that stops is not spared the requests that waited.
pub(super) fn at_a_pace(
    host: SocketAddr,
    target: &str,
    connections: usize,
    a_second: u32,
    lasting: Duration,
) -> Result<f64> {
    let connected = (0..connections).map(|_| Client::connect(host)).collect::<Result<Vec<_>>>()?;
    let interval = Duration::from_secs(1) / a_second;
    let between = interval * u32::try_from(connections)?;
    let began = Instant::now() + Duration::from_millis(20);
    let numbered: Vec<_> = (0_u32..).zip(connected).collect();
    let paced = |(number, mut client): (u32, Client)| -> Result<Vec<f64>> {
        let mut latencies = Vec::new();
        let mut due = began + interval * number;
        while due < began + lasting {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            client.ask(target, None)?;
            client.take_all()?;
            latencies.push(due.elapsed().as_secs_f64() * 1e3);
            due += between;
        }
        Ok(latencies)
    };
    let mut latencies: Vec<f64> = side_by_side(numbered, paced)?.into_iter().flatten().collect();
    latencies.sort_by(f64::total_cmp);
    let rank = latencies.len() * 99 / 100;
    latencies.get(rank).copied().ok_or_else(|| anyhow!("nothing was asked"))
}

/// Does this for each of them, all at the same time. The first error ends it all when the others are done.
pub(super) fn side_by_side<T: Send, R: Send>(items: Vec<T>, act: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let act = &act;
    thread::scope(|scope| {
        let running: Vec<_> = items.into_iter().map(|item| scope.spawn(move || act(item))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a client ended by a panic")).flatten())
            .collect()
    })
}

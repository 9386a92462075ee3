//! The front thread alone, over sockets: who is let in when many wait.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use futures_util::FutureExt as _;

use super::super::probe::ProbeKey;
use super::*;

/// Of the tests' front thread.
const BOUND: usize = 8;

/// Longer than anything takes that happens at all.
const LONG: Duration = Duration::from_mins(1);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    handed_over: mpsc::UnboundedReceiver<Accepted>,
    end: oneshot::Receiver<io::Result<()>>,
}

fn start(speech: Speech, waiting: usize) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, handed_over) = mpsc::unbounded_channel();
    let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::new()));
    let front = Front {
        listeners: vec![listener],
        probe: Arc::new(Probe::new(ProbeKey::random().unwrap())),
        metrics: Arc::clone(&metrics),
        waiting,
        places: Arc::new(Semaphore::new(BOUND)),
        accepted,
        speech,
        giving_way: LONG,
        stop: stop.clone(),
    };
    Running { address, stop, metrics, handed_over, end: front.start().unwrap() }
}

impl Running {
    /// For whom there was no place, or no more.
    fn gone(&self) -> u64 {
        self.metrics.connections_refused.get_or_create(&ReasonLabels { reason: "bound" }).get()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    // Far less than a silent connection may wait, far more than an answer takes.
    stream.set_read_timeout(Some(FIRST_BYTE / 2)).unwrap();
    stream
}

#[test]
fn whoever_says_nothing_gives_way_to_probes_and_requests() {
    let mut front = start(Speech::Node, BOUND);
    let mut silent: Vec<TcpStream> = (0..3 * BOUND).map(|_| connect(front.address)).collect();
    for _ in 0..3 {
        let mut probing = connect(front.address);
        write!(probing, "GET /larder/probe?challenge={} HTTP/1.1\r\n\r\n", "0".repeat(32)).unwrap();
        let mut answer = String::new();
        probing.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    let mut asking = connect(front.address);
    asking.write_all(b"GET /v2/ HTTP/1.1\r\n\r\n").unwrap();
    let given = front.handed_over.blocking_recv().unwrap();
    assert_eq!(given.stream.peer_addr().unwrap(), asking.local_addr().unwrap());
    // The oldest were told with an end, the youngest still wait.
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0);
    let youngest = silent.last_mut().unwrap();
    youngest.set_nonblocking(true).unwrap();
    assert_eq!(youngest.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let gone = front.gone();
    assert!(gone >= 2 * BOUND as u64, "{gone}");
    front.stop.cancel();
    front.end.blocking_recv().unwrap().unwrap();
}

#[test]
fn whoever_comes_while_others_are_giving_way_is_served_before_those_who_came_earlier() {
    let mut front = start(Speech::Plain, WAITING);
    let ask = || {
        let mut asking = connect(front.address);
        asking.write_all(b"GET /v2/ HTTP/1.1\r\n").unwrap();
        asking
    };
    let held: Vec<TcpStream> = (0..BOUND).map(|_| ask()).collect();
    // By a runtime that is so busy that it ends none of them.
    let served: Vec<Accepted> = held.iter().map(|_| front.handed_over.blocking_recv().unwrap()).collect();
    let mut waiting: Vec<TcpStream> = (0..3 * BOUND).map(|_| ask()).collect();
    let last = ask();
    let end = std::time::Instant::now() + LONG;
    // Each that comes sends one away, of those that are served first.
    while front.gone() < waiting.len() as u64 + 1 {
        assert!(std::time::Instant::now() < end, "waited in vain: all have come, and {} had to go", front.gone());
        thread::sleep(Duration::from_millis(1));
    }
    let are_away = |served: &Accepted| served.stranger.as_ref().unwrap().sent_away().now_or_never().is_some();
    assert!(served.iter().all(are_away));
    waiting[0].set_read_timeout(Some(LONG)).unwrap();
    let mut answer = String::new();
    waiting[0].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer:?}");
    drop(served);
    let next: Vec<Accepted> = (0..BOUND).map(|_| front.handed_over.blocking_recv().unwrap()).collect();
    let last = last.local_addr().unwrap();
    assert!(next.iter().any(|given| given.stream.peer_addr().is_ok_and(|peer| peer == last)));
    assert!(!next.iter().any(are_away));
    front.stop.cancel();
    front.end.blocking_recv().unwrap().unwrap();
}

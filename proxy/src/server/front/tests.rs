//! The front thread alone, over sockets: who is let in when many wait.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::super::probe::ProbeKey;
use super::*;

/// Of the tests' front thread.
const BOUND: usize = 8;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    handed_over: mpsc::UnboundedReceiver<Accepted>,
    end: oneshot::Receiver<io::Result<()>>,
}

fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, handed_over) = mpsc::unbounded_channel();
    let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::new()));
    let front = Front {
        listeners: vec![listener],
        probe: Arc::new(Probe::new(ProbeKey::random().unwrap())),
        metrics: Arc::clone(&metrics),
        waiting: BOUND,
        places: Arc::new(Semaphore::new(BOUND)),
        accepted,
        speech: Speech::Node,
        strangers: Arc::default(),
        stop: stop.clone(),
    };
    Running { address, stop, metrics, handed_over, end: front.start().unwrap() }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    // Far less than a silent connection may wait, far more than an answer takes.
    stream.set_read_timeout(Some(FIRST_BYTE / 2)).unwrap();
    stream
}

#[test]
fn whoever_says_nothing_gives_way_to_probes_and_requests() {
    let mut front = start();
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
    let gone = front.metrics.connections_refused.get_or_create(&ReasonLabels { reason: "bound" }).get();
    assert!(gone >= 2 * BOUND as u64, "{gone}");
    front.stop.cancel();
    front.end.blocking_recv().unwrap().unwrap();
}

use super::{hexadecimal_ip, listening_socket, owner, sockets, started};
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[test]
fn finds_this_very_process_and_names_it() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            eprintln!("SKIPPED: {address} cannot be bound here");
            continue;
        };
        let mut asked = listener.local_addr().unwrap();
        if asked.ip().is_unspecified() {
            asked.set_ip("127.0.0.1".parse().unwrap());
        }
        let owner = owner(asked).unwrap();
        assert_eq!(owner.pid, std::process::id(), "{address}");
        assert_eq!(started(owner.pid), Some(owner.started));
        let program = std::env::current_exe().unwrap();
        assert!(owner.command.contains(program.file_name().unwrap().to_str().unwrap()), "{}", owner.command);
    }
}

#[test]
fn nobody_is_named_when_nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(owner(address), None);
}

#[test]
#[cfg(target_endian = "little")]
fn reads_the_kernels_table() {
    let line =
        "   0: 0100007F:1D0F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
    assert_eq!(listening_socket(line), Some(("127.0.0.1:7439".parse().unwrap(), 4711)));
    assert_eq!(listening_socket(&line.replace(" 0A ", " 01 ")), None);
    assert_eq!(listening_socket("nonsense"), None);
    let v6 = "00000000000000000000000001000000";
    assert_eq!(hexadecimal_ip(v6), Some("::1".parse().unwrap()));
    assert_eq!(hexadecimal_ip("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
    assert_eq!(hexadecimal_ip("€€€€€€"), None);
}

#[test]
fn closes_both_ends_of_a_connection_and_nothing_else() {
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        closes_what_belongs_to(address);
    }
}

fn closes_what_belongs_to(address: &str) {
    let ours = TcpListener::bind(address).unwrap();
    let port = ours.local_addr().unwrap().port();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (_accepted, _) = ours.accept().unwrap();
    let mut bystander = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    let (_kept, _) = other.accept().unwrap();

    let closed = match sockets::close_all(ours.local_addr().unwrap()) {
        Ok(closed) => closed,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    assert!(closed >= 2, "{closed}");
    waiting.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let error = waiting.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset), "{error}");
    bystander.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = bystander.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
}

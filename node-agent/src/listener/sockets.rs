//! Closes TCP sockets that belong to others, as `ss --kill` does: netlink `sock_diag` with `SOCK_DESTROY`
//! (Linux 4.5, `CONFIG_INET_DIAG_DESTROY`, `CAP_NET_ADMIN`).
//!
//! A process that SIGKILL cannot end (it waits for a disk that hangs) keeps its connections open, and a pull waits on
//! them; a stranger that keeps silent does so, too. Only sockets of one address are touched: those bound to it, and their
//! other ends on this node. Of an unspecified
//! address (`0.0.0.0`, `[::]`) these are all that are bound to its port.
//! Messages are built and read as bytes (`linux/inet_diag.h`), so nothing here is unsafe.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const INET: u8 = 2;
const INET6: u8 = 10;
const HEADER: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET_ID: usize = 48;
/// Every state but `TIME_WAIT` (6) and CLOSE (7), which nobody waits on.
const STATES: u32 = 0xFFF & !(1 << 6) & !(1 << 7);

/// Why sockets could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The kernel was built without `CONFIG_INET_DIAG_DESTROY` (or `INET_DIAG`).
    #[error("close sockets: this kernel has no SOCK_DESTROY ({0})")]
    Unsupported(nix::Error),
    /// It takes `CAP_NET_ADMIN`.
    #[error("close sockets: {0}")]
    Refused(nix::Error),
}

impl From<nix::Error> for SocketsError {
    fn from(error: nix::Error) -> Self {
        match error {
            nix::Error::EOPNOTSUPP | nix::Error::ENOENT | nix::Error::EPROTONOSUPPORT => Self::Unsupported(error),
            other => Self::Refused(other),
        }
    }
}

/// Closes every TCP socket that is bound to `address` (also the listening one) or connected to it from this node, and
/// says how many there were.
pub fn close_all(address: SocketAddr) -> Result<usize, SocketsError> {
    close(address, |all| concerned(all, address))
}

/// Closes this node's connections to `address`, which is a specified one, from the side that made them: what is bound to
/// it belongs to somebody else and stays.
pub fn close_clients(address: SocketAddr) -> Result<usize, SocketsError> {
    close(address, |all| clients(all, address))
}

fn close(address: SocketAddr, choose: impl FnOnce(Vec<SocketId>) -> Vec<SocketId>) -> Result<usize, SocketsError> {
    let netlink = open()?;
    // Who listens on [::] has connections of IPv4 as well, and their other ends are plain IPv4.
    let families: &[u8] = match address.ip() {
        IpAddr::V4(_) => &[INET],
        IpAddr::V6(ip) if ip.is_unspecified() => &[INET6, INET],
        IpAddr::V6(_) => &[INET6],
    };
    let mut all = Vec::new();
    for family in families {
        all.extend(list(&netlink, *family)?.into_iter().map(|id| (*family, id)));
    }
    let mut closed = 0;
    for (family, id) in choose(all) {
        match destroy(&netlink, family, &id) {
            Ok(()) => closed += 1,
            // It closed by itself meanwhile.
            Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(closed)
}

fn open() -> Result<OwnedFd, nix::Error> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500))?;
    Ok(netlink)
}

/// A request: netlink header, `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    let body = 8 + SOCKET_ID;
    let mut message = Vec::with_capacity(HEADER + body);
    message.extend(u32::try_from(HEADER + body).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 6 /* IPPROTO_TCP */, 0, 0]);
    message.extend(STATES.to_ne_bytes());
    message.extend(id);
    message
}

fn list(netlink: &OwnedFd, family: u8) -> Result<Vec<[u8; SOCKET_ID]>, nix::Error> {
    let message = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, &[0; SOCKET_ID]);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut ids = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, after)) = next_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(ids),
                NLMSG_ERROR => return errno(body).map(|()| ids),
                // `struct inet_diag_msg`: family, state, timer, retrans, then the socket's id.
                _ => ids.extend(body.get(4..4 + SOCKET_ID).and_then(|id| <[u8; SOCKET_ID]>::try_from(id).ok())),
            }
            rest = after;
        }
    }
}

fn destroy(netlink: &OwnedFd, family: u8, id: &[u8; SOCKET_ID]) -> Result<(), nix::Error> {
    let message = request(SOCK_DESTROY, NLM_F_ACK, family, id);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = [0; 8 * 1024];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match next_message(buffer.get(..length).unwrap_or_default()) {
        Some((NLMSG_ERROR, body, _)) => errno(body),
        _ => Ok(()),
    }
}

/// Kind and body of the first message, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let aligned = length.checked_next_multiple_of(4)?;
    Some((kind, body, bytes.get(aligned..).unwrap_or_default()))
}

/// `struct nlmsgerr`: a negative errno, or 0 for an acknowledgement.
fn errno(body: &[u8]) -> Result<(), nix::Error> {
    let number = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if number == 0 { Ok(()) } else { Err(nix::Error::from_raw(number.saturating_neg())) }
}

type SocketId = (u8, [u8; SOCKET_ID]);

/// Those that are bound to the address, and the other ends of such.
fn concerned(all: Vec<SocketId>, address: SocketAddr) -> Vec<SocketId> {
    let bound =
        |local: SocketAddr| local == address || (address.ip().is_unspecified() && local.port() == address.port());
    // A connection to the same port of another machine is nobody's other end.
    let here: HashSet<[SocketAddr; 2]> =
        all.iter().map(|(family, id)| ends(id, *family)).filter(|[local, _]| bound(*local)).collect();
    let concerns = |(family, id): &SocketId| {
        let [local, remote] = ends(id, *family);
        bound(local) || remote == address || here.contains(&[remote, local])
    };
    all.into_iter().filter(concerns).collect()
}

/// Those that are connected to the address.
fn clients(mut all: Vec<SocketId>, address: SocketAddr) -> Vec<SocketId> {
    all.retain(|(family, id)| ends(id, *family)[1] == address);
    all
}

fn ends(id: &[u8; SOCKET_ID], family: u8) -> [SocketAddr; 2] {
    let port = |at: usize| match id.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    let ip = |at: usize| -> IpAddr {
        if family == INET {
            let bytes = id.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).unwrap_or_default();
            Ipv4Addr::from(bytes).into()
        } else {
            let bytes = id.get(at..at + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).unwrap_or_default();
            Ipv6Addr::from(bytes).to_canonical()
        }
    };
    [SocketAddr::new(ip(4), port(0)), SocketAddr::new(ip(20), port(2))]
}

#[cfg(test)]
mod tests {
    use super::{INET, SOCKET_ID, SocketId, clients, concerned};
    use std::net::{IpAddr, SocketAddr};

    fn socket(local: &str, remote: &str) -> SocketId {
        let mut id = [0; SOCKET_ID];
        for (port, ip, end) in [(0, 4, local), (2, 20, remote)] {
            let end: SocketAddr = end.parse().unwrap();
            let IpAddr::V4(address) = end.ip() else { panic!("{end}") };
            id[port..port + 2].copy_from_slice(&end.port().to_be_bytes());
            id[ip..ip + 4].copy_from_slice(&address.octets());
        }
        (INET, id)
    }

    #[test]
    fn the_clients_of_an_address_are_closed_without_its_owner() {
        let client = socket("127.0.0.1:5000", "127.0.0.1:7439");
        let others = [
            socket("127.0.0.1:7439", "0.0.0.0:0"),
            socket("127.0.0.1:7439", "127.0.0.1:5000"),
            socket("127.0.0.1:5001", "127.0.0.1:7440"),
        ];
        let all: Vec<SocketId> = others.iter().chain([&client]).copied().collect();
        assert_eq!(clients(all, "127.0.0.1:7439".parse().unwrap()), [client]);
    }

    #[test]
    fn an_unspecified_address_is_every_socket_of_its_port_and_no_other_machines() {
        let ours = vec![
            socket("0.0.0.0:7439", "0.0.0.0:0"),
            socket("127.0.0.1:7439", "127.0.0.1:5000"),
            socket("127.0.0.1:5000", "127.0.0.1:7439"),
            socket("10.0.0.1:7439", "10.0.0.9:6000"),
        ];
        let others = [socket("10.0.0.1:5001", "10.0.0.2:7439"), socket("10.0.0.1:22", "10.0.0.9:6001")];
        let all: Vec<SocketId> = ours.iter().chain(&others).copied().collect();
        assert_eq!(concerned(all.clone(), "0.0.0.0:7439".parse().unwrap()), ours);
        assert_eq!(concerned(all, "127.0.0.1:7439".parse().unwrap()), ours[1..3]);
    }
}

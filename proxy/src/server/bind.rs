//! Taking the addresses that engines ask: before any runtime runs and before privileges go.
//!
//! An address that somebody else holds is an error that names the holder where `/proc` tells; a machine without IPv6 is a
//! warning as long as one address is left.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use nix::errno::Errno;
use thiserror::Error;

/// Why an address was not taken.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("listen on {address}: it is taken by {holder}; stop that, or choose another address with --listen")]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who has it, as far as can be seen.
        holder: String,
    },
    /// Any other reason.
    #[error("listen on {address}: {error}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No address was given, or none of them exists on this machine.
    #[error("no address to listen on")]
    Nothing,
}

/// Takes all of `addresses`. Those of a protocol that this machine does not have are left out with a warning.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(|error| BindError::Io { address, error })?;
                listeners.push(listener);
            }
            Err(error) if address.is_ipv6() && has_no_ipv6(&error) => {
                tracing::warn!(%address, %error, "no IPv6 on this machine: not listening there");
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let holder =
                    holder(address.port()).unwrap_or_else(|| "a process that cannot be seen from here".to_owned());
                return Err(BindError::Taken { address, holder });
            }
            Err(error) => return Err(BindError::Io { address, error }),
        }
    }
    if listeners.is_empty() { Err(BindError::Nothing) } else { Ok(listeners) }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| matches!(Errno::from_raw(code), Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// The process that listens on a port of this network namespace: `name (pid 123)`.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors
            .flatten()
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| links.iter().any(|link| link == target)));
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// The inodes of listening sockets on a port in the text of `/proc/net/tcp` (proc(5)): local address in the second column,
/// state in the fourth (0A is LISTEN), inode in the tenth.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let local = columns.nth(1)?;
            let state = columns.nth(1)?;
            let inode = columns.nth(5)?;
            (local.ends_with(&suffix) && state == "0A").then(|| inode.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_names_its_holder() {
        let first = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = bind(&[address]).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("(pid {pid})")) && error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_listening_socket_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1D0F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n\
            1: 0100007F:1D0F 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0\n";
        assert_eq!(listening_inodes(table, 7439), ["4242"]);
        assert!(listening_inodes(table, 7440).is_empty());
    }

    #[test]
    fn nothing_to_listen_on_is_an_error() {
        assert!(matches!(bind(&[]), Err(BindError::Nothing)));
    }
}

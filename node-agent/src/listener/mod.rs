//! Who has a TCP address on this node: to name a stranger on the proxy's port, to know which process to kill, and to
//! close what a killed proxy leaves open ([`sockets`]).
//!
//! Read from `/proc/net/tcp` (the socket's inode) and `/proc/<pid>/fd` (who holds it). Answers may be outdated the moment
//! they are given: whoever kills takes hold of the process first and looks again ([`Owner::started`]).

pub mod sockets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// State LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process with a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id as we see it.
    pub pid: u32,
    /// Its command line, or name where that is empty; at most 200 characters.
    pub command: String,
    /// When it started, in clock ticks since boot: with `pid` it names one process for ever.
    pub started: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.command, self.pid)
    }
}

/// The process that listens on `address` (or on its port of every address), if it can be seen.
pub fn owner(address: SocketAddr) -> Option<Owner> {
    owner_below(Path::new("/proc"), address)
}

fn owner_below(proc: &Path, address: SocketAddr) -> Option<Owner> {
    let inode = listening_inode(proc, address)?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir(proc).ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        let folder = proc.join(pid.to_string()).join("fd");
        let Ok(descriptors) = fs::read_dir(folder) else { return false };
        descriptors.filter_map(Result::ok).any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
    })?;
    let folder = proc.join(pid.to_string());
    Some(Owner { pid, command: command(&folder), started: started_below(&folder)? })
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`); `None` when there is none.
pub fn started(pid: u32) -> Option<u64> {
    started_below(&Path::new("/proc").join(pid.to_string()))
}

fn started_below(folder: &Path) -> Option<u64> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name is in parentheses and may hold anything: the fields that can be counted begin after the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn command(folder: &Path) -> String {
    let line = fs::read(folder.join("cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    let words = words.trim();
    let name = if words.is_empty() {
        fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned()
    } else {
        words.to_owned()
    };
    // It ends up in logs and terminals: a stranger chooses what is in it.
    name.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(200).collect()
}

fn listening_inode(proc: &Path, address: SocketAddr) -> Option<u64> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(proc.join(table)).unwrap_or_default());
    let listening = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listening_socket);
    let mut matching: Vec<(SocketAddr, u64)> = listening
        .filter(|(local, _)| {
            local.port() == address.port() && (local.ip() == address.ip() || local.ip().is_unspecified())
        })
        .collect();
    // The kernel prefers the socket that is bound to the very address.
    matching.sort_by_key(|(local, _)| local.ip().is_unspecified());
    matching.first().map(|(_, inode)| *inode)
}

/// Local address and inode of one line of `/proc/net/tcp`, if it is a listening socket.
fn listening_socket(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some(())?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(hexadecimal_ip(ip)?, port), inode))
}

/// The kernel prints addresses as 32-bit words in the machine's byte order.
fn hexadecimal_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = text.get(at..at.checked_add(8)?)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical())
        }
        _ => None,
    }
}

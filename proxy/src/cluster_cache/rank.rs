//! Which replica is asked first. Pure.
//!
//! Rendezvous hashing: everybody who asks for the same content asks the same replica first, so that a herd meets in one place; when a
//! replica goes, only what it had moves, and to all others alike.

use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};

/// The places of `addresses` in the order in which they are asked for `key`.
pub(super) fn ranked(addresses: &[SocketAddr], key: &str) -> Vec<usize> {
    let mut scored: Vec<([u8; 32], usize)> =
        addresses.iter().enumerate().map(|(place, address)| (score(*address, key), place)).collect();
    scored.sort_unstable_by(|one, other| other.cmp(one));
    scored.into_iter().map(|(_, place)| place).collect()
}

fn score(address: SocketAddr, key: &str) -> [u8; 32] {
    Sha256::new().chain_update(address.to_string()).chain_update([0]).chain_update(key).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|last| SocketAddr::from(([10, 0, 0, last], 7443))).collect()
    }

    #[test]
    fn everybody_has_the_same_order_whatever_the_order_of_addresses() {
        let one = addresses(5);
        let mut other = one.clone();
        other.reverse();
        for number in 0..50 {
            let key = format!("sha256:{number}");
            let in_order = |addresses: &[SocketAddr]| {
                ranked(addresses, &key).into_iter().map(|place| addresses[place]).collect::<Vec<_>>()
            };
            assert_eq!(in_order(&one), in_order(&other));
        }
    }

    #[test]
    fn content_is_spread_and_only_that_of_a_replica_that_goes_moves() {
        let (all, mut counts) = (addresses(4), [0; 4]);
        for number in 0..400 {
            let key = format!("sha256:{number}");
            let order = ranked(&all, &key);
            counts[order[0]] += 1;
            let without: Vec<_> = all.iter().copied().enumerate().filter(|(place, _)| *place != 2).collect();
            let left: Vec<_> = without.iter().map(|(_, address)| *address).collect();
            let first = without[ranked(&left, &key)[0]].0;
            assert_eq!(first, if order[0] == 2 { order[1] } else { order[0] });
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
    }
}

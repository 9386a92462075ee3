//! How much has to go, and what goes first: pure functions of numbers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;
use std::time::SystemTime;

use larder_process::size::size;

use super::folder::DiskRoom;

/// What stays free of a disk that others write to as well, in percent: kubelet evicts Pods below 15 % of the disk with images.
pub(super) const SHARED: u8 = 18;

/// What stays free of a disk of the store's own, in percent: enough for a file system to work well.
const OWN: u8 = 3;

/// Room that stays free on the disk, whoever fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Of the disk's size.
    Percent(u8),
    /// In bytes.
    Bytes(u64),
    /// By whose disk it is, which its size tells a store that may grow to `limit` bytes: a volume that was made for it is about as
    /// large as that. Any other disk may be a node's.
    ByDisk {
        /// In bytes.
        limit: u64,
    },
}

impl Reserve {
    pub(super) fn of(self, total: u64) -> u64 {
        // The quotient first: no overflow, and a disk of 100 bytes interests nobody.
        let percent = |percent: u8| total / 100 * u64::from(percent.min(100));
        match self {
            Self::Percent(share) => percent(share),
            Self::Bytes(bytes) => bytes,
            Self::ByDisk { limit } => {
                // A file system has less than its device by what it needs for itself, and a device may be rounded up.
                let hundredth = limit / 100;
                let made_for_it = hundredth.saturating_mul(85)..=hundredth.saturating_mul(110);
                percent(if made_for_it.contains(&total) { OWN } else { SHARED })
            }
        }
    }
}

/// `18%`, `50GiB`, `0`.
impl FromStr for Reserve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim().parse().ok().filter(|percent| *percent < 100);
                percent.map(Self::Percent).ok_or_else(|| "a share is a whole number from 0% to 99%".to_owned())
            }
            None if text == "0" => Ok(Self::Bytes(0)),
            None => size(text).map(Self::Bytes).map_err(|error| error.to_string()),
        }
    }
}

/// What a file of `length` bytes costs: disks give whole blocks.
pub(super) fn footprint(length: u64) -> u64 {
    length.checked_next_multiple_of(4096).unwrap_or(u64::MAX)
}

/// What has to be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Need {
    pub(super) fn is_met(self) -> bool {
        self == Self::default()
    }

    pub(super) fn after(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.saturating_sub(bytes), files: self.files.saturating_sub(1) }
    }
}

/// The numbers that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// What the store occupies.
    pub(super) used: u64,
    /// What it may.
    pub(super) limit: Option<u64>,
    /// The disk, if it could be asked.
    pub(super) disk: Option<DiskRoom>,
    pub(super) reserve: Reserve,
    pub(super) reserve_files: Reserve,
}

impl Situation {
    /// What has to go before more can come: `uncounted` bytes that are not in `used` yet, `unwritten` ones that the disk does
    /// not know of yet.
    pub(super) fn need(&self, uncounted: u64, unwritten: u64) -> Need {
        let by_limit = self.limit.map_or(0, |limit| self.used.saturating_add(uncounted).saturating_sub(limit));
        let (by_disk, files) = self.disk.map_or((0, 0), |disk| {
            // Zero in total: a disk that does not count them (tmpfs without a limit, ramfs, some of FUSE). The store's own limit holds.
            let bytes = match disk.total {
                0 => 0,
                total => self.reserve.of(total).saturating_add(unwritten).saturating_sub(disk.available),
            };
            let files = match disk.files_total {
                0 => 0,
                total => self.reserve_files.of(total).saturating_sub(disk.files_available),
            };
            (bytes, files)
        });
        Need { bytes: by_limit.max(by_disk), files }
    }
}

/// Keeps the `capacity` oldest of all that it is shown, so that a walk over any number of blobs takes bounded memory.
pub(super) struct Oldest<T> {
    capacity: usize,
    // The newest of the kept on top.
    kept: BinaryHeap<(SystemTime, u64, T)>,
}

impl<T: Ord> Oldest<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, kept: BinaryHeap::new() }
    }

    pub(super) fn show(&mut self, last_use: SystemTime, length: u64, item: T) {
        if self.kept.len() < self.capacity {
            self.kept.push((last_use, length, item));
        } else if self.kept.peek().is_some_and(|(newest, ..)| last_use < *newest) {
            self.kept.pop();
            self.kept.push((last_use, length, item));
        }
    }

    /// Oldest first.
    pub(super) fn into_sorted(self) -> Vec<(SystemTime, u64, T)> {
        let mut sorted: Vec<_> = self.kept.into_iter().map(Reverse).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        sorted.into_iter().map(|Reverse(entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn disk(total: u64, available: u64) -> DiskRoom {
        DiskRoom { total, available, files_total: 0, files_available: 0 }
    }

    #[test]
    fn the_reserve_counts_whoever_fills_the_disk() {
        let situation = Situation {
            used: 10,
            limit: None,
            disk: Some(disk(100_000, 15_000)),
            reserve: Reserve::Percent(18),
            reserve_files: Reserve::Percent(7),
        };
        assert_eq!(situation.need(0, 0), Need { bytes: 3_000, files: 0 });
        assert_eq!(situation.need(0, 500), Need { bytes: 3_500, files: 0 });
        let roomy = Situation { disk: Some(disk(100_000, 50_000)), ..situation };
        assert!(roomy.need(32_000, 32_000).is_met());
        assert!(!roomy.need(32_001, 32_001).is_met());
    }

    #[test]
    fn a_disk_that_does_not_say_how_large_it_is_has_room() {
        let situation = Situation {
            used: 90,
            limit: Some(100),
            disk: Some(disk(0, 0)),
            reserve: Reserve::ByDisk { limit: 100 },
            reserve_files: Reserve::Percent(7),
        };
        assert!(situation.need(10, 10).is_met());
        assert_eq!(situation.need(15, 15), Need { bytes: 5, files: 0 });
        let bytes = Situation { reserve: Reserve::Bytes(50), ..situation };
        assert!(bytes.need(10, 10).is_met());
    }

    #[test]
    fn a_disk_without_inodes_to_spare_has_no_room() {
        let counted = DiskRoom { files_total: 1_000, files_available: 60, ..disk(100_000, 90_000) };
        let situation = Situation {
            used: 0,
            limit: None,
            disk: Some(counted),
            reserve: Reserve::Percent(18),
            reserve_files: Reserve::Percent(7),
        };
        assert_eq!(situation.need(0, 0), Need { bytes: 0, files: 10 });
    }

    #[test]
    fn a_volume_of_its_own_is_filled_and_a_nodes_disk_is_not() {
        const GIB: u64 = 1 << 30;
        let reserve = Reserve::ByDisk { limit: 50 * GIB };
        // What ext4 and XFS leave of 50 GiB, and a provider that rounds up.
        for own in [46 * GIB, 49 * GIB, 50 * GIB, 52 * GIB] {
            assert_eq!(reserve.of(own), own / 100 * 3, "{}", own / GIB);
        }
        // Nodes' disks, a claim of a class whose volumes are folders of the node among them.
        for shared in [20 * GIB, 40 * GIB, 60 * GIB, 500 * GIB] {
            assert_eq!(reserve.of(shared), shared / 100 * 18, "{}", shared / GIB);
        }
        assert_eq!(Reserve::ByDisk { limit: u64::MAX }.of(GIB), GIB / 100 * 18);
    }

    #[test]
    fn reserves_are_as_written() {
        let reserve = |text: &str| text.parse::<Reserve>();
        assert_eq!(reserve("18%"), Ok(Reserve::Percent(18)));
        assert_eq!(reserve("0%"), Ok(Reserve::Percent(0)));
        assert_eq!(reserve("0"), Ok(Reserve::Bytes(0)));
        assert_eq!(reserve("50GiB"), Ok(Reserve::Bytes(50 << 30)));
        for wrong in ["", "%", "100%", "-1%", "1.5%", "many"] {
            assert!(reserve(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn freeing_what_is_needed_is_enough(used in 0u64..1 << 50, limit in proptest::option::of(0u64..1 << 50), wanted in 0u64..1 << 40, total in 0u64..1 << 50, available in 0u64..1 << 50) {
            let mut situation = Situation {
                used, limit, disk: Some(disk(total, available)), reserve: Reserve::Percent(18), reserve_files: Reserve::Percent(7),
            };
            let need = situation.need(wanted, wanted);
            // What the store does not have it cannot free; the rest must add up.
            if need.bytes <= used {
                situation.used -= need.bytes;
                situation.disk = Some(disk(total, available + need.bytes));
                prop_assert!(situation.need(wanted, wanted).is_met());
                prop_assert!(limit.is_none_or(|limit| situation.used + wanted <= limit));
            }
        }

        #[test]
        fn the_oldest_are_kept_in_order(ages in proptest::collection::vec(0u64..1000, 0..200), capacity in 1usize..50) {
            let mut oldest = Oldest::new(capacity);
            for (index, age) in ages.iter().enumerate() {
                oldest.show(SystemTime::UNIX_EPOCH + Duration::from_secs(*age), 1, index);
            }
            let mut expected = ages.clone();
            expected.sort_unstable();
            expected.truncate(capacity);
            let kept: Vec<u64> = oldest.into_sorted().into_iter().map(|(_, _, index)| ages[index]).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}

//! How often an object may be written in a minute, and that some of that is for what somebody waits for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::telling::Worth;

/// In this time.
const WINDOW: Duration = Duration::from_mins(1);

/// Writes of an image's object, and those of them that details may take.
pub(super) const OF_AN_IMAGE: (usize, usize) = (2, 1);

/// The same of a registry's. There are few of them, and an outage is to be seen within seconds, its end as well.
pub(super) const OF_A_REGISTRY: (usize, usize) = (12, 3);

/// What was written lately, of images or of registries.
#[derive(Debug)]
pub(super) struct Budget<K> {
    most: usize,
    details: usize,
    writes: BTreeMap<K, VecDeque<Instant>>,
}

impl<K: Ord + Clone> Budget<K> {
    /// So many writes of each in a minute, and of details.
    pub(super) fn of((most, details): (usize, usize)) -> Self {
        Self { most, details, writes: BTreeMap::new() }
    }

    /// When something of this worth may be written.
    pub(super) fn at(&mut self, key: &K, worth: Worth, now: Instant) -> Instant {
        let Some(writes) = self.writes.get_mut(key) else { return now };
        while writes.front().is_some_and(|at| *at + WINDOW <= now) {
            writes.pop_front();
        }
        // A detail leaves room for news.
        let room = if worth == Worth::News { self.most } else { self.details };
        let Some(excess) = writes.len().checked_sub(room) else { return now };
        writes.get(excess).map_or(now, |at| *at + WINDOW)
    }

    /// It was.
    pub(super) fn spent(&mut self, key: &K, now: Instant) {
        self.writes.entry(key.clone()).or_default().push_back(now);
    }

    /// Its object was deleted by a person, and what is written from now on is of another one.
    pub(super) fn forget(&mut self, key: &K) {
        self.writes.remove(key);
    }

    /// Of those that were not written lately nothing is remembered.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.writes.retain(|_, writes| writes.back().is_some_and(|at| *at + WINDOW > now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Image;
    use crate::work::telling;

    #[test]
    fn two_writes_a_minute_of_which_details_take_one() {
        let image = Image::parse("alpine:3").unwrap();
        let (mut budget, start) = (Budget::of(OF_AN_IMAGE), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(budget.at(&image, Worth::Detail, start), start);
        budget.spent(&image, start);
        assert_eq!(budget.at(&image, Worth::Detail, after(5)), after(60));
        assert_eq!(budget.at(&image, Worth::News, after(5)), after(5));
        budget.spent(&image, after(5));
        assert_eq!(budget.at(&image, Worth::News, after(6)), after(60));
        assert_eq!(budget.at(&image, Worth::Detail, after(6)), after(65));
        assert_eq!(budget.at(&image, Worth::News, after(60)), after(60));
        budget.forget_old(after(65));
        assert!(budget.writes.is_empty());
    }

    #[test]
    fn the_write_that_is_left_for_a_new_object_says_what_became_of_it() {
        use larder_api::CachedImageStatus;
        use larder_api::cached_image::{Cached, UpstreamAvailable};
        use larder_api::condition::set;

        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let saying = |reason| {
            let mut status =
                CachedImageStatus { digest: Some("sha256:…".to_owned()), ..CachedImageStatus::default() };
            set(&mut status.conditions, reason, "", None, &time);
            status
        };
        let worth = |before: &CachedImageStatus, after: &CachedImageStatus| {
            telling::worth(before, after, Duration::from_hours(6))
        };
        let new = CachedImageStatus::default();
        for reason in [Cached::Pending, Cached::QuotaKept, Cached::Queued, Cached::Fetching, Cached::Incomplete] {
            assert_eq!(worth(&new, &saying(reason)), Worth::Detail, "{reason:?}");
        }
        for reason in [Cached::Complete, Cached::Private, Cached::Refused, Cached::OverLimit] {
            assert_eq!(worth(&new, &saying(reason)), Worth::News, "{reason:?}");
        }
        // While it is on the way, what its registry says takes no place either.
        let mut answered = saying(Cached::Fetching);
        set(&mut answered.conditions, UpstreamAvailable::Present, "", None, &time);
        assert_eq!(worth(&saying(Cached::Pending), &answered), Worth::Detail);
        assert_eq!(worth(&saying(Cached::Pending), &saying(Cached::QuotaKept)), Worth::Detail);
        assert_eq!(worth(&saying(Cached::QuotaKept), &saying(Cached::Complete)), Worth::News);
        assert_eq!(worth(&answered, &saying(Cached::Complete)), Worth::News);
        // Later both are news.
        assert_eq!(worth(&saying(Cached::Complete), &saying(Cached::Incomplete)), Worth::News);
        assert_eq!(worth(&saying(Cached::Incomplete), &saying(Cached::Complete)), Worth::News);
    }
}

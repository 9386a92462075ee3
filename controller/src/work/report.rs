//! What is left out and why, and in `--mode observe` what would be cached: said on a page, in metrics and, once of each image, in the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Work, telling};
use crate::decide::bounds::Claim;
use crate::decide::conditions::size;
use crate::decide::filter::LeftOut;
use crate::decide::{Image, Moment, expiry};
use crate::world::now;

use super::bounding::claim;

/// The word for what is over a bound, beside those of filters.
const OVER: &str = "OverLimit";

/// Images that are named on the page. All are counted.
const NAMED: usize = 5_000;

/// Namespaces that are named of an image.
const NAMESPACES: usize = 10;

/// The page.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    mode: &'static str,
    /// Seconds since 1970.
    made_at: i64,
    /// In `observe`: what would be cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_cache: Option<WouldCache>,
    /// Images that Pods use and that are not cached, by why.
    left_out: BTreeMap<&'static str, usize>,
    left_out_images: Vec<NotCached>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct WouldCache {
    images: usize,
    /// Of those whose size is known.
    bytes: u64,
    of_unknown_size: usize,
    registries: BTreeMap<String, Registry>,
    list: Vec<Wanted>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registry {
    images: usize,
    bytes: u64,
    of_unknown_size: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    image: String,
    bytes: Option<u64>,
    pods: usize,
    namespaces: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotCached {
    image: String,
    reason: &'static str,
    message: String,
    pods: usize,
}

impl Report {
    fn leave_out(&mut self, image: &Image, reason: &'static str, message: String, pods: usize) {
        *self.left_out.entry(reason).or_default() += 1;
        if self.left_out_images.len() < NAMED {
            self.left_out_images.push(NotCached { image: image.to_string(), reason, message, pods });
        }
    }

    /// One that would be cached.
    fn want(&mut self, claim: &Claim, pods: usize) {
        let would = self.would_cache.get_or_insert_default();
        let registry = would.registries.entry(claim.image.registry().to_owned()).or_default();
        would.images += 1;
        registry.images += 1;
        if let Some(bytes) = claim.bytes {
            would.bytes = would.bytes.saturating_add(bytes);
            registry.bytes = registry.bytes.saturating_add(bytes);
        } else {
            would.of_unknown_size += 1;
            registry.of_unknown_size += 1;
        }
        if would.list.len() < NAMED {
            would.list.push(Wanted {
                image: claim.image.to_string(),
                bytes: claim.bytes,
                pods,
                namespaces: claim.namespaces.iter().take(NAMESPACES).map(ToString::to_string).collect(),
            });
        }
    }

    /// A line for the log.
    fn line(&self) -> Option<String> {
        let would = self.would_cache.as_ref()?;
        let amount = |images: usize, bytes: u64, unknown: usize| match unknown {
            0 => format!("{images} images, {}", size(bytes)),
            _ => format!("{images} images, {} and {unknown} of unknown size", size(bytes)),
        };
        let mut line = format!("would cache {}", amount(would.images, would.bytes, would.of_unknown_size));
        for (name, Registry { images, bytes, of_unknown_size }) in &would.registries {
            // Writing to a String cannot fail.
            let _ = write!(line, "; {name}: {}", amount(*images, *bytes, *of_unknown_size));
        }
        let left_out: usize = self.left_out.values().sum();
        let _ = write!(line, "; left out: {left_out}");
        Some(line)
    }
}

impl Work {
    /// After each pass.
    pub(super) fn report(&mut self) {
        let now = now();
        let (report, fresh) = self.make_report(now);
        for reason in LeftOut::REASONS.into_iter().chain([OVER]) {
            self.shared.metrics.left_out(reason, report.left_out.get(reason).copied().unwrap_or_default());
        }
        for (image, left_out) in fresh {
            if self.told_over.is_first(&image) {
                tracing::info!(%image, "not cached: {left_out}");
            }
        }
        if let Some(line) = report.line()
            && self.last_report.as_ref() != Some(&line)
        {
            tracing::info!("{line}");
            self.last_report = Some(line);
        }
        let page = serde_json::to_string(&report).unwrap_or_default();
        *self.shared.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = page;
    }

    /// And why images are left out of which that may not have been said yet.
    fn make_report(&self, now: Moment) -> (Report, Vec<(Image, LeftOut)>) {
        let observe = self.shared.settings.observe;
        let mode = if observe { "observe" } else { "manage" };
        let mut report = Report { mode, made_at: now.seconds(), ..Report::default() };
        let mut fresh = Vec::new();
        let known = self.shared.world.known();
        for (image, why, pods) in known.index.left_out() {
            report.leave_out(image, why.reason(), why.to_string(), pods);
            if self.told_over.may_be_first(image) {
                fresh.push((image.clone(), why.clone()));
            }
        }
        let over = if observe {
            let claims = self.would_have(&known, now);
            let over = self.shared.settings.bounds.judge(&claims).all_over().clone();
            report.would_cache = Some(WouldCache::default());
            for claim in claims.iter().filter(|claim| !over.contains_key(&claim.image)) {
                let pods = known.index.image(&claim.image, now).map_or(0, |wanted| wanted.used_by);
                report.want(claim, pods);
            }
            over
        } else {
            self.ledger.as_ref().map(|ledger| ledger.all_over().clone()).unwrap_or_default()
        };
        for (image, over) in &over {
            let pods = known.index.image(image, now).map_or(0, |wanted| wanted.used_by);
            report.leave_out(image, OVER, over.to_string(), pods);
        }
        report.left_out_images.sort_by(|a, b| (a.reason, &a.image).cmp(&(b.reason, &b.image)));
        (report, fresh)
    }

    /// What would have an object, with the sizes that are known.
    fn would_have(&self, known: &crate::world::Known, now: Moment) -> Vec<Claim> {
        let wanted = known.index.images().filter(|image| {
            let used = telling::use_of(known.index.image(image, now).as_ref());
            expiry::wants_object(image, used, &self.rules, now)
        });
        let mut all: Vec<Image> = wanted.chain(known.by_image.keys()).cloned().collect();
        all.sort_unstable();
        all.dedup();
        let one = |image: &Image| {
            let claim = claim(known, image);
            let pinned = self.pins.known.get(image).map(|pin| pin.bytes.known).filter(|bytes| *bytes > 0);
            Claim { bytes: pinned.or(claim.bytes).or_else(|| self.sizes.of(image)), ..claim }
        };
        all.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_reads() {
        let mut report = Report { mode: "observe", made_at: 1_790_000_000, ..Report::default() };
        let claim = |name: &str, bytes| Claim {
            image: Image::parse(name).unwrap(),
            namespaces: ["shop".into()].into(),
            since: Moment::default(),
            bytes,
        };
        report.want(&claim("alpine:3", Some(3 << 20)), 2);
        report.want(&claim("ghcr.io/team/app:1", None), 1);
        report.leave_out(&Image::parse("nginx").unwrap(), "PodIgnored", LeftOut::PodIgnored.to_string(), 4);
        insta::assert_snapshot!(format!(
            "{}\n{}",
            report.line().unwrap(),
            serde_json::to_string_pretty(&report).unwrap()
        ));
    }
}

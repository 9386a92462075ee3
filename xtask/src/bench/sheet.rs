//! Numbers as they come in, and what follows from them: pure.
//!
//! Invariant: the samples of all contenders for one quantity are in the order of the rounds, so that a ratio is formed of two samples
//! of the same round.

use super::row::Row;

/// The contender that everything is about.
pub(super) const LARDER: &str = "larder";

/// Samples of a row.
#[derive(Default)]
pub(super) struct Sheet {
    samples: Vec<Samples>,
}

struct Samples {
    quantity: String,
    contender: &'static str,
    values: Vec<f64>,
}

/// How Larder is set beside a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Larder's divided by the peer's.
    Ratio,
    /// Larder's less the peer's, shown with a sign.
    Difference,
    /// Side by side only.
    NotAtAll,
}

/// A quantity of a row: what the table shows.
pub(super) struct Finding {
    pub(super) row: Row,
    pub(super) what: String,
    pub(super) larder: Spread,
    pub(super) peers: Vec<Peer>,
    pub(super) compared: Compared,
    /// What the project aims at, beside the first peer.
    pub(super) goal: Option<&'static str>,
    pub(super) note: String,
}

/// Another contender.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) value: Spread,
    pub(super) compared: Option<Spread>,
}

/// The middle and how far it went to either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) lowest: f64,
    pub(super) median: f64,
    pub(super) highest: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let lowest = values.iter().copied().reduce(f64::min)?;
        let highest = values.iter().copied().reduce(f64::max)?;
        Some(Self { lowest, median: median(values), highest })
    }
}

/// The middle value; of an even number of values the mean of the two in the middle; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (lower, upper) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    sorted.get(lower).zip(sorted.get(upper)).map_or(0.0, |(one, other)| f64::midpoint(*one, *other))
}

impl Sheet {
    /// One sample.
    pub(super) fn note(&mut self, quantity: &str, contender: &'static str, value: f64) {
        let known = self.samples.iter_mut().find(|samples| samples.is(quantity, contender));
        match known {
            Some(samples) => samples.values.push(value),
            None => self.samples.push(Samples { quantity: quantity.to_owned(), contender, values: vec![value] }),
        }
    }

    /// What is known about a quantity, peers in the order in which they were noted first. `None` when Larder has no sample.
    pub(super) fn finding(&self, row: Row, quantity: &str, compared: Compared) -> Option<Finding> {
        let larder = self.samples.iter().find(|samples| samples.is(quantity, LARDER))?;
        let others = self.samples.iter().filter(|samples| samples.quantity == quantity && samples.contender != LARDER);
        let peers = others.filter_map(|peer| {
            let pairs = larder.values.iter().zip(&peer.values);
            let each: Vec<f64> = match compared {
                Compared::Ratio => pairs.map(|(ours, theirs)| ours / theirs).collect(),
                Compared::Difference => pairs.map(|(ours, theirs)| ours - theirs).collect(),
                Compared::NotAtAll => Vec::new(),
            };
            Some(Peer { name: peer.contender, value: Spread::of(&peer.values)?, compared: Spread::of(&each) })
        });
        Some(Finding {
            row,
            what: quantity.to_owned(),
            larder: Spread::of(&larder.values)?,
            peers: peers.collect(),
            compared,
            goal: None,
            note: String::new(),
        })
    }
}

impl Samples {
    fn is(&self, quantity: &str, contender: &str) -> bool {
        self.quantity == quantity && self.contender == contender
    }
}

impl Finding {
    pub(super) fn goal(self, goal: &'static str) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(super) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_formed_within_a_round() {
        let mut sheet = Sheet::default();
        // Everything takes ten times as long in the second round; the ratio does not.
        for (ours, theirs) in [(2.0, 1.0), (20.0, 10.0), (3.0, 1.0)] {
            sheet.note("wall", "direct", theirs);
            sheet.note("wall", LARDER, ours);
        }
        let finding = sheet.finding(Row::Herd, "wall", Compared::Ratio).unwrap();
        let ratio = finding.peers[0].compared.unwrap();
        assert_eq!(ratio, Spread { lowest: 2.0, median: 2.0, highest: 3.0 });
        assert_eq!(finding.larder, Spread { lowest: 2.0, median: 3.0, highest: 20.0 });
    }

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn without_larder_there_is_nothing_to_say() {
        let mut sheet = Sheet::default();
        sheet.note("wall", "direct", 1.0);
        assert!(sheet.finding(Row::Herd, "wall", Compared::Ratio).is_none());
    }
}

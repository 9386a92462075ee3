//! Candidates whose clocks run differently, whose way to the API server is slow, lossy or cut, who stall and come back: never two lead.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TIMES: Times =
    Times { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };

fn record(version: u64, holder: &str) -> Record {
    Record { version: version.to_string(), holder: holder.to_owned(), lease: TIMES.lease, transitions: 0 }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_lease_is_free_once_it_was_seen_unchanged_for_its_whole_length() {
    let start = Instant::now();
    let mut election = Election::new("we".to_owned(), TIMES, start);
    assert_eq!(election.step(start), Step::Look);
    for second in [0, 2, 14] {
        assert_eq!(election.saw(Some(record(7, "they")), start + seconds(second)), None);
    }
    // It was renewed, whatever its times say.
    assert_eq!(election.saw(Some(record(8, "they")), start + seconds(15)), None);
    assert_eq!(election.saw(Some(record(8, "they")), start + seconds(29)), None);
    let claim = election.saw(Some(record(8, "they")), start + seconds(30));
    assert_eq!(claim, Some(Claim { replaces: Some(record(8, "they")), renews: false, waits: false }));
    election.wrote(&claim.unwrap(), record(9, "we"), start + seconds(30), start + seconds(33));
    assert_eq!(election.leads_until(start + seconds(34)), Some(start + seconds(40)), "from the write's beginning");
    assert_eq!(election.next(), start + seconds(32));
    assert_eq!(
        election.step(start + seconds(34)),
        Step::Renew(Claim { replaces: Some(record(9, "we")), renews: true, waits: false })
    );
    assert_eq!(election.leads_until(start + seconds(40)), None);
    assert_eq!(election.step(start + seconds(40)), Step::Look, "it may be somebody else's by now");
}

#[test]
fn one_that_was_given_back_is_free_at_once_and_one_that_is_not_there_is_held_before_it_is_used() {
    let start = Instant::now();
    let mut election = Election::new("we".to_owned(), TIMES, start);
    assert_eq!(election.saw(Some(record(7, "they")), start), None);
    assert!(election.clone().saw(Some(record(8, "")), start + seconds(2)).is_some());
    // They may have renewed it just before somebody deleted it, and work on.
    let claim = election.saw(None, start + seconds(2)).unwrap();
    assert_eq!(claim, Claim { replaces: None, renews: false, waits: true });
    for (version, second) in [(1, 2), (2, 8), (3, 14)] {
        let now = start + seconds(second);
        let claim = if second == 2 { claim.clone() } else { claim_of(&election, now) };
        election.wrote(&claim, record(version, "we"), now, now);
        assert_eq!(election.leads_until(now), None);
    }
    assert_eq!(election.leads_until(start + seconds(17)), Some(start + seconds(24)));
    // Ours, deleted: nobody else can hold one long enough meanwhile.
    let now = start + seconds(18);
    let claim = election.saw(None, now).unwrap();
    assert_eq!(claim, Claim { replaces: None, renews: true, waits: false });
    election.wrote(&claim, record(4, "we"), now, now);
    assert_eq!(election.leads_until(now), Some(start + seconds(28)));
}

fn claim_of(election: &Election, now: Instant) -> Claim {
    match election.step(now) {
        Step::Renew(claim) => claim,
        Step::Look => panic!("nothing to renew"),
    }
}

#[test]
fn whoever_cannot_renew_stops_and_whoever_sees_another_one_stops_at_once() {
    let start = Instant::now();
    let mut election = Election::new("we".to_owned(), TIMES, start);
    let claim = election.saw(Some(record(0, "")), start).unwrap();
    election.wrote(&claim, record(1, "we"), start, start);
    election.must_look(start + seconds(3));
    assert_eq!(election.step(start + seconds(3)), Step::Look, "nobody knows which version there is");
    assert_eq!(election.to_release(), None);
    assert!(election.leads_until(start + seconds(9)).is_some());
    // The write that nobody answered has happened.
    assert_eq!(
        election.saw(Some(record(2, "we")), start + seconds(9)),
        Some(Claim { replaces: Some(record(2, "we")), renews: true, waits: false })
    );
    assert_eq!(election.saw(Some(record(3, "they")), start + seconds(9)), None);
    assert_eq!(election.leads_until(start + seconds(9)), None);
    assert_eq!(election.to_release(), None);
}

#[test]
fn nobody_elses_word_makes_a_lease_last_for_ever_or_for_nothing() {
    let start = Instant::now();
    for (said, free_after) in [(0, 15), (1, 15), (60, 60), (1_000_000, 120)] {
        let mut election = Election::new("we".to_owned(), TIMES, start);
        let theirs = Record { lease: seconds(said), ..record(1, "they") };
        election.saw(Some(theirs.clone()), start);
        assert_eq!(election.saw(Some(theirs.clone()), start + seconds(free_after - 1)), None, "{said}");
        assert!(election.saw(Some(theirs), start + seconds(free_after)).is_some(), "{said}");
    }
}

/// What becomes of one question to the API server.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Milliseconds until it is there, and until the answer is back.
    there: u64,
    back: u64,
    is_lost: bool,
    answer_is_lost: bool,
    /// How long the candidate stands still after it.
    stall: u64,
}

fn way() -> impl Strategy<Value = Way> {
    let slow = prop_oneof![8 => 0..50_u64, 2 => 0..3_000_u64, 1 => 0..20_000_u64];
    let stall = prop_oneof![20 => Just(0_u64), 1 => 0..30_000_u64];
    (slow.clone(), slow, prop::bool::weighted(0.15), prop::bool::weighted(0.15), stall)
        .prop_map(|(there, back, is_lost, answer_is_lost, stall)| Way { there, back, is_lost, answer_is_lost, stall })
}

struct Simulated {
    election: Election,
    /// Clock: thousandths of a real millisecond's length.
    rate: u64,
    start: Instant,
    ways: Vec<Way>,
    asked: usize,
}

enum Event {
    Act(usize),
    Look(usize, Way),
    Put(usize, Way, Claim, Instant),
    Saw(usize, Option<Record>),
    Answered(usize, Option<Record>, Claim, Instant),
    Lost(usize),
}

impl Simulated {
    fn local(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_micros(milliseconds * self.rate)
    }

    /// When its own clock shows this, in real milliseconds.
    fn real(&self, at: Instant) -> u64 {
        let micros = u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap();
        micros.div_ceil(self.rate)
    }

    fn way(&mut self) -> Way {
        self.asked += 1;
        self.ways[self.asked % self.ways.len()]
    }
}

#[expect(clippy::too_many_lines, reason = "one loop over all that can happen")]
/// Runs candidates for a while. How often one came to lead, or why it is wrong.
fn simulate(rates: &[u64], ways: &[Vec<Way>], deletes: &[u64], first: Option<Record>) -> Result<usize, TestCaseError> {
    let start = Instant::now();
    let mut candidates: Vec<Simulated> = rates
        .iter()
        .zip(ways)
        .enumerate()
        .map(|(index, (&rate, ways))| {
            // Clocks that show wholly different times.
            let start = start + seconds(index as u64 * 86_400);
            let election = Election::new(format!("candidate {index}"), TIMES, start);
            Simulated { election, rate, start, ways: ways.clone(), asked: 0 }
        })
        .collect();
    let mut queue: BTreeMap<(u64, usize), Event> = BTreeMap::new();
    let mut number = 0;
    let mut push = |queue: &mut BTreeMap<(u64, usize), Event>, at: u64, event: Event| {
        number += 1;
        queue.insert((at, number), event);
    };
    for index in 0..candidates.len() {
        push(&mut queue, 0, Event::Act(index));
    }
    let (mut stored, mut version, mut terms, mut last) = (first, 1_u64, 0, None);
    let mut deletes = deletes.to_vec();
    deletes.sort_unstable();
    while let Some(((now, _), event)) = queue.pop_first() {
        if now > 300_000 {
            break;
        }
        if deletes.first().is_some_and(|at| *at <= now) {
            deletes.remove(0);
            stored = None;
        }
        match event {
            Event::Act(index) => {
                let candidate = &mut candidates[index];
                let way = candidate.way();
                let began = candidate.local(now);
                match candidate.election.step(began) {
                    _ if way.is_lost => push(&mut queue, now + 3_000, Event::Lost(index)),
                    Step::Look => push(&mut queue, now + way.there, Event::Look(index, way)),
                    Step::Renew(claim) => push(&mut queue, now + way.there, Event::Put(index, way, claim, began)),
                }
            }
            Event::Look(index, way) if way.answer_is_lost => push(&mut queue, now + 3_000, Event::Lost(index)),
            Event::Look(index, way) => {
                push(&mut queue, now + way.back + way.stall, Event::Saw(index, stored.clone()));
            }
            Event::Put(index, way, claim, began) => {
                let current = stored.as_ref().map(|record| record.version.clone());
                let written = if current == claim.replaces.as_ref().map(|record| record.version.clone()) {
                    version += 1;
                    stored = Some(record(version, &format!("candidate {index}")));
                    stored.clone()
                } else {
                    None
                };
                if way.answer_is_lost {
                    push(&mut queue, now + 3_000, Event::Lost(index));
                } else {
                    push(&mut queue, now + way.back + way.stall, Event::Answered(index, written, claim, began));
                }
            }
            Event::Saw(index, seen) => {
                let candidate = &mut candidates[index];
                let local = candidate.local(now);
                if let Some(claim) = candidate.election.saw(seen, local) {
                    let way = candidate.way();
                    if way.is_lost {
                        push(&mut queue, now + 3_000, Event::Lost(index));
                    } else {
                        push(&mut queue, now + way.there, Event::Put(index, way, claim, local));
                    }
                } else {
                    let next = candidate.real(candidate.election.next()).max(now);
                    push(&mut queue, next, Event::Act(index));
                }
            }
            Event::Answered(index, written, claim, began) => {
                let candidate = &mut candidates[index];
                let local = candidate.local(now);
                match written {
                    Some(record) => candidate.election.wrote(&claim, record, began, local),
                    None => candidate.election.must_look(local),
                }
                let next = candidate.real(candidate.election.next()).max(now + 1);
                push(&mut queue, next, Event::Act(index));
            }
            Event::Lost(index) => {
                let candidate = &mut candidates[index];
                let local = candidate.local(now);
                candidate.election.must_look(local);
                push(&mut queue, now + 1, Event::Act(index));
            }
        }
        let leaders: Vec<usize> = (0..candidates.len())
            .filter(|&index| candidates[index].election.leads_until(candidates[index].local(now)).is_some())
            .collect();
        prop_assert!(leaders.len() < 2, "at {now} ms: {leaders:?}");
        if let Some(&leader) = leaders.first()
            && last.replace(leader) != Some(leader)
        {
            terms += 1;
        }
    }
    Ok(terms)
}

proptest! {
    #[test]
    fn never_two_lead(
        rates in prop::collection::vec(900..1_100_u64, 2..4),
        ways in prop::collection::vec(prop::collection::vec(way(), 1..40), 3),
        deletes in prop::collection::vec(0..300_000_u64, 0..6),
        is_there: bool,
    ) {
        simulate(&rates, &ways, &deletes, is_there.then(|| record(1, "")))?;
    }
}

fn free() -> Record {
    record(1, "")
}

#[test]
fn one_leads_where_nothing_is_wrong_and_another_one_where_it_falls_silent() {
    let good = Way { there: 5, back: 5, is_lost: false, answer_is_lost: false, stall: 0 };
    assert_eq!(simulate(&[1_000, 1_000], &[vec![good], vec![good]], &[], Some(free())).unwrap(), 1);
    let lost = Way { is_lost: true, ..good };
    let mut silent = vec![good; 10];
    silent.extend(vec![lost; 1_000]);
    assert_eq!(simulate(&[1_000, 1_000], &[silent, vec![good]], &[], Some(free())).unwrap(), 2);
}

/// The simulation finds what the rules forbid.
#[test]
fn a_candidate_that_works_too_long_is_found_out() {
    let good = Way { there: 5, back: 5, is_lost: false, answer_is_lost: false, stall: 0 };
    let lost = Way { is_lost: true, ..good };
    let mut silent = vec![good; 10];
    silent.extend(vec![lost; 1_000]);
    // Its clock runs at half the speed of the other's, which no machine's does.
    let found = simulate(&[500, 1_000], &[silent, vec![good]], &[], Some(free()));
    assert!(found.is_err(), "{found:?}");
}

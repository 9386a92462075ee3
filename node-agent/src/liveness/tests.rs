use super::{Action, Event, Health, Limits, Liveness, Probe};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ours() -> Event {
    Event::Probe(Probe::Ours { stalled: ms(3) })
}

fn stalled(for_ms: u64) -> Event {
    Event::Probe(Probe::Ours { stalled: ms(for_ms) })
}

fn missed() -> Event {
    Event::Probe(Probe::Missed { by: None })
}

fn silent_stranger() -> Event {
    Event::Probe(Probe::Missed { by: Some("nc (pid 17)".to_owned()) })
}

fn refused() -> Event {
    Event::Probe(Probe::Refused)
}

fn stranger() -> Event {
    Event::Probe(Probe::Stranger { who: "nc (pid 17)".to_owned() })
}

/// What an action is, without its instant.
fn names(actions: &[Action]) -> Vec<&'static str> {
    actions
        .iter()
        .map(|action| match action {
            Action::Announce => "announce",
            Action::Withdraw => "withdraw",
            Action::Kill => "kill",
            Action::CloseSockets => "close sockets",
            Action::CloseClients => "close clients",
            Action::HoldOff(_) => "hold off",
        })
        .collect()
}

/// Each row: milliseconds since the start, what happens, what must be done about it.
fn play(rows: &[(u64, Event, &[&str])]) -> Liveness {
    let start = Instant::now();
    let mut liveness = Liveness::new(Limits::default(), start);
    for (at, event, expected) in rows {
        let actions = liveness.step(start + ms(*at), event.clone());
        assert_eq!(names(&actions), *expected, "at {at} ms, {event:?}, then {:?}", liveness.health());
    }
    liveness
}

#[test]
fn announced_when_our_proxy_answers_and_only_once() {
    let liveness =
        play(&[(0, Event::Started, &[]), (50, refused(), &[]), (100, ours(), &["announce"]), (600, ours(), &[])]);
    assert_eq!(*liveness.health(), Health::Well);
}

#[test]
fn dead_is_withdrawn_at_once_and_announced_when_it_answers_again() {
    play(&[
        (0, ours(), &["announce"]),
        (500, refused(), &["withdraw"]),
        (600, Event::Started, &[]),
        (700, ours(), &["announce"]),
        (900, Event::Exited, &["withdraw", "close clients"]),
        (950, refused(), &[]),
    ]);
}

#[test]
fn one_missed_probe_is_no_hang() {
    play(&[(0, ours(), &["announce"]), (1200, missed(), &[]), (1300, ours(), &[]), (2500, missed(), &[])]);
}

#[test]
fn a_hang_is_withdrawn_killed_and_closed_within_three_seconds() {
    // It hangs right after the answer at 0: the worst moment.
    let liveness = play(&[
        (0, ours(), &["announce"]),
        (1200, missed(), &[]),
        (1900, missed(), &["withdraw", "kill", "hold off"]),
        (2100, Event::Tick, &[]),
        (2200, Event::Tick, &["close sockets"]),
        (2900, missed(), &[]),
    ]);
    assert_eq!(*liveness.health(), Health::Hung);
}

#[test]
fn the_second_probe_follows_a_missed_one_at_once() {
    let start = Instant::now();
    let mut liveness = Liveness::new(Limits::default(), start);
    liveness.step(start, ours());
    assert_eq!(liveness.wait(start), ms(500));
    liveness.step(start + ms(1200), missed());
    assert_eq!(liveness.wait(start + ms(1200)), Duration::ZERO);
    liveness.step(start + ms(1900), missed());
    assert_eq!(liveness.wait(start + ms(1950)), ms(250));
}

#[test]
fn a_killed_proxy_that_went_has_no_sockets_to_close() {
    play(&[
        (0, ours(), &["announce"]),
        (1200, missed(), &[]),
        (1900, missed(), &["withdraw", "kill", "hold off"]),
        (1910, Event::Exited, &[]),
        (2300, Event::Tick, &[]),
    ]);
}

#[test]
fn after_a_kill_it_is_held_off_and_longer_each_time() {
    let liveness = play(&[
        (0, ours(), &["announce"]),
        (1200, missed(), &[]),
        (1900, missed(), &["withdraw", "kill", "hold off"]),
        (1910, Event::Exited, &[]),
        (2000, Event::Started, &[]),
        (2100, ours(), &[]),
        (3800, ours(), &[]),
        (3900, ours(), &["announce"]),
        (5000, missed(), &[]),
        (5700, missed(), &["withdraw", "kill", "hold off"]),
        (5710, Event::Exited, &[]),
        (5800, Event::Started, &[]),
        (7800, ours(), &[]),
        (9690, ours(), &[]),
        (9700, ours(), &["announce"]),
    ]);
    assert_eq!(*liveness.health(), Health::Well);
}

#[test]
fn a_hang_while_held_off_waits_for_its_end() {
    play(&[
        (0, ours(), &["announce"]),
        (1200, missed(), &[]),
        (1900, missed(), &["withdraw", "kill", "hold off"]),
        (1910, Event::Exited, &[]),
        (2000, Event::Started, &[]),
        (2100, ours(), &[]),
        (2800, missed(), &[]),
        (3500, missed(), &[]),
        (4200, missed(), &["kill", "hold off"]),
    ]);
}

#[test]
fn a_slow_start_is_no_hang_but_an_endless_one_is() {
    play(&[
        (0, Event::Started, &[]),
        (700, missed(), &[]),
        (1400, missed(), &[]),
        (9000, missed(), &[]),
        (10_100, missed(), &["kill", "hold off"]),
    ]);
}

#[test]
fn a_stalled_runtime_is_withdrawn_and_in_the_end_killed() {
    play(&[
        (0, ours(), &["announce"]),
        (500, stalled(1999), &[]),
        (1000, stalled(2000), &["withdraw"]),
        (1500, ours(), &["announce"]),
        (2000, stalled(14_999), &["withdraw"]),
        (2500, stalled(15_000), &["kill", "hold off"]),
    ]);
}

#[test]
fn a_stranger_is_withdrawn_named_and_never_killed() {
    let liveness = play(&[
        (0, ours(), &["announce"]),
        (500, stranger(), &["withdraw", "close clients"]),
        (1000, stranger(), &["close clients"]),
        (9000, stranger(), &["close clients"]),
    ]);
    assert_eq!(*liveness.health(), Health::Stranger("nc (pid 17)".to_owned()));
}

#[test]
fn a_stranger_that_never_says_a_word_is_named_for_as_long_as_it_stays_and_never_killed() {
    let mut liveness = play(&[]);
    let start = Instant::now();
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        let actions = names(&liveness.step(now, silent_stranger()));
        assert!(!actions.contains(&"kill") && !actions.contains(&"hold off"), "{actions:?} after {second} s");
        liveness.step(now + ms(100), Event::Tick);
        if second > 0 {
            assert_eq!(*liveness.health(), Health::Stranger("nc (pid 17)".to_owned()), "after {second} s");
        }
    }
    // Nothing of it counts against the proxy that comes when the stranger has gone.
    let later = start + Duration::from_mins(2);
    assert_eq!(names(&liveness.step(later, ours())), ["announce"]);
}

#[test]
fn the_clients_of_a_stranger_are_his_where_nobody_was_told_to_ask_there() {
    play(&[
        (0, stranger(), &[]),
        (500, stranger(), &[]),
        (600, refused(), &[]),
        (700, ours(), &["announce"]),
        (1200, stranger(), &["withdraw", "close clients"]),
    ]);
}

#[test]
fn whoever_keeps_silent_on_the_port_of_an_ended_proxy_keeps_nobody_waiting() {
    play(&[
        (0, ours(), &["announce"]),
        (500, Event::Exited, &["withdraw", "close clients"]),
        (600, Event::Started, &[]),
        (650, Event::Exited, &[]),
        (1300, missed(), &[]),
        (2000, missed(), &["close clients"]),
        (2700, missed(), &["close clients"]),
    ]);
}

#[test]
fn a_stranger_stays_one_while_our_proxies_fail_to_start_beside_it() {
    let liveness = play(&[
        (0, ours(), &["announce"]),
        (500, Event::Exited, &["withdraw", "close clients"]),
        (500, stranger(), &["close clients"]),
        (600, Event::Started, &[]),
        (700, Event::Exited, &[]),
    ]);
    assert!(matches!(liveness.health(), Health::Stranger(_)), "{:?}", liveness.health());
    let liveness = play(&[(0, stranger(), &[]), (500, Event::Started, &[]), (600, refused(), &[])]);
    assert_eq!(*liveness.health(), Health::Starting);
}

#[test]
fn after_a_stop_nothing_is_announced_or_killed() {
    play(&[
        (0, ours(), &["announce"]),
        (100, Event::Stop, &["withdraw"]),
        (200, ours(), &[]),
        (900, missed(), &[]),
        (1600, missed(), &[]),
        (2300, Event::Exited, &[]),
    ]);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(ours()),
        4 => Just(missed()),
        1 => (0_u64..20_000).prop_map(stalled),
        1 => Just(refused()),
        1 => Just(stranger()),
        1 => Just(silent_stranger()),
        1 => Just(Event::Started),
        1 => Just(Event::Exited),
        2 => Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens: announced only on an answer of ours, never longer than two misses, never killed in a hold-off,
    /// and never anything after a stop.
    #[test]
    fn the_rules_hold_for_every_history(
        history in prop::collection::vec((0_u64..5_000, any_event()), 1..200),
        stop in 0_usize..220,
    ) {
        let limits = Limits::default();
        let mut now = Instant::now();
        let mut liveness = Liveness::new(limits, now);
        let mut misses = 0;
        let mut held_off_until: Option<Instant> = None;
        let mut announced = false;
        for (index, (later, event)) in history.into_iter().enumerate() {
            now += ms(later);
            let event = if index == stop { Event::Stop } else { event };
            let actions = liveness.step(now, event.clone());
            if index > stop {
                prop_assert!(actions.is_empty(), "{actions:?} after a stop");
                continue;
            }
            misses = if matches!(event, Event::Probe(Probe::Missed { .. })) { misses + 1 } else if event == Event::Tick { misses } else { 0 };
            for action in &actions {
                match action {
                    Action::Announce => {
                        prop_assert!(!announced);
                        let moving = matches!(&event, Event::Probe(Probe::Ours { stalled }) if *stalled < limits.stalled);
                        prop_assert!(moving, "announced by {event:?}");
                        prop_assert!(held_off_until.is_none_or(|until| now >= until));
                        announced = true;
                    }
                    Action::Withdraw => {
                        prop_assert!(announced);
                        announced = false;
                    }
                    Action::Kill => {
                        prop_assert!(!announced, "killed before it was withdrawn");
                        prop_assert!(held_off_until.is_none_or(|until| now >= until));
                    }
                    Action::HoldOff(until) => {
                        prop_assert!(*until >= now + limits.hold_off && *until <= now + limits.longest_hold_off);
                        held_off_until = Some(*until);
                    }
                    Action::CloseSockets | Action::CloseClients => prop_assert!(!announced),
                }
            }
            prop_assert_eq!(announced, liveness.announced());
            prop_assert!(!announced || misses < limits.misses);
            let lost = matches!(&event, Event::Exited | Event::Stop | Event::Probe(Probe::Refused | Probe::Stranger { .. }));
            prop_assert!(!(announced && lost), "announced after {event:?}");
        }
    }
}

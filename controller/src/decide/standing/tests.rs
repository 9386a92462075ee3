use super::*;

fn at(seconds: u64) -> Moment {
    Moment::from_millis(1_000_000_000 + seconds * 1000)
}

fn row(times: u64, in_a_row: u64, since: u64, last: u64) -> Row {
    Row { times, in_a_row, since_and_at: Some((at(since), at(last))) }
}

fn failure(error: &str) -> Failure {
    Failure { endpoint: "https://reg.example.com".into(), why: Why::Unreachable, error: error.into() }
}

/// Answers and failures as a replica has counted them.
fn report(answered: Row, failed: Row) -> Report {
    Report { answered, failed, failure: (failed.times > 0).then(|| failure("refused")), ..Report::default() }
}

fn learn(standing: &mut Standing, replica: &str, report: Report, now: u64) -> Reachable {
    standing.learn([(replica.to_owned(), report)], at(now));
    standing.reachable()
}

#[test]
fn three_failures_in_a_row_are_an_outage_and_two_answers_its_end() {
    let mut standing = Standing::default();
    assert_eq!(standing.reachable(), Reachable::Unknown);
    let up = learn(&mut standing, "a", report(row(5, 5, 0, 9), Row::default()), 10);
    assert_eq!(up, Reachable::Since(at(0)));
    assert_eq!(learn(&mut standing, "a", report(row(5, 0, 0, 9), row(2, 2, 11, 12)), 13), Reachable::Since(at(0)));
    assert!(standing.is_in_doubt());
    assert_eq!(learn(&mut standing, "a", report(row(5, 0, 0, 9), row(3, 3, 11, 14)), 15), Reachable::Not(at(11)));
    assert_eq!(standing.errors.iter().map(|error| (error.count, error.at)).collect::<Vec<_>>(), [(3, at(14))]);
    assert_eq!(learn(&mut standing, "a", report(row(6, 1, 20, 20), row(3, 0, 11, 14)), 21), Reachable::Not(at(11)));
    assert_eq!(learn(&mut standing, "a", report(row(7, 2, 20, 22), row(3, 0, 11, 14)), 23), Reachable::Since(at(20)));
}

#[test]
fn whoever_comes_later_learns_of_an_outage_from_one_report() {
    let mut standing = Standing::default();
    let down = learn(&mut standing, "a", report(row(70, 0, 0, 9), row(40, 40, 11, 200)), 201);
    assert_eq!(down, Reachable::Not(at(11)));
    assert_eq!(standing.why(), Why::Unreachable);
}

#[test]
fn one_replica_with_a_bad_network_is_no_outage() {
    let mut standing = Standing::default();
    for second in (0..60).step_by(2) {
        let good = report(row(second + 1, second + 1, 0, second + 1), Row::default());
        let bad = report(Row::default(), row(second + 1, second + 1, 0, second));
        standing.learn([("bad".to_owned(), bad), ("good".to_owned(), good)], at(second + 1));
        assert!(!matches!(standing.reachable(), Reachable::Not(_)), "{second}");
    }
}

#[test]
fn what_was_counted_before_is_not_counted_again_and_a_replica_may_begin_anew() {
    let mut standing = Standing::default();
    let failing = || report(Row::default(), row(2, 2, 1, 2));
    for now in 3..9 {
        assert_eq!(learn(&mut standing, "a", failing(), now), Reachable::Unknown);
    }
    assert_eq!(learn(&mut standing, "a", report(Row::default(), row(1, 1, 10, 10)), 11), Reachable::Not(at(1)));
}

#[test]
fn what_another_replica_saw_long_ago_says_nothing_new() {
    let mut standing = Standing::default();
    learn(&mut standing, "a", report(row(1, 1, 100, 100), Row::default()), 101);
    let late = report(Row::default(), row(9, 9, 10, 20));
    assert_eq!(learn(&mut standing, "b", late, 102), Reachable::Since(at(100)));
    assert!(!standing.is_in_doubt());
    // Unless the clock was set back.
    let mut standing = Standing::default();
    learn(&mut standing, "a", report(row(1, 1, 5000, 5000), Row::default()), 5001);
    assert_eq!(learn(&mut standing, "a", report(row(1, 0, 5000, 5000), row(3, 3, 10, 20)), 21), Reachable::Not(at(10)));
}

#[test]
fn the_last_errors_are_a_few_and_the_same_again_is_counted() {
    let mut standing = Standing::default();
    for (number, error) in ["a", "b", "b", "c", "d", "e", "f"].iter().enumerate() {
        let number = number as u64 + 1;
        let report =
            Report { failed: row(number, number, 1, number), failure: Some(failure(error)), ..Report::default() };
        standing.learn([("a".to_owned(), report)], at(number));
    }
    let kept: Vec<_> = standing.errors.iter().map(|error| (error.failure.error.as_str(), error.count)).collect();
    assert_eq!(kept, [("f", 1), ("e", 1), ("d", 1), ("c", 1), ("b", 2)]);
}

#[test]
fn the_newest_quota_counts() {
    let mut standing = Standing::default();
    let said = |remaining, when| Report {
        quota: Some(Quota { limit: Some(100), remaining: Some(remaining), window: None, reset: None, at: at(when) }),
        ..Report::default()
    };
    standing.learn([("a".to_owned(), said(50, 20)), ("b".to_owned(), said(90, 10))], at(21));
    assert_eq!(standing.quota.and_then(|quota| quota.remaining), Some(50));
}

#[test]
fn a_registry_is_asked_when_nothing_is_heard_of_it_and_sooner_when_it_fails() {
    let seconds = |moment: Moment| moment.since(at(0)).as_secs();
    let mut standing = Standing::default();
    assert_eq!(seconds(ask_at(None, None, at(7))), 7);
    learn(&mut standing, "a", report(row(2, 2, 1, 2), Row::default()), 3);
    assert_eq!(seconds(ask_at(Some(&standing), None, at(3))), 62);
    learn(&mut standing, "a", report(row(2, 0, 1, 2), row(1, 1, 10, 10)), 11);
    assert_eq!(seconds(ask_at(Some(&standing), None, at(11))), 11, "at once");
    assert_eq!(seconds(ask_at(Some(&standing), Some(at(11)), at(11))), 13);
    learn(&mut standing, "a", report(row(2, 0, 1, 2), row(3, 3, 10, 14)), 15);
    assert_eq!(seconds(ask_at(Some(&standing), Some(at(15)), at(15))), 25, "it is down");
    learn(&mut standing, "a", report(row(3, 1, 20, 20), row(3, 0, 10, 14)), 21);
    assert_eq!(seconds(ask_at(Some(&standing), Some(at(20)), at(21))), 22, "one more answer, and it is up");
    standing.peace = Some(at(90));
    assert_eq!(seconds(ask_at(Some(&standing), Some(at(20)), at(21))), 90, "it wants to be left in peace");
}

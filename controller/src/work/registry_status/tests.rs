use serde_json::json;

use super::*;
use crate::decide::standing::{Failure, Report, Row};

fn at(seconds: i64) -> Moment {
    Moment::from_seconds(1_790_000_000 + seconds)
}

fn object(spec: &serde_json::Value) -> Upstream {
    let object = serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
        "metadata": {"name": "ghcr.io", "uid": "u", "resourceVersion": "1", "generation": 1}, "spec": spec,
    }));
    Upstream::of(object.unwrap()).unwrap()
}

fn ours() -> Upstream {
    object(&json!({"registry": "ghcr.io"}))
}

fn row(times: u64, since: i64, last: i64) -> Row {
    Row { times, in_a_row: times, since_and_at: Some((at(since), at(last))) }
}

fn answers() -> Standing {
    let mut standing = Standing::default();
    let quota = standing::Quota {
        limit: Some(100),
        remaining: Some(76),
        window: Some(Duration::from_hours(6)),
        reset: None,
        at: at(9),
    };
    let report = Report {
        answered: row(5, 1, 9),
        latency: Some(Duration::from_millis(80)),
        quota: Some(quota),
        ..Report::default()
    };
    standing.learn([("a".to_owned(), report)], at(10));
    standing
}

fn fails(why: Why) -> Standing {
    let failure = Failure { endpoint: "https://ghcr.io".into(), why, error: "connection refused".into() };
    let report = Report { failed: row(3, 20, 29), failure: Some(failure), ..Report::default() };
    let mut standing = answers();
    standing.learn([("a".to_owned(), Report { answered: Row { in_a_row: 0, ..row(5, 1, 9) }, ..report })], at(30));
    standing
}

fn counts(known: usize, cached: usize) -> Tally {
    let image = |number| Image::parse(&format!("ghcr.io/team/app:{number}")).unwrap();
    Tally { known, missing_upstream: 1, not_cached: (cached..known).map(image).collect() }
}

fn told(object: &Upstream, counts: Option<&Tally>, standing: Option<&Standing>) -> UpstreamRegistryStatus {
    status(&Facts { object, counts, standing, has_heard: true, now: at(31) })
}

fn lines(status: &UpstreamRegistryStatus) -> String {
    let lines: Vec<String> = status
        .conditions
        .iter()
        .map(|known| format!("{}={} {}: {}", known.type_, known.status, known.reason, known.message))
        .collect();
    lines.join("\n")
}

#[test]
fn what_a_person_reads() {
    let skipped = object(&json!({"registry": "ghcr.io", "skip": true}));
    let wrong = object(&json!({"registry": "quay.io"}));
    let (all, some) = (counts(3, 3), counts(7, 2));
    let mut limited = answers();
    limited.peace = Some(at(90));
    let said = [
        ("new", told(&ours(), None, None)),
        ("new, and nothing of it is wanted", told(&ours(), Some(&Tally::default()), None)),
        ("new, and not asked yet", told(&ours(), Some(&all), None)),
        ("well", told(&ours(), Some(&all), Some(&answers()))),
        ("nothing wanted", told(&ours(), Some(&Tally::default()), Some(&answers()))),
        ("limited", told(&ours(), Some(&all), Some(&limited))),
        ("down", told(&ours(), Some(&some), Some(&fails(Why::Unreachable)))),
        ("untrusted", told(&ours(), Some(&some), Some(&fails(Why::Untrusted)))),
        ("failing", told(&ours(), Some(&some), Some(&fails(Why::Failing)))),
        ("skipped", told(&skipped, Some(&Tally::default()), None)),
        ("of another registry", told(&wrong, Some(&all), Some(&answers()))),
    ];
    let page: Vec<String> = said.iter().map(|(what, status)| format!("{what}\n{}", lines(status))).collect();
    insta::assert_snapshot!(page.join("\n\n"));
    let well = &said[3].1;
    assert_eq!(well.latency_milliseconds, Some(80));
    assert_eq!(well.reachable_since, Some(as_time(at(1))));
    assert_eq!(well.quota.as_ref().map(|quota| (quota.remaining, quota.limit)), Some((76, 100)));
    assert_eq!(well.quota.as_ref().unwrap().resets_at, Some(as_time(at(9 + 6 * 3600))));
    let told_by_it = standing::Quota { reset: Some(at(70)), ..answers().quota.unwrap() };
    assert_eq!(quota(told_by_it).unwrap().resets_at, Some(as_time(at(70))), "its own word goes before the window");
    let months = standing::Quota { reset: Some(at(9 + 2_000_000)), ..told_by_it };
    assert_eq!(quota(months).unwrap().resets_at, Some(as_time(at(9 + 6 * 3600))), "and not beyond it");
    assert_eq!(quota(standing::Quota { reset: None, window: None, ..told_by_it }).unwrap().resets_at, None);
    assert_eq!(well.images, Some(ImageCounts { known: 3, cached: 3, missing_upstream: 1 }));
    let down = &said[6].1;
    assert_eq!((down.reachable_since.clone(), down.last_errors[0].count), (None, 3));
    assert_eq!(said[10].1.images, None, "of another one nothing else is said");
}

#[test]
fn who_takes_over_says_nothing_of_what_it_does_not_know_yet() {
    let mut object = ours();
    object.status = told(&object, Some(&counts(3, 3)), Some(&fails(Why::Failing)));
    let after = status(&Facts { object: &object, counts: None, standing: None, has_heard: false, now: at(900) });
    assert_eq!(worth(&object.status, &after, at(900)), Worth::Nothing);
    assert_eq!(after, object.status);
    // It has answered all the time.
    let mut object = ours();
    object.status = told(&object, Some(&counts(3, 3)), Some(&answers()));
    let mut later = Standing::default();
    later.learn([("a".to_owned(), Report { answered: row(9, 500, 899), ..Report::default() })], at(900));
    let after = status(&Facts { object: &object, counts: None, standing: Some(&later), has_heard: true, now: at(900) });
    assert_eq!(after.reachable_since, Some(as_time(at(1))));
}

#[test]
fn of_one_that_nobody_asks_it_is_not_said_for_ever_how_it_was() {
    let (none, some) = (Tally::default(), counts(3, 3));
    for (standing, reason) in [
        (answers(), Reachable::Answers),
        (fails(Why::Unreachable), Reachable::Unreachable),
        (fails(Why::Failing), Reachable::Failing),
    ] {
        let mut object = ours();
        object.status = told(&object, Some(&some), Some(&standing));
        let heard = standing.heard().unwrap();
        let said = |counts, standing, has_heard, after: Duration| {
            let status = status(&Facts { object: &object, counts, standing, has_heard, now: heard.after(after) });
            (get::<Reachable>(&status.conditions).unwrap(), status.reachable_since.is_some())
        };
        let as_before = (reason, reason == Reachable::Answers);
        let soon = Duration::from_secs(299);
        // Its last image is gone, and nobody pulls from it.
        assert_eq!(said(Some(&none), Some(&standing), true, soon), as_before);
        assert_eq!(said(Some(&none), Some(&standing), true, SILENT), (Reachable::NotAsked, false));
        // Whoever takes over knows when it was heard of last from the status.
        assert_eq!(said(Some(&none), None, true, soon), as_before);
        assert_eq!(said(Some(&none), None, true, SILENT), (Reachable::NotAsked, false));
        // Not before it is known what is wanted, and what the caches met.
        assert_eq!(said(None, None, true, SILENT), as_before);
        assert_eq!(said(Some(&none), None, false, SILENT), as_before);
        assert_eq!(said(Some(&some), Some(&standing), true, SILENT), as_before);
    }
    // It is left in peace, which it asked for.
    let mut limited = answers();
    limited.peace = Some(at(900));
    let mut object = ours();
    object.status = told(&object, Some(&some), Some(&limited));
    let left = status(&Facts {
        object: &object,
        counts: Some(&none),
        standing: Some(&limited),
        has_heard: true,
        now: at(899),
    });
    assert_eq!(get::<Reachable>(&left.conditions), Some(Reachable::RateLimited));
    // The next image of it that is wanted is a reason to ask.
    let mut object = ours();
    object.status = told(&object, Some(&none), None);
    let wanted = status(&Facts { object: &object, counts: Some(&some), standing: None, has_heard: true, now: at(40) });
    let words = &wanted.conditions.iter().find(|known| known.type_ == "Reachable").unwrap().message;
    assert!(words.contains("asked soon"), "{words}");
}

#[test]
fn what_wiggles_is_no_write_and_what_somebody_waits_for_is_one_at_once() {
    let before = told(&ours(), Some(&counts(3, 3)), Some(&answers()));
    let with = |change: &dyn Fn(&mut UpstreamRegistryStatus)| {
        let mut after = before.clone();
        change(&mut after);
        worth(&before, &after, at(60))
    };
    let remaining = |status: &mut UpstreamRegistryStatus, left| status.quota.as_mut().unwrap().remaining = left;
    assert_eq!(with(&|_| {}), Worth::Nothing);
    assert_eq!(with(&|status| status.latency_milliseconds = Some(120)), Worth::Nothing);
    assert_eq!(with(&|status| status.latency_milliseconds = Some(95)), Worth::Nothing);
    assert_eq!(with(&|status| status.latency_milliseconds = Some(300)), Worth::Detail);
    assert_eq!(with(&|status| remaining(status, 67)), Worth::Nothing);
    assert_eq!(with(&|status| remaining(status, 66)), Worth::Detail);
    assert_eq!(with(&|status| status.last_checked = Some(as_time(at(59)))), Worth::Nothing);
    assert_eq!(with(&|status| status.images.as_mut().unwrap().known = 4), Worth::Detail);
    assert_eq!(with(&|status| status.conditions[1].reason = "Failing".into()), Worth::News);
    // Now and then it is brought up to date all the same.
    let mut after = before.clone();
    after.last_checked = Some(as_time(at(900)));
    assert_eq!(worth(&before, &after, at(900)), Worth::Detail);
    // The last of them is news of another kind.
    let mut few = before.clone();
    few.quota.as_mut().unwrap().remaining = 3;
    let mut none = few.clone();
    none.quota.as_mut().unwrap().remaining = 0;
    assert_eq!(worth(&few, &none, at(60)), Worth::Detail);
    // One that fails again and again is counted, and not written each time.
    let before = told(&ours(), Some(&counts(3, 3)), Some(&fails(Why::Failing)));
    let mut after = before.clone();
    (after.last_errors[0].count, after.last_errors[0].at) = (90, as_time(at(59)));
    assert_eq!(worth(&before, &after, at(60)), Worth::Nothing);
}

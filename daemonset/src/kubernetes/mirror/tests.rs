use super::*;
use crate::status;
use larder_api::condition;
use std::path::PathBuf;

fn placed(registry: Option<&str>, confirmed_at: Option<u64>, not_seen: Option<&str>) -> status::Placed {
    status::Placed {
        registry: registry.map(str::to_owned),
        kind: "default-link".to_owned(),
        path: PathBuf::from("/etc/containerd/certs.d/_default"),
        confirmed_at,
        not_seen: not_seen.map(str::to_owned),
        failed_by_itself: false,
    }
}

/// A node that does its work.
fn well() -> Facts {
    let status = Status {
        agent: Some(status::Agent { pid: 71, version: "0.1.0".to_owned(), placement: "by-agent".to_owned() }),
        engine: Some(status::EngineStatus {
            name: "containerd".to_owned(),
            version: "v2.1.9".to_owned(),
            pid: 12,
            socket: PathBuf::from("/run/containerd/containerd.sock"),
        }),
        proxy: Some(status::Proxy {
            address: "127.0.0.1:7439".to_owned(),
            pid: Some(72),
            health: "well".to_owned(),
            detail: None,
            announced: true,
            starts: 1,
            kills: 0,
            store: None,
        }),
        verdict: "ready".to_owned(),
        reason: "containerd 2.1.9 reads /etc/containerd/certs.d".to_owned(),
        placed: vec![placed(None, Some(1_000_000), None)],
        ..Status::default()
    };
    Facts { status, ..Facts::default() }
}

fn told(mut facts: Facts, name: &'static str, text: &str) -> Facts {
    facts.told.insert(name, text.to_owned());
    facts
}

fn withdrawn(health: &str) -> Facts {
    let mut facts = well();
    let proxy = facts.status.proxy.as_mut().unwrap();
    (proxy.announced, proxy.health) = (false, health.to_owned());
    facts
}

fn with(change: impl FnOnce(&mut Status)) -> Facts {
    let mut facts = well();
    change(&mut facts.status);
    facts
}

fn mirror(facts: &Facts) -> NodeMirrorStatus {
    facts.mirror(&[], UNIX_EPOCH)
}

#[test]
fn every_node_has_its_reasons() {
    use condition::get;
    let no_engine = || with(|status| (status.engine, status.placed) = (None, Vec::new()));
    let untried = || with(|status| status.placed = vec![placed(None, None, None)]);
    let unseen = || with(|status| status.placed = vec![placed(None, None, Some("it asked docker.io"))]);
    let verdict = |verdict: &str| with(|status| verdict.clone_into(&mut status.verdict));
    let table: [(&str, Facts, Configured, Withdrawn, Conflict); 19] = [
        ("well", well(), Configured::Proved, Withdrawn::Announced, Conflict::Nobody),
        (
            "one registry",
            told(well(), "single registries", "a.example: bad CA"),
            Configured::ProvedButSome,
            Withdrawn::Announced,
            Conflict::Nobody,
        ),
        (
            "no engine",
            told(no_engine(), "engine", "no CRI socket answers"),
            Configured::NoEngine,
            Withdrawn::Announced,
            Conflict::Nobody,
        ),
        (
            "not tried",
            told(untried(), "configured", "not yet"),
            Configured::NotProved,
            Withdrawn::Announced,
            Conflict::Nobody,
        ),
        (
            "not seen",
            told(unseen(), "configured", "it asked docker.io"),
            Configured::NotSeen,
            Withdrawn::Announced,
            Conflict::Nobody,
        ),
        (
            "read-only",
            told(well(), "changes", "/etc is read-only"),
            Configured::CannotWrite,
            Withdrawn::Announced,
            Conflict::Nobody,
        ),
        ("old", verdict("needs-config-toml"), Configured::NeedsConfiguration, Withdrawn::Announced, Conflict::Nobody),
        ("cannot", verdict("cannot"), Configured::NeedsConfiguration, Withdrawn::Announced, Conflict::Nobody),
        ("starting", withdrawn("starting"), Configured::Withdrawn, Withdrawn::ProxyStarting, Conflict::Nobody),
        ("dead", withdrawn("dead"), Configured::Withdrawn, Withdrawn::ProxyDead, Conflict::Nobody),
        ("hung", withdrawn("hung"), Configured::Withdrawn, Withdrawn::ProxyHung, Conflict::Nobody),
        ("held off", withdrawn("held-off"), Configured::Withdrawn, Withdrawn::ProxyHung, Conflict::Nobody),
        ("stalled", withdrawn("stalled"), Configured::Withdrawn, Withdrawn::ProxyHung, Conflict::Nobody),
        ("stranger", withdrawn("stranger"), Configured::Withdrawn, Withdrawn::Stranger, Conflict::Nobody),
        ("nothing placed", withdrawn("well"), Configured::Withdrawn, Withdrawn::NothingPlaced, Conflict::Nobody),
        ("stopping", Facts { stopping: true, ..well() }, Configured::Withdrawn, Withdrawn::Stopping, Conflict::Nobody),
        (
            "a fight",
            told(well(), "conflict", "somebody else keeps changing /x: left alone for a while"),
            Configured::Proved,
            Withdrawn::Announced,
            Conflict::OtherWriter,
        ),
        (
            "a name that is taken",
            told(well(), "conflict", "/x is of another kind than the change is about"),
            Configured::Proved,
            Withdrawn::Announced,
            Conflict::Occupied,
        ),
        (
            "an edit",
            with(|status| status.conditions = vec!["ForeignEdit: /x: our block was edited".to_owned()]),
            Configured::Proved,
            Withdrawn::Announced,
            Conflict::ForeignEdit,
        ),
    ];
    for (name, facts, configured, withdrawn, conflict) in table {
        let conditions = mirror(&facts).conditions;
        assert_eq!(get::<Configured>(&conditions), Some(configured), "{name}");
        assert_eq!(get::<Withdrawn>(&conditions), Some(withdrawn), "{name}");
        assert_eq!(get::<Conflict>(&conditions), Some(conflict), "{name}");
        assert!(conditions.iter().all(|condition| !condition.message.is_empty()), "{name}: {conditions:?}");
    }
}

#[test]
fn a_node_that_does_its_work_gives_nobody_anything_to_do() {
    let mirror = mirror(&well());
    assert_eq!(mirror.to_do, Vec::<String>::new());
    assert_eq!((mirror.placed_count, mirror.left_alone_count), (1, 0));
    assert_eq!(mirror.proved_at, Some(at(UNIX_EPOCH + Duration::from_secs(1_000_000))));
    assert_eq!(mirror.engine.unwrap().name, "containerd");
}

#[test]
fn the_most_important_comes_first() {
    let mut facts = with(|status| {
        status.engine = None;
        status.conditions = vec![
            "not ready: engine: none".to_owned(),
            "Redirected: /x: to harbor".to_owned(),
            "degraded: reload: no".to_owned(),
        ];
    });
    for (name, text) in [
        ("engine", "no CRI socket answers"),
        ("proxy", "starting"),
        ("reload", "no"),
        ("api server", "away"),
        ("upstream registries", "UpstreamRegistry a: wrong"),
    ] {
        facts.told.insert(name, text.to_owned());
    }
    assert_eq!(
        mirror(&facts).to_do,
        [
            "no CRI socket answers",
            "reload: no",
            "upstream registries: UpstreamRegistry a: wrong",
            "Redirected: /x: to harbor"
        ]
    );
}

#[test]
fn what_is_as_it_was_keeps_its_time() {
    let first = well().mirror(&[], UNIX_EPOCH);
    let later = UNIX_EPOCH + Duration::from_mins(1);
    let same = NodeMirrorStatus { seen_at: Some(at(later)), ..first.clone() };
    assert_eq!(well().mirror(&first.conditions, later), same);
    let mut of_another_version = first.conditions.clone();
    of_another_version.push(Condition { type_: "Other".to_owned(), ..of_another_version[0].clone() });
    assert_eq!(well().mirror(&of_another_version, later), same);
    let dead = withdrawn("dead").mirror(&first.conditions, later);
    assert_eq!(dead.conditions[0].last_transition_time, at(later));
    assert_eq!(dead.conditions[2].last_transition_time, at(UNIX_EPOCH), "that nobody else writes is as before");
}

#[test]
fn whatever_a_node_has_there_are_bounds() {
    let long = "é".repeat(5000);
    let mut facts = told(well(), "reload", &long);
    facts.status.placed = vec![placed(Some(&long), Some(u64::MAX), Some(&long)); 100];
    facts.status.left_alone =
        vec![status::LeftAlone { registry: Some(long.clone()), path: PathBuf::from(&long), reason: long.clone() }; 100];
    facts.status.conditions = (0..100).map(|number| format!("Redirected: {number} {long}")).collect();
    let engine = facts.status.engine.as_mut().unwrap();
    (engine.version, engine.socket) = (long.clone(), PathBuf::from(&long));
    let mirror = mirror(&facts);
    assert_eq!((mirror.placed.len(), mirror.placed_count), (MOST_ENTRIES, 100));
    assert_eq!((mirror.left_alone.len(), mirror.left_alone_count), (MOST_ENTRIES, 100));
    assert_eq!(mirror.to_do.len(), MOST_TO_DO);
    let texts = [
        (mirror.placed[0].registry.as_ref().unwrap(), 261),
        (&mirror.placed[0].path, 512),
        (mirror.placed[0].not_seen.as_ref().unwrap(), 512),
        (&mirror.left_alone[0].reason, 512),
        (&mirror.engine.as_ref().unwrap().version, 128),
        (&mirror.to_do[0], 1024),
    ];
    for (text, most) in texts {
        assert!(text.chars().count() <= most && text.ends_with(['…', 't']), "{most}: {text}");
    }
    assert_eq!(mirror.proved_at, Some(at(UNIX_EPOCH)));
}

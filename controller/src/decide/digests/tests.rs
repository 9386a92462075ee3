use larder_oci::Algorithm;

use super::*;

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn at(seconds: i64) -> Moment {
    Moment::from_seconds(1_000_000 + seconds)
}

#[test]
fn a_digest_stays_an_hour_after_its_last_pod() {
    let recorded = BTreeMap::from([(digest("old"), at(0)), (digest("new"), at(0))]);
    let running = BTreeMap::from([(digest("new"), 3)]);
    let kept = keep(&recorded, &running, at(3599));
    assert_eq!(kept, BTreeMap::from([(digest("old"), at(0)), (digest("new"), at(3599))]));
    assert_eq!(keep(&kept, &running, at(3600)), BTreeMap::from([(digest("new"), at(3600))]));
}

#[test]
fn a_last_use_in_the_future_is_kept_an_hour_from_now_and_not_for_ever() {
    let recorded = BTreeMap::from([(digest("old"), at(1_000_000))]);
    let kept = keep(&recorded, &BTreeMap::new(), at(0));
    assert_eq!(kept, BTreeMap::from([(digest("old"), at(0))]));
    assert!(keep(&kept, &BTreeMap::new(), at(3600)).is_empty());
}

#[test]
fn a_new_leader_keeps_what_the_one_before_kept_for_its_hour() {
    use larder_api::cached_image::HeldDigest;

    let held =
        |name: &str, upstream, pods, cached| HeldDigest { digest: digest(name).to_string(), upstream, pods, cached };
    let status = CachedImageStatus {
        digest: Some(digest("the tag's").to_string()),
        digests: vec![
            held("running", false, 2, false),
            held("the tag's, running", true, 1, true),
            held("the tag's", false, 0, true),
            held("newer", true, 0, true),
            held("its last Pod went ten minutes ago", false, 0, true),
            held("never came", false, 0, false),
        ],
        ..CachedImageStatus::default()
    };
    let names = ["running", "the tag's, running", "its last Pod went ten minutes ago"];
    let expected: BTreeMap<_, _> = names.map(|name| (digest(name), at(0))).into();
    assert_eq!(of_status(&status, at(0)), expected);
    assert_eq!(keep(&of_status(&status, at(0)), &BTreeMap::new(), at(600)), expected);
}

#[test]
fn of_those_without_a_pod_the_latest_are_kept_and_of_those_with_one_all() {
    let recorded: BTreeMap<_, _> = (0..20).map(|n| (digest(&format!("old {n}")), at(n))).collect();
    let running: BTreeMap<_, _> = (0..200).map(|n| (digest(&format!("new {n}")), 1)).collect();
    let kept = keep(&recorded, &running, at(20));
    assert_eq!(kept.len(), 200 + MOST_UNUSED);
    assert!(running.keys().all(|digest| kept.contains_key(digest)));
    assert!((12..20).all(|n| kept.contains_key(&digest(&format!("old {n}")))));
}

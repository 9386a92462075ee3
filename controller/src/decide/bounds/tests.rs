use proptest::prelude::*;

use super::*;

fn claim(name: &str, namespaces: &[&str], since: i64, bytes: Option<u64>) -> Claim {
    Claim {
        image: Image::parse(&format!("a.io/{name}")).unwrap(),
        namespaces: namespaces.iter().map(|namespace| Arc::from(*namespace)).collect(),
        since: Moment::from_seconds(since),
        bytes,
    }
}

fn bounds(images: Option<u64>, bytes: Option<u64>) -> Bounds {
    Bounds { default: Bound { images, bytes }, namespaces: BTreeMap::new() }
}

fn names(over: &BTreeMap<Image, OverBound>) -> Vec<&str> {
    over.keys().map(|image| image.name().trim_start_matches("a.io/")).collect()
}

#[test]
fn older_ones_stay() {
    let claims = [claim("new", &["n"], 3, None), claim("old", &["n"], 1, None), claim("mid", &["n"], 2, None)];
    let over = bounds(Some(2), None).judge(&claims).over;
    assert_eq!(names(&over), ["new"]);
    assert_eq!(over.values().next().unwrap().full, Full::Images(2));
    assert_eq!(names(&bounds(Some(2), None).judge(&claims[..2]).over), Vec::<&str>::new());
    assert_eq!(names(&bounds(None, None).judge(&claims).over), Vec::<&str>::new());
    assert_eq!(names(&bounds(Some(0), None).judge(&claims).over), ["mid", "new", "old"]);
}

#[test]
fn bytes_are_counted_once_they_are_known() {
    let claims = [
        claim("a", &["n"], 1, Some(60)),
        claim("b", &["n"], 2, Some(50)),
        claim("c", &["n"], 3, None),
        claim("d", &["n"], 4, Some(40)),
    ];
    let over = bounds(None, Some(100)).judge(&claims).over;
    assert_eq!(names(&over), ["b"]);
    assert_eq!(over.values().next().unwrap().full, Full::Bytes { allowed: 100, taken: 60, own: 50 });
}

#[test]
fn an_image_of_several_namespaces_wants_room_in_one_of_them() {
    let claims =
        [claim("a", &["full"], 1, None), claim("shared", &["free", "full"], 2, None), claim("b", &["free"], 3, None)];
    // It counts where there is room, and there alone.
    assert_eq!(names(&bounds(Some(1), None).judge(&claims).over), ["b"]);
    let own = BTreeMap::from([("free".to_owned(), Bound::default())]);
    assert_eq!(names(&Bounds { namespaces: own, ..bounds(Some(1), None) }.judge(&claims).over), Vec::<&str>::new());
}

#[test]
fn what_a_person_asks_for_is_bounded_by_nothing() {
    assert_eq!(names(&bounds(Some(0), Some(0)).judge(&[claim("a", &[], 1, Some(1 << 40))]).over), Vec::<&str>::new());
}

#[test]
fn one_that_was_counted_keeps_its_place_and_one_that_was_not_is_judged_again() {
    let bounds = bounds(Some(1), None);
    let mut ledger = bounds.judge(&[claim("a", &["full"], 1, None)]);
    assert!(ledger.admit(&bounds, &claim("a", &["full"], 1, None)));
    assert!(!ledger.admit(&bounds, &claim("b", &["full"], 2, None)));
    assert_eq!(ledger.over(&claim("b", &[], 0, None).image).unwrap().full, Full::Images(1));
    assert!(ledger.admit(&bounds, &claim("b", &["free", "full"], 2, None)), "another namespace uses it, too");
    assert!(ledger.all_over().is_empty());
    assert!(!ledger.admit(&bounds, &claim("c", &["free"], 3, None)), "it counts there now");
}

#[test]
fn one_that_turns_out_to_be_too_large_is_seen_at_once() {
    let bounds = bounds(None, Some(100));
    let mut ledger =
        bounds.judge(&[claim("a", &["n"], 1, None), claim("b", &["n", "free"], 2, None), claim("c", &["n"], 3, None)]);
    assert!(!ledger.grow(&bounds, &claim("a", &["n"], 1, Some(60))));
    assert!(!ledger.grow(&bounds, &claim("b", &["n", "free"], 2, Some(60))), "there is room in the other one");
    assert!(ledger.grow(&bounds, &claim("c", &["n"], 3, Some(1))));
    assert!(!ledger.grow(&bounds, &claim("c", &["n"], 3, Some(1))), "that is known");
    assert!(!ledger.grow(&bounds, &claim("d", &["n"], 3, Some(1))), "nobody counted it");
}

proptest! {
    /// Whoever comes last may be judged alone.
    #[test]
    fn one_by_one_is_as_all_at_once(
        rest in proptest::collection::vec((0..3_usize, 0..3_usize, proptest::option::of(0..50_u64)), 0..20),
        images in proptest::option::of(0..6_u64), bytes in proptest::option::of(0..120_u64),
    ) {
        let (all, bounds) = (["x", "y", "z"], bounds(images, bytes));
        let claims: Vec<Claim> = (0_i64..)
            .zip(&rest)
            .map(|(n, (one, two, bytes))| claim(&format!("i{n:02}"), &[all[*one], all[*two]], n, *bytes))
            .collect();
        let mut ledger = Ledger::default();
        for claim in &claims {
            ledger.admit(&bounds, claim);
        }
        prop_assert_eq!(ledger.all_over(), &bounds.judge(&claims).over);
    }
}

proptest! {
    /// A new image changes nothing for those that are there, and no namespace has more than it may have.
    #[test]
    fn a_new_one_never_drives_out_an_older_one(
        rest in proptest::collection::vec((0..3_usize, 0..3_usize, 0..20_i64, proptest::option::of(0..50_u64)), 0..30),
        images in proptest::option::of(0..6_u64), bytes in proptest::option::of(0..120_u64),
    ) {
        let all = ["x", "y", "z"];
        let claims: Vec<Claim> = rest
            .iter()
            .enumerate()
            .map(|(n, (one, two, since, bytes))| claim(&format!("i{n:02}"), &[all[*one], all[*two]], *since, *bytes))
            .collect();
        let bounds = bounds(images, bytes);
        let before = bounds.judge(&claims).over;
        let mut more = claims.clone();
        more.insert(0, claim("new", &["x", "y", "z"], 20, Some(10)));
        let mut after = bounds.judge(&more).over;
        after.remove(&claim("new", &[], 0, None).image);
        prop_assert_eq!(&before, &after);
        let mut other_order = claims.clone();
        other_order.reverse();
        prop_assert_eq!(&bounds.judge(&other_order).over, &before);
        // Those that are wanted by one namespace only are counted there for certain.
        for namespace in all {
            let inside: Vec<&Claim> = claims
                .iter()
                .filter(|claim| claim.namespaces.len() == 1 && claim.namespaces.contains(namespace) && !before.contains_key(&claim.image))
                .collect();
            prop_assert!(images.is_none_or(|images| inside.len() as u64 <= images));
            prop_assert!(bytes.is_none_or(|bytes| inside.iter().filter_map(|claim| claim.bytes).sum::<u64>() <= bytes));
        }
    }
}

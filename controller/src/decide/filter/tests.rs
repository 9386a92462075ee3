use super::*;
use crate::decide::labels::Expression;

fn image(text: &str) -> Image {
    Image::parse(text).unwrap()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

#[test]
fn exclude_wins_over_include() {
    let filters = Filters {
        include: patterns(&["docker.io/**", "ghcr.io/team/**"]),
        exclude: patterns(&["**/secret/*", "**:dev"]),
        ..Filters::default()
    };
    for (text, left_out) in [
        ("nginx", None),
        ("ghcr.io/team/a", None),
        ("quay.io/a/b", Some(LeftOut::NotIncluded)),
        ("nginx:dev", Some(LeftOut::Excluded("**:dev".into()))),
        ("ghcr.io/team/secret/a", Some(LeftOut::Excluded("**/secret/*".into()))),
        ("quay.io/a/b:dev", Some(LeftOut::Excluded("**:dev".into()))),
    ] {
        assert_eq!(filters.image(&image(text)), left_out, "{text}");
    }
    assert_eq!(Filters::default().image(&image("anything")), None);
}

#[test]
fn a_namespace_may_be_ignored_or_not_selected() {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let not_system = Expression {
        key: "kubernetes.io/metadata.name".into(),
        operator: "NotIn".into(),
        values: vec!["kube-system".into()],
    };
    let filters = Filters { namespaces: Selector::new([], [not_system]).unwrap(), ..Filters::default() };
    let name = "kubernetes.io/metadata.name";
    for (bears, verdict) in [
        (labels(&[(name, "shop")]), NamespaceVerdict::Counts),
        (labels(&[(name, "kube-system")]), NamespaceVerdict::NotSelected),
        (labels(&[(name, "shop"), (IGNORE, "true")]), NamespaceVerdict::Ignored),
        (labels(&[(name, "shop"), (IGNORE, "")]), NamespaceVerdict::Ignored),
        (labels(&[(name, "shop"), (IGNORE, "false")]), NamespaceVerdict::Counts),
        (labels(&[(name, "kube-system"), (IGNORE, "yes")]), NamespaceVerdict::Ignored),
    ] {
        assert_eq!(filters.namespace(&bears), verdict, "{bears:?}");
    }
}

#[test]
fn the_widest_reason_is_told() {
    let filters = Filters::default();
    let excluded = LeftOut::Excluded("x".into());
    let never = PullPolicy::Never;
    let of = |namespace, ignored, image: Option<&LeftOut>, policy| filters.left_out(namespace, ignored, image, policy);
    assert_eq!(of(NamespaceVerdict::Ignored, true, Some(&excluded), never), Some(LeftOut::NamespaceIgnored));
    assert_eq!(of(NamespaceVerdict::NotSelected, true, Some(&excluded), never), Some(LeftOut::NamespaceNotSelected));
    assert_eq!(of(NamespaceVerdict::Counts, true, Some(&excluded), never), Some(LeftOut::PodIgnored));
    assert_eq!(of(NamespaceVerdict::Counts, false, Some(&excluded), never), Some(excluded.clone()));
    assert_eq!(of(NamespaceVerdict::Counts, false, None, never), Some(LeftOut::Policy(never)));
    assert_eq!(of(NamespaceVerdict::Counts, false, None, PullPolicy::Always), None);
    assert_eq!(of(NamespaceVerdict::Counts, false, None, PullPolicy::IfNotPresent), None);
}

#[test]
fn what_a_person_reads() {
    let all = [
        LeftOut::PodIgnored,
        LeftOut::NamespaceIgnored,
        LeftOut::NamespaceNotSelected,
        LeftOut::NotIncluded,
        LeftOut::Excluded("**:dev".into()),
        LeftOut::Policy(PullPolicy::Never),
    ];
    let read: Vec<String> = all.iter().map(|left_out| format!("{}: {left_out}", left_out.reason())).collect();
    insta::assert_snapshot!(read.join("\n"));
}

#[test]
fn every_reason_is_one_of_the_list() {
    for left_out in [
        LeftOut::PodIgnored,
        LeftOut::NamespaceIgnored,
        LeftOut::NamespaceNotSelected,
        LeftOut::NotIncluded,
        LeftOut::Excluded("a.io/**".into()),
        LeftOut::Policy(PullPolicy::Never),
    ] {
        assert!(LeftOut::REASONS.contains(&left_out.reason()), "{left_out:?}");
    }
}

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Expression {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Expression { key: key.to_owned(), operator: operator.to_owned(), values }
}

fn selects(expressions: &[Expression], bears: &[(&str, &str)]) -> bool {
    Selector::new([], expressions.iter().cloned()).unwrap().selects(&labels(bears))
}

#[test]
fn operators_are_those_of_kubernetes() {
    for (operator, values, absent, other, same) in [
        ("In", &["a", "b"][..], false, false, true),
        ("NotIn", &["a", "b"][..], true, true, false),
        ("Exists", &[][..], false, true, true),
        ("DoesNotExist", &[][..], true, false, false),
    ] {
        let one = [expression("team", operator, values)];
        assert_eq!(selects(&one, &[("x", "a")]), absent, "{operator}, absent");
        assert_eq!(selects(&one, &[("team", "c")]), other, "{operator}, other");
        assert_eq!(selects(&one, &[("team", "a")]), same, "{operator}, same");
    }
}

#[test]
fn all_must_hold_and_none_selects_everything() {
    assert!(Selector::default().selects(&Labels::new()));
    let both = Selector::new(
        [("env".to_owned(), "prod".to_owned())],
        [expression("kubernetes.io/metadata.name", "NotIn", &["kube-system"])],
    )
    .unwrap();
    assert!(both.selects(&labels(&[("env", "prod"), ("kubernetes.io/metadata.name", "shop")])));
    assert!(!both.selects(&labels(&[("env", "prod"), ("kubernetes.io/metadata.name", "kube-system")])));
    assert!(!both.selects(&labels(&[("kubernetes.io/metadata.name", "shop")])));
}

#[test]
fn an_empty_value_is_a_value() {
    assert!(selects(&[expression("a", "In", &[""])], &[("a", "")]));
    assert!(!selects(&[expression("a", "In", &[""])], &[]));
    assert!(selects(&[expression("a", "Exists", &[])], &[("a", "")]));
}

#[test]
fn what_is_no_selector_says_what_to_write() {
    for (wrong, says) in [
        (expression("a", "in", &["b"]), "none of In, NotIn"),
        (expression("a", "In", &[]), "at least one value"),
        (expression("a", "Exists", &["b"]), "remove them"),
        (expression("", "Exists", &[]), "[prefix/]name"),
        (expression("/a", "Exists", &[]), "[prefix/]name"),
        (expression("a b", "Exists", &[]), "[prefix/]name"),
        (expression("a/b/c", "Exists", &[]), "[prefix/]name"),
    ] {
        let error = Selector::new([], [wrong]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

//! What the chart's schema takes is what this program starts with.

use std::sync::LazyLock;

use larder_process::command_line;
use larder_test_chart::schema::Said;
use proptest::prelude::*;

use super::config;
use crate::args::{Command, Typed};

/// A value of the chart, the flag that it becomes, and what the schema says of it, by its place in the file.
const VALUES: [(&str, &str); 5] = [
    ("--expiry", "/definitions/span"),
    ("--namespaces", "/definitions/selector"),
    ("--include", "/definitions/imagePatterns/items"),
    ("--holder", "/definitions/controller/properties/holder"),
    ("--bytes-per-namespace", "/definitions/controller/properties/perNamespace/properties/bytes"),
];

fn starts(flag: &str, text: &str) -> bool {
    let cache = ["larder-controller", "run", "--cache=http://127.0.0.1:7445", "--cache-token-file=/token"];
    let line = cache.into_iter().map(str::to_owned).chain([format!("{flag}={text}")]).map(Into::into);
    let Ok((typed, _)) = command_line::parse::<Typed>(line) else { return false };
    let Command::Run(args) = typed.command;
    config(&args).is_ok()
}

#[test]
fn what_people_write_is_taken_by_both_and_what_makes_no_sense_by_neither() {
    let table: [(&str, &[&str], &[&str]); 5] = [
        ("--expiry", &["30d", "1d12h", "90m", "0d1s"], &["0d", "0h0m", "", "30", "1h1d", "2w", "123456d"]),
        (
            "--namespaces",
            &[
                "team=web",
                "team==web,tier!=test",
                "team in (web, db),tier notin (x)",
                "owner,!hidden",
                "example.com/team=a_b",
                "team=",
                " a = b , c ",
            ],
            &[
                "team===",
                "team=web tier=x",
                "team in web",
                "team in (web",
                "=web",
                "/a=b",
                "a/=b",
                "team=(x)",
                ",",
                "-a",
            ],
        ),
        (
            "--include",
            &[
                "docker.io/library/*",
                "ghcr.io/team/**",
                "**/*:latest",
                "**:latest",
                "**",
                "*/team/*",
                "localhost/a",
                "r.example:5000/a:V1",
                "quay.io/a@sha256:0a",
                "[fd00::1]:5000/a",
                "?.example/a",
            ],
            &[
                "",
                "nginx",
                "library/nginx",
                "ghcr.io/Team/**",
                "a{b,c}.io/x",
                "ghcr.io/a b",
                "*",
                "/a",
                "ghcr.io",
                "!x.io/a",
                "docker.io/[a-z]*",
                "reg:35000/[t]eam/**",
                "[ab].io/x",
            ],
        ),
        ("--holder", &["larder-controller", "prod", "a.b"], &["pull", "", "-a", ".a", "A", "a/b"]),
        (
            "--bytes-per-namespace",
            &["50GiB", "20gb", "1000", "1T", "0"],
            &["0GiB", "00", "much", "1.5GiB", "-1", "GiB"],
        ),
    ];
    for ((flag, place), (same, right, wrong)) in VALUES.into_iter().zip(table) {
        assert_eq!(flag, same);
        let said = Said::at(place).unwrap();
        for text in right {
            assert!(starts(flag, text), "{flag}={text} is not taken by the program");
            assert!(said.takes(text), "{flag}={text} is not taken by the chart");
        }
        for text in wrong {
            assert!(!said.takes(text), "{flag}={text} is taken by the chart");
        }
    }
}

/// Texts that are nearly right.
fn nearly() -> impl Strategy<Value = String> {
    let parts = [
        "a",
        "team",
        "web",
        "A",
        "0",
        "9",
        "-",
        "_",
        ".",
        "/",
        ":",
        "@",
        "*",
        "**",
        "?",
        "[",
        "]",
        "=",
        "==",
        "!=",
        "!",
        ",",
        " ",
        " in ",
        " notin ",
        "(",
        ")",
        "(a)",
        "docker.io",
        "localhost",
        "d",
        "h",
        "m",
        "s",
        "30d",
        "0s",
        "GiB",
        "K",
        "pull",
    ];
    proptest::collection::vec(proptest::sample::select(parts.to_vec()), 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_program_starts_with_whatever_the_chart_takes(text in nearly()) {
        static SAID: LazyLock<[Said; 5]> = LazyLock::new(|| VALUES.map(|(_, place)| Said::at(place).unwrap()));
        for ((flag, _), said) in VALUES.into_iter().zip(&*SAID) {
            // Nothing is said then.
            let is_left_out = text.is_empty() && matches!(flag, "--namespaces" | "--bytes-per-namespace");
            if !is_left_out && said.takes(&text) {
                prop_assert!(starts(flag, &text), "{flag}={text:?} is taken by the chart alone");
            }
        }
    }
}

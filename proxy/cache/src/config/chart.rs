//! What the chart's schema takes is what this program starts with.

use std::sync::LazyLock;

use larder_process::command_line;
use larder_test_chart::schema::Said;
use proptest::prelude::*;

use super::config;
use crate::args::{Command, Typed};

/// A value of the chart's `cache`, the flag that it becomes, and what the schema says of it.
const VALUES: [(&str, &str); 8] = [
    ("--store=bucket:", "/definitions/cacheStore/properties/bucket/properties/url"),
    ("--store-cluster=", "/definitions/cacheStore/properties/bucket/properties/clusterId"),
    ("--endpoint=", "/definitions/cacheStore/properties/bucket/properties/endpoint"),
    ("--store-size=", "/definitions/cacheStore/properties/size"),
    ("--store-reserve=", "/definitions/cacheStore/properties/reserve"),
    ("--control-accounts=", "/definitions/cache/properties/control/properties/accounts/items"),
    ("--control-holders=", "/definitions/cache/properties/control/properties/holders/items"),
    ("--own-certificate-names=", "/definitions/cache/properties/tls/properties/extraNames/items"),
];

fn starts(flag: &str, text: &str) -> bool {
    let mut line: Vec<String> = ["larder-cache", "run", "--token-file=/token"].map(str::to_owned).into();
    // What it goes with, but for the flag itself.
    for with in [
        "--store=bucket:s3://images",
        "--store-cluster=a",
        "--own-certificate=larder/cache",
        "--own-certificate-names=cache.larder.svc",
        "--control=127.0.0.1:7445",
        "--control-audience=control",
        "--control-accounts=larder/controller",
        "--control-token-file=/tokens",
    ] {
        if !with.starts_with(flag.trim_end_matches("bucket:")) {
            line.push(with.to_owned());
        }
    }
    line.push(format!("{flag}{text}"));
    let Ok((typed, _)) = command_line::parse::<Typed>(line.into_iter().map(Into::into)) else { return false };
    let Command::Run(args) = typed.command else { return false };
    config(&args).is_ok()
}

#[test]
fn what_people_write_is_taken_by_both_and_what_makes_no_sense_by_neither() {
    let table: [(&[&str], &[&str]); 8] = [
        (
            &["s3://images", "gs://images/larder/", "az://images/a/b.c", "s3://images/"],
            &[
                "s3://ab",
                "s3://images/../b",
                "s3://images//",
                "s3://images/a//b",
                "s3://im ages",
                "http://images",
                "s3://images?x",
            ],
        ),
        (&["prod-eu", "a", "0._-"], &["Prod", "-a", "a/b", "."]),
        (
            &["https://minio:9000", "http://10.0.0.1/", "https://[fd00::1]:9000"],
            &["minio:9000", "https://a:b@minio", "https://minio:70000", "https://minio/x", "https://"],
        ),
        (&["100GiB", "500MB", "4096"], &["", "0", "0GiB", "much", "5 parsecs", "9999999TiB"]),
        (&["18%", "0", "50GiB", "0%"], &["100%", "some", "-1", "1.5GiB"]),
        (&["larder/node", "a/b.c"], &["node", "a/b/c", "A/b", "a/-b", "a/b..c"]),
        (&["larder/controller=prod", "me=a.b"], &["=a", "a", "a=", "a=pull", "a=-b", "a=B"]),
        (
            &["cache.example", "10.0.0.7", "fd00::7", "::1", "a-b.example"],
            &["*.example", "10.0.0", "10.0.0.256", "1:2:3:4:5:6:7:8::9", "a/b", "A.example", ""],
        ),
    ];
    for ((flag, place), (right, wrong)) in VALUES.into_iter().zip(table) {
        let said = Said::at(place).unwrap();
        for text in right {
            assert!(starts(flag, text), "{flag}{text} is not taken by the program");
            assert!(said.takes(text), "{flag}{text} is not taken by the chart");
        }
        for text in wrong {
            assert!(!said.takes(text), "{flag}{text} is taken by the chart");
        }
    }
}

/// Texts that are nearly right.
fn nearly() -> impl Strategy<Value = String> {
    let parts = [
        "a", "larder", "Z", "0", "9", "255", "256", "-", "_", ".", "..", "/", "//", ":", "::", "=", "%", "@", "?", " ",
        "s3://", "gs://", "images", "https://", "http://", "[", "]", "[::1]", ":9000", ":70000", "GiB", "MB", "T",
        "pull", ".example", "1:",
    ];
    proptest::collection::vec(proptest::sample::select(parts.to_vec()), 1..7).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_program_starts_with_whatever_the_chart_takes(text in nearly()) {
        static SAID: LazyLock<[Said; 8]> = LazyLock::new(|| VALUES.map(|(_, place)| Said::at(place).unwrap()));
        for ((flag, _), said) in VALUES.into_iter().zip(&*SAID) {
            if said.takes(&text) {
                prop_assert!(starts(flag, &text), "{flag}{text:?} is taken by the chart alone");
            }
        }
    }
}

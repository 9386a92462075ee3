use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn ask(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    match route(&Method::GET, path, query) {
        Ok(route) => {
            let name = route.name().map(ToString::to_string).unwrap_or_default();
            format!("{} {name} {}", route.kind(), route.reference()).replace(DIGEST, "DIGEST")
        }
        Err(refusal) => format!("{} {}", refusal.status.as_u16(), refusal.code.as_str()),
    }
}

#[test]
fn what_engines_and_people_ask_for() {
    for (target, expected) in [
        ("/v2", "base  "),
        ("/v2/", "base  "),
        // containerd
        ("/v2/team/app/manifests/v1?ns=reg.example.com%3A5000", "manifest reg.example.com:5000/team/app v1"),
        ("/v2/library/nginx/manifests/1.25?ns=docker.io", "manifest docker.io/library/nginx 1.25"),
        ("/v2/nginx/manifests/1.25?ns=docker.io", "manifest docker.io/library/nginx 1.25"),
        ("/v2/nginx/manifests/1.25?ns=index.docker.io", "manifest docker.io/library/nginx 1.25"),
        ("/v2/a/blobs/DIGEST?ns=quay.io", "blob quay.io/a DIGEST"),
        ("/v2/a/blobs/DIGEST?n=5&ns=quay.io&ns=quay.io", "blob quay.io/a DIGEST"),
        ("/v2/a/referrers/DIGEST?ns=quay.io&artifactType=x", "referrers quay.io/a DIGEST"),
        ("/v2/a/tags/list?ns=%5B%3A%3A1%5D%3A5000", "tags [::1]:5000/a "),
        // CRI-O and people
        ("/v2/docker.io/library/nginx/manifests/1.25", "manifest docker.io/library/nginx 1.25"),
        ("/v2/docker.io/nginx/manifests/1.25", "manifest docker.io/library/nginx 1.25"),
        ("/v2/reg.example.com__5000/team/app/manifests/DIGEST", "manifest reg.example.com:5000/team/app DIGEST"),
        ("/v2/reg.example.com:5000/team/app/blobs/DIGEST", "blob reg.example.com:5000/team/app DIGEST"),
        ("/v2/localhost/a/tags/list", "tags localhost/a "),
        ("/v2/quay.io/a/manifests/sha256-ab.sig", "manifest quay.io/a sha256-ab.sig"),
        // words of the API may be parts of names
        ("/v2/a/blobs/manifests/blobs/DIGEST?ns=quay.io", "blob quay.io/a/blobs/manifests DIGEST"),
        ("/v2/tags/list/tags/list?ns=quay.io", "tags quay.io/tags/list "),
        // decoded once
        (
            "/v2/a/blobs/sha256%3ae3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?ns=quay.io",
            "blob quay.io/a DIGEST",
        ),
        ("/v2/team%2Fapp/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/team%252Fapp/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/a%/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/a%ff/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        // canaries
        ("/v2/larder-probe/abc123/manifests/x?ns=larder.invalid", "canary  abc123"),
        ("/v2/larder-probe/abc123/blobs/DIGEST?ns=docker.io", "canary  abc123"),
        ("/v2/larder.invalid/larder-probe/abc123/manifests/latest", "canary  abc123"),
        ("/v2/larder-probe/a/b/manifests/x?ns=quay.io", "manifest quay.io/larder-probe/a/b x"),
        ("/larder/probe", "probe  "),
        // nothing of ours
        ("/", "404 NAME_UNKNOWN"),
        ("/v1/_ping", "404 NAME_UNKNOWN"),
        ("/v20/", "404 NAME_UNKNOWN"),
        ("/v2/_catalogs", "404 NAME_UNKNOWN"),
        ("/v2/_catalog/tags/list", "404 NAME_UNKNOWN"),
        ("/v2/a/tags/other?ns=quay.io", "404 NAME_UNKNOWN"),
        ("/v2/manifests/v1?ns=quay.io", "404 NAME_UNKNOWN"),
        ("/v2/library/nginx/manifests/1.25", "404 NAME_UNKNOWN"),
        // bad names, tags, digests
        ("/v2/../etc/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/%2e%2e/etc/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2//a/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/A/manifests/v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/a/manifests/v1?ns=", "400 NAME_INVALID"),
        ("/v2/a/manifests/v1?ns", "400 NAME_INVALID"),
        ("/v2/a/manifests/v1?ns=quay.io&ns=gcr.io", "400 NAME_INVALID"),
        ("/v2/a/manifests/v1?ns=http://quay.io", "400 NAME_INVALID"),
        ("/v2/a/manifests/-v1?ns=quay.io", "400 NAME_INVALID"),
        ("/v2/a/manifests/sha256:ab?ns=quay.io", "400 DIGEST_INVALID"),
        ("/v2/a/blobs/md5:ab?ns=quay.io", "400 DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/?ns=quay.io", "405 UNSUPPORTED"),
        ("/v2/a/blobs/uploads/1234?ns=quay.io", "405 UNSUPPORTED"),
    ] {
        assert_eq!(ask(&target.replace("DIGEST", DIGEST)), expected, "{target}");
    }
}

#[test]
fn whatever_would_write_is_refused_before_anything_else() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "LINK"] {
        for path in ["/v2/", "/v2/a/manifests/v1", "/v2/a/blobs/uploads/", "/", "/larder/probe"] {
            let refusal = route(&method.parse().unwrap(), path, None).unwrap_err();
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}

#[test]
fn the_namespace_stays_between_the_engine_and_us() {
    for (query, expected) in [
        (None, None),
        (Some("ns=quay.io"), None),
        (Some("ns=quay.io&n=5&last=a%20b"), Some("n=5&last=a%20b")),
        (Some("n=5&&ns"), Some("n=5")),
        (Some("nsx=1"), Some("nsx=1")),
    ] {
        assert_eq!(query_without_namespace(query).as_deref(), expected, "{query:?}");
    }
}

proptest! {
    /// Any text is answered or refused, and GET and HEAD ask for the same.
    #[test]
    fn any_text_is_a_route_or_a_refusal(path in "(/v2)?(/|%[0-9a-f]{1,2}|[a-z.:_%-]{1,9}|manifests|blobs|tags/list|\\PC){0,12}", query in proptest::option::of("\\PC{0,40}")) {
        prop_assert_eq!(route(&Method::GET, &path, query.as_deref()), route(&Method::HEAD, &path, query.as_deref()));
    }

    /// Both addressings of every valid name mean the same.
    #[test]
    fn both_addressings_mean_the_same(host in "[a-z]{1,9}\\.[a-z]{2,5}", port in proptest::option::of(1_u16..), repository in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}", tag in "[a-z0-9][a-z0-9._-]{0,9}") {
        let registry = Registry::parse(&port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))).unwrap();
        let by_query = route(&Method::GET, &format!("/v2/{repository}/manifests/{tag}"), Some(&format!("ns={registry}")));
        let by_path = route(&Method::GET, &format!("/v2/{}/{repository}/manifests/{tag}", registry.path_segment()), None);
        prop_assert!(by_query.is_ok());
        prop_assert_eq!(by_query, by_path);
    }
}

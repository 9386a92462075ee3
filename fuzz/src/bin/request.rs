//! A request's head and its routing: everything is a route or a refusal, and a route leads to where its own name says.
//!
//! The input: a head as hyper reads it, whose last empty line may be missing.

#![no_main]

use http::{Method, StatusCode, Uri};
use larder_oci::ByteRange;
use larder_proxy::server::route::{Refusal, Route, query_without_namespace, route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let head = [bytes, b"\r\n\r\n"].concat();
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(&head).is_ok_and(|status| status.is_complete()) {
        return;
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    for header in request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("range")) {
        let _ = str::from_utf8(header.value).map(ByteRange::parse_header);
    }
    ask(&method, uri.path(), uri.query());
    // Front ends differ in what they take for a path; the router is asked about any text.
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    ask(&method, path, query);
});

fn ask(method: &Method, path: &str, query: Option<&str>) {
    if method != Method::GET && method != Method::HEAD {
        let refusal = route(method, path, query).expect_err("a method that may write");
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        return;
    }
    let asked = route(&Method::GET, path, query);
    assert_eq!(route(&Method::HEAD, path, query), asked, "GET and HEAD ask for the same");
    match asked {
        Ok(route) => leads_to_itself(&route),
        Err(refusal) => refused(&refusal),
    }
    let kept = query_without_namespace(query);
    assert_eq!(query_without_namespace(kept.as_deref()), kept);
    let ours = |pair: &str| pair.is_empty() || pair == "ns" || pair.starts_with("ns=");
    assert!(!kept.is_some_and(|kept| kept.split('&').any(ours)), "ns would reach the origin");
}

/// Asked for by its own name, in either addressing, it is the same.
fn leads_to_itself(asked: &Route) {
    if let Route::Canary { nonce } = asked {
        assert!((1..=128).contains(&nonce.len()) && !nonce.contains(['/', '%', '\0']), "{nonce:?}");
    }
    let Some(name) = asked.name() else { return };
    let (registry, repository) = (name.registry.as_str(), name.repository.as_str());
    assert!(repository.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{repository}");
    assert!(!name.registry.is_docker_hub() || repository.contains('/'), "{repository}");
    let rest = match asked {
        Route::Manifest { reference, .. } => format!("manifests/{reference}"),
        Route::Blob { digest, .. } => format!("blobs/{digest}"),
        Route::Referrers { digest, .. } => format!("referrers/{digest}"),
        _ => "tags/list".to_owned(),
    };
    let query = format!("ns={registry}");
    let by_query = route(&Method::GET, &format!("/v2/{repository}/{rest}"), Some(&query));
    assert_eq!(by_query.as_ref(), Ok(asked), "by query");
    // A single label cannot be told from a repository.
    if registry.contains(['.', ':']) || registry == "localhost" {
        let path = format!("/v2/{}/{repository}/{rest}", name.registry.path_segment());
        assert_eq!(route(&Method::GET, &path, None).as_ref(), Ok(asked), "by path");
        assert_eq!(route(&Method::GET, &path, Some("n=5")).as_ref(), Ok(asked), "by path, with a query");
    }
}

fn refused(refusal: &Refusal) {
    let known = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
    assert!(known.contains(&refusal.status), "{refusal:?}");
    assert!(!refusal.message.is_empty() && refusal.message.len() <= 16 * 1024, "{} bytes", refusal.message.len());
}

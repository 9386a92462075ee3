//! A `hosts.toml` of ours: an administrator's chain written down again, with our mirror in front or without it.
//!
//! It says what he said, no more: relative paths became absolute when they were read, because our file lies elsewhere.

use std::fmt::Write as _;
use std::path::Path;

use toml_edit::{Array, Value};

use super::hosts::{AdminChain, ClientPair, Endpoint};
use super::splice::Block;
use crate::change::marker;

/// The chain with our mirror before all his hosts.
pub(super) fn with_mirror(chain: &AdminChain, block: &Block<'_>) -> Vec<u8> {
    let mut body = String::new();
    server(&mut body, &chain.server);
    blank_line(&mut body);
    body.push_str(&block.table());
    hosts(&mut body, &chain.hosts);
    marker::sealed(&body)
}

/// The chain alone, for the registry `host`: what containerd did without us, also where a `_default` of ours would be found.
///
/// containerd 1.6 refuses a file without any host (`needs_host`), so the registry is named as one when there is no other.
pub(super) fn without_mirror(chain: &AdminChain, host: &str, needs_host: bool) -> Vec<u8> {
    let mut body = String::new();
    server(&mut body, &chain.server);
    if chain.hosts.is_empty() && needs_host {
        let place = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let url = chain.server.url.clone().unwrap_or_else(|| format!("https://{place}"));
        hosts(&mut body, &[Endpoint { url: Some(url), ..chain.server.clone() }]);
    } else {
        hosts(&mut body, &chain.hosts);
    }
    marker::sealed(&body)
}

fn hosts(body: &mut String, hosts: &[Endpoint]) {
    for host in hosts {
        blank_line(body);
        let name = Value::from(host.url.clone().unwrap_or_default()).to_string();
        let _ = writeln!(body, "[host.{}]", name.trim());
        keys(body, host, "  ");
        if !host.header.is_empty() {
            let _ = writeln!(body, "  [host.{}.header]", name.trim());
            header(body, host, "    ");
        }
    }
}

fn server(body: &mut String, server: &Endpoint) {
    if let Some(url) = &server.url {
        key(body, "", "server", &Value::from(url.as_str()));
    }
    keys(body, server, "");
    if !server.header.is_empty() {
        blank_line(body);
        body.push_str("[header]\n");
        header(body, server, "  ");
    }
}

fn keys(body: &mut String, endpoint: &Endpoint, indent: &str) {
    let Endpoint { url: _, capabilities, ca, client, skip_verify, header: _, override_path, dial_timeout } = endpoint;
    if !capabilities.is_empty() {
        key(body, indent, "capabilities", &capabilities.iter().collect::<Array>().into());
    }
    if !ca.is_empty() {
        key(body, indent, "ca", &ca.iter().map(|path| text(path)).collect::<Array>().into());
    }
    if !client.is_empty() {
        let pair = |(certificate, key): &ClientPair| match key {
            Some(key) => Value::from([text(certificate), text(key)].into_iter().collect::<Array>()),
            None => Value::from(text(certificate)),
        };
        key(body, indent, "client", &client.iter().map(pair).collect::<Array>().into());
    }
    if let Some(skip_verify) = skip_verify {
        key(body, indent, "skip_verify", &Value::from(*skip_verify));
    }
    if *override_path {
        key(body, indent, "override_path", &Value::from(true));
    }
    if let Some(timeout) = dial_timeout {
        key(body, indent, "dial_timeout", &Value::from(timeout.as_str()));
    }
}

fn header(body: &mut String, endpoint: &Endpoint, indent: &str) {
    for (name, values) in &endpoint.header {
        let name = Value::from(name.as_str()).to_string();
        key(body, indent, name.trim(), &values.iter().collect::<Array>().into());
    }
}

fn key(body: &mut String, indent: &str, name: &str, value: &Value) {
    let _ = writeln!(body, "{indent}{name} = {}", value.to_string().trim());
}

fn blank_line(body: &mut String) {
    if !body.is_empty() {
        body.push('\n');
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::hosts::parse;
    use super::*;
    use crate::engine::version::Version;

    const OURS: Block<'static> = Block { mirror: "http://127.0.0.1:7439", capabilities: &["pull", "resolve"] };

    #[test]
    fn what_he_said_is_said_again_with_absolute_paths() {
        let theirs = r#"
            server = "https://reg.example.com"
            ca = "ca.crt"
            [header]
              "x-team" = ["a", "b"]
            [host."https://reg.example.com"]
              capabilities = ["pull"]
              client = [["../c.pem", "c.key"], "both.pem"]
              skip_verify = true
              dial_timeout = "5s"
              [host."https://reg.example.com".header]
                authorization = "Basic \"quoted\""
            [host."http://other"]
              override_path = true
        "#;
        let version = Some(Version::new(2, 1, 0));
        let chain = parse(theirs.as_bytes(), Path::new("/etc/certs.d/reg"), version).unwrap();
        insta::assert_snapshot!(String::from_utf8(with_mirror(&chain, &OURS)).unwrap());

        let again = parse(&without_mirror(&chain, "reg.example.com", false), Path::new("/elsewhere"), version).unwrap();
        assert_eq!(again, chain);
        let mut ours = parse(&with_mirror(&chain, &OURS), Path::new("/elsewhere"), version).unwrap();
        assert_eq!(ours.hosts.remove(0).url.as_deref(), Some(OURS.mirror));
        assert_eq!(ours, chain);
    }

    #[test]
    fn a_file_without_hosts_names_the_registry_for_the_sake_of_1_6() {
        let bytes = without_mirror(&AdminChain::default(), "docker.io", true);
        let chain = parse(&bytes, Path::new("/x"), Some(Version::new(1, 6, 0))).unwrap();
        assert_eq!(chain.hosts.first().unwrap().url.as_deref(), Some("https://registry-1.docker.io"));
    }
}

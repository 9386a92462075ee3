//! What a registry was asked, read from its access log, which is in the combined format of web servers.

use anyhow::Result;

use crate::registry::Registry;

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address that it came from.
    pub from: String,
    /// `GET`, `HEAD`.
    pub method: String,
    /// The target, as it was written.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// The `User-Agent`.
    pub agent: String,
}

impl Request {
    /// `ADDRESS - USER [TIME] "METHOD PATH PROTOCOL" STATUS SIZE "REFERER" "AGENT"`; other lines are none.
    fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"');
        let from = quoted.next()?.split_once(" - ")?.0.trim().to_owned();
        let mut words = quoted.next()?.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let status = quoted.next()?.split_whitespace().next()?.parse().ok()?;
        let agent = quoted.nth(2)?.to_owned();
        Some(Self { from, method, path, status, agent })
    }

    /// Whether bytes of a blob were asked for.
    pub fn is_for_a_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/")
    }

    /// Whether it came through Larder.
    pub fn is_larders(&self) -> bool {
        self.agent.starts_with("larder/")
    }

    /// Whether an engine asked by itself.
    pub fn is_an_engines(&self) -> bool {
        self.agent.starts_with("containerd/") || self.agent.starts_with("cri-o/")
    }
}

impl Registry<'_> {
    /// What it was asked about a repository since it was made, oldest first, but for what this harness asked itself.
    pub fn requests(&self, repository: &str) -> Result<Vec<Request>> {
        let prefix = format!("/v2/{repository}/");
        let log = self.log()?;
        let requests = log.lines().filter_map(Request::parse);
        Ok(requests
            .filter(|request| request.path.starts_with(&prefix) && (request.is_larders() || request.is_an_engines()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_the_access_log() {
        let line = r#"172.17.0.4 - - [24/Nov/2026:15:59:52 +0000] "GET /v2/a/b/blobs/sha256:e2 HTTP/1.1" 200 195 "" "larder/0.1.0""#;
        let request = Request::parse(line).unwrap();
        assert!(request.is_for_a_blob() && request.is_larders() && !request.is_an_engines());
        assert_eq!((request.from.as_str(), request.status), ("172.17.0.4", 200));
        let named = r#"172.17.0.4 - puller [24/Nov/2026:15:59:52 +0000] "HEAD /v2/a/manifests/1 HTTP/1.1" 401 195 "" "containerd/v1.7.35""#;
        let request = Request::parse(named).unwrap();
        assert_eq!((request.from.as_str(), request.status, request.is_an_engines()), ("172.17.0.4", 401, true));
        assert_eq!(Request::parse(r#"time="2026-11-24" level=info msg="response completed""#), None);
    }
}

//! The corporate proxy between us and the registries: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
//!
//! Read once by the program and passed in as a value. `connect` tunnels https through it (CONNECT) and `client` sends plain
//! http to it in absolute form. What is on this machine is never asked through it, as in Go's programs.

use std::fmt;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::address::is_localhost;

/// Which destinations are reached through which proxy.
pub struct ProxyEnvironment(Matcher);

/// One proxy.
#[derive(Clone)]
pub(crate) struct CorporateProxy {
    /// `http://host:port/`.
    pub(crate) uri: Uri,
    /// `Proxy-Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
}

/// The variables as they were found.
#[derive(Clone, Default)]
pub struct ProxyVariables {
    /// `HTTPS_PROXY`: for https destinations.
    pub https: String,
    /// `HTTP_PROXY`: for plain http destinations.
    pub http: String,
    /// `ALL_PROXY`: for both, where the other one is empty.
    pub all: String,
    /// `NO_PROXY`: hosts, domains, networks; `*` for everything.
    pub no: String,
}

impl ProxyVariables {
    /// Those of this process, upper-case first, as curl and Go read them.
    pub fn of_environment() -> Self {
        let variable = |name: &str| {
            let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            read(name).or_else(|| read(&name.to_ascii_lowercase())).unwrap_or_default()
        };
        Self {
            https: variable("HTTPS_PROXY"),
            http: variable("HTTP_PROXY"),
            all: variable("ALL_PROXY"),
            no: variable("NO_PROXY"),
        }
    }
}

impl ProxyEnvironment {
    /// Proxies are asked over plain http themselves; another kind (https, socks) is said in the log and not used, which
    /// makes the registries behind it unreachable for us, and so left to the engine.
    pub fn new(variables: &ProxyVariables) -> Self {
        let ProxyVariables { https, http, all, no } = variables;
        let matcher =
            Matcher::builder().https(https.as_str()).http(http.as_str()).all(all.as_str()).no(no.as_str()).build();
        let environment = Self(matcher);
        for (name, value, destination) in
            [("HTTPS_PROXY", https, "https://registry.invalid/"), ("HTTP_PROXY", http, "http://registry.invalid/")]
        {
            let found = environment.0.intercept(&Uri::from_static(destination));
            let known = found.as_ref().is_none_or(|found| found.uri().scheme_str() == Some("http"));
            if !known || (found.is_none() && !value.is_empty() && !no.contains('*')) {
                tracing::warn!(variable = name, "this kind of proxy is not supported, only http:// ones are");
            }
        }
        environment
    }

    /// No proxy for anything.
    pub fn none() -> Self {
        Self::new(&ProxyVariables::default())
    }

    /// The proxy for a destination.
    pub(crate) fn proxy(&self, destination: &Uri) -> Option<CorporateProxy> {
        let host = destination.host()?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        if is_localhost(host) || address.is_ok_and(|address| address.is_loopback()) {
            return None;
        }
        let found = self.0.intercept(destination)?;
        Some(CorporateProxy { uri: found.uri().clone(), authorization: found.basic_auth().cloned() })
    }
}

impl fmt::Debug for ProxyEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher leaves passwords out.
        self.0.fmt(f)
    }
}

impl fmt::Debug for ProxyVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The others may hold passwords.
        f.debug_struct("ProxyVariables").field("no", &self.no).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_through_what() {
        let environment = ProxyEnvironment::new(&ProxyVariables {
            https: "http://user:secret@proxy.corp.example:3128".into(),
            http: "plain.corp.example:8080".into(),
            all: String::new(),
            no: "corp.example,.internal.example,10.0.0.0/8".into(),
        });
        let table = [
            ("https://registry.example.com/v2/", Some("http://proxy.corp.example:3128/")),
            ("http://registry.example.com/v2/", Some("http://plain.corp.example:8080/")),
            ("https://harbor.corp.example/", None),
            ("https://a.internal.example/", None),
            ("https://10.2.3.4:5000/", None),
            ("https://11.2.3.4:5000/", Some("http://proxy.corp.example:3128/")),
            ("https://127.0.0.1/", None),
            ("https://[::1]:5000/", None),
            ("https://localhost:5000/", None),
        ];
        for (destination, expected) in table {
            let found = environment.proxy(&destination.parse().unwrap()).map(|proxy| proxy.uri.to_string());
            assert_eq!(found.as_deref(), expected, "{destination}");
        }
        let found = environment.proxy(&Uri::from_static("https://registry.example.com")).unwrap();
        assert_eq!(found.authorization.unwrap(), "Basic dXNlcjpzZWNyZXQ=");
    }

    #[test]
    fn passwords_are_not_shown() {
        let variables = ProxyVariables { https: "http://user:secret@proxy:3128".into(), ..ProxyVariables::default() };
        assert!(!format!("{variables:?} {:?}", ProxyEnvironment::new(&variables)).contains("secret"));
    }
}

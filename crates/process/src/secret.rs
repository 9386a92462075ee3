//! Tokens: they are not shown, and leave no copy of ours behind.

use std::fmt;

use http::HeaderValue;
use url::Host;
use zeroize::Zeroizing;

/// A token: what opens something for whoever has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// This text, which should have no other copy.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text itself. Not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `Authorization` with it as a Bearer token; `None` if it holds what no header may.
    pub fn header(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Whether a token may be sent to a host in the clear: only to this machine, where it crosses no network.
pub fn may_go_in_the_clear(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => *name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new(Zeroizing::new("open-sesame".to_owned()));
        let header = token.header().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer open-sesame");
        assert!(!format!("{token:?} {header:?}").contains("sesame"));
        assert_eq!(Token::new(Zeroizing::new("line\nbreak".to_owned())).header(), None);
    }
}

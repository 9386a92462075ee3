//! What goes wrong, and for which requests.

use std::time::Duration;

/// How a request is answered instead of, or on the way to, the right answer.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// This status with an empty body and these headers.
    Status(u16, Vec<(String, String)>),
    /// The request is read and never answered.
    Hang,
    /// The right answer, this much later.
    Delay(Duration),
    /// The right headers, then a body of at most so many bytes a second.
    Shape(u64),
    /// The right headers, so many bytes of the body, then nothing more, with the connection open.
    Stall(u64),
    /// The right headers and so many bytes of the body, then FIN.
    Truncate(u64),
    /// The right headers and so many bytes of the body, then RST.
    Reset(u64),
    /// The right headers and length, with the byte at this offset of the content wrong.
    Lie(u64),
    /// 307 to this URL.
    Redirect(String),
    /// The right answer, without this header (lower-case).
    Without(&'static str),
    /// The right answer, with this header instead of its own of that name.
    With(&'static str, String),
    /// The right answer to a request without Range, whatever range was asked for.
    IgnoreRange,
}

/// Which requests a rule is for.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Only this method.
    pub method: Option<&'static str>,
    /// Only paths that hold this text.
    pub path: Option<String>,
}

impl Matcher {
    /// Every request.
    pub fn all() -> Self {
        Self::default()
    }

    /// Paths that hold `text`.
    pub fn path(text: impl Into<String>) -> Self {
        Self { method: None, path: Some(text.into()) }
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(self, method: &'static str) -> Self {
        Self { method: Some(method), ..self }
    }

    pub(crate) fn matches(&self, method: &str, path: &str) -> bool {
        self.method.is_none_or(|wanted| wanted == method)
            && self.path.as_ref().is_none_or(|text| path.contains(text.as_str()))
    }
}

/// A behaviour, for whom, and how often.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For which requests.
    pub matcher: Matcher,
    /// How they are answered.
    pub behaviour: Behaviour,
    /// How many more requests it is for; `None` for all.
    pub times: Option<usize>,
}

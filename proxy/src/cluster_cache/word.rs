//! What an answer of the cluster cache means: whose word it is. Pure.

use std::time::Duration;

use http::header::AGE;
use http::{HeaderMap, StatusCode};

use crate::hop;
use crate::source::{SourceError, Unconfirmed, Verdict};

/// An answer that is content, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Content; what the registry said instead of confirming it, if it did not.
    Content(Option<Unconfirmed>),
    /// Where the content is.
    Elsewhere,
    /// The registry's own answer, or that it gave none.
    Registry(SourceError),
    /// It does not know us.
    Unauthorized,
    /// Its own trouble, or its own rules.
    Own,
}

/// What `status` and `headers` mean.
pub(super) fn word(status: StatusCode, headers: &HeaderMap) -> Word {
    let said = headers.get(hop::ORIGIN).and_then(|said| Verdict::parse(said.to_str().ok()?));
    match (status, said) {
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, None | Some(Verdict::Ok)) => Word::Content(None),
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Some(said)) => {
            Word::Content(Some(Unconfirmed { said, age: age(headers) }))
        }
        (StatusCode::TEMPORARY_REDIRECT, None) => Word::Elsewhere,
        (_, Some(said)) => match error(said) {
            Some(error) => Word::Registry(error),
            None => Word::Own,
        },
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => Word::Unauthorized,
        _ => Word::Own,
    }
}

fn error(said: Verdict) -> Option<SourceError> {
    Some(match said {
        Verdict::NotFound => SourceError::NotFound,
        Verdict::Denied => SourceError::NeedsCredentials { status: 401 },
        Verdict::RateLimited => SourceError::RateLimited { retry_after: None },
        Verdict::ServerError => SourceError::Server { status: 502 },
        Verdict::Timeout => SourceError::Timeout,
        Verdict::Unreachable => {
            SourceError::Unreachable { reason: "the cluster cache does not reach the registry".to_owned() }
        }
        Verdict::Ok | Verdict::Changed => return None,
    })
}

fn age(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get(AGE)?.to_str().ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::source::is_the_registrys_word;

    fn of(status: u16, said: Option<&'static str>) -> Word {
        let mut headers = HeaderMap::new();
        if let Some(said) = said {
            headers.insert(hop::ORIGIN, HeaderValue::from_static(said));
            headers.insert(AGE, HeaderValue::from_static("7"));
        }
        word(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn whose_word_it_is() {
        let stale = |said| Word::Content(Some(Unconfirmed { said, age: Some(Duration::from_secs(7)) }));
        assert_eq!(of(200, None), Word::Content(None));
        assert_eq!(of(206, Some("ok")), Word::Content(None));
        assert_eq!(of(200, Some("timeout")), stale(Verdict::Timeout));
        assert_eq!(of(200, Some("not_found")), stale(Verdict::NotFound));
        assert_eq!(of(404, Some("not_found")), Word::Registry(SourceError::NotFound));
        assert_eq!(of(307, None), Word::Elsewhere);
        // Its own: settings, bounds, a loop, somebody in between.
        for status in [404, 502, 503, 500, 400, 416, 429, 301] {
            assert_eq!(of(status, None), Word::Own, "{status}");
        }
        assert_eq!(of(404, Some("nonsense")), Word::Own);
        assert_eq!((of(401, None), of(403, None)), (Word::Unauthorized, Word::Unauthorized));
    }

    #[test]
    fn what_the_registry_said_ends_the_question_and_that_it_said_nothing_does_not() {
        for (said, ends) in [
            ("not_found", true),
            ("denied", true),
            ("rate_limited", true),
            ("server_error", true),
            ("timeout", false),
            ("unreachable", false),
        ] {
            let Word::Registry(error) = of(502, Some(said)) else { panic!("{said}") };
            assert_eq!(is_the_registrys_word(&error), ends, "{said}");
        }
    }
}

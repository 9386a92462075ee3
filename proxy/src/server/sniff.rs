//! The first bytes of a connection, before any HTTP: who is this for?
//!
//! Pure. The front thread (`front`) peeks and asks [`classify`]; nothing is consumed, so the runtime sees the connection from
//! its first byte.

use super::probe;

/// The most bytes that a probe's head may have.
pub(super) const LONGEST_PROBE: usize = 2048;

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A TLS handshake record: c/image tries https first (RFC 8446 §5.1, content type 22).
    Tls,
    /// A probe; its head has to be read to the end.
    Probe,
    /// Too few bytes to tell.
    Unclear,
    /// Anything else: a request for the runtime.
    Request,
}

/// Classifies the bytes that are there so far.
pub(super) fn classify(bytes: &[u8]) -> Opening {
    const START: &[u8] = b"GET /larder/probe";
    debug_assert!(START.ends_with(probe::PATH.as_bytes()), "the path has one spelling");
    match bytes {
        [] => Opening::Unclear,
        [0x16, ..] => Opening::Tls,
        _ if bytes.starts_with(START) => match bytes.get(START.len()) {
            None => Opening::Unclear,
            Some(b' ' | b'?') => Opening::Probe,
            Some(_) => Opening::Request,
        },
        _ if START.starts_with(bytes) => Opening::Unclear,
        _ => Opening::Request,
    }
}

/// The query of a probe whose head is complete; `None` while it is not.
pub(super) fn probe_query(head: &[u8]) -> Option<String> {
    let end = head.windows(4).position(|window| window == b"\r\n\r\n")?;
    let line = head.get(..end)?.split(|byte| *byte == b'\r').next()?;
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
    Some(String::from_utf8_lossy(query).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_who_it_is_for() {
        for (bytes, expected) in [
            (&b""[..], Opening::Unclear),
            (b"\x16", Opening::Tls),
            (b"\x16\x03\x01\x02\x00\x01", Opening::Tls),
            (b"G", Opening::Unclear),
            (b"GET /larder/pro", Opening::Unclear),
            (b"GET /larder/probe", Opening::Unclear),
            (b"GET /larder/probe?challenge=", Opening::Probe),
            (b"GET /larder/probe HTTP/1.1", Opening::Probe),
            (b"GET /larder/probes", Opening::Request),
            (b"GET /v2/", Opening::Request),
            (b"HEAD /larder/probe", Opening::Request),
            (b"PRI * HTTP/2.0", Opening::Request),
            (b"\x00\xff", Opening::Request),
        ] {
            assert_eq!(classify(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_probe_is_read_to_the_end_of_its_head() {
        assert_eq!(probe_query(b"GET /larder/probe?challenge=ab HTTP/1.1\r\nHost: x\r\n"), None);
        let whole = b"GET /larder/probe?challenge=ab&seen=n HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(probe_query(whole).as_deref(), Some("challenge=ab&seen=n"));
        assert_eq!(probe_query(b"GET /larder/probe HTTP/1.1\r\n\r\n").as_deref(), Some(""));
    }
}

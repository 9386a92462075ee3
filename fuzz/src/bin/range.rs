//! `Range` of a request and `Content-Range` of a reply: what is sent never leaves the content, and is what was asked for.
//!
//! The input: a `Range`, a `Content-Range` and a length, one a line.

#![no_main]

use larder_oci::{ByteRange, ContentRange};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (asked, replied, length) = (next(), next(), next());
    if let Ok(range) = ByteRange::parse_header(asked) {
        assert_eq!(ByteRange::parse_header(&range.to_string()), Ok(range));
        for length in [length.parse().unwrap_or(10), 0, 1, u64::MAX] {
            resolve(range, length);
        }
    }
    if let Ok(range) = ContentRange::parse(replied) {
        assert!(range.first <= range.last && range.total.is_none_or(|total| range.last < total));
        assert_eq!(ContentRange::parse(&range.to_string()), Ok(range));
    }
});

/// RFC 9110 §14.1.2 in wider numbers, where nothing can overflow.
fn resolve(range: ByteRange, length: u64) {
    let wide = u128::from(length);
    let (first, end) = match range {
        ByteRange::From(first) => (u128::from(first), wide),
        ByteRange::FromTo { first, last } => (u128::from(first), wide.min(u128::from(last) + 1)),
        ByteRange::Last(count) => (wide - wide.min(u128::from(count)), wide),
    };
    let resolved = range.resolve(length);
    let Some(bytes) = resolved else {
        assert!(first >= end, "{range} of {length} bytes can be satisfied");
        return;
    };
    assert_eq!((u128::from(bytes.start), u128::from(bytes.end)), (first, end), "{range} of {length} bytes");
    assert!(bytes.start < bytes.end && bytes.end <= length, "{range} leaves {length} bytes");
    let header = ContentRange { first: bytes.start, last: bytes.end - 1, total: Some(length) };
    assert_eq!(ContentRange::parse(&header.to_string()), Ok(header), "our own answer to {range}");
}

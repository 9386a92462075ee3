//! Byte ranges of a request (RFC 9110 §14.1, §14.2) and of a reply (§14.4).

use std::fmt;
use std::ops::Range;

/// One range of a `Range` header. Several ranges in one header are not supported: a server may ignore those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-`
    From(u64),
    /// `bytes=first-last`, both included.
    FromTo {
        /// The first byte.
        first: u64,
        /// The last byte, included.
        last: u64,
    },
    /// `bytes=-count`: the last so many.
    Last(u64),
}

/// Why a header is not one range, or a reply's range makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not `bytes=…`.
    #[error("range unit is not bytes")]
    Unit,
    /// Several ranges.
    #[error("more than one range")]
    Several,
    /// Not numbers, or the last before the first.
    #[error("range is not first-last, first- or -count")]
    Syntax,
}

impl ByteRange {
    /// Parses the value of a `Range` header.
    pub fn parse_header(value: &str) -> Result<Self, RangeError> {
        let (unit, set) = value.trim().split_once('=').ok_or(RangeError::Syntax)?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Err(RangeError::Unit);
        }
        if set.contains(',') {
            return Err(RangeError::Several);
        }
        let (first, last) = set.trim().split_once('-').ok_or(RangeError::Syntax)?;
        match (first, last) {
            ("", count) => Ok(Self::Last(number(count)?)),
            (first, "") => Ok(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first { Err(RangeError::Syntax) } else { Ok(Self::FromTo { first, last }) }
            }
        }
    }

    /// The bytes that it means of content of `length`, or `None` when it can't be satisfied (status 416).
    pub fn resolve(self, length: u64) -> Option<Range<u64>> {
        match self {
            Self::From(first) => (first < length).then_some(first..length),
            Self::FromTo { first, last } => (first < length).then(|| first..last.saturating_add(1).min(length)),
            Self::Last(count) => (count > 0 && length > 0).then(|| length.saturating_sub(count)..length),
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::FromTo { first, last } => write!(f, "bytes={first}-{last}"),
            Self::Last(count) => write!(f, "bytes=-{count}"),
        }
    }
}

/// A `Content-Range` header: which bytes a reply with status 206 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, included.
    pub last: u64,
    /// The length of the whole, when known.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Parses the value of a `Content-Range` header.
    pub fn parse(value: &str) -> Result<Self, RangeError> {
        let rest = value.trim().strip_prefix("bytes ").ok_or(RangeError::Unit)?;
        let (range, total) = rest.split_once('/').ok_or(RangeError::Syntax)?;
        let (first, last) = range.split_once('-').ok_or(RangeError::Syntax)?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        if last < first || total.is_some_and(|total| last >= total) {
            return Err(RangeError::Syntax);
        }
        Ok(Self { first, last, total })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.first, self.last)?;
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

fn number(text: &str) -> Result<u64, RangeError> {
    // `u64::from_str` would accept a plus sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RangeError::Syntax);
    }
    text.parse().map_err(|_| RangeError::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms() {
        assert_eq!(ByteRange::parse_header("bytes=0-"), Ok(ByteRange::From(0)));
        assert_eq!(ByteRange::parse_header("Bytes=5-9"), Ok(ByteRange::FromTo { first: 5, last: 9 }));
        assert_eq!(ByteRange::parse_header("bytes=-7"), Ok(ByteRange::Last(7)));
        for (value, error) in [
            ("items=0-", RangeError::Unit),
            ("bytes=0-1,3-4", RangeError::Several),
            ("bytes=9-5", RangeError::Syntax),
            ("bytes=+1-2", RangeError::Syntax),
            ("bytes=-", RangeError::Syntax),
            ("bytes", RangeError::Syntax),
            ("bytes=99999999999999999999-", RangeError::Syntax),
        ] {
            assert_eq!(ByteRange::parse_header(value), Err(error), "{value}");
        }
    }

    #[test]
    fn what_a_range_means() {
        assert_eq!(ByteRange::From(3).resolve(10), Some(3..10));
        assert_eq!(ByteRange::From(10).resolve(10), None);
        assert_eq!(ByteRange::FromTo { first: 3, last: 99 }.resolve(10), Some(3..10));
        assert_eq!(ByteRange::FromTo { first: 0, last: u64::MAX }.resolve(10), Some(0..10));
        assert_eq!(ByteRange::Last(4).resolve(10), Some(6..10));
        assert_eq!(ByteRange::Last(40).resolve(10), Some(0..10));
        assert_eq!(ByteRange::Last(0).resolve(10), None);
        assert_eq!(ByteRange::Last(1).resolve(0), None);
    }

    #[test]
    fn a_reply_that_contradicts_itself_is_refused() {
        assert!(ContentRange::parse("bytes 0-9/10").is_ok());
        assert!(ContentRange::parse("bytes 0-9/*").is_ok());
        for value in ["bytes 0-10/10", "bytes 9-0/10", "bytes */10", "0-9/10", "bytes 0-9"] {
            assert!(ContentRange::parse(value).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_content(value in "bytes=[0-9]{0,21}-[0-9]{0,21}", length in any::<u64>()) {
            if let Some(range) = ByteRange::parse_header(&value).ok().and_then(|range| range.resolve(length)) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }

        #[test]
        fn what_is_printed_is_parsed_the_same(first in any::<u64>(), more in 0u64..1000, total in any::<bool>()) {
            let last = first.saturating_add(more);
            let range = ContentRange { first, last, total: total.then_some(last.saturating_add(1)) };
            if range.total != Some(last) {
                prop_assert_eq!(ContentRange::parse(&range.to_string()), Ok(range));
            }
        }
    }
}

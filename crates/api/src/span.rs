//! How long something is, as people write it: `30d`, `12h`, `1d12h`, `90m`.
//!
//! As Go writes durations, with days, and in whole numbers: what is said of images is said in days.

use std::fmt::Write as _;
use std::time::Duration;

/// Why a text is no span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanError(String);

impl std::fmt::Display for SpanError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:?} is no time: write days, hours, minutes and seconds in this order, and more than nothing: 30d, 12h, 1d12h, 90m",
            self.0
        )
    }
}

impl std::error::Error for SpanError {}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Reads a span.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    let error = || SpanError(text.chars().take(40).collect());
    let mut rest = text;
    let mut seconds = 0;
    for (unit, worth) in UNITS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some((number, after)) = rest.split_at_checked(digits) else { continue };
        if let Some(after) = after.strip_prefix(unit)
            && (1..=5).contains(&digits)
        {
            seconds += number.parse::<u64>().map_err(|_| error())? * worth;
            rest = after;
        }
    }
    if rest.is_empty() && seconds > 0 { Ok(Duration::from_secs(seconds)) } else { Err(error()) }
}

/// Writes a span; what is below a second is left out.
pub fn print(span: Duration) -> String {
    let mut text = String::new();
    let mut seconds = span.as_secs();
    for (unit, worth) in UNITS {
        if seconds >= worth {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", seconds / worth);
            seconds %= worth;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        for (text, seconds) in
            [("30d", 2_592_000), ("12h", 43_200), ("1d12h", 129_600), ("90m", 5400), ("1h0m5s", 3605)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "0s", "30", "d", "1h1d", "1.5h", "-1h", "1 h", "30d ", "123456d", "1w", "1h1h", "é"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("30d, 12h"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(seconds in 1u64..8_640_000_000) {
            prop_assert_eq!(parse(&print(Duration::from_secs(seconds))).unwrap(), Duration::from_secs(seconds));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}

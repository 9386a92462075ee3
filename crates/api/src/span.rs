//! How long something is, as people write it: `30d`, `12h`, `1d12h`, `90m`.
//!
//! As Go writes durations, with days, and in whole numbers: what is said of images is said in days.

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
            text.push_str(&format!("{}{unit}", seconds / worth));
            seconds %= worth;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

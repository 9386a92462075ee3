//! Sizes as people write them.

use std::fmt;

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeError(String);

impl fmt::Display for SizeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for SizeError {}

/// `500MB`, `20GiB`, `1000000`: decimal or binary units, as they are written.
pub fn size(text: &str) -> Result<u64, SizeError> {
    let wrong = |reason: &str| SizeError(reason.to_owned());
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return Err(SizeError(format!("{unit} is no unit: use MB, GB, MiB, GiB"))),
    };
    let number = digits.trim().parse::<u64>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| wrong("it must be a number above zero"))?;
    number.checked_mul(factor).ok_or_else(|| wrong("it is too large"))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_as_written() {
        assert_eq!(size("20GiB").unwrap(), 20 << 30);
        assert_eq!(size("500MB").unwrap(), 500_000_000);
        assert_eq!(size("4096").unwrap(), 4096);
        for wrong in ["", "0", "GiB", "-1", "5 parsecs", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}

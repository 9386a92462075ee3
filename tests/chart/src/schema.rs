//! What the chart's schema says of one text, for the programs whose flag it becomes: a value that it takes and they refuse would be a Pod that never starts.

use anyhow::{Context as _, Result, ensure};
use regex::Regex;
use serde_json::Value;

/// What it says of one text.
#[derive(Debug)]
pub struct Said {
    patterns: Vec<Regex>,
    never: Vec<Regex>,
    not: Option<String>,
    longest: usize,
}

impl Said {
    /// By its place in the file, `/definitions/span`.
    pub fn at(place: &str) -> Result<Self> {
        let schema: Value = serde_json::from_str(include_str!("../../../chart/values.schema.json"))?;
        let said = schema.pointer(place).with_context(|| format!("the schema has no {place}"))?;
        let all: Vec<&Value> =
            said.get("allOf").and_then(Value::as_array).into_iter().flatten().chain([said]).collect();
        let patterns = |place: &str| -> Result<Vec<Regex>> {
            let texts = all.iter().filter_map(|one| one.pointer(place)?.as_str());
            texts.map(|text| Regex::new(text).with_context(|| text.to_owned())).collect()
        };
        let longest = said.get("maxLength").and_then(Value::as_u64).and_then(|most| usize::try_from(most).ok());
        let said = Self {
            patterns: patterns("/pattern")?,
            never: patterns("/not/pattern")?,
            not: said.pointer("/not/const").and_then(Value::as_str).map(str::to_owned),
            longest: longest.unwrap_or(usize::MAX),
        };
        ensure!(!said.patterns.is_empty(), "{place} has no pattern");
        Ok(said)
    }

    /// Whether an install with it is not refused.
    pub fn takes(&self, text: &str) -> bool {
        text.chars().count() <= self.longest
            && self.not.as_deref() != Some(text)
            && self.patterns.iter().all(|pattern| pattern.is_match(text))
            && !self.never.iter().any(|pattern| pattern.is_match(text))
    }
}

//! A tag: a name that an origin may move from one image to another.

/// A tag by the grammar of the distribution specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Why a text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tag {0:?} must be 1 to 128 letters, digits, _, . or -, and not begin with . or -")]
pub struct TagError(String);

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(TagError(text.chars().take(140).collect())) }
    }

    /// `latest`, what a reference without tag and digest means.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::string_type!(Tag, TagError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification() {
        for text in ["latest", "1.25", "_x", "A-b.C_d", &"a".repeat(128)] {
            assert!(Tag::parse(text).is_ok(), "{text}");
        }
        for text in ["", ".", "..", "-a", ".a", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(Tag::parse(text).is_err(), "{text:?}");
        }
    }
}

//! Patterns over images: `ghcr.io/team/**`, `docker.io/library/*:latest`.
//!
//! `*` stands for any characters within a path component, none included; `**` for any, slashes included; `?` for one
//! within a component. Everything else stands for itself. A pattern without tag and digest is compared with the image's
//! name without tag and digest; one with either, with the whole reference. References are compared in full, so a pattern
//! begins with a registry (or a wildcard): that `nginx` silently never matches `docker.io/library/nginx` is an error here.

use std::fmt;

use super::Image;

/// The longest pattern: a reference with a digest fits in.
const MAXIMUM_LENGTH: usize = 512;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    tokens: Vec<Token>,
    /// Compared with the whole reference.
    is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Is(char),
    /// `?`
    One,
    /// `*`
    Within,
    /// `**`
    Across,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or far too much.
    #[error("an image pattern has 1 to {MAXIMUM_LENGTH} characters, such as ghcr.io/team/** or **:latest")]
    Length,
    /// No reference holds such a character.
    #[error(
        "image pattern {0:?} holds {1:?}, which no image has: *, ** and ? are all there is besides a reference, and upper case stands in tags only"
    )]
    Character(String, char),
    /// Brackets stand around an IPv6 address and nowhere else.
    #[error(
        "image pattern {0:?} has brackets, and there are no classes of characters as in [a-z]: write ? for one character, * for any, or a pattern for each; brackets \
         stand only around an address that is a registry, as in [2001:db8::1]:5000/**"
    )]
    Brackets(String),
    /// It would match nothing, ever.
    #[error("image pattern {0:?} begins with no registry: write {1:?}, or **/ before it for any registry")]
    NoRegistry(String, String),
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > MAXIMUM_LENGTH {
            return Err(PatternError::Length);
        }
        let last = text.rfind('/').unwrap_or(0);
        let (head, tail) = text.split_at(last);
        let is_whole = text.contains('@') || tail.contains(':');
        let name_end = if is_whole { text.find('@').or_else(|| tail.find(':').map(|at| last + at)) } else { None };
        for (at, c) in text.char_indices() {
            let in_tag = name_end.is_some_and(|end| at > end);
            let known = c.is_ascii_lowercase()
                || c.is_ascii_digit()
                || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '*' | '?' | '[' | ']')
                || (in_tag && c.is_ascii_uppercase());
            if !known {
                return Err(PatternError::Character(text.to_owned(), c));
            }
        }
        let first = text.split('/').next().unwrap_or(text);
        if text.contains(['[', ']']) && !is_address(first, text) {
            return Err(PatternError::Brackets(text.to_owned()));
        }
        let is_wild = first.contains(['*', '?']);
        let names_a_registry = !head.is_empty() && (first.contains(['.', ':']) || first == "localhost" || is_wild);
        if !names_a_registry && !text.starts_with("**") {
            let full = if head.is_empty() { format!("docker.io/library/{text}") } else { format!("docker.io/{text}") };
            return Err(PatternError::NoRegistry(text.to_owned(), full));
        }
        Ok(Self { text: text.into(), tokens: tokens(text), is_whole })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is one of these.
    pub fn matches(&self, image: &Image) -> bool {
        self.matches_text(if self.is_whole { image.as_str() } else { image.name() })
    }

    /// Walks all ways at once, so that no pattern takes longer than its length times the text's.
    fn matches_text(&self, text: &str) -> bool {
        let mut here = vec![false; self.tokens.len() + 1];
        set(&mut here, 0);
        self.skip_wildcards(&mut here);
        for c in text.chars() {
            let mut next = vec![false; self.tokens.len() + 1];
            for (at, token) in self.tokens.iter().enumerate() {
                if !here.get(at).copied().unwrap_or_default() {
                    continue;
                }
                match token {
                    Token::Is(this) if *this == c => set(&mut next, at + 1),
                    Token::One if c != '/' => set(&mut next, at + 1),
                    Token::Within if c != '/' => set(&mut next, at),
                    Token::Across => set(&mut next, at),
                    Token::Is(_) | Token::One | Token::Within => {}
                }
            }
            self.skip_wildcards(&mut next);
            here = next;
        }
        here.last().copied().unwrap_or_default()
    }

    /// `*` and `**` may stand for nothing.
    fn skip_wildcards(&self, places: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if matches!(token, Token::Within | Token::Across) && places.get(at).copied().unwrap_or_default() {
                set(places, at + 1);
            }
        }
    }
}

/// Whether the brackets of a pattern are those of its registry, an IPv6 address, and there are no others.
fn is_address(first: &str, text: &str) -> bool {
    let Some((host, port)) = first.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return false };
    let is_host =
        host.contains(':') && host.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '*' | '?'));
    is_host && (port.is_empty() || port.starts_with(':')) && text.matches(['[', ']']).count() == 2
}

fn set(places: &mut [bool], at: usize) {
    if let Some(place) = places.get_mut(at) {
        *place = true;
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len());
    for c in text.chars() {
        match (c, tokens.last()) {
            ('*', Some(Token::Within | Token::Across)) => {
                tokens.pop();
                tokens.push(Token::Across);
            }
            ('*', _) => tokens.push(Token::Within),
            ('?', _) => tokens.push(Token::One),
            (c, _) => tokens.push(Token::Is(c)),
        }
    }
    tokens
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;

//! `imports` patterns, as Go's `filepath.Glob` reads them: `*`, `?` and `[…]` within one name, names in order.

use std::path::{Component, Path, PathBuf};

use crate::host::{Host, HostError};

/// More matches than any configuration has.
const MAX_MATCHES: usize = 1024;

/// The paths that match, in the order in which containerd reads them. What cannot be listed matches nothing.
pub(super) fn glob(host: &dyn Host, pattern: &Path) -> Result<Vec<PathBuf>, HostError> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let Component::Normal(name) = component else { continue };
        let name = name.to_string_lossy();
        let mut next = Vec::new();
        for directory in &found {
            if !name.contains(['*', '?', '[']) {
                next.push(directory.join(&*name));
                continue;
            }
            match host.list(directory) {
                Ok(entries) => {
                    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
                    names.sort();
                    next.extend(
                        names
                            .into_iter()
                            .filter(|entry| entry.to_str().is_some_and(|entry| matches(&name, entry)))
                            .map(|entry| directory.join(entry)),
                    );
                }
                Err(HostError::NotFound { .. } | HostError::WrongKind { .. } | HostError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        next.truncate(MAX_MATCHES);
        found = next;
    }
    let mut existing = Vec::new();
    for path in found {
        if host.exists(&path)? {
            existing.push(path);
        }
    }
    Ok(existing)
}

/// Go `filepath.Match` for one name. Bounded by the product of the lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // For every prefix of the name: whether the pattern so far matches it.
    let mut reached: Vec<bool> = std::iter::once(true).chain(name.iter().map(|_| false)).collect();
    let mut rest = pattern.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if *first == '*' {
            let mut any = false;
            for place in &mut reached {
                any |= *place;
                *place = any;
            }
            rest = after;
            continue;
        }
        let Some((accepts, after)) = single(*first, after) else { return false };
        let steps = std::iter::once(false)
            .chain(reached.iter().zip(&name).map(|(reached, character)| *reached && accepts(*character)))
            .collect();
        reached = steps;
        rest = after;
    }
    reached.last() == Some(&true)
}

type Accepts<'pattern> = Box<dyn Fn(char) -> bool + 'pattern>;

/// What one element of a pattern accepts, and the rest; `None` for a bad pattern.
fn single(first: char, rest: &[char]) -> Option<(Accepts<'_>, &[char])> {
    match first {
        '?' => Some((Box::new(|_| true), rest)),
        '\\' => rest.split_first().map(|(literal, rest)| -> (Accepts<'_>, _) { (Box::new(|c| c == *literal), rest) }),
        '[' => {
            let end = rest.iter().position(|character| *character == ']')?;
            let (class, after) = (rest.get(..end)?, rest.get(end + 1..)?);
            let (negated, class) = match class.split_first() {
                Some(('^', class)) => (true, class),
                _ => (false, class),
            };
            Some((Box::new(move |character| in_class(class, character) != negated), after))
        }
        literal => Some((Box::new(move |character| character == literal), rest)),
    }
}

fn in_class(mut class: &[char], character: char) -> bool {
    loop {
        match class {
            [low, '-', high, rest @ ..] => {
                if (*low..=*high).contains(&character) {
                    return true;
                }
                class = rest;
            }
            [one, rest @ ..] => {
                if *one == character {
                    return true;
                }
                class = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.bak", false),
            ("*.toml", ".toml", true),
            ("a?c*", "abcd", true),
            ("a?c*", "ac", false),
            ("[0-9]*-[^x].toml", "10-a.toml", true),
            ("[0-9]*-[^x].toml", "10-x.toml", false),
            ("[", "[", false),
            ("**", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}

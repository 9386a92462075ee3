//! The command line of an engine, as Go's programs read theirs: `-flag` and `--flag`, `=` or the next argument.

/// The flags that are among `known`, each with its value, in order. Of one that is not, nobody knows whether it has a value.
pub(in crate::engine) fn of<'line>(arguments: &'line [String], known: &[&str]) -> Vec<(&'line str, &'line str)> {
    let mut found = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix('-') else { continue };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if !known.contains(&name) {
            continue;
        }
        if let Some(value) = value.or_else(|| rest.next().map(String::as_str)) {
            found.push((name, value));
        }
    }
    found
}

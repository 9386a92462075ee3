//! One `[[registry]]` entry, which references it is for, and where it sends them (`sysregistriesv2`).
//!
//! Exactly one entry counts for a reference, that with the longest prefix; entries are never combined. What an entry says
//! about a narrower prefix is [`Entry::narrowed`], so that something can be added for that prefix alone.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Keys of somebody's file that only newer releases know, as they are to be written again.
pub(super) type OtherKeys = Vec<(String, String)>;

/// A place that is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Replaces the prefix in the reference; empty only for a wildcard prefix, whose references stay as they are.
    pub location: String,
    /// Certificates are not checked, and plain http is tried.
    pub insecure: bool,
    /// For which references: empty or `all`, `digest-only`, `tag-only`. Mirrors only.
    pub pull_from_mirror: String,
    pub(super) other: OtherKeys,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// A host, a host and the beginning of a path, or `*.` and a domain.
    pub prefix: String,
    /// Where references go that no mirror had an answer for.
    pub primary: Endpoint,
    /// Asked before, in order.
    pub mirrors: Vec<Endpoint>,
    /// The primary is not asked. Mirrors are.
    pub blocked: bool,
    /// Mirrors are for references with a digest only.
    pub mirror_by_digest_only: bool,
}

/// What counts, by prefix; the order is the library's own.
pub(super) type Entries = BTreeMap<String, Entry>;

/// An endpoint that would be asked for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) reference: String,
    pub(super) insecure: bool,
}

/// How much of `reference` the prefix stands for (`refMatchingPrefix`).
pub(super) fn matched(reference: &str, prefix: &str) -> Option<usize> {
    let end = if prefix.starts_with("*.") {
        let suffix = prefix.get(1..)?;
        let at = reference.find(suffix)?;
        if reference.get(..at)?.contains('/') {
            return None;
        }
        at + suffix.len()
    } else {
        reference.starts_with(prefix).then_some(prefix.len())?
    };
    matches!(reference.as_bytes().get(end), None | Some(b':' | b'/' | b'@')).then_some(end)
}

/// The entry for a name without tag and digest (`FindRegistry`): of equally long prefixes the first.
pub(super) fn find<'entries>(entries: &'entries Entries, name: &str) -> Option<&'entries Entry> {
    let mut found: Option<&Entry> = None;
    for entry in entries.values() {
        if matched(name, &entry.prefix).is_some() && entry.prefix.len() > found.map_or(0, |found| found.prefix.len()) {
            found = Some(entry);
        }
    }
    found
}

/// Whether an entry for exactly `name` beside these would be the one that counts for it.
pub(super) fn would_count(entries: &Entries, name: &str) -> bool {
    // Only a wildcard can stand in the way: as long, and earlier in the order, or longer.
    find(entries, name).is_none_or(|found| match found.prefix.len().cmp(&name.len()) {
        Ordering::Less => true,
        Ordering::Equal => found.prefix.as_str() >= name,
        Ordering::Greater => false,
    })
}

/// What is asked for a reference, in order (`PullSourcesFromReference`). `with_digest` tells how it ends.
pub(super) fn sources(entry: Option<&Entry>, reference: &str, with_digest: bool) -> Vec<Source> {
    let Some(entry) = entry else { return vec![Source { reference: reference.to_owned(), insecure: false }] };
    let mirrors = entry.mirrors.iter().filter(|mirror| match mirror.pull_from_mirror.as_str() {
        _ if entry.mirror_by_digest_only => with_digest,
        "digest-only" => with_digest,
        "tag-only" => !with_digest,
        _ => true,
    });
    let rest = matched(reference, &entry.prefix).and_then(|end| reference.get(end..)).unwrap_or_default();
    let rewritten = |endpoint: &Endpoint| match endpoint.location.trim_end_matches('/') {
        "" => reference.to_owned(),
        location => format!("{location}{rest}"),
    };
    let source = |endpoint: &Endpoint| Source { reference: rewritten(endpoint), insecure: endpoint.insecure };
    mirrors.chain([&entry.primary]).map(source).collect()
}

impl Entry {
    /// An entry for `prefix` that changes nothing.
    pub(super) fn plain(prefix: &str) -> Self {
        let primary = Endpoint { location: prefix.to_owned(), ..Endpoint::default() };
        Self { prefix: prefix.to_owned(), primary, ..Self::default() }
    }

    /// The same for a narrower prefix; `None` if this entry is not for it.
    pub(super) fn narrowed(&self, prefix: &str) -> Option<Self> {
        let rest = prefix.get(matched(prefix, &self.prefix)?..)?;
        let narrow = |endpoint: &Endpoint| match rest {
            "" => endpoint.clone(),
            _ => {
                Endpoint { location: format!("{}{rest}", endpoint.location.trim_end_matches('/')), ..endpoint.clone() }
            }
        };
        let primary = match self.primary.location.as_str() {
            "" => Endpoint { location: prefix.to_owned(), ..self.primary.clone() },
            _ => narrow(&self.primary),
        };
        let mirrors = self.mirrors.iter().map(narrow).collect();
        Some(Self { prefix: prefix.to_owned(), primary, mirrors, ..self.clone() })
    }

    /// With `mirror` asked first, for tags and digests alike; everybody else is asked for what they were asked for.
    pub(super) fn with_mirror(&self, mirror: Endpoint) -> Self {
        let mut entry = self.clone();
        if entry.mirror_by_digest_only {
            // That key is for all mirrors at once; the same can be said of each.
            entry.mirror_by_digest_only = false;
            for theirs in &mut entry.mirrors {
                "digest-only".clone_into(&mut theirs.pull_from_mirror);
            }
        }
        entry.mirrors.insert(0, mirror);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(location: &str) -> Endpoint {
        Endpoint { location: location.to_owned(), ..Endpoint::default() }
    }

    fn entries(all: impl IntoIterator<Item = Entry>) -> Entries {
        all.into_iter().map(|entry| (entry.prefix.clone(), entry)).collect()
    }

    #[test]
    fn prefixes_match_as_in_the_library() {
        for (reference, prefix, end) in [
            ("a.example/x", "a.example", Some(9)),
            ("a.example", "a.example", Some(9)),
            ("a.example:5000/x", "a.example", Some(9)),
            ("a.examples/x", "a.example", None),
            ("a.example/xy", "a.example/x", None),
            ("a.example/x", "*.example", Some(9)),
            ("b.a.example:1/x", "*.example", Some(11)),
            ("a.example.example/x", "*.example", None),
            ("b.io/a.example/x", "*.example", None),
            ("a.example/x", "*.", None),
        ] {
            assert_eq!(matched(reference, prefix), end, "{reference} {prefix}");
        }
    }

    #[test]
    fn of_equally_long_prefixes_the_wildcard_wins() {
        let entries =
            entries([Entry::plain("a.example"), Entry { prefix: "*.example".to_owned(), ..Entry::default() }]);
        assert_eq!(find(&entries, "a.example/x").unwrap().prefix, "*.example");
        assert!(find(&entries, "b.test/x").is_none());
    }

    #[test]
    fn a_narrower_entry_says_the_same() {
        let mut wildcard = Entry { prefix: "*.example".to_owned(), ..Entry::default() };
        wildcard.mirrors = vec![endpoint("m.test/w")];
        let narrow = wildcard.narrowed("abc.example").unwrap();
        let ported = Entry { primary: endpoint("m.test"), prefix: "abc".to_owned(), ..wildcard.clone() };
        for (entry, narrow, reference) in
            [(&wildcard, narrow, "abc.example/x:1"), (&ported, ported.narrowed("abc:5000").unwrap(), "abc:5000/x:1")]
        {
            assert_eq!(sources(Some(entry), reference, false), sources(Some(&narrow), reference, false));
        }
        assert!(wildcard.narrowed("abc.test").is_none());
    }

    #[test]
    fn mirrors_for_digests_stay_so_beside_ours() {
        let mut theirs = Entry { mirrors: vec![endpoint("m.test")], ..Entry::plain("a.example") };
        theirs.mirror_by_digest_only = true;
        let ours = theirs.with_mirror(endpoint("127.0.0.1:7439/a.example"));
        let asked = |entry: &Entry, digest: bool| -> Vec<String> {
            let reference = if digest { "a.example/x@sha256:00" } else { "a.example/x:1" };
            sources(Some(entry), reference, digest).into_iter().map(|source| source.reference).collect()
        };
        assert_eq!(asked(&ours, false), ["127.0.0.1:7439/a.example/x:1", "a.example/x:1"]);
        assert_eq!(asked(&ours, true).get(1..).unwrap(), asked(&theirs, true));
        assert_eq!(asked(&ours, false).get(1..).unwrap(), asked(&theirs, false));
    }

    #[test]
    fn whether_an_entry_would_count_is_what_finding_it_says() {
        let prefixes =
            ["*.a.example", "*.example", "a.example", "b.a.example", "b.a.example/c", "bb.a.example", "a.example:5000"];
        for subset in 0..1_u32 << prefixes.len() {
            let with = |index: usize| subset & (1 << index) != 0;
            let entries: Entries = prefixes
                .iter()
                .enumerate()
                .filter(|(index, _)| with(*index))
                .map(|(_, prefix)| ((*prefix).to_owned(), Entry::plain(prefix)))
                .collect();
            for name in prefixes.iter().chain(&["c.example", "other.test"]).filter(|name| !name.starts_with('*')) {
                let mut after = entries.clone();
                after.insert((*name).to_owned(), Entry::plain(name));
                let found = find(&after, name).map(|entry| entry.prefix.as_str()) == Some(name);
                assert_eq!(would_count(&entries, name), found, "{name} beside {:?}", entries.keys());
            }
        }
    }
}

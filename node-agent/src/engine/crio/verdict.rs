//! Whether the administrator's entry leaves room for a mirror of ours.
//!
//! Blocked stays blocked, whatever the settings say: the library asks mirrors of a blocked entry, so ours would make
//! pullable what was not, or go round the mirrors that were meant as the only way. An entry that leads elsewhere is a
//! decision too, which the settings may overrule.

use std::path::PathBuf;

use larder_oci::Registry;

use super::entry::Entry;

/// Why a registry, or a part of it, keeps what it has.
pub(super) struct Leave {
    /// The word of a condition; `None` when nobody needs to be told.
    pub(super) condition: Option<&'static str>,
    pub(super) reason: String,
    /// The file that says so, if it is not one with an entry.
    pub(super) path: Option<PathBuf>,
}

impl Leave {
    pub(super) fn new(condition: &'static str, reason: impl Into<String>) -> Self {
        Self { condition: Some(condition), reason: reason.into(), path: None }
    }

    pub(super) fn quietly(reason: &str) -> Self {
        Self { condition: None, reason: reason.to_owned(), path: None }
    }
}

/// `before` is what counts for exactly this prefix; `mirror` is our address; `endpoints`: the settings say where the proxy
/// is to go for this registry.
pub(super) fn of(before: &Entry, mirror: &str, endpoints: bool) -> Result<(), Leave> {
    if before.blocked {
        let only = match before.mirrors.as_slice() {
            [] => "nothing may be pulled from it".to_owned(),
            [first, ..] => {
                format!("nothing but its mirrors may be asked for it, the first of which is {}", first.location)
            }
        };
        return Err(Leave::new("Blocked", only));
    }
    let mut endpoints_of_theirs = before.mirrors.iter().chain([&before.primary]);
    if endpoints_of_theirs.any(|endpoint| is_ours(&endpoint.location, mirror)) {
        return Err(Leave::new("NamesUs", "its entry names our mirror by somebody else's hand"));
    }
    if !keeps_origin(before) && !endpoints {
        let to = &before.primary.location;
        let reason =
            format!("it is redirected to {to}; name endpoints for it in the settings to cache it all the same");
        return Err(Leave::new("Redirected", reason));
    }
    Ok(())
}

/// Whether the primary is the registry itself: `registry-1.docker.io` is Docker Hub.
pub(super) fn keeps_origin(entry: &Entry) -> bool {
    let split = |name: &str| {
        let at = name.find('/').unwrap_or(name.len());
        let (host, path) = name.split_at(at);
        Some((Registry::parse(host).ok()?, path.to_owned()))
    };
    entry.primary.location == entry.prefix
        || split(&entry.primary.location).is_some_and(|to| Some(to) == split(&entry.prefix))
}

fn is_ours(location: &str, mirror: &str) -> bool {
    let host = location.split('/').next().unwrap_or_default();
    let port = mirror.rsplit_once(':').map_or("", |(_, port)| port);
    host == mirror || host.strip_prefix("localhost:").is_some_and(|of_local| of_local == port)
}

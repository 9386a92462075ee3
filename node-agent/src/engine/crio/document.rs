//! One `registries.conf` or drop-in, read by the rules of `sysregistriesv2` (`loadConfigFile`, `postProcessRegistries`).
//!
//! What the library calls an error is one here: with such a file CRI-O does not start, and nothing of ours may be added to it.

use toml::Table;

use super::decode::Fields;
use super::entry::{Endpoint, Entries, Entry};
use super::reference;

const ENDPOINT: [&str; 3] = ["location", "insecure", "pull-from-mirror"];
const REGISTRY: [&str; 7] =
    ["prefix", "location", "insecure", "pull-from-mirror", "mirror", "blocked", "mirror-by-digest-only"];
const V2: [&str; 6] =
    ["registry", "unqualified-search-registries", "credential-helpers", "short-name-mode", "aliases", LAYER_HELPER];
const FILE: [&str; 7] = [
    "registry",
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "aliases",
    LAYER_HELPER,
    "registries",
];
const LAYER_HELPER: &str = "additional-layer-store-auth-helper";

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// By prefix; of several for one prefix the first.
    pub(super) entries: Entries,
    /// Where names without a host are looked for; `None` leaves what an earlier file said.
    pub unqualified: Option<Vec<String>>,
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `registries.conf`, which may be of the first version.
    Main,
    /// One of `registries.conf.d`, which may not.
    DropIn,
}

/// Why the library refuses a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not TOML.
    #[error("is no TOML: {0}")]
    Toml(String),
    /// A key is there in two spellings.
    #[error("has the key {0} twice, in different spellings")]
    Twice(String),
    /// A value of another type.
    #[error("has a key {0} that is not {1}")]
    Type(String, &'static str),
    /// An entry that says neither what it is for nor where to go, or another rule of the library.
    #[error("{0}")]
    Rule(String),
    /// The first version of the format, where it is not allowed.
    #[error("mixes both versions of the format, or is a drop-in in the first")]
    Version,
}

/// Reads a file.
pub fn parse(bytes: &[u8], form: Form) -> Result<Document, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|error| Malformed::Toml(error.to_string()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') {
        return Err(Malformed::Toml("it holds a NUL byte".to_owned()));
    }
    let table: Table = text.parse().map_err(|error: toml::de::Error| Malformed::Toml(error.message().to_owned()))?;
    let fields = Fields::new(&table, &FILE);
    let mut unqualified = fields.texts("unqualified-search-registries")?;
    let mut registries = Vec::new();
    for table in fields.tables("registry")?.unwrap_or_default() {
        registries.push(entry(table)?);
    }
    check_the_rest(&fields)?;
    if let Some(v1) = first_version(&fields)? {
        let is_second = |name: &&str| match fields.get(name) {
            Ok(Some(toml::Value::String(text))) => !text.is_empty(),
            value => !matches!(value, Ok(None)),
        };
        if form == Form::DropIn || V2.iter().any(is_second) {
            return Err(Malformed::Version);
        }
        (registries, unqualified) = v1;
    }
    for registry in &mut registries {
        check(registry)?;
    }
    check_conflicts(&registries)?;
    for name in unqualified.iter_mut().flatten() {
        *name = trimmed(name)?;
        if !reference::is_domain(name) {
            return Err(Malformed::Rule(format!("searches unqualified names in {name:?}, which is no host")));
        }
    }
    let mut entries = Entries::new();
    for registry in registries {
        entries.entry(registry.prefix.clone()).or_insert(registry);
    }
    if let Some(entry) =
        entries.values().find(|entry| entry.prefix.starts_with("*.") && entry.prefix.contains(['/', '@', ':']))
    {
        return Err(Malformed::Rule(format!("has the prefix {:?}, a wildcard with more than a domain", entry.prefix)));
    }
    check_aliases(&fields)?;
    Ok(Document { entries, unqualified })
}

fn entry(table: &Table) -> Result<Entry, Malformed> {
    let fields = Fields::new(table, &REGISTRY);
    let mut mirrors = Vec::new();
    for mirror in fields.tables("mirror")?.unwrap_or_default() {
        mirrors.push(endpoint(&Fields::new(mirror, &ENDPOINT))?);
    }
    Ok(Entry {
        prefix: fields.text("prefix")?,
        primary: endpoint(&fields)?,
        mirrors,
        blocked: fields.flag("blocked")?,
        mirror_by_digest_only: fields.flag("mirror-by-digest-only")?,
    })
}

fn endpoint(fields: &Fields<'_>) -> Result<Endpoint, Malformed> {
    Ok(Endpoint {
        location: fields.text("location")?,
        insecure: fields.flag("insecure")?,
        pull_from_mirror: fields.text("pull-from-mirror")?,
        other: fields.others(),
    })
}

/// Values that we have no use for and that the decoder would refuse.
fn check_the_rest(fields: &Fields<'_>) -> Result<(), Malformed> {
    fields.texts("credential-helpers")?;
    match fields.text("short-name-mode")?.as_str() {
        "" | "disabled" | "enforcing" | "permissive" => {}
        mode => return Err(Malformed::Rule(format!("has the short-name-mode {mode:?}"))),
    }
    // Older releases do not look at it.
    fields.text(LAYER_HELPER)?;
    Ok(())
}

fn check_aliases(fields: &Fields<'_>) -> Result<(), Malformed> {
    for (name, value) in fields.table("aliases")?.into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| Malformed::Type("aliases".to_owned(), "a table of strings"))?;
        if !reference::is_short_name(name) || !(value.is_empty() || reference::is_full_name(value)) {
            return Err(Malformed::Rule(format!("has the alias {name:?} for {value:?}")));
        }
    }
    Ok(())
}

type FirstVersion = (Vec<Entry>, Option<Vec<String>>);

/// The first version of the format, if it says anything in it (`ConvertToV2`).
fn first_version(fields: &Fields<'_>) -> Result<Option<FirstVersion>, Malformed> {
    let Some(registries) = fields.table("registries")? else { return Ok(None) };
    let lists = Fields::new(registries, &["search", "insecure", "block"]);
    let list = |name: &str| match lists.table(name)? {
        Some(table) => Fields::new(table, &["registries"]).texts("registries"),
        None => Ok(None),
    };
    let (search, insecure, block) = (list("search")?, list("insecure")?, list("block")?);
    if search.is_none() && insecure.is_none() && block.is_none() {
        return Ok(None);
    }
    let mut entries = Entries::new();
    for (names, blocked) in [(block, true), (insecure, false)] {
        for name in names.unwrap_or_default() {
            let location = trimmed(&name)?;
            let entry = entries.entry(location.clone()).or_insert_with(|| Entry::plain(&location));
            entry.blocked |= blocked;
            entry.primary.insecure |= !blocked;
        }
    }
    Ok(Some((entries.into_values().collect(), search)))
}

/// `parseLocation`.
fn trimmed(location: &str) -> Result<String, Malformed> {
    let trimmed = location.trim_end_matches('/');
    if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
        return Err(Malformed::Rule(format!("has the location {location:?}, which must not have a scheme")));
    }
    Ok(trimmed.to_owned())
}

fn check(entry: &mut Entry) -> Result<(), Malformed> {
    let rule = |text: String| Err(Malformed::Rule(text));
    entry.primary.location = trimmed(&entry.primary.location)?;
    if entry.prefix.is_empty() {
        if entry.primary.location.is_empty() {
            return rule("has an entry with neither location nor prefix".to_owned());
        }
        entry.prefix.clone_from(&entry.primary.location);
    } else {
        entry.prefix = trimmed(&entry.prefix)?;
        if !entry.prefix.starts_with("*.") && entry.primary.location.is_empty() {
            return rule(format!("has an entry for {:?} without a location", entry.prefix));
        }
    }
    if !entry.primary.pull_from_mirror.is_empty() {
        return rule(format!("has pull-from-mirror in the entry for {:?} itself", entry.prefix));
    }
    for mirror in &mut entry.mirrors {
        // Its slashes stay: up to c/image 5.27 they make every reference invalid, and to take them away would repair it.
        if trimmed(&mirror.location)?.is_empty() {
            return rule(format!("has a mirror without a location for {:?}", entry.prefix));
        }
        match mirror.pull_from_mirror.as_str() {
            "" => {}
            "all" | "digest-only" | "tag-only" if !entry.mirror_by_digest_only => {}
            _ => return rule(format!("has a pull-from-mirror for {:?} that cannot be", entry.prefix)),
        }
    }
    Ok(())
}

/// Entries of one file that go to the same place must agree on what that place is.
pub(super) fn check_conflicts<'entries>(entries: impl IntoIterator<Item = &'entries Entry>) -> Result<(), Malformed> {
    let place = |entry: &Entry| match entry.primary.location.as_str() {
        "" => entry.prefix.clone(),
        location => location.to_owned(),
    };
    let mut known = std::collections::BTreeMap::new();
    for entry in entries {
        let said = (entry.primary.insecure, entry.blocked);
        if *known.entry(place(entry)).or_insert(said) != said {
            return Err(Malformed::Rule(format!("says different things of {:?}", place(entry))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

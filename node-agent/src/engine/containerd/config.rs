//! containerd's own configuration: which directories it looks into for registries, and how it takes a list of them.
//!
//! `config.toml` and its imports are merged as the release line merges them, so that the outcome is what the engine has in
//! effect, not what a file says. Nothing is changed here; `edit` proposes a change where that is allowed.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::glob::glob;
use super::hosts::absolute;
use crate::engine::file_bytes::FileBytes;
use crate::engine::version::Version;
use crate::host::{Host, HostError, Timestamp};

/// Where containerd looks when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";
/// In effect from 2.2 on when nobody says otherwise.
pub const DEFAULT_CONFIG_PATH: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

const MAX_CONFIG_FILE: u64 = 4 << 20;
const MAX_CONFIG_FILES: usize = 256;

/// The CRI plugin of containerd 1.x, and of configuration version 2.
pub(super) const PLUGIN_1: &str = "io.containerd.grpc.v1.cri";
/// The images plugin of containerd 2.x, from configuration version 3 on.
pub(super) const PLUGIN_2: &str = "io.containerd.cri.v1.images";

/// What is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The main file.
    pub main: PathBuf,
    /// Files that were read and their bytes, the main one first; empty when there is none.
    pub files: Vec<(PathBuf, FileBytes)>,
    /// The youngest of them was written then.
    pub modified: Option<Timestamp>,
    /// `version` of the main file: 1 when it says nothing.
    pub format: i64,
    /// Patterns and paths of `imports` in the main file.
    pub imports: Vec<String>,
    /// `config_path` as written, or the version's default.
    pub config_path: Option<String>,
    /// Where registries are looked up.
    pub lookup: Lookup,
    /// Legacy `registry.mirrors` are set: they exclude a `config_path`.
    pub legacy_mirrors: bool,
    /// Legacy `registry.configs.*.tls` is set: in 1.x it excludes a `config_path`.
    pub legacy_tls: bool,
    /// Why a list is taken apart although this version could use the transfer service.
    pub local_pull: Option<&'static str>,
    /// Why the engine could not start with these files, or not serve CRI.
    pub problem: Option<String>,
}

impl Configuration {
    /// The file whose word on `config_path` counts: the last that has one; in 1.x, where a plugin's table is replaced as a
    /// whole, the last that has the table; else the main file. `None` when there is no file.
    pub(super) fn decisive_file(&self, version: Version) -> Option<(&Path, &[u8])> {
        let parsed = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Table>().ok());
        let section = |table: &Table| {
            let plugins = table.get("plugins")?.as_table()?;
            [PLUGIN_2, PLUGIN_1, "cri"].into_iter().find_map(|name| plugins.get(name)?.as_table()).cloned()
        };
        let decides = |bytes: &[u8]| {
            parsed(bytes).as_ref().and_then(section).is_some_and(|plugin| {
                version.major < 2
                    || plugin.get("registry").is_some_and(|registry| registry.get("config_path").is_some())
            })
        };
        let last = self.files.iter().rev().find(|(_, bytes)| decides(bytes));
        last.or_else(|| self.files.first()).map(|(path, bytes)| (path.as_path(), &**bytes))
    }
}

/// How the engine finds a registry's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It reads no registry directories.
    None,
    /// One root after the other.
    Roots(Vec<PathBuf>),
    /// The list is taken for one path that holds colons (the transfer service); `meant` is what it was to say.
    Literal {
        /// The path with colons in it.
        path: PathBuf,
        /// The roots that its author had in mind, which the engine does not read.
        meant: Vec<PathBuf>,
    },
}

/// Reads and merges the configuration that begins at `main`. Relative paths in it start at `working_directory`.
pub fn load(
    host: &dyn Host,
    main: &Path,
    working_directory: &Path,
    version: Option<Version>,
) -> Result<Configuration, HostError> {
    let mut configuration = Configuration {
        main: main.to_owned(),
        files: Vec::new(),
        modified: None,
        format: 1,
        imports: Vec::new(),
        config_path: None,
        lookup: Lookup::None,
        legacy_mirrors: false,
        legacy_tls: false,
        local_pull: None,
        problem: None,
    };
    let mut merged = Merged::new(version);
    let mut pending = VecDeque::from([main.to_owned()]);
    while let Some(path) = pending.pop_front() {
        if configuration.files.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let contents = match host.read(&path, MAX_CONFIG_FILE) {
            Ok(contents) => contents,
            // No main file at all is fine: everything is at its default.
            Err(HostError::NotFound { .. }) if configuration.files.is_empty() => break,
            Err(HostError::NotFound { .. }) => {
                configuration.problem = Some(format!("{} is imported and does not exist", path.display()));
                return Ok(configuration);
            }
            Err(error) => return Err(error),
        };
        let parsed = std::str::from_utf8(&contents.bytes).map_err(|error| error.to_string());
        let table = match parsed.and_then(|text| text.parse::<Table>().map_err(|error| error.message().to_owned())) {
            Ok(table) => table,
            Err(error) => {
                configuration.problem = Some(format!("{} does not parse: {error}", path.display()));
                return Ok(configuration);
            }
        };
        let imports: Vec<String> = table
            .get("imports")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        for import in &imports {
            let import = clean(&absolute(path.parent().unwrap_or(Path::new("/")), import));
            if import.to_string_lossy().contains('*') {
                pending.extend(glob(host, &import)?);
            } else {
                pending.push_back(import);
            }
        }
        if configuration.files.is_empty() {
            configuration.format = file_version(&table);
            configuration.imports = imports;
        }
        if let Err(problem) = merged.add(table, configuration.format) {
            configuration.problem = Some(format!("{}: {problem}", path.display()));
            return Ok(configuration);
        }
        configuration.modified = configuration.modified.max(Some(contents.metadata.stamp.modified));
        configuration.files.push((path, contents.bytes.into()));
        if configuration.files.len() >= MAX_CONFIG_FILES {
            configuration.problem = Some("imports more files than any real configuration".to_owned());
            return Ok(configuration);
        }
    }
    interpret(&mut configuration, &merged, working_directory, version);
    Ok(configuration)
}

fn clean(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

fn file_version(table: &Table) -> i64 {
    table.get("version").and_then(Value::as_integer).unwrap_or(1)
}

/// Plugin tables after merging.
struct Merged {
    version: Option<Version>,
    plugins: Table,
    disabled: Vec<String>,
    /// Of the merged whole, as 2.0 to 2.2 reckon: the last that was written.
    format: i64,
}

impl Merged {
    fn new(version: Option<Version>) -> Self {
        Self { version, plugins: Table::new(), disabled: Vec::new(), format: 1 }
    }

    fn modern(&self) -> bool {
        // Without a version, what the files say decides.
        self.version.map_or(self.format >= 3, |version| version.major >= 2)
    }

    /// From 2.3 on every file is migrated by itself, before that the whole.
    fn migrates_each_file(&self) -> bool {
        self.version.is_some_and(|version| version >= Version::new(2, 3, 0))
    }

    fn add(&mut self, mut table: Table, main_format: i64) -> Result<(), String> {
        if let Some(format) = table.get("version").and_then(Value::as_integer) {
            self.format = format;
        }
        let format = file_version(&table);
        if self.migrates_each_file() && format > main_format {
            return Err(format!("version {format} is higher than the main file's {main_format}"));
        }
        if let Some(Value::Array(disabled)) = table.remove("disabled_plugins") {
            self.disabled.extend(disabled.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        let Some(Value::Table(mut plugins)) = table.remove("plugins") else { return Ok(()) };
        if let Some(cri) = plugins.remove("cri") {
            plugins.insert(PLUGIN_1.to_owned(), cri);
        }
        if self.migrates_each_file() {
            migrate(&mut plugins, format);
        }
        if self.modern() {
            merge_deeply(&mut self.plugins, plugins);
        } else {
            // 1.x puts the whole table of a plugin in place of the earlier one.
            self.plugins.extend(plugins);
        }
        Ok(())
    }

    /// The table that decides about images.
    fn images(&self) -> Table {
        let mut plugins = self.plugins.clone();
        let name = if self.modern() {
            if !self.migrates_each_file() {
                migrate(&mut plugins, self.format);
            }
            PLUGIN_2
        } else {
            PLUGIN_1
        };
        match plugins.remove(name) {
            Some(Value::Table(images)) => images,
            _ => Table::new(),
        }
    }
}

/// What 2.x makes of a CRI table of version 2 (containerd `migrateConfig`): whole keys move, the old ones win.
fn migrate(plugins: &mut Table, format: i64) {
    if format >= 3 {
        return;
    }
    let Some(Value::Table(old)) = plugins.get(PLUGIN_1).cloned() else { return };
    let images = plugins.entry(PLUGIN_2).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(images) = images else { return };
    let mut take = |from: &Table, keys: &[&str]| {
        for key in keys {
            if let Some(value) = from.get(*key) {
                images.insert((*key).to_owned(), value.clone());
            }
        }
    };
    take(&old, &["registry", "max_concurrent_downloads", "image_pull_with_sync_fs"]);
    // Without runtimes, containerd returns before it gets to these.
    if let Some(Value::Table(runtime)) = old.get("containerd")
        && runtime.contains_key("runtimes")
    {
        take(runtime, &["disable_snapshot_annotations", "discard_unpacked_layers"]);
    }
}

fn merge_deeply(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge_deeply(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn interpret(configuration: &mut Configuration, merged: &Merged, working_directory: &Path, version: Option<Version>) {
    let images = merged.images();
    let registry = images.get("registry").and_then(Value::as_table).cloned().unwrap_or_default();
    let table = |key: &str| registry.get(key).and_then(Value::as_table).filter(|table| !table.is_empty());
    configuration.legacy_mirrors = table("mirrors").is_some();
    configuration.legacy_tls =
        table("configs").is_some_and(|configs| configs.values().any(|config| config.get("tls").is_some()));
    configuration.local_pull = local_pull_reason(&images, &registry);

    let disabled = ["cri", PLUGIN_1, PLUGIN_2];
    if merged.disabled.iter().any(|plugin| disabled.contains(&plugin.as_str())) {
        configuration.problem = Some("disabled_plugins switches CRI off".to_owned());
        return;
    }
    let written = registry.get("config_path").and_then(Value::as_str);
    let effective = match (written, version) {
        (Some(path), _) if !path.is_empty() => Some(path),
        // A default of the structure: an empty text written in a file replaces it.
        (None, Some(version)) if (Version::new(2, 2, 0)..Version::new(2, 2, 2)).contains(&version) => {
            Some(DEFAULT_CONFIG_PATH)
        }
        (_, Some(version)) if version >= Version::new(2, 2, 2) && !configuration.legacy_mirrors => {
            Some(DEFAULT_CONFIG_PATH)
        }
        _ => None,
    };
    configuration.config_path = effective.map(str::to_owned);
    if configuration.legacy_mirrors && effective.is_some() {
        configuration.problem = Some("registry.mirrors beside config_path: the CRI plugin does not start".to_owned());
        return;
    }
    let Some(path) = effective else { return };
    let roots: Vec<PathBuf> =
        path.split(':').filter(|root| !root.is_empty()).map(|root| absolute(working_directory, root)).collect();
    // Without a version the newest behaviour is assumed; where the list is split after all, the literal path does no harm.
    let may_transfer = version.is_none_or(|version| version >= Version::new(2, 1, 0));
    configuration.lookup = if path.contains(':') && may_transfer && configuration.local_pull.is_none() {
        Lookup::Literal { path: absolute(working_directory, path), meant: roots }
    } else {
        Lookup::Roots(roots)
    };
}

/// Why 2.1 and later pull without the transfer service (containerd `CheckLocalImagePullConfigs`).
fn local_pull_reason(images: &Table, registry: &Table) -> Option<&'static str> {
    let is = |key: &str, expected: bool| images.get(key).and_then(Value::as_bool) == Some(expected);
    let filled = |key: &str| registry.get(key).and_then(Value::as_table).is_some_and(|table| !table.is_empty());
    let other_downloads =
        images.get("max_concurrent_downloads").and_then(Value::as_integer).is_some_and(|number| number != 3);
    [
        (is("use_local_image_pull", true), "use_local_image_pull"),
        (is("disable_snapshot_annotations", false), "disable_snapshot_annotations = false"),
        (is("discard_unpacked_layers", true), "discard_unpacked_layers"),
        (filled("mirrors"), "registry.mirrors"),
        (filled("configs"), "registry.configs"),
        (filled("auths"), "registry.auths"),
        (other_downloads, "max_concurrent_downloads"),
        (is("image_pull_with_sync_fs", true), "image_pull_with_sync_fs"),
    ]
    .into_iter()
    .find_map(|(holds, reason)| holds.then_some(reason))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::RootedHost;

    const MAIN: &str = "/etc/containerd/config.toml";

    fn read(version: &str, files: &[(&str, &str)]) -> Configuration {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = RootedHost::open(root.path()).unwrap();
        load(&host, Path::new(MAIN), Path::new("/srv/engine"), Some(version.parse().unwrap())).unwrap()
    }

    fn main(version: &str, text: &str) -> Configuration {
        read(version, &[(MAIN, text)])
    }

    fn roots(paths: &[&str]) -> Lookup {
        Lookup::Roots(paths.iter().map(PathBuf::from).collect())
    }

    fn literal() -> Lookup {
        let meant = ["/etc/containerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec();
        Lookup::Literal { path: PathBuf::from(DEFAULT_CONFIG_PATH), meant }
    }

    #[test]
    fn without_a_file_the_version_decides() {
        for version in ["1.6.38", "1.7.35", "2.0.14", "2.1.9"] {
            assert_eq!(read(version, &[]).lookup, Lookup::None, "{version}");
        }
        for version in ["2.2.0", "2.2.1", "2.2.9", "2.3.7", "2.4.2"] {
            assert_eq!(read(version, &[]).lookup, literal(), "{version}");
        }
    }

    #[test]
    fn an_empty_text_is_the_default_only_from_2_2_2_on() {
        let text = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ''\n";
        assert_eq!(main("2.2.1", text).lookup, Lookup::None);
        assert_eq!(main("2.2.2", text).lookup, literal());
    }

    #[test]
    fn a_list_is_taken_apart_by_local_pulls_only() {
        let list = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/a:/b'\n";
        assert_eq!(main("1.7.0", list).lookup, roots(&["/a", "/b"]));
        assert_eq!(main("2.0.14", list).lookup, roots(&["/a", "/b"]));
        assert!(matches!(main("2.1.0", list).lookup, Lookup::Literal { .. }));
        let one = list.replace("/a:/b", "certs.d");
        assert_eq!(main("2.4.2", &one).lookup, roots(&["/srv/engine/certs.d"]));
        for reason in [
            "[plugins.'io.containerd.grpc.v1.cri']\nmax_concurrent_downloads = 5\n",
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = true\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\n",
            "[plugins.'io.containerd.grpc.v1.cri'.registry.configs.'a.example'.auth]\nusername = 'x'\n",
            "[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = true\n",
            "[plugins.'io.containerd.cri.v1.images']\ndisable_snapshot_annotations = false\n",
        ] {
            assert_eq!(main("2.1.9", &format!("{list}{reason}")).lookup, roots(&["/a", "/b"]), "{reason}");
        }
        // Without runtimes, 2.x does not take this key over from a version 2 file.
        let not_migrated = "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = true\n";
        assert!(matches!(main("2.1.9", &format!("{list}{not_migrated}")).lookup, Lookup::Literal { .. }));
    }

    #[test]
    fn plugins_have_the_name_of_their_time() {
        let new = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/a'\n";
        assert_eq!(main("2.1.9", new).lookup, roots(&["/a"]));
        assert_eq!(main("1.7.0", new).lookup, Lookup::None);
        let azure = new.replace("version = 3", "version = 2");
        assert_eq!(main("2.0.0", &azure).lookup, roots(&["/a"]));
        let old = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/b'\n";
        assert_eq!(main("2.1.9", old).lookup, roots(&["/b"]));
        assert_eq!(main("2.1.9", &old.replace("version = 2", "version = 3")).lookup, Lookup::None);
        let first = "[plugins.cri.registry]\nconfig_path = '/c'\n";
        assert_eq!(main("1.6.38", first).lookup, roots(&["/c"]));
    }

    #[test]
    fn drop_ins_replace_a_plugin_in_1_and_merge_in_2() {
        let files = [
            (
                MAIN,
                "version = 2\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/a'\n",
            ),
            (
                "/etc/containerd/conf.d/10.toml",
                "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n",
            ),
            ("/etc/containerd/conf.d/20.txt", "no toml\n"),
        ];
        assert_eq!(read("1.7.28", &files).lookup, Lookup::None);
        assert_eq!(read("2.1.9", &files).lookup, roots(&["/a"]));
        assert_eq!(read("2.3.4", &files).lookup, roots(&["/a"]));

        let newer = [(MAIN, files[0].1), ("/etc/containerd/conf.d/10.toml", "version = 3\n")];
        // The drop-in's version counts for the whole: the main file's table is not migrated.
        assert_eq!(read("2.2.9", &newer).lookup, literal());
        assert!(read("2.3.4", &newer).problem.unwrap().contains("higher"));
    }

    #[test]
    fn what_would_not_start_is_a_problem() {
        assert!(main("2.1.9", "version = \n").problem.unwrap().contains("does not parse"));
        assert!(main("2.1.9", "imports = ['/nowhere.toml']\n").problem.unwrap().contains("/nowhere.toml"));
        assert!(main("1.7.0", "disabled_plugins = ['cri']\n").problem.unwrap().contains("disabled_plugins"));
        let both = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/a'\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = ['https://m']\n";
        assert!(main("2.1.9", both).problem.unwrap().contains("mirrors"));
        let legacy = main("2.4.2", &both.replace("config_path = '/a'\n", ""));
        assert_eq!((legacy.lookup, legacy.legacy_mirrors), (Lookup::None, true));
        // An import of itself is read once.
        assert_eq!(main("2.1.9", "version = 3\nimports = ['/etc/containerd/config.toml']\n").files.len(), 1);
    }
}

//! The edit of `config.toml` that gives an engine without `config_path` a directory of ours: the only change that takes a
//! restart, proposed only where that is allowed and certain.
//!
//! The directory is our own, not `certs.d`: files that the engine ignored until now must not come to life.

use std::path::Path;

use toml_edit::{Document, Item, Table};

use super::config::{PLUGIN_1, PLUGIN_2};
use super::observation::Observation;
use crate::change::marker;
use crate::engine::RestartEdit;
use crate::engine::version::Version;

/// Beside the main file.
const DIRECTORY: &str = "larder-certs.d";

/// The file, and its content with `config_path`; or why a person has to do it.
pub(super) fn propose(observed: &Observation) -> Result<RestartEdit, String> {
    let configuration = &observed.configuration;
    let version = observed.version.ok_or("the engine's version is not known")?;
    if configuration.legacy_tls {
        return Err(
            "registry.configs has TLS settings that config_path would switch off: move them to hosts.toml".to_owned()
        );
    }
    let main = &configuration.main;
    let directory = main.parent().unwrap_or(Path::new("/")).join(DIRECTORY);
    let directory =
        directory.to_str().filter(|path| !path.contains([':', '"', '\\'])).ok_or("its folder has an odd name")?;
    let Some((path, before)) = configuration.decisive_file(version) else {
        let (format, plugin) = if version.major >= 2 { (3, PLUGIN_2) } else { (2, PLUGIN_1) };
        let body = format!("version = {format}\n\n[plugins.\"{plugin}\".registry]\n  config_path = \"{directory}\"\n");
        let after = marker::sealed(&body).into();
        let setting = setting(plugin, directory);
        let (path, main, directory) = (main.clone(), main.clone(), directory.into());
        return Ok(RestartEdit { path, main, before: None, after, directory, setting });
    };
    let text = std::str::from_utf8(before).map_err(|_| "it is no text")?;
    let written = configuration.files.iter().any(|(_, bytes)| bytes.starts_with(b"# k0s_managed=true"));
    if main.starts_with("/var/lib/rancher") || written {
        return Err(
            "the distribution writes it anew at every start: set config_path where the distribution says".to_owned()
        );
    }
    let (after, plugin) = with_config_path(text, directory, configuration.format, version)?;
    Ok(RestartEdit {
        path: path.to_owned(),
        main: main.clone(),
        before: Some(before.to_vec().into()),
        after: after.into_bytes().into(),
        directory: directory.into(),
        setting: setting(plugin, directory),
    })
}

fn setting(plugin: &str, directory: &str) -> String {
    format!("config_path = \"{directory}\" in [plugins.\"{plugin}\".registry]")
}

/// The text with our directory, and the plugin that it is set for.
fn with_config_path(
    text: &str,
    directory: &str,
    main_format: i64,
    version: Version,
) -> Result<(String, &'static str), String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let root = document.as_table();
    let format = root.get("version").and_then(Item::as_integer).unwrap_or(main_format);
    let plugins = root.get("plugins").and_then(Item::as_table);
    let has = |name: &str| plugins.is_some_and(|plugins| plugins.contains_key(name));
    let plugin = match format {
        1 if version.major >= 2 => return Err("configuration version 1 is not read by this engine".to_owned()),
        1 => "cri",
        2 if version.major >= 2 && has(PLUGIN_2) && !has(PLUGIN_1) => PLUGIN_2,
        2 => PLUGIN_1,
        _ => PLUGIN_2,
    };
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let section = |item: Option<&'_ Item>| match item {
        None => Ok(()),
        Some(Item::Table(table)) if !table.is_dotted() => Ok(()),
        Some(_) => Err("the registry section is written inline or dotted".to_owned()),
    };
    section(root.get("plugins"))?;
    let cri = plugins.and_then(|plugins| plugins.get(plugin));
    section(cri)?;
    let registry = cri.and_then(Item::as_table).and_then(|cri| cri.get("registry"));
    section(registry)?;
    let registry = registry.and_then(Item::as_table).filter(|registry: &&Table| !registry.is_implicit());

    let line = format!("  config_path = \"{directory}\"");
    let after = if let Some(value) = registry.and_then(|registry| registry.get("config_path")) {
        let span = value.span().ok_or("config_path cannot be located")?;
        replace(text, span.start, span.end, &format!("\"{directory}\""))
    } else if let Some(registry) = registry {
        let header = registry.span().ok_or("the registry section cannot be located")?;
        let rest = text.get(header.end..).unwrap_or_default();
        match rest.find('\n') {
            Some(end) => replace(text, header.end + end + 1, header.end + end + 1, &format!("{line}{line_end}")),
            None => replace(text, text.len(), text.len(), &format!("{line_end}{line}{line_end}")),
        }
    } else {
        let before = if text.is_empty() || text.ends_with('\n') { "" } else { line_end };
        let section = format!("{before}{line_end}[plugins.\"{plugin}\".registry]{line_end}{line}{line_end}");
        replace(text, text.len(), text.len(), &section)
    }
    .ok_or("config_path cannot be located")?;
    let found = Document::parse(after.as_str()).ok().and_then(|document| {
        let registry = document.as_table().get("plugins")?.get(plugin)?.get("registry")?;
        registry.get("config_path")?.as_str().map(str::to_owned)
    });
    if found.as_deref() == Some(directory) {
        Ok((after, plugin))
    } else {
        Err("config_path cannot be put in".to_owned())
    }
}

fn replace(text: &str, start: usize, end: usize, with: &str) -> Option<String> {
    Some([text.get(..start)?, with, text.get(end..)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "/etc/containerd/larder-certs.d";

    fn edited(text: &str, version: Version) -> String {
        with_config_path(text, DIRECTORY, 1, version).unwrap().0
    }

    #[test]
    fn the_plugin_is_named_as_the_file_and_the_engine_have_it() {
        let (old, new) = (Version::new(1, 7, 0), Version::new(2, 1, 0));
        assert!(edited("version = 2\n", old).contains("[plugins.\"io.containerd.grpc.v1.cri\".registry]"));
        assert!(edited("version = 2\n", new).contains("[plugins.\"io.containerd.grpc.v1.cri\".registry]"));
        assert!(edited("version = 3\n", new).contains("[plugins.\"io.containerd.cri.v1.images\".registry]"));
        let azure = "version = 2\n[plugins.\"io.containerd.cri.v1.images\"]\n";
        assert!(edited(azure, new).contains("[plugins.\"io.containerd.cri.v1.images\".registry]"));
        assert!(with_config_path("", DIRECTORY, 1, new).is_err());
    }

    #[test]
    fn only_the_value_changes_where_there_is_one() {
        let text =
            "version = 2\r\n[plugins.'io.containerd.grpc.v1.cri'.registry]\r\n  config_path = \"\" # none\r\n  x = 1";
        let expected = text.replace("\"\"", &format!("\"{DIRECTORY}\""));
        assert_eq!(edited(text, Version::new(1, 6, 0)), expected);
    }

    #[test]
    fn a_section_without_it_gets_one_line() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n";
        let out = edited(text, Version::new(1, 6, 0));
        assert_eq!(out.replace(&format!("  config_path = \"{DIRECTORY}\"\n"), ""), text);
    }

    #[test]
    fn inline_sections_are_left_to_a_person() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry = {}\n";
        assert!(with_config_path(text, DIRECTORY, 1, Version::new(1, 7, 0)).is_err());
    }
}

//! Which engine this node's kubelet uses: of several on one host, that is the one whose pulls Pods wait for.
//!
//! Read from its command line or its configuration file, as kubelet's own flags say. Nothing is guessed where no kubelet runs,
//! or where it says nothing.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::below;

/// kubelet's configuration is a page or two, and so is its command line.
const LARGEST_FILE: u64 = 1 << 20;

/// What matters of a `KubeletConfiguration`.
#[derive(serde::Deserialize)]
struct Configuration {
    #[serde(default, rename = "containerRuntimeEndpoint")]
    endpoint: String,
}

/// The CRI socket of the kubelet that runs here, as it is reached from here.
pub(super) fn socket(proc: &Path) -> Option<PathBuf> {
    let processes = fs::read_dir(proc).ok()?.filter_map(Result::ok);
    let mut folders = processes.map(|entry| entry.path()).filter(|folder| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    folders.find_map(|folder| {
        let line = read(&folder.join("cmdline"))?;
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into()).collect();
        let is_kubelet = Path::new(words.first()?).file_name().is_some_and(|name| name == "kubelet");
        is_kubelet.then_some(())?;
        let root = folder.join("root");
        let endpoint = flag(&words, "container-runtime-endpoint").map(str::to_owned).or_else(|| {
            let path = below(&root, Path::new(flag(&words, "config")?));
            fs::metadata(&path).is_ok_and(|file| file.is_file()).then_some(())?;
            of_configuration(&read(&path)?)
        })?;
        let path = endpoint.strip_prefix("unix://").unwrap_or(&endpoint);
        Path::new(path).is_absolute().then(|| below(&root, Path::new(path)))
    })
}

/// As much of a file as an honest one has.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(LARGEST_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The last value of a flag, which is `--flag=value` or `--flag value`.
fn flag<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let mut found = None;
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        let Some(word) = word.strip_prefix("--") else { continue };
        match word.split_once('=') {
            Some((flag, value)) if flag == name => found = Some(value),
            None if word == name => found = rest.next().map(String::as_str),
            _ => {}
        }
    }
    found
}

/// The endpoint of a `KubeletConfiguration`, in YAML or JSON; empty where it is left to kubelet.
fn of_configuration(bytes: &[u8]) -> Option<String> {
    let configuration: Configuration = serde_saphyr::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    Some(configuration.endpoint).filter(|endpoint| !endpoint.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A `/proc` with one process that has this command line, and this `/var/lib/kubelet/config.yaml`.
    fn socket_of(line: &str, configuration: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("node");
        fs::create_dir_all(root.join("var/lib/kubelet")).unwrap();
        fs::write(root.join("var/lib/kubelet/config.yaml"), configuration).unwrap();
        for (process, line) in [("7", "sleep 60"), ("8", line), ("self", "kubelet --container-runtime-endpoint=/wrong")]
        {
            fs::create_dir_all(folder.path().join(process)).unwrap();
            fs::write(folder.path().join(process).join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
            symlink(&root, folder.path().join(process).join("root")).unwrap();
        }
        let found = socket(folder.path())?;
        Some(found.strip_prefix(folder.path().join("8/root")).unwrap().display().to_string())
    }

    #[test]
    fn kubelet_says_it_on_its_command_line_or_in_its_file() {
        let config = "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml";
        let crio = Some("run/crio/crio.sock".to_owned());
        for (line, configuration) in [
            ("kubelet --container-runtime-endpoint=unix:///run/crio/crio.sock", ""),
            ("kubelet --v 4 --container-runtime-endpoint /run/crio/crio.sock", ""),
            ("kubelet --container-runtime-endpoint=/a --container-runtime-endpoint=unix:///run/crio/crio.sock", ""),
            (config, "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n"),
            (config, "containerRuntimeEndpoint: 'unix:///run/crio/crio.sock' # of this node\n"),
            (config, "{\n  \"containerRuntimeEndpoint\": \"unix:///run/crio/crio.sock\"\n}\n"),
        ] {
            assert_eq!(socket_of(line, configuration), crio, "{line} {configuration}");
        }
    }

    #[test]
    fn without_a_kubelet_or_its_word_nothing_is_guessed() {
        for (line, configuration) in [
            ("kubeletctl --container-runtime-endpoint=/run/crio/crio.sock", ""),
            ("kubelet --config=/var/lib/kubelet/config.yaml", "containerRuntimeEndpoint: \"\"\n"),
            ("kubelet --config=/var/lib/kubelet/none.yaml", ""),
            ("kubelet --container-runtime-endpoint=npipe:////./pipe", ""),
        ] {
            assert_eq!(socket_of(line, configuration), None, "{line} {configuration}");
        }
    }
}

//! `registries.d`: where signatures are looked for. The library looks at the mirror when an image came from there, by the
//! mirror's name, so what is said of a registry has to be said of its place at our mirror too (`docker/registries_d.go`).
//!
//! A lookaside cannot be said again: its URL is followed by the repository's name alone, which is another one at our mirror. It
//! does not matter where nobody asks for signatures (`policies`).
//!
//! One namespace in two files is an error for every pull, so ours is written only where nobody has it. The directory is
//! read at each pull.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_oci::Registry;
use serde::Deserialize;

use super::Crio;
use super::observation::{self, OurFile, Problem, Reading};
use crate::change::marker::{self, Ownership};
use crate::host::{Host, HostError, Kind};

const DIRECTORY: &str = "/etc/containers/registries.d";
const HOME_DIRECTORY: &str = ".config/containers/registries.d";
const NAME: &str = "larder.yaml";

/// What all files together say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// The directory.
    pub directory: PathBuf,
    /// For registries without a namespace.
    default: Namespace,
    /// By namespace, with the file that has it.
    namespaces: BTreeMap<String, (Namespace, PathBuf)>,
    /// Files of ours.
    pub(super) ours: Vec<OurFile>,
    /// Why the library fails.
    pub(super) problems: Vec<Problem>,
}

/// What is said of one namespace, as far as it is for reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Namespace {
    #[serde(default)]
    lookaside: Option<String>,
    /// The old name of the same.
    #[serde(default)]
    sigstore: Option<String>,
    #[serde(default)]
    use_sigstore_attachments: Option<Flag>,
}

/// A boolean, for which the library's decoder takes some words of YAML 1.1 as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
struct Flag(bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Boolean(bool),
    Word(String),
}

impl TryFrom<Written> for Flag {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Boolean(flag) => Ok(Self(flag)),
            Written::Word(word) => match word.as_str() {
                "y" | "Y" | "yes" | "on" => Ok(Self(true)),
                "n" | "N" | "no" | "off" => Ok(Self(false)),
                _ => Err("no boolean"),
            },
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    default_docker: Option<Namespace>,
    #[serde(default)]
    docker: Option<BTreeMap<String, Option<Namespace>>>,
}

impl Namespace {
    fn has_lookaside(&self) -> bool {
        self.lookaside().is_some()
    }

    /// The old name counts where the new one is not there.
    fn lookaside(&self) -> Option<&str> {
        [&self.lookaside, &self.sigstore].into_iter().flatten().map(String::as_str).find(|url| !url.is_empty())
    }

    fn attachments(&self) -> Option<bool> {
        self.use_sigstore_attachments.map(|Flag(flag)| flag)
    }
}

/// The directory in the home of CRI-O's user, which replaces the system's.
pub(super) fn home_directory(home: &Path) -> PathBuf {
    home.join(HOME_DIRECTORY)
}

pub(super) fn read(host: &dyn Host, engine: &Crio) -> Result<Signatures, HostError> {
    let home = home_directory(&engine.home);
    let directory = match host.metadata(&home) {
        Ok(_) => home,
        Err(HostError::NotFound { .. } | HostError::WrongKind { .. }) => PathBuf::from(DIRECTORY),
        Err(error) => return Err(error),
    };
    let mut signatures = Signatures { directory: directory.clone(), ..Signatures::default() };
    let entries = match host.list(&directory) {
        Ok(entries) => entries,
        Err(HostError::NotFound { .. }) => return Ok(signatures),
        Err(HostError::WrongKind { .. }) => {
            signatures.problems.push(Problem::new(&directory, "is no directory"));
            return Ok(signatures);
        }
        Err(error) => return Err(error),
    };
    for entry in entries.iter().filter(|entry| entry.name.as_encoded_bytes().ends_with(b".yaml")) {
        let path = directory.join(&entry.name);
        match observation::read(host, &path)? {
            Reading::Bytes(bytes) => match marker::ownership(&bytes) {
                Ownership::Foreign => signatures.take(&path, &bytes),
                ownership => {
                    let edited = ownership == Ownership::Edited;
                    signatures.ours.push(OurFile { path, bytes: bytes.into(), edited });
                }
            },
            Reading::Absent if entry.kind == Kind::Link => {
                signatures.problems.push(Problem::new(&path, "is a link that leads nowhere"));
            }
            Reading::Absent => {}
            Reading::Problem(message) => signatures.problems.push(Problem::new(&path, message)),
        }
    }
    Ok(signatures)
}

/// What a registry's place at our mirror needs.
pub(super) enum Needed {
    /// These namespaces of the mirror, each with or without attachments; and the file with a lookaside that nobody needs.
    Namespaces(BTreeMap<String, bool>, Option<PathBuf>),
    /// The mirror cannot be used for it: the file that is in the way, and why.
    Impossible(PathBuf, String),
}

impl Signatures {
    fn take(&mut self, path: &Path, bytes: &[u8]) {
        let problem = |message: String| Problem::new(path, message);
        let text = String::from_utf8_lossy(bytes);
        let is_empty = text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#')));
        // A document without a word in it is one, too.
        let file: Option<File> = match if is_empty { Ok(None) } else { serde_saphyr::from_str(&text) } {
            Ok(file) => file,
            Err(_) => return self.problems.push(problem("is no YAML of lookaside configuration".to_owned())),
        };
        let file = file.unwrap_or_default();
        if let Some(default) = file.default_docker {
            if self.default != Namespace::default() {
                self.problems.push(problem("has default-docker, which another file has as well".to_owned()));
            }
            self.default = default;
        }
        for (name, namespace) in file.docker.unwrap_or_default() {
            if let Some((_, other)) = self.namespaces.get(&name) {
                let message = format!("has the namespace {name}, which {} has as well", other.display());
                self.problems.push(problem(message));
            }
            self.namespaces.insert(name, (namespace.unwrap_or_default(), path.to_owned()));
        }
    }

    /// What `registry`, which requests name `host`, needs to be verified through a mirror that has it at `place`; `demand`
    /// tells why signatures are asked for, if they are.
    pub(super) fn needed(&self, registry: &Registry, host: &str, place: &str, demand: Option<&str>) -> Needed {
        let of_its_own = |name: &str| name == host || name.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'));
        let parents = parents(registry.host());
        let mut wanted = BTreeMap::new();
        let mut unneeded = None;
        for (name, (namespace, path)) in &self.namespaces {
            let inherits = parents.contains(name);
            if (of_its_own(name) || inherits) && namespace.has_lookaside() {
                if let Some(demand) = demand {
                    let lookaside = format!("its signatures lie at a lookaside of {name}");
                    let message = format!("{lookaside}, where the mirror's name is not known, and {demand}");
                    return Needed::Impossible(path.clone(), message);
                }
                unneeded.get_or_insert_with(|| path.clone());
            }
            if let (true, Some(attachments), Some(rest)) =
                (of_its_own(name), namespace.attachments(), name.strip_prefix(host))
            {
                wanted.insert(format!("{place}{rest}"), attachments);
            }
        }
        if let Some(url) = self.default.lookaside() {
            // They are fetched although nobody asks for them, and any answer but 404 fails the pull. A file is just not there.
            let why = match demand {
                None if url.starts_with("file:") => None,
                None => Some("which has to say of every image that came through it that there are none"),
                Some(demand) => Some(demand),
            };
            if let Some(why) = why {
                let message = format!(
                    "the signatures of every registry lie at a lookaside, where the mirror's name is not known, and {why}"
                );
                return Needed::Impossible(self.directory.clone(), message);
            }
            unneeded.get_or_insert_with(|| self.directory.clone());
        }
        let inherited = parents.iter().find_map(|name| self.namespaces.get(name)?.0.attachments());
        if let Some(attachments) = inherited {
            wanted.entry(place.to_owned()).or_insert(attachments);
        }
        for (name, attachments) in &wanted {
            if let Some((namespace, path)) = self.namespaces.get(name)
                && namespace.attachments() != Some(*attachments)
            {
                return Needed::Impossible(
                    path.clone(),
                    format!("the namespace {name} is there and says something else"),
                );
            }
        }
        wanted.retain(|name, _| !self.namespaces.contains_key(name));
        Needed::Namespaces(wanted, unneeded)
    }

    /// Our file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }
}

/// Our file with these namespaces.
pub(super) fn render(namespaces: &BTreeMap<String, bool>) -> Vec<u8> {
    let lines = namespaces.iter().map(|(name, attachments)| {
        // JSON is YAML, and says every name.
        format!("  {}:\n    use-sigstore-attachments: {attachments}\n", serde_json::Value::from(name.as_str()))
    });
    marker::sealed(&format!("docker:\n{}", lines.collect::<String>()))
}

/// Wildcards that are for a host, the narrowest first (`DockerReferenceNamespaces`).
pub(super) fn parents(host: &str) -> Vec<String> {
    let dots = host.match_indices('.');
    dots.filter_map(|(at, _)| Some(format!("*.{}", host.get(at + 1..)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signatures(files: &[(&str, &str)]) -> Signatures {
        let mut signatures = Signatures::default();
        for (name, text) in files {
            signatures.take(Path::new(name), text.as_bytes());
        }
        signatures
    }

    type Found = (Vec<(String, bool)>, Option<PathBuf>);

    fn needed_by(signatures: &Signatures, host: &str, demand: Option<&str>) -> Result<Found, String> {
        let registry = Registry::parse(host).unwrap();
        let place = format!("127.0.0.1:7439/{}", registry.path_segment());
        match signatures.needed(&registry, host, &place, demand) {
            Needed::Namespaces(namespaces, unneeded) => Ok((namespaces.into_iter().collect(), unneeded)),
            Needed::Impossible(_, why) => Err(why),
        }
    }

    fn needed(signatures: &Signatures, host: &str) -> Result<Vec<(String, bool)>, String> {
        needed_by(signatures, host, Some("somebody asks for them")).map(|(namespaces, _)| namespaces)
    }

    const DEBIAN: &str = "# comment\ndefault-docker:\n#  lookaside: https://x\n  lookaside-staging: file:///var/lib/containers/sigstore\n\ndocker:\n#  a:\n";

    #[test]
    fn what_is_said_of_a_registry_is_said_of_its_place() {
        let signed = "docker:\n  quay.io/a:\n    use-sigstore-attachments: true\n  '*.example':\n    use-sigstore-attachments: yes\n";
        let all = signatures(&[("/d", DEBIAN), ("/e", "# nothing\n"), ("/s", signed)]);
        assert!(all.problems.is_empty(), "{:?}", all.problems);
        assert_eq!(needed(&all, "docker.io").unwrap(), []);
        assert_eq!(needed(&all, "quay.io").unwrap(), [("127.0.0.1:7439/quay.io/a".to_owned(), true)]);
        let place = "127.0.0.1:7439/r.example__5000".to_owned();
        assert_eq!(needed(&all, "r.example:5000").unwrap(), [(place.clone(), true)]);
        let bytes = render(&BTreeMap::from([(place, true)]));
        let again = signatures(&[("/ours", std::str::from_utf8(&bytes).unwrap())]);
        assert_eq!(again.namespaces.len(), 1, "{:?}", again.problems);
    }

    #[test]
    fn a_lookaside_or_a_namespace_that_is_taken_is_in_the_way() {
        let red_hat = "docker:\n  registry.redhat.io:\n    sigstore: https://registry.redhat.io/containers/sigstore\n";
        let taken = "docker:\n  127.0.0.1:7439/a.example:\n    use-sigstore-attachments: false\n  a.example:\n    use-sigstore-attachments: true\n";
        let all = signatures(&[("/r", red_hat), ("/t", taken)]);
        assert!(needed(&all, "registry.redhat.io").unwrap_err().contains("lookaside"));
        assert!(needed(&all, "a.example").unwrap_err().contains("something else"));
        assert_eq!(needed(&all, "b.example").unwrap(), []);
        let everywhere = signatures(&[("/d", "default-docker:\n  lookaside: https://x.example\n")]);
        assert!(needed(&everywhere, "b.example").is_err());
    }

    #[test]
    fn a_lookaside_that_nobody_needs_is_not_in_the_way() {
        let red_hat =
            "docker:\n  r.example:\n    lookaside: https://r.example/sigstore\n    use-sigstore-attachments: true\n";
        let all = signatures(&[("/r", red_hat)]);
        let (namespaces, unneeded) = needed_by(&all, "r.example", None).unwrap();
        assert_eq!(namespaces, [("127.0.0.1:7439/r.example".to_owned(), true)]);
        assert_eq!(unneeded.as_deref(), Some(Path::new("/r")));
        assert_eq!(needed_by(&all, "b.example", None).unwrap(), (Vec::new(), None));
        for (url, is_in_the_way) in [("https://x.example", true), ("file:///var/lib/x", false)] {
            let everywhere = signatures(&[("/d", &format!("default-docker:\n  lookaside: {url}\n"))]);
            assert_eq!(needed_by(&everywhere, "b.example", None).is_err(), is_in_the_way, "{url}");
            assert!(needed(&everywhere, "b.example").is_err());
        }
    }

    #[test]
    fn what_fails_every_pull_is_a_problem() {
        for files in [
            vec![("/a", "docker: [")],
            vec![("/a", "docker:\n  x:\n    lookaside: y\n"), ("/b", "docker:\n  x:\n    lookaside: y\n")],
            vec![("/a", DEBIAN), ("/b", "default-docker:\n  lookaside: y\n")],
        ] {
            assert!(!signatures(&files).problems.is_empty() || files[0].1 == DEBIAN, "{files:?}");
        }
    }
}

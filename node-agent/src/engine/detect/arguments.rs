//! How containerd was started, as far as it says where its files are.

use std::path::{Path, PathBuf};

use super::flags;

/// The arguments of an engine that matter to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `--config`, `-c`; absolute.
    pub config: Option<PathBuf>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--address`, `-a`.
    pub address: Option<PathBuf>,
}

impl Arguments {
    /// Reads a command line; relative paths start at `working_directory`. The last of several wins.
    pub fn parse(arguments: &[String], working_directory: &Path) -> Self {
        let mut parsed = Self::default();
        let known = ["config", "c", "root", "state", "address", "a"];
        for (name, value) in flags::of(arguments, &known) {
            let field = match name {
                "config" | "c" => &mut parsed.config,
                "root" => &mut parsed.root,
                "state" => &mut parsed.state,
                _ => &mut parsed.address,
            };
            *field = Some(working_directory.join(value));
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Arguments::parse(&words, Path::new("/srv/engine"))
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for line in [
            "containerd -c /x/config.toml",
            "containerd -c=/x/config.toml -l debug",
            "containerd --config /x/config.toml",
            "containerd --log-level info --config=/x/config.toml",
            "containerd -config=/x/config.toml",
            "containerd -c /y.toml --config /x/config.toml",
        ] {
            assert_eq!(arguments(line).config.as_deref(), Some(Path::new("/x/config.toml")), "{line}");
        }
        assert_eq!(arguments("containerd").config, None);
        assert_eq!(arguments("containerd -c").config, None);
        assert_eq!(
            arguments("containerd -c relative.toml").config.as_deref(),
            Some(Path::new("/srv/engine/relative.toml"))
        );
        let k3s = arguments("containerd -c /k3s/config.toml -a /run/k3s.sock --state /run/k3s --root /var/k3s");
        assert_eq!(k3s.address.as_deref(), Some(Path::new("/run/k3s.sock")));
        assert_eq!(k3s.state.as_deref(), Some(Path::new("/run/k3s")));
        assert_eq!(k3s.root.as_deref(), Some(Path::new("/var/k3s")));
    }
}

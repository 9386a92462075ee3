//! How CRI-O was started: its arguments, and the variables that stand for them (`internal/criocli`).

use std::path::{Path, PathBuf};

use crate::engine::detect::flags;

/// What of it says where configuration is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `--config`, `-c`.
    pub config: Option<PathBuf>,
    /// `--config-dir`, `-d`.
    pub config_dir: Option<PathBuf>,
    /// `--registries-conf`, which its help does not show.
    pub registries_conf: Option<PathBuf>,
    /// `--registries-conf-dir`, likewise.
    pub registries_conf_dir: Option<PathBuf>,
    /// `--signature-policy`.
    pub signature_policy: Option<PathBuf>,
    /// `--signature-policy-dir`.
    pub signature_policy_dir: Option<PathBuf>,
}

impl Arguments {
    /// Reads a command line; relative paths start at `working_directory`. The last of several counts, and an argument
    /// counts more than `variable`, which looks one up in CRI-O's environment.
    pub fn parse(arguments: &[String], working_directory: &Path, variable: impl Fn(&str) -> Option<String>) -> Self {
        let of =
            |name: &str| variable(name).filter(|value| !value.is_empty()).map(|value| working_directory.join(value));
        let mut parsed = Self {
            config: of("CONTAINER_CONFIG"),
            config_dir: of("CONTAINER_CONFIG_DIR"),
            registries_conf: of("CONTAINER_REGISTRIES_CONF"),
            registries_conf_dir: of("CONTAINER_REGISTRIES_CONF_DIR"),
            signature_policy: of("CONTAINER_SIGNATURE_POLICY"),
            signature_policy_dir: of("CONTAINER_SIGNATURE_POLICY_DIR"),
        };
        let files = ["config", "c", "config-dir", "d", "registries-conf", "registries-conf-dir"];
        let policies = ["signature-policy", "signature-policy-dir"];
        for (name, value) in flags::of(arguments, &[&files[..], &policies].concat()) {
            let field = match name {
                "config" | "c" => &mut parsed.config,
                "config-dir" | "d" => &mut parsed.config_dir,
                "registries-conf" => &mut parsed.registries_conf,
                "registries-conf-dir" => &mut parsed.registries_conf_dir,
                "signature-policy" => &mut parsed.signature_policy,
                _ => &mut parsed.signature_policy_dir,
            };
            *field = (!value.is_empty()).then(|| working_directory.join(value));
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, variables: &[(&str, &str)]) -> Arguments {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Arguments::parse(&words, Path::new("/srv"), variable)
    }

    #[test]
    fn arguments_count_more_than_variables() {
        let variables = [("CONTAINER_REGISTRIES_CONF", "/v.conf"), ("CONTAINER_CONFIG_DIR", "d")];
        let parsed = parse(
            "crio --log-level debug -c=x.conf --registries-conf /a.conf --registries-conf-dir=r.d --signature-policy p.json",
            &variables,
        );
        let expected = Arguments {
            config: Some("/srv/x.conf".into()),
            config_dir: Some("/srv/d".into()),
            registries_conf: Some("/a.conf".into()),
            registries_conf_dir: Some("/srv/r.d".into()),
            signature_policy: Some("/srv/p.json".into()),
            signature_policy_dir: None,
        };
        assert_eq!(parsed, expected);
        assert_eq!(parse("crio", &variables).registries_conf.as_deref(), Some(Path::new("/v.conf")));
        assert_eq!(parse("crio --registries-conf=", &variables).registries_conf, None);
        assert_eq!(parse("crio -c", &[]), Arguments::default());
    }
}

//! The registries file that the chart makes is read by the parser that reads it on the node, whatever an operator typed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use larder_oci::Registry;
use larder_proxy::settings::{Pattern, Policy, RegistrySettings, Settings, SettingsError};
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::objects;
use url::Url;

pub(crate) const TESTS: &[crate::Test] = &[
    ("registries::all_settings_arrive", all_settings_arrive),
    ("registries::nasty_texts_arrive_unchanged", nasty_texts_arrive_unchanged),
    ("registries::a_text_stays_a_text", a_text_stays_a_text),
];

const CERTIFICATE: &str = include_str!("../../../proxy/src/authorities/sound.pem");

/// The file that is on the node with these values.
fn file(helm: &Helm, values: &str) -> Result<String> {
    let mut written = tempfile::NamedTempFile::new().context("make a file of values")?;
    written.write_all(values.as_bytes())?;
    // The schema would refuse some of them earlier; this is about what stands behind it.
    let rendered = helm.template(written.path(), None, &["--skip-schema-validation"])?;
    let all = objects(&rendered)?;
    let map = all
        .iter()
        .find(|one| one.kind() == "ConfigMap" && one.name() == "larder-registries")
        .context("no ConfigMap")?;
    Ok(map.text("/data/registries.toml").to_owned())
}

fn parsed(helm: &Helm, values: &str) -> Result<Settings> {
    let text = file(helm, values)?;
    Settings::parse_toml(&text, Path::new("/")).with_context(|| text.clone())
}

/// A text as YAML that has no character beyond ASCII.
fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() || " -.:/".contains(letter) {
            out.push(letter);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\U{:08x}", u32::from(letter));
        }
    }
    out + "\""
}

fn all_settings_arrive(helm: &Helm) -> Result<()> {
    let values = format!(
        "allow: [quay.io, 'docker.io/library/*']\ndeny: ['**/bad']\nregistries:\n  docker.io:\n    endpoints: ['https://a.example', 'http://b.example/x']\n    \
         insecure: true\n    skip: true\n    onOrigin404: refuse\n    onOriginDenied: refuse\n    ca: {}\n  '[fd00::1]:5000': {{}}\n",
        quoted(CERTIFICATE)
    );
    let everything = RegistrySettings {
        endpoints: vec![Url::parse("https://a.example")?, Url::parse("http://b.example/x")?],
        ca_pem: Some(CERTIFICATE.to_owned()),
        insecure: true,
        skip: true,
        on_origin_404: Policy::Refuse,
        on_origin_denied: Policy::Refuse,
    };
    let expected = Settings {
        registries: BTreeMap::from([
            (Registry::parse("docker.io")?, everything),
            (Registry::parse("[fd00::1]:5000")?, RegistrySettings::default()),
        ]),
        allow: vec![Pattern::parse("quay.io")?, Pattern::parse("docker.io/library/*")?],
        deny: vec![Pattern::parse("**/bad")?],
    };
    ensure!(parsed(helm, &values)? == expected, "{values}");
    ensure!(parsed(helm, "{}")? == Settings::default(), "without values there is nothing to say");
    Ok(())
}

fn nasty_texts_arrive_unchanged(helm: &Helm) -> Result<()> {
    // Every character that any of TOML, JSON and YAML treats in its own way.
    let every: String =
        (1_u32..0x180).chain([0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1_F600]).filter_map(char::from_u32).collect();
    let texts = [
        "\"\"\"",
        "'''",
        "\\",
        "\\\\u0041",
        "{{ .Values }}",
        "a: b # c",
        "<>&",
        "\r\n\t",
        "\n  \n",
        "---\n...",
        &every,
    ];
    for text in texts {
        let pem = format!("{text}\n{CERTIFICATE}{text}");
        // A URL has its own opinion of what may stand in it; what the parser makes of the same text is what has to arrive.
        let path = format!("https://a.example/{}", text.trim_start_matches(['/', '\\']));
        let endpoints = if text.contains(['#', '?']) { Vec::new() } else { vec![Url::parse(&path)?] };
        let written = if endpoints.is_empty() { String::new() } else { quoted(&path) };
        let values = format!("registries: {{docker.io: {{ca: {}, endpoints: [{written}]}}}}", quoted(&pem));
        let settings = parsed(helm, &values)?.registry(&Registry::parse("docker.io")?);
        ensure!(settings.ca_pem.as_deref() == Some(pem.as_str()), "{text:?} became {:?}", settings.ca_pem);
        ensure!(settings.endpoints == endpoints, "{path:?} became {:?}", settings.endpoints);
    }
    Ok(())
}

/// A name cannot close its table and open another: what comes of it is a name that no registry has, and that is said.
fn a_text_stays_a_text(helm: &Helm) -> Result<()> {
    let name = "a\"]\ninsecure = true\n[registries.\"b";
    let text = file(helm, &format!("registries: {{{}: {{}}}}", quoted(name)))?;
    match Settings::parse_toml(&text, Path::new("/")) {
        Err(SettingsError::Value { .. }) => Ok(()),
        other => anyhow::bail!("{other:?} of\n{text}"),
    }
}

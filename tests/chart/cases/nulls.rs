//! `null` takes a default away. Each value of the chart either does without, or is refused by its name.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::{chart, objects::objects};
use serde_json::Value;

pub(crate) const TESTS: &[crate::Test] =
    &[("nulls::every_value", every_value), ("nulls::a_pool_turns_profiles_off", a_pool_turns_profiles_off)];

/// Everything that is rendered only when asked for.
const ALL: &str = "metrics:\n  agent: {enabled: true}\n  service: {enabled: true}\n  podMonitor: {enabled: true}\ndashboard: {enabled: true}\n\
                   resourceQuota: {enabled: true}\nopenshift: {enabled: true}\n\
                   cache:\n  replicas: 2\n  store: {type: bucket, bucket: {url: \"s3://images\", clusterId: a}}\n  \
                   control: {enabled: true, accounts: [a/b], tokenSecret: {name: a}}\n\
                   controller: {enabled: true, namespaces: team=web, include: [a.example/*], exclude: [b.example/*], perNamespace: {namespaces: {a: {images: 1}}}, monitoring: {follow: true}}\n";

fn every_value(helm: &Helm) -> Result<()> {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let defaults: Value = serde_saphyr::from_str(&text).context("values.yaml is no YAML")?;
    let mut paths = Vec::new();
    paths_of(&defaults, &[], &mut paths);
    ensure!(paths.len() > 80, "only {} values", paths.len());
    let everything = written(ALL)?;
    for path in paths {
        let nested = path.iter().rev().fold(Value::Null, |inner, key| serde_json::json!({ key: inner }));
        let file = written(&nested.to_string())?;
        let more = file.path().display().to_string();
        let name = path.join(".");
        let last = path.last().map(String::as_str).unwrap_or_default();
        match helm.template(everything.path(), None, &["--values", &more]) {
            Err(error) => {
                let said = format!("{error:#}");
                let named = [format!("missing property '{last}'"), format!("without {name} ")];
                ensure!(named.iter().any(|words| said.contains(words)), "{name}: null is not refused by name:\n{said}");
            }
            Ok(rendered) => {
                let all = objects(&rendered).with_context(|| format!("{name}: null"))?;
                let nothing = all.iter().find_map(|object| null_in(&object.0));
                ensure!(nothing.is_none(), "{name}: null is sent in {nothing:?}");
                ensure!(
                    !rendered.contains("<nil>") && !rendered.contains("<no value>"),
                    "{name}: null is sent as a text"
                );
            }
        }
    }
    Ok(())
}

fn a_pool_turns_profiles_off(helm: &Helm) -> Result<()> {
    let file = written(
        "agent: {appArmorProfile: {type: Localhost, localhostProfile: larder}}\npools:\n- name: a\n  nodeLabel: {key: k, values: [v]}\n  agent: \
         {seLinuxOptions: null, seccompProfile: null, appArmorProfile: null}\n- name: b\n  nodeLabel: {key: l, values: [v]}\n  agent: \
         {appArmorProfile: {type: RuntimeDefault}}\n",
    )?;
    let all = objects(&helm.template(file.path(), None, &[])?)?;
    let context = |name: &str| -> Result<Value> {
        let object =
            all.iter().find(|one| one.name() == name && one.kind() == "DaemonSet").with_context(|| name.to_owned())?;
        Ok(object.pod().context("no Pod")?.container("agent")?.get("/securityContext").clone())
    };
    let (rest, off, other) = (context("larder-node")?, context("larder-node-a")?, context("larder-node-b")?);
    for key in ["seLinuxOptions", "seccompProfile", "appArmorProfile"] {
        ensure!(!rest[key].is_null() && off.get(key).is_none(), "{key}: {rest} and {off}");
    }
    // The file's name was the other type's.
    ensure!(other["appArmorProfile"] == serde_json::json!({"type": "RuntimeDefault"}), "{other}");
    Ok(())
}

fn written(text: &str) -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new().context("make a file of values")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn paths_of(value: &Value, here: &[String], paths: &mut Vec<Vec<String>>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path: Vec<String> = here.iter().chain([key]).cloned().collect();
        paths_of(inner, &path, paths);
        paths.push(path);
    }
}

fn null_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            if inner.is_null() { Some(key.clone()) } else { null_in(inner).map(|rest| format!("{key}.{rest}")) }
        }),
        Value::Array(list) => list.iter().find_map(null_in),
        _ => None,
    }
}

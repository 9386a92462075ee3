//! The dashboard asks for metrics that exist, and the chart has the version of the programs.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::{chart, repository};
use serde_json::Value;

pub(crate) const TESTS: &[crate::Test] = &[
    ("dashboard::asks_for_metrics_that_exist", asks_for_metrics_that_exist),
    ("flags::choices_are_found", crate::invariants::choices_are_found),
    ("chart::has_the_version_of_the_programs", has_the_version_of_the_programs),
];

/// Where the lists of metrics are, as snapshots.
const LISTS: [&str; 3] = ["proxy/src/snapshots", "daemonset/src/snapshots", "controller/src/snapshots"];

fn asks_for_metrics_that_exist(_: &Helm) -> Result<()> {
    let mut known = BTreeSet::new();
    for list in LISTS {
        for entry in fs::read_dir(repository().join(list)).with_context(|| list.to_owned())? {
            let path = entry?.path();
            if path.to_string_lossy().contains("metrics") {
                let text = fs::read_to_string(&path)?;
                let names = text.lines().filter(|line| !line.starts_with('#'));
                known.extend(names.filter_map(|line| line.split(['{', ' ']).next().map(str::to_owned)));
            }
        }
    }
    let text = fs::read_to_string(chart().join("dashboards/larder.json")).context("read the dashboard")?;
    let dashboard: Value = serde_json::from_str(&text).context("the dashboard is no JSON")?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let (mut asked, mut is_of_controllers) = (0, false);
    for expression in targets.filter_map(|target| target["expr"].as_str()) {
        is_of_controllers |= expression.contains("larder_controller_");
        let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        for metric in words.filter(|word| word.starts_with("larder_")) {
            ensure!(known.contains(metric), "{metric} of {expression} is no metric of ours");
            asked += 1;
        }
    }
    ensure!(asked > 20, "only {asked} metrics are asked for");
    ensure!(is_of_controllers, "nothing is asked of controllers");
    Ok(())
}

fn has_the_version_of_the_programs(_: &Helm) -> Result<()> {
    let text = fs::read_to_string(chart().join("Chart.yaml")).context("read Chart.yaml")?;
    let about: Value = serde_saphyr::from_str(&text).context("Chart.yaml is no YAML")?;
    for key in ["version", "appVersion"] {
        ensure!(about[key] == env!("CARGO_PKG_VERSION"), "{key} is {}, not {}", about[key], env!("CARGO_PKG_VERSION"));
    }
    Ok(())
}

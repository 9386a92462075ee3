//! Who may do what at the API server: what the chart gives, by the program that gets it, is what `docs/rights.md` gives a reason for.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Object, objects};
use larder_test_chart::repository;
use serde_json::Value;

use crate::cluster_cache::component;
use crate::golden::{Golden, Test};

pub(crate) const TESTS: &[Test] = &[("rights", rights)];
pub(crate) const PAGE: &[crate::Test] = &[("rights::the_page_is_all", the_page_is_all)];

/// Sections of the page, whose Pods they are about, and the file for whoever has no chart.
const SECTIONS: [(&str, &str, &str); 3] = [
    ("## The agent of a node", "node", "node"),
    ("## The cluster cache", "cache", "cluster-cache"),
    ("## The controller", "controller", "controller"),
];

/// One verb on one kind of thing: whose, where, what, which of it, the verb.
type Right = [String; 4];

/// What the chart gives to the account of a component.
fn given(objects: &[Object], whose: &str) -> Result<BTreeSet<Right>> {
    rights_of(&objects.iter().filter(|one| component(one) == whose).collect::<Vec<_>>())
}

/// What the roles among them give.
fn rights_of(objects: &[&Object]) -> Result<BTreeSet<Right>> {
    let mut all = BTreeSet::new();
    for role in objects.iter().filter(|one| ["ClusterRole", "Role"].contains(&one.kind())) {
        let place = if role.kind() == "Role" { "its namespace" } else { "cluster" };
        for rule in role.0["rules"].as_array().context("no rules")? {
            let words = |key: &str| -> Vec<&str> {
                rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
            };
            let names = words("resourceNames").join(", ");
            let mut things: Vec<String> = words("nonResourceURLs").into_iter().map(str::to_owned).collect();
            for group in words("apiGroups") {
                let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
                things.extend(words("resources").into_iter().map(|resource| format!("{prefix}{resource}")));
            }
            for (thing, verb) in
                things.iter().flat_map(|thing| words("verbs").into_iter().map(move |verb| (thing, verb)))
            {
                ensure!(verb != "*" && !thing.contains('*'), "{} gives everything: {rule}", role.name());
                all.insert([place.to_owned(), thing.clone(), names.clone(), verb.to_owned()]);
            }
        }
    }
    Ok(all)
}

/// The tables of the page: `| where | what | which | verbs | why |`, with a reason in each row.
fn told() -> Result<Vec<(&'static str, &'static str, BTreeSet<Right>)>> {
    let page = fs::read_to_string(repository().join("docs/rights.md")).context("read docs/rights.md")?;
    let mut told = Vec::new();
    for (title, whose, file) in SECTIONS {
        let (_, rest) = page.split_once(&format!("{title}\n")).with_context(|| format!("no section {title:?}"))?;
        let section = rest.split("\n## ").next().unwrap_or_default();
        let mut rights = BTreeSet::new();
        for row in section.lines().filter(|line| line.starts_with('|')).skip(2) {
            let cells: Vec<String> =
                row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [place, thing, names, verbs, why] = cells.as_slice() else { bail!("not five cells: {row}") };
            ensure!(why.len() > 10, "no reason: {row}");
            for verb in verbs.split(", ") {
                let right = [place, thing, names].map(String::clone);
                let [place, thing, names] = right;
                ensure!(rights.insert([place, thing, names, verb.to_owned()]), "said twice: {verb} in {row}");
            }
        }
        told.push((whose, file, rights));
    }
    Ok(told)
}

/// Nobody has more than the page says, and whoever has anything is in it. Objects are called as the release is.
fn rights(helm: &Helm, case: &Golden) -> Result<()> {
    let all = case.objects(helm)?;
    let by_whose_name = |rights: BTreeSet<Right>| -> BTreeSet<Right> {
        let suffix =
            |name: &str| name.split(", ").map(|one| one.rsplit_once('-').map_or(one, |(_, last)| last)).collect();
        rights.into_iter().map(|[place, thing, names, verb]| [place, thing, suffix(&names), verb]).collect()
    };
    for (whose, _, told) in told()? {
        let (given, told) = (by_whose_name(given(&all, whose)?), by_whose_name(told));
        let unknown: Vec<_> = given.difference(&told).collect();
        ensure!(unknown.is_empty(), "docs/rights.md has no reason why {whose} may {unknown:?}");
    }
    for role in all.iter().filter(|one| ["ClusterRole", "Role"].contains(&one.kind())) {
        let known = SECTIONS.iter().any(|(_, whose, _)| component(role) == *whose);
        let to_read = role.name() == "larder-view";
        ensure!(known || to_read || role.0["rules"] == serde_json::json!([]), "{} is nobody's", role.name());
        let labels = role.0["metadata"]["labels"].to_string();
        for of_tenants in ["aggregate-to-edit", "aggregate-to-admin"] {
            ensure!(!labels.contains(of_tenants), "{} is in a role of tenants", role.name());
        }
        let aggregated = labels.contains("rbac.authorization.k8s.io");
        ensure!(!aggregated || role.0["rules"].to_string().matches("cachedimages").count() == 1, "{}", role.name());
        ensure!(!aggregated || !role.0["rules"].to_string().contains("upstreamregistries"), "{}", role.name());
    }
    // Each role is bound to the account of its own Pods.
    for binding in all.iter().filter(|one| one.kind().ends_with("RoleBinding")) {
        let account = all.iter().filter(|one| component(one) == component(binding)).find_map(Object::pod);
        let account =
            account.with_context(|| format!("{} is for no Pod", binding.name()))?.0["serviceAccountName"].clone();
        let subjects = binding.0["subjects"].as_array().context("no subjects")?;
        ensure!(subjects.len() == 1 && subjects[0]["name"] == account, "{} is for {subjects:?}", binding.name());
        let role = binding.0["roleRef"]["name"].as_str().unwrap_or_default();
        let role = all.iter().find(|one| one.name() == role && one.kind().ends_with("Role"));
        let role = role.with_context(|| format!("{} is of no role of ours", binding.name()))?;
        ensure!(component(role) == component(binding), "{} gives what is {}'s", binding.name(), role.name());
    }
    Ok(())
}

/// What is on the page is given when everything is on: by default.
fn the_page_is_all(helm: &Helm) -> Result<()> {
    let defaults = Golden::all()?.into_iter().find(|case| case.name() == "defaults").context("no defaults")?;
    let all = defaults.objects(helm)?;
    for (whose, file, told) in told()? {
        let given = given(&all, whose)?;
        // Whoever installs without the chart reads a file.
        let file = fs::read_to_string(repository().join(format!("docs/{file}-rights.yaml")))?;
        let of_file = rights_of(&objects(&file)?.iter().collect::<Vec<_>>())?;
        let only = |rights: &BTreeSet<Right>| -> BTreeSet<(String, String)> {
            rights.iter().map(|[_, thing, _, verb]| (thing.clone(), verb.clone())).collect()
        };
        ensure!(only(&of_file) == only(&told), "docs/{file}-rights.yaml is not what the page says of {whose}");
        ensure!(
            given == told,
            "{whose}: not on the page {:?}, not given {:?}",
            given.difference(&told).collect::<Vec<_>>(),
            told.difference(&given).collect::<Vec<_>>()
        );
    }
    Ok(())
}

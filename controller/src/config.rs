//! What was typed, checked and with units: from here on nothing is text that may be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use larder_controller::cluster_cache::ClusterCacheConfig;
use larder_controller::decide::bounds::{Bound, Bounds};
use larder_controller::decide::expiry::Rules;
use larder_controller::decide::filter::Filters;
use larder_controller::decide::glob::Pattern;
use larder_controller::decide::labels::{Expression, Selector};
use larder_controller::decide::pod::PullPolicy;
use larder_controller::leader::{LeaseName, Times, WORD};
use larder_controller::work::Settings;
use larder_process::command_line::Usage;

use crate::args::{ModeArg, PolicyArg, RunArgs};

/// All that is meant.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) cache: ClusterCacheConfig,
    pub(crate) filters: Filters,
    pub(crate) settings: Settings,
    pub(crate) lease: LeaseName,
    pub(crate) times: Times,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
}

/// Checks it.
pub(crate) fn config(args: &RunArgs) -> anyhow::Result<Config> {
    checked(args).context(Usage)
}

/// An image could go between two looks otherwise.
const SHORTEST_EXPIRY: Duration = Duration::from_secs(1);

const SHORTEST_LEASE: Duration = Duration::from_secs(3);

fn checked(args: &RunArgs) -> anyhow::Result<Config> {
    let cache = ClusterCacheConfig {
        url: args.cache.clone(),
        replicas: args.cache_replicas.clone(),
        ca: args.cache_ca.clone(),
        token: args.cache_token_file.clone(),
        holder: args.holder.clone(),
    };
    cache.check()?;
    let patterns = |flag: &str, texts: &[String]| -> anyhow::Result<Vec<Pattern>> {
        let one = |text: &String| Pattern::parse(text).with_context(|| format!("{flag} {text}"));
        texts.iter().map(one).collect()
    };
    let filters = Filters {
        namespaces: selector(args.namespaces.as_deref().unwrap_or_default()).context("--namespaces")?,
        include: patterns("--include", &args.include)?,
        exclude: patterns("--exclude", &args.exclude)?,
        policies: args.pull_policies.iter().map(|policy| policy_of(*policy)).collect(),
    };
    ensure!(args.expiry >= SHORTEST_EXPIRY, "--expiry: write a time, such as 30d");
    ensure!(args.lease_duration >= SHORTEST_LEASE, "--lease-duration: it has to be at least 3s");
    let times =
        Times { lease: args.lease_duration, renew: args.lease_duration * 2 / 3, retry: args.lease_duration * 2 / 15 };
    let bytes = args.bytes_per_namespace.as_deref();
    let bytes = bytes.map(bytes_of).transpose().context("--bytes-per-namespace")?.flatten();
    let bound = Bound { images: Some(args.images_per_namespace).filter(|images| *images > 0), bytes };
    let bounds = Bounds { default: bound, namespaces: namespace_bounds(&args.namespace_bound, bound)? };
    let LeaseName { namespace, name } = &args.lease;
    let settings = Settings {
        observe: args.mode == ModeArg::Observe,
        rules: Rules { default: args.expiry, ..Rules::default() },
        bounds,
        monitoring: args.monitoring_interval,
        follow: args.follow,
        concurrency: usize::from(args.concurrency),
        how_to_release: format!("kubectl -n {namespace} annotate --overwrite lease {name} {WORD}="),
    };
    Ok(Config { cache, filters, settings, lease: args.lease.clone(), times, admin: args.admin, metrics: args.metrics })
}

fn policy_of(policy: PolicyArg) -> PullPolicy {
    match policy {
        PolicyArg::Always => PullPolicy::Always,
        PolicyArg::IfNotPresent => PullPolicy::IfNotPresent,
        PolicyArg::Never => PullPolicy::Never,
    }
}

/// Bytes that a namespace may have; 0: as much as there is.
fn bytes_of(text: &str) -> anyhow::Result<Option<u64>> {
    if text == "0" { Ok(None) } else { Ok(Some(larder_process::size::size(text)?)) }
}

/// `team-a=images:500,bytes:200GiB`, of each namespace once.
fn namespace_bounds(texts: &[String], usual: Bound) -> anyhow::Result<BTreeMap<String, Bound>> {
    let mut all = BTreeMap::new();
    for text in texts {
        let (namespace, bound) = namespace_bound(text, usual).with_context(|| format!("--namespace-bound {text:?}"))?;
        ensure!(all.insert(namespace.clone(), bound).is_none(), "--namespace-bound: {namespace} is there twice");
    }
    Ok(all)
}

fn namespace_bound(text: &str, usual: Bound) -> anyhow::Result<(String, Bound)> {
    const WRITE: &str = "write it as team-a=images:500,bytes:200GiB, with one of both at least; 0 is no bound";
    let (namespace, parts) = text.trim().split_once('=').context(WRITE)?;
    let is_name = |name: &str| {
        let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&name.len()) && name.bytes().all(is_part)
    };
    ensure!(is_name(namespace), "{namespace:?} is no name of a namespace: {WRITE}");
    let (mut bound, mut said) = (usual, BTreeSet::new());
    for part in parts.split(',') {
        let (what, value) = part.trim().split_once(':').context(WRITE)?;
        match what {
            "images" => {
                let images: u64 = value.parse().map_err(|_| anyhow!("{value:?} is no number of images: {WRITE}"))?;
                bound.images = Some(images).filter(|images| *images > 0);
            }
            "bytes" => bound.bytes = bytes_of(value).with_context(|| format!("{value:?}: {WRITE}"))?,
            _ => bail!("{what:?} is no bound: {WRITE}"),
        }
        ensure!(said.insert(what), "{what} is there twice: {WRITE}");
    }
    Ok((namespace.to_owned(), bound))
}

/// As kubectl writes selectors: `a=b,c!=d,e in (f, g),h notin (i),j,!k`.
fn selector(text: &str) -> anyhow::Result<Selector> {
    let mut expressions = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = match (rest.find(','), rest.find('(')) {
            (Some(comma), Some(open)) if open < comma => {
                let close = rest.find(')').ok_or_else(|| anyhow!("{rest:?}: a ')' is missing"))?;
                close + 1
            }
            (Some(comma), _) => comma,
            (None, _) => rest.len(),
        };
        let (one, after) = rest.split_at(end);
        let expression = expression(one.trim())?;
        let is_value = |value: &&String| {
            value.len() <= 63 && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if let Some(value) = expression.values.iter().find(|value| !is_value(value)) {
            bail!("{value:?} is no label's value: write team=web,tier!=test, or team in (web, db)");
        }
        expressions.push(expression);
        rest = after.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or_else(|| anyhow!("{rest:?}: a ',' is missing before it"))?.trim_start();
        }
    }
    Ok(Selector::new([], expressions)?)
}

fn expression(text: &str) -> anyhow::Result<Expression> {
    let of = |key: &str, operator: &str, values: Vec<String>| Expression {
        key: key.trim().to_owned(),
        operator: operator.to_owned(),
        values,
    };
    let listed = |values: &str| -> anyhow::Result<Vec<String>> {
        let inner = values.trim().strip_prefix('(').and_then(|values| values.strip_suffix(')'));
        let inner = inner.ok_or_else(|| anyhow!("{text:?}: write the values as (a, b)"))?;
        Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some((key, values)) = text.split_once(" notin ") {
        return Ok(of(key, "NotIn", listed(values)?));
    }
    if let Some((key, values)) = text.split_once(" in ") {
        return Ok(of(key, "In", listed(values)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(of(key, "NotIn", vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(of(key, "In", vec![value.trim().to_owned()]));
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(of(key, "DoesNotExist", Vec::new())),
        None => Ok(of(text, "Exists", Vec::new())),
    }
}

#[cfg(test)]
mod chart;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};

    fn of(words: &[&str]) -> Result<Config, String> {
        let cache = ["--cache", "http://127.0.0.1:7445", "--cache-token-file", "/token"];
        let line = ["larder-controller", "run"].iter().chain(&cache).chain(words).map(Into::into);
        let (typed, _) = larder_process::command_line::parse::<Typed>(line).map_err(|error| error.to_string())?;
        let Command::Run(args) = typed.command;
        config(&args).map_err(|error| {
            assert!(error.is::<Usage>());
            format!("{error:#}")
        })
    }

    #[test]
    fn what_makes_no_sense_is_said_with_what_to_write() {
        for (words, part) in [
            (vec!["--holder", "pull"], "--holder"),
            (vec!["--include", ""], "--include"),
            (vec!["--namespaces", "team=web tier=x,"], "--namespaces"),
            (vec!["--namespaces", "team in web"], "(a, b)"),
            (vec!["--namespaces", "team in (web"], "(a, b)"),
            (vec!["--expiry", "soon"], "30d"),
            (vec!["--lease-duration", "2s"], "3s"),
            (vec!["--lease", "larder"], "NAMESPACE/NAME"),
            (vec!["--concurrency", "0"], "1..=64"),
            (vec!["--bytes-per-namespace", "much"], "--bytes-per-namespace"),
            (vec!["--mode", "watch"], "observe"),
            (vec!["--pull-policies", "always"], "IfNotPresent"),
            (vec!["--namespace-bound", "team-a"], "team-a=images:500,bytes:200GiB"),
            (vec!["--namespace-bound", "team-a="], "team-a=images:500"),
            (vec!["--namespace-bound", "Team=images:1"], "no name of a namespace"),
            (vec!["--namespace-bound", "team-a=images:many"], "no number of images"),
            (vec!["--namespace-bound", "team-a=bytes:much"], "200GiB"),
            (vec!["--namespace-bound", "team-a=size:1GiB"], "no bound"),
            (vec!["--namespace-bound", "team-a=images:1,images:2"], "twice"),
            (vec!["--namespace-bound", "a=images:1", "--namespace-bound", "a=bytes:1"], "a is there twice"),
            (vec!["--exclude", "docker.io/[a-z]*"], "no classes of characters"),
        ] {
            let error = of(&words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_namespace_may_have_another_bound_than_all() {
        let bounds = |words: &[&str]| of(words).unwrap().settings.bounds;
        let all = bounds(&["--images-per-namespace", "0", "--bytes-per-namespace", "0"]);
        assert_eq!((all.default, all.namespaces.len()), (Bound::default(), 0), "0 is none");
        let all = bounds(&[
            "--images-per-namespace=20",
            "--bytes-per-namespace=1GiB",
            "--namespace-bound=a=images:500,bytes:2GiB",
            "--namespace-bound=b=images:0",
            "--namespace-bound=c=bytes:0",
        ]);
        let bound = |images, bytes| Bound { images, bytes };
        assert_eq!(all.default, bound(Some(20), Some(1 << 30)));
        let expected =
            [("a", bound(Some(500), Some(2 << 30))), ("b", bound(None, Some(1 << 30))), ("c", bound(Some(20), None))];
        assert_eq!(all.namespaces, expected.map(|(name, bound)| (name.to_owned(), bound)).into());
    }

    #[test]
    fn pull_policies_and_following_are_as_they_are_typed() {
        let usual = of(&[]).unwrap();
        assert_eq!((usual.filters, usual.settings.follow), (Filters::default(), false));
        let typed = of(&["--pull-policies", "Always,Never", "--follow"]).unwrap();
        assert_eq!(typed.filters.policies, BTreeSet::from([PullPolicy::Always, PullPolicy::Never]));
        assert!(typed.settings.follow);
    }

    #[test]
    fn namespaces_are_selected_as_kubectl_selects() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let selector = selector("team=web, tier notin (test, dev),owner,!hidden, zone in (a,b)").unwrap();
        let good = [("team", "web"), ("owner", ""), ("zone", "b")];
        assert!(selector.selects(&labels(&good)));
        for other in [("team", "db"), ("tier", "dev"), ("hidden", "1"), ("zone", "c")] {
            let mut others = labels(&good);
            others.insert(other.0.to_owned(), other.1.to_owned());
            assert!(!selector.selects(&others), "{other:?}");
        }
        assert!(super::selector("").unwrap().selects(&labels(&[])));
    }

    #[test]
    fn times_of_the_lease_keep_their_proportions() {
        let config = of(&["--lease-duration", "15s", "--lease", "here/it"]).unwrap();
        assert_eq!(config.times, Times::default());
        assert_eq!(config.settings.how_to_release, "kubectl -n here annotate --overwrite lease it larder.dev/remove=");
    }
}

//! Which nodes a Pod may run on, by the rules of Kubernetes' node affinity (`In`, `NotIn`) and node selector.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::objects::Pod;

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// One thing that is asked of a node's labels.
#[derive(Clone, Debug)]
struct Expression {
    key: String,
    values: BTreeSet<String>,
    /// `NotIn`, which is also true for a node without the label.
    not: bool,
}

/// All that is asked of a node.
#[derive(Clone, Debug)]
pub struct Requirements(Vec<Expression>);

impl Requirements {
    /// As the Pod states them.
    pub fn of(pod: Pod<'_>) -> Result<Self> {
        let terms = pod
            .0
            .pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
            .and_then(Value::as_array)
            .context("no node affinity")?;
        // Terms are alternatives: with a second one, what the first excludes would be let in again.
        let [term] = terms.as_slice() else { bail!("{} terms, not one", terms.len()) };
        let mut all = Vec::new();
        for expression in term.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| expression.get(key).and_then(Value::as_str).map(str::to_owned);
            let not = match text("operator").as_deref() {
                Some("In") => false,
                Some("NotIn") => true,
                other => bail!("the operator {other:?} is not known here"),
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            all.push(Expression { key: text("key").context("no key")?, values, not });
        }
        for (key, value) in pod.0.get("nodeSelector").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().context("a label that is no text")?;
            all.push(Expression { key: key.clone(), values: [value.to_owned()].into(), not: false });
        }
        Ok(Self(all))
    }

    /// Whether a node with these labels is one.
    pub fn hold_for(&self, labels: &Labels) -> bool {
        self.0.iter().all(|asked| {
            let has = labels.get(&asked.key).is_some_and(|value| asked.values.contains(value));
            has != asked.not
        })
    }
}

/// Every node that differs in what any of these ask: each key absent, with each value that is named, and with another one.
pub fn all_nodes(requirements: &[Requirements]) -> Vec<Labels> {
    let mut asked: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Expression { key, values, .. } in requirements.iter().flat_map(|one| &one.0) {
        let known = asked.entry(key).or_default();
        known.extend(values.iter().map(String::as_str));
        known.insert("something-else");
    }
    let mut nodes = vec![Labels::new()];
    for (key, values) in asked {
        let with = |node: &Labels, value: &str| {
            let mut node = node.clone();
            node.insert(key.to_owned(), value.to_owned());
            node
        };
        let labelled: Vec<Labels> =
            nodes.iter().flat_map(|node| values.iter().map(move |value| with(node, value))).collect();
        nodes.extend(labelled);
    }
    nodes
}

//! Label selectors, as Kubernetes means them (`metav1.LabelSelector`).

use std::collections::{BTreeMap, BTreeSet};

/// What an object bears.
pub type Labels = BTreeMap<String, String>;

/// All of these must hold. Without any it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

/// One of `matchLabels`, or of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    holds: Holds,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holds {
    In(BTreeSet<String>),
    /// True of what does not bear the key at all, too.
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// One of `matchExpressions`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// `key`
    pub key: String,
    /// `operator`
    pub operator: String,
    /// `values`
    pub values: Vec<String>,
}

/// Why something is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A key that no object can bear.
    #[error("label key {0:?} is none: write [prefix/]name")]
    Key(String),
    /// Neither of the four.
    #[error("operator {0:?} of label {1:?} is none of In, NotIn, Exists, DoesNotExist")]
    Operator(String, String),
    /// In and `NotIn` want values.
    #[error("operator {0} of label {1:?} wants at least one value")]
    NoValues(String, String),
    /// Exists and `DoesNotExist` want none.
    #[error("operator {0} of label {1:?} wants no values: remove them")]
    Values(String, String),
}

impl Selector {
    /// From `matchLabels` and `matchExpressions`.
    pub fn new(
        match_labels: impl IntoIterator<Item = (String, String)>,
        match_expressions: impl IntoIterator<Item = Expression>,
    ) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in match_labels {
            requirements.push(Requirement { key: checked(key)?, holds: Holds::In(BTreeSet::from([value])) });
        }
        for Expression { key, operator, values } in match_expressions {
            let key = checked(key)?;
            let holds = match (operator.as_str(), values.is_empty()) {
                ("In", false) => Holds::In(values.into_iter().collect()),
                ("NotIn", false) => Holds::NotIn(values.into_iter().collect()),
                ("Exists", true) => Holds::Exists,
                ("DoesNotExist", true) => Holds::DoesNotExist,
                ("In" | "NotIn", true) => return Err(SelectorError::NoValues(operator, key)),
                ("Exists" | "DoesNotExist", false) => return Err(SelectorError::Values(operator, key)),
                _ => return Err(SelectorError::Operator(operator, key)),
            };
            requirements.push(Requirement { key, holds });
        }
        Ok(Self(requirements))
    }

    /// Whether what bears these labels is selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.holds {
                Holds::In(values) => value.is_some_and(|value| values.contains(value)),
                Holds::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Holds::Exists => value.is_some(),
                Holds::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn checked(key: String) -> Result<String, SelectorError> {
    let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let valid = key.len() <= 317
        && name.len() <= 63
        && !key.starts_with('/')
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if valid { Ok(key) } else { Err(SelectorError::Key(key)) }
}

#[cfg(test)]
mod tests;

//! Which images of which Pods are cached, and why the others are not.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::Image;
use super::glob::Pattern;
use super::labels::{Labels, Selector};
use super::pod::{IGNORE, PullPolicy, is_ignored};

/// What a person wants cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// Namespaces whose Pods count; without any, all.
    pub namespaces: Selector,
    /// Only these; without any, all.
    pub include: Vec<Pattern>,
    /// Never these, even if included.
    pub exclude: Vec<Pattern>,
    /// Pull policies that count.
    pub policies: BTreeSet<PullPolicy>,
}

impl Default for Filters {
    /// Everything that a node would pull: `Never` does not.
    fn default() -> Self {
        Self {
            namespaces: Selector::default(),
            include: Vec::new(),
            exclude: Vec::new(),
            policies: BTreeSet::from([PullPolicy::Always, PullPolicy::IfNotPresent]),
        }
    }
}

/// Why an image of a Pod is not cached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeftOut {
    /// The Pod says so.
    PodIgnored,
    /// Its namespace says so.
    NamespaceIgnored,
    /// The namespace is not selected.
    NamespaceNotSelected,
    /// No include pattern matches.
    NotIncluded,
    /// This exclude pattern matches.
    Excluded(Arc<str>),
    /// Its pull policy does not count.
    Policy(PullPolicy),
}

impl LeftOut {
    /// Every word that there is.
    pub const REASONS: [&'static str; 6] =
        ["PodIgnored", "NamespaceIgnored", "NamespaceNotSelected", "NotIncluded", "Excluded", "PullPolicy"];

    /// In `CamelCase`, for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PodIgnored => "PodIgnored",
            Self::NamespaceIgnored => "NamespaceIgnored",
            Self::NamespaceNotSelected => "NamespaceNotSelected",
            Self::NotIncluded => "NotIncluded",
            Self::Excluded(_) => "Excluded",
            Self::Policy(_) => "PullPolicy",
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodIgnored => write!(f, "the Pod has the label {IGNORE}"),
            Self::NamespaceIgnored => write!(f, "its namespace has the label {IGNORE}"),
            Self::NamespaceNotSelected => {
                f.write_str("the namespace selector of the controller does not select its namespace")
            }
            Self::NotIncluded => f.write_str("no include pattern of the controller matches it"),
            Self::Excluded(pattern) => write!(f, "the exclude pattern {pattern} of the controller matches it"),
            Self::Policy(policy) => {
                write!(f, "its pull policy is {}, which the controller does not count", policy.as_str())
            }
        }
    }
}

/// What is left out of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamespaceVerdict {
    /// Nothing.
    #[default]
    Counts,
    /// Everything.
    Ignored,
    /// Everything.
    NotSelected,
}

impl Filters {
    /// Of a namespace with these labels. One that is not known yet has none but its name: rather too much is cached for
    /// a moment than that a Pod's image is taken for unused.
    pub fn namespace(&self, labels: &Labels) -> NamespaceVerdict {
        if is_ignored(labels.get(IGNORE).map(String::as_str)) {
            NamespaceVerdict::Ignored
        } else if self.namespaces.selects(labels) {
            NamespaceVerdict::Counts
        } else {
            NamespaceVerdict::NotSelected
        }
    }

    /// Of an image, wherever it is used.
    pub fn image(&self, image: &Image) -> Option<LeftOut> {
        if let Some(pattern) = self.exclude.iter().find(|pattern| pattern.matches(image)) {
            return Some(LeftOut::Excluded(pattern.as_str().into()));
        }
        let included = self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(image));
        if included { None } else { Some(LeftOut::NotIncluded) }
    }

    /// Why a use is left out: the widest reason first, because that is the one to remove first.
    pub fn left_out(
        &self,
        namespace: NamespaceVerdict,
        is_pod_ignored: bool,
        of_image: Option<&LeftOut>,
        policy: PullPolicy,
    ) -> Option<LeftOut> {
        match namespace {
            NamespaceVerdict::Ignored => return Some(LeftOut::NamespaceIgnored),
            NamespaceVerdict::NotSelected => return Some(LeftOut::NamespaceNotSelected),
            NamespaceVerdict::Counts => {}
        }
        if is_pod_ignored {
            return Some(LeftOut::PodIgnored);
        }
        if let Some(left_out) = of_image {
            return Some(left_out.clone());
        }
        if self.policies.contains(&policy) { None } else { Some(LeftOut::Policy(policy)) }
    }
}

#[cfg(test)]
mod tests;

//! Whether the cluster cache answers for this node's proxy, which counts its questions by how they ended, and says what is wrong with it.

use crate::probe;
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const COUNTER: &str = "larder_cluster_cache_questions_total{outcome=\"";

/// How a question ends that the cluster cache has not answered; all other outcomes are what it has, or what a registry told it.
const UNANSWERED: [&str; 4] = ["own", "settings", "unanswered", "unauthorized"];

/// How long a page of this node may take.
const PAGE: Duration = Duration::from_secs(3);

/// How many there were, by how they ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Questions(BTreeMap<String, u64>);

impl Questions {
    /// Until now, by the word of the proxy whose admin server this is.
    pub(super) async fn of(admin: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::parse(&page(admin, "/metrics").await?))
    }

    fn parse(metrics: &str) -> Self {
        let counted = metrics.lines().filter_map(|line| {
            let (outcome, number) = line.strip_prefix(COUNTER)?.split_once("\"} ")?;
            Some((outcome.to_owned(), number.trim().parse().ok()?))
        });
        Self(counted.collect())
    }

    fn since(&self, before: &Self) -> Self {
        let more = |(outcome, now): (&String, &u64)| {
            let number = now.saturating_sub(before.0.get(outcome).copied().unwrap_or(0));
            (number > 0).then(|| (outcome.clone(), number))
        };
        Self(self.0.iter().filter_map(more).collect())
    }

    /// Fails unless one was answered since these were counted.
    pub(super) async fn must_have_answers(&self, admin: SocketAddr) -> anyhow::Result<()> {
        let new = Self::of(admin).await?.since(self);
        if new.0.keys().any(|outcome| !UNANSWERED.contains(&outcome.as_str())) {
            return Ok(());
        }
        bail!(trouble(&new, &page(admin, "/readyz").await?))
    }
}

/// Pulls went well without it, which is what makes it easy not to notice.
fn trouble(new: &Questions, readiness: &str) -> String {
    let ended: Vec<String> = new.0.iter().map(|(outcome, number)| format!("{outcome} {number}")).collect();
    let reasons: Vec<&str> = readiness.lines().filter(|line| line.contains("cluster cache")).collect();
    let what = match (ended.as_slice(), reasons.as_slice()) {
        ([], []) => {
            return "the image came, and the cluster cache was not asked for it: take an image (test.image of the chart) of a registry that \
                    Larder may ask (no skip, no deny) and that is the same one on every node (not localhost, nor a name without a dot)"
                .to_owned();
        }
        ([], _) => "was not asked".to_owned(),
        _ => format!("answered nothing ({})", ended.join(", ")),
    };
    format!(
        "the image came, but the cluster cache {what}: {}. Nodes pull as without it. Look at its Pods (kubectl get pods --selector \
         app.kubernetes.io/component=cache), and for the words in docs/troubleshooting.md, \"The cluster cache in the chart\"",
        if reasons.is_empty() {
            "the proxy knows of nothing that is wrong with it".to_owned()
        } else {
            reasons.join("; ")
        }
    )
}

async fn page(admin: SocketAddr, target: &'static str) -> anyhow::Result<String> {
    let asked = tokio::task::spawn_blocking(move || probe::page(admin, target, PAGE)).await?;
    let body = asked
        .with_context(|| format!("ask the proxy for http://{admin}{target}; --admin says where its admin server is"))?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(of: &[(&str, u64)]) -> Questions {
        Questions(of.iter().map(|(outcome, number)| ((*outcome).to_owned(), *number)).collect())
    }

    #[test]
    fn they_are_read_from_the_metrics() {
        let metrics = "# TYPE larder_cluster_cache_questions counter\nlarder_cluster_cache_questions_total{outcome=\"ok\"} 3\n\
                       larder_cluster_cache_questions_total{outcome=\"unanswered\"} 2\nlarder_requests_total{outcome=\"ok\"} 9\n";
        let now = Questions::parse(metrics);
        assert_eq!(now, questions(&[("ok", 3), ("unanswered", 2)]));
        assert_eq!(now.since(&questions(&[("ok", 3)])), questions(&[("unanswered", 2)]));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let readiness = "degraded: cluster cache: https://c:7443 does not answer (refused); pulls go to the registries\ndegraded: store: full\n";
        let said = trouble(&questions(&[("unanswered", 2)]), readiness);
        for words in
            ["answered nothing (unanswered 2)", "does not answer (refused)", "component=cache", "troubleshooting.md"]
        {
            assert!(said.contains(words), "{said}");
        }
        assert!(!said.contains("store: full"), "{said}");
        let never = trouble(&questions(&[]), "ok\n");
        assert!(never.contains("test.image"), "{never}");
    }
}

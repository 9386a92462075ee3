//! The real API server accepts everything that the chart renders.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use larder_test_kind::release::NAMESPACE;
use larder_test_kind::{Cluster, Release};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("renderings::every_golden_one_is_accepted_by_the_api_server", every_golden_one).bare().alone(),
    Case::new("renderings::no_webhook_is_registered", no_webhook).installed(),
];

/// Kinds that only a cluster with the Prometheus operator knows, or with cert-manager, or only OpenShift; and definitions, whose text goldens leave out and each
/// case that installs Larder sends.
const OF_OTHERS: [&str; 5] =
    ["Certificate", "CustomResourceDefinition", "PodMonitor", "SecurityContextConstraints", "ServiceMonitor"];

/// Not `apply`, which would judge it together with what is there.
const CREATE: [&str; 4] = ["create", "--dry-run=server", "--filename", "-"];

fn every_golden_one(cluster: &Cluster) -> Result<()> {
    Release::of(cluster).create_namespace()?;
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../chart/golden");
    let mut count = 0;
    for entry in fs::read_dir(&golden).with_context(|| format!("could not read {}", golden.display()))? {
        let folder = entry?.path();
        let path = folder.join("rendered.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let known = text.split("\n---").filter(|document| is_known(document));
        let (accounts, others): (Vec<_>, Vec<_>) = known.partition(|document| kind(document) == Some("ServiceAccount"));
        if !accounts.is_empty() {
            let said = cluster.kubectl_with_input(&CREATE, accounts.join("\n---").as_bytes());
            said.with_context(|| format!("the API server refuses an account of {}", folder.display()))?;
        }
        // A Pod is refused, even for a try, when its account is not there.
        let named: BTreeSet<_> = text.lines().filter_map(account).filter(|name| *name != "default").collect();
        for name in &named {
            cluster.kubectl(&["create", "serviceaccount", name, "--namespace", NAMESPACE])?;
        }
        let said = cluster.kubectl_with_input(&CREATE, others.join("\n---").as_bytes());
        for name in &named {
            cluster.kubectl(&["delete", "serviceaccount", name, "--namespace", NAMESPACE])?;
        }
        let said = said.with_context(|| format!("the API server refuses {}", folder.display()))?;
        ensure!(said.contains("daemonset"), "{} holds no DaemonSet: {said}", folder.display());
        count += 1;
    }
    ensure!(count > 12, "there are only {count} golden renderings");
    Ok(())
}

fn kind(document: &str) -> Option<&str> {
    document.lines().find_map(|line| line.strip_prefix("kind: ")).map(str::trim)
}

fn is_known(document: &str) -> bool {
    kind(document).is_some_and(|kind| !OF_OTHERS.contains(&kind))
}

/// The account that a line of a Pod names.
fn account(line: &str) -> Option<&str> {
    line.trim().strip_prefix("serviceAccountName: ").map(|name| name.trim_matches('"'))
}

fn no_webhook(cluster: &Cluster) -> Result<()> {
    Release::of(cluster).has_no_webhook()
}

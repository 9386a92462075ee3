//! Whether every node that has Larder has a Pod that pulled: two names of headless Services, one of all Pods of Larder, ready or not,
//! one of the ready Pods of the check. Both are in the node's network, so both have the node's address.

use crate::args::CheckNodesArgs;
use anyhow::{Context as _, bail};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &CheckNodesArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let limit = Duration::from_secs(args.limit);
    loop {
        let state = match (addresses(&args.all).await, addresses(&args.passed).await) {
            (Ok(all), Ok(passed)) => Ok((all, passed)),
            (Err(error), _) => Err(error).context(format!("resolve {}", args.all)),
            (_, Err(error)) => Err(error).context(format!("resolve {}", args.passed)),
        };
        if let Ok((all, passed)) = &state
            && !all.is_empty()
            && all.is_subset(passed)
        {
            println!("{} nodes pulled through their own proxies", all.len());
            return Ok(());
        }
        if began.elapsed() >= limit {
            bail!("{}", unfinished(state, limit));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn unfinished(state: anyhow::Result<(BTreeSet<IpAddr>, BTreeSet<IpAddr>)>, limit: Duration) -> String {
    match state {
        Err(error) => format!("{error:#} within {limit:?}"),
        Ok((all, _)) if all.is_empty() => {
            "no node has a Pod of Larder: see which nodes the DaemonSet selects".to_owned()
        }
        Ok((all, passed)) => {
            let missing: Vec<String> = all.difference(&passed).map(ToString::to_string).collect();
            format!(
                "not right within {limit:?} on these nodes: {}; why, in the namespace of the release: kubectl logs --selector app.kubernetes.io/component=test --container pull --prefix",
                missing.join(", ")
            )
        }
    }
}

/// None when the name is not there: a Service without any ready Pod has no address.
async fn addresses(name: &str) -> io::Result<BTreeSet<IpAddr>> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) if is_unknown(&error) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// The resolver's own error has no kind; its text is that of `gai_strerror`.
fn is_unknown(error: &io::Error) -> bool {
    let text = error.to_string();
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        .iter()
        .any(|known| text.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn every_node_has_to_have_passed() {
        let args =
            |all: &str, passed: &str| CheckNodesArgs { all: all.to_owned(), passed: passed.to_owned(), limit: 0 };
        run(&args("127.0.0.1", "127.0.0.1")).await.unwrap();
        let error = run(&args("127.0.0.1", "127.0.0.2")).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1") && error.contains("kubectl logs"), "{error}");
    }

    #[test]
    fn says_which_nodes_are_missing_or_that_there_is_none() {
        let second = Duration::from_secs(1);
        let missing = unfinished(Ok((set(&["10.0.0.1", "10.0.0.2"]), set(&["10.0.0.2", "10.0.0.3"]))), second);
        assert!(missing.contains("10.0.0.1;"), "{missing}");
        assert!(unfinished(Ok((set(&[]), set(&[]))), second).contains("DaemonSet"));
    }
}

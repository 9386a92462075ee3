//! A person's word to the clusters on a bucket, each with a look that changes nothing (`--dry-run`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use larder_proxy::store::bucket::{Brake, BucketConfig, BucketPerson, Cluster, ClusterId};

use crate::args::{ForgetArgs, ReleaseArgs};
use larder_process::command_line::Usage;

/// `larder-cache forget-cluster`.
pub(crate) fn forget_cluster(args: &ForgetArgs) -> anyhow::Result<()> {
    let id: ClusterId = args.cluster.parse().context(Usage)?;
    let config = args.store.only_bucket().context(Usage)?;
    on_bucket(&config, async |person| {
        let clusters = person.clusters().await?;
        ensure!(clusters.contains(id.as_str()), "{}", no_such(&id, &clusters));
        let found = person.cluster(&id).await?;
        print!("{}", forgetting(&id, &found));
        if args.dry_run {
            return Ok(());
        }
        person.forget(&id).await.with_context(|| format!("forget cluster {}", id.as_str()))?;
        println!("Forgotten. Blobs that nobody else wants go in a day or two.");
        let brake = person.brake().await?;
        if brake.on {
            println!(
                "So many pins fewer stop all removal until a person says that this is right: larder-cache release-brake"
            );
        }
        Ok(())
    })
}

/// `larder-cache release-brake`.
pub(crate) fn release_brake(args: &ReleaseArgs) -> anyhow::Result<()> {
    let config = args.store.only_bucket().context(Usage)?;
    on_bucket(&config, async |person| {
        let brake = person.brake().await?;
        print!("{}", standing(config.cluster.as_str(), &brake));
        if brake.on && !args.dry_run {
            person.release(&brake).await?;
            println!(
                "Said. The next run of a collector of this cluster goes on; fewer than {} pins stop it again.",
                brake.pins
            );
        }
        Ok(())
    })
}

fn on_bucket(config: &BucketConfig, say: impl AsyncFnOnce(BucketPerson) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let person = BucketPerson::open(config).await?;
        say(person).await
    })
}

/// A name that was mistyped must not look as if it had been forgotten; and who says it again after it was learns that it is done.
fn no_such(id: &ClusterId, clusters: &BTreeSet<String>) -> String {
    let there = clusters.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let there = if there.is_empty() { "no cluster".to_owned() } else { there };
    format!("there is nothing of cluster {} on this bucket; of these there is: {there}", id.as_str())
}

fn forgetting(id: &ClusterId, found: &Cluster) -> String {
    let (mut text, id) = (String::new(), id.as_str());
    // Writing to a String does not fail.
    let _ = writeln!(text, "Cluster {id}:");
    for (holder, pins) in &found.pins {
        let _ = writeln!(text, "  holder {holder}: {pins} {}", if *pins == 1 { "pin" } else { "pins" });
    }
    for (holder, seconds) in &found.declared {
        let _ = writeln!(text, "  holder {holder}: declared {} ago", span(*seconds));
    }
    let _ = writeln!(text, "  tags, evidence and other records: {}", found.records);
    if found.alive {
        text.push_str("  It declared within the hour, so it is alive, and is not forgotten.\n");
    }
    text
}

fn standing(own: &str, brake: &Brake) -> String {
    let mut text = format!("There are {} pins on this bucket", brake.pins);
    match brake.reference {
        None => text.push_str("; no collector of this cluster has written down yet how many there were.\n"),
        Some(reference) => {
            let _ = writeln!(text, "; cluster {own} compares with {}, of {} ago.", reference.pins, span(brake.age));
        }
    }
    for ((cluster, holder), pins) in &brake.by {
        let _ = writeln!(text, "  cluster {cluster}, holder {holder}: {pins}");
    }
    text.push_str(if brake.on {
        "The brake is on: nothing leaves the bucket.\n"
    } else {
        "The brake is not on: there is nothing to say.\n"
    });
    text
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use larder_proxy::store::removal::{BucketTime, Reference};

    use super::*;

    #[test]
    fn what_a_person_reads() {
        let id: ClusterId = "old".parse().unwrap();
        let found = Cluster {
            pins: [("controller".to_owned(), 1), ("pull".to_owned(), 31)].into(),
            declared: [("pull".to_owned(), 100_000)].into(),
            records: 220,
            alive: false,
        };
        let clusters: BTreeSet<String> = ["prod".to_owned(), "test".to_owned()].into();
        let brake = Brake {
            reference: Some(Reference { pins: 40, since: BucketTime(1) }),
            age: 300,
            pins: 3,
            by: [(("prod".to_owned(), "pull".to_owned()), 3)].into(),
            on: true,
        };
        let texts = [
            forgetting(&id, &found),
            forgetting(&id, &Cluster { alive: true, ..found.clone() }),
            no_such(&id, &clusters),
            no_such(&id, &BTreeSet::new()),
            standing("prod", &brake),
            standing("prod", &Brake { reference: None, on: false, ..brake.clone() }),
        ];
        insta::assert_snapshot!("words", texts.join("\n"));
    }
}

//! Who is sent to the bucket for a blob: what is typed about it, and what that means.

use anyhow::{Context as _, ensure};
use clap::Args;
use larder_process::size::size;
use larder_proxy::program::StoreConfig;
use larder_proxy::pull::{Redirects, Sent};
use larder_proxy::store::bucket::Provider;

/// From where on it is worth another connection, unless somebody says otherwise.
const FROM: u64 = 8 << 20;

#[derive(Debug, Args)]
pub(crate) struct RedirectArgs {
    /// Who is sent to the bucket for a large blob of which there is no copy here, by a signed URL that holds for minutes: none, nodes (they
    /// come back when it does not serve them), or everyone who has a token (whoever does not reach it fails, and gets it here at the next
    /// try).
    #[arg(long, env = "LARDER_REDIRECT", help_heading = "Store", value_name = "WHO", default_value = "none", value_parser = sent)]
    pub(crate) redirect: Sent,
    /// For blobs of at least this size: 500MB, 1GiB. Not less than 1MiB [default: 8MiB]
    #[arg(long, env = "LARDER_REDIRECT_FROM", help_heading = "Store", value_name = "SIZE")]
    pub(crate) redirect_from: Option<String>,
}

/// For which URLs of Google's are signed, wherever the bucket is said to be.
const GOOGLE: &str = "storage.googleapis.com";

fn host(endpoint: &str) -> &str {
    let behind = endpoint.split_once("://").map_or(endpoint, |(_, behind)| behind);
    behind.split([':', '/']).next().unwrap_or(behind)
}

fn sent(text: &str) -> Result<Sent, String> {
    match text {
        "none" => Ok(Sent::Nobody),
        "nodes" => Ok(Sent::Nodes),
        "everyone" => Ok(Sent::Everyone),
        _ => Err("write none, nodes or everyone".to_owned()),
    }
}

impl RedirectArgs {
    /// Of a cache with this store, which speaks TLS or does not.
    pub(crate) fn redirects(&self, store: &StoreConfig, has_tls: bool) -> anyhow::Result<Redirects> {
        let from = match &self.redirect_from {
            Some(text) => {
                ensure!(self.redirect != Sent::Nobody, "--redirect-from is for --redirect nodes or everyone");
                size(text).with_context(|| format!("--redirect-from {text}"))?
            }
            None => FROM,
        };
        if self.redirect == Sent::Nobody {
            return Ok(Redirects::default());
        }
        let StoreConfig::Bucket(bucket) = store else {
            anyhow::bail!("--redirect is for --store bucket:…: what is in a folder can be had here alone");
        };
        ensure!(
            from >= bucket.small,
            "--redirect-from {from}: what is smaller than {} is read whole here in any case",
            bucket.small
        );
        let is_plain = bucket.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        ensure!(
            !(has_tls && is_plain),
            "--redirect with --endpoint http://…: nobody who asks by https follows to plain http; give the bucket TLS"
        );
        let elsewhere = bucket.endpoint.as_deref().filter(|endpoint| host(endpoint) != GOOGLE);
        if let (Provider::Gcs, Some(endpoint)) = (bucket.address.provider, elsewhere) {
            anyhow::bail!(
                "--redirect with a bucket of Google's and --endpoint {endpoint}: such URLs are signed for {GOOGLE}, and no other host \
                 takes them; leave --redirect away"
            );
        }
        Ok(Redirects { to: self.redirect, from })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::store::StoreArgs;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        redirect: RedirectArgs,
    }

    fn of(words: &str, has_tls: bool) -> Result<Redirects, String> {
        let words = ["x"].into_iter().chain(words.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        let redirects = typed.redirect.redirects(&typed.store.config().unwrap(), has_tls);
        redirects.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn nobody_is_sent_to_the_bucket_unless_it_is_said_and_makes_sense() {
        let bucket = "--store bucket:s3://images --store-cluster one";
        assert_eq!(of("", true), Ok(Redirects::default()));
        assert_eq!(of(bucket, true), Ok(Redirects::default()));
        let nodes = Redirects { to: Sent::Nodes, from: 8 << 20 };
        assert_eq!(of(&format!("{bucket} --redirect nodes"), true), Ok(nodes));
        assert_eq!(of(&format!("{bucket} --redirect nodes --endpoint https://minio:9000"), true), Ok(nodes));
        assert_eq!(of(&format!("{bucket} --redirect nodes --endpoint http://minio:9000"), false), Ok(nodes));
        let everyone = Redirects { to: Sent::Everyone, from: 1 << 30 };
        assert_eq!(of(&format!("{bucket} --redirect everyone --redirect-from 1GiB"), true), Ok(everyone));
        let google = "--store bucket:gs://images --store-cluster one --redirect nodes";
        assert_eq!(of(google, true), Ok(nodes));
        assert_eq!(of(&format!("{google} --endpoint https://storage.googleapis.com:443"), true), Ok(nodes));
        for (words, part) in [
            ("--redirect nodes", "what is in a folder"),
            ("--redirect on", "none, nodes or everyone"),
            (&format!("{bucket} --redirect-from 8MiB"), "is for --redirect nodes or everyone"),
            (&format!("{bucket} --redirect nodes --redirect-from 1KiB"), "read whole here"),
            (&format!("{bucket} --redirect nodes --redirect-from much"), "--redirect-from much"),
            (&format!("{bucket} --redirect nodes --endpoint http://minio:9000"), "give the bucket TLS"),
            (&format!("{google} --endpoint https://storage.p.example.com"), "signed for storage.googleapis.com"),
        ] {
            let error = of(words, true).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}

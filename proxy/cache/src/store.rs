//! Where images are kept: what is typed about it, and what that means.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use larder_process::size::size;
use larder_proxy::origin::ProxyVariables;
use larder_proxy::program::StoreConfig;
use larder_proxy::small_file;
use larder_proxy::store::bucket::{BucketConfig, Removal};
use larder_proxy::store::directory::{DirectoryConfig, Reserve};
use larder_proxy::store::removal::Policy;

/// Where copies of a bucket's content are, unless somebody says otherwise.
const COPIES: &str = "/var/lib/larder/copies";

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where images are kept: directory:DIR, which one process only uses, or a bucket that replicas and clusters may share:
    /// bucket:s3://NAME/PREFIX, bucket:gs://NAME/PREFIX, bucket:az://CONTAINER/PREFIX. A bucket's credentials are found where its
    /// provider's own programs look for them.
    #[arg(
        long,
        env = "LARDER_STORE",
        help_heading = "Store",
        value_name = "STORE",
        default_value = "directory:/var/lib/larder/cache"
    )]
    pub(crate) store: String,
    /// The folder never grows beyond this: 500MB, 200GiB. With a bucket that is the folder of copies, which must have room for the
    /// largest layers.
    #[arg(long, env = "LARDER_STORE_SIZE", help_heading = "Store", value_name = "SIZE", default_value = "100GiB")]
    pub(crate) store_size: String,
    /// So much of the folder's disk stays free, whoever fills it: 18%, 50GiB. "auto" is 3% of a disk that is about as large as
    /// --store-size, for that is a volume of its own, and 18% of any other, for kubelet evicts Pods below 15% of a node's disk.
    #[arg(long, env = "LARDER_STORE_RESERVE", help_heading = "Store", value_name = "RESERVE", default_value = "auto")]
    pub(crate) store_reserve: String,
    /// Where copies of what is used from the bucket are, and what it did not take yet. Not for two processes [default:
    /// /var/lib/larder/copies]
    #[arg(long, env = "LARDER_STORE_FOLDER", help_heading = "Store", value_name = "DIR")]
    pub(crate) store_folder: Option<PathBuf>,
    /// Whose tags, evidence and pins are read and written on the bucket: the same for all replicas of a cluster, and no other
    /// cluster's. Letters, digits, dashes.
    #[arg(long, env = "LARDER_STORE_CLUSTER", help_heading = "Store", value_name = "ID")]
    pub(crate) store_cluster: Option<String>,
    /// Where the bucket is, if not at its provider's: http:// or https://, host and port.
    #[arg(long, env = "LARDER_ENDPOINT", help_heading = "Store", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Certificates (PEM) that are trusted for the bucket beside the system's, those of a corporate proxy (HTTPS_PROXY) that opens
    /// TLS among them. Read at the start.
    #[arg(long, env = "LARDER_ENDPOINT_CA", help_heading = "Store", value_name = "FILE")]
    pub(crate) endpoint_ca: Option<PathBuf>,
    /// Spans of removal in seconds, for tests: grace, young, declared, tombstone, sudden, every, declare, pull.
    #[arg(long, env = "LARDER_REMOVAL_SPANS", hide = true, value_name = "SECONDS", value_delimiter = ',')]
    pub(crate) removal_spans: Vec<u64>,
}

impl StoreArgs {
    pub(crate) fn config(&self) -> anyhow::Result<StoreConfig> {
        match self.store.split_once(':') {
            Some(("directory", folder)) if Path::new(folder).is_absolute() => {
                let only = |typed: bool, flag: &str| {
                    ensure!(!typed, "{flag} is for --store bucket:…; this store is the folder {folder}");
                    Ok(())
                };
                only(self.store_cluster.is_some(), "--store-cluster")?;
                only(self.store_folder.is_some(), "--store-folder")?;
                only(self.endpoint.is_some(), "--endpoint")?;
                only(self.endpoint_ca.is_some(), "--endpoint-ca")?;
                Ok(StoreConfig::Directory(self.folder(folder.into())?))
            }
            Some(("bucket", address)) => Ok(StoreConfig::Bucket(self.bucket(address)?)),
            _ => bail!(
                "--store {}: write directory:/absolute/folder, or bucket:s3://NAME/PREFIX (also gs://, az://)",
                self.store
            ),
        }
    }

    /// The bucket, for whoever wants nothing else.
    pub(crate) fn only_bucket(&self) -> anyhow::Result<BucketConfig> {
        match self.store.split_once(':') {
            Some(("bucket", address)) => self.bucket(address),
            _ => bail!(
                "--store {}: this is about a bucket, write --store bucket:s3://NAME/PREFIX (also gs://, az://)",
                self.store
            ),
        }
    }

    fn bucket(&self, address: &str) -> anyhow::Result<BucketConfig> {
        let address = address.parse().with_context(|| format!("--store {}", self.store))?;
        let Some(cluster) = &self.store_cluster else {
            bail!(
                "--store-cluster is needed with --store bucket:…: an id of letters, digits, dashes. Each cluster on a bucket has its own, \
                 and keeps it"
            );
        };
        let cluster = cluster.parse().context("--store-cluster")?;
        let folder = self.store_folder.clone().unwrap_or_else(|| COPIES.into());
        ensure!(folder.is_absolute(), "--store-folder {}: write /an/absolute/folder", folder.display());
        let copies = self.folder(folder.clone())?;
        let mut config = BucketConfig::new(address, cluster, folder);
        config.copies = copies;
        config.proxies = ProxyVariables::of_environment();
        if let Some(endpoint) = &self.endpoint {
            let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            let fits = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']));
            ensure!(fits, "--endpoint {endpoint}: write https://HOST:PORT, or http:// where the network is trusted");
            config.endpoint = Some(endpoint.trim_end_matches('/').to_owned());
        }
        if let Some(removal) = spans(&self.removal_spans)? {
            config.removal = removal;
        }
        if let Some(file) = &self.endpoint_ca {
            let pem = small_file::read_text(file).with_context(|| format!("--endpoint-ca {}", file.display()))?;
            config.ca_pem = Some(pem.to_string());
        }
        Ok(config)
    }

    fn folder(&self, folder: PathBuf) -> anyhow::Result<DirectoryConfig> {
        let limit = size(&self.store_size).with_context(|| format!("--store-size {}", self.store_size))?;
        let mut config = DirectoryConfig::new(folder);
        config.limit = Some(limit);
        config.reserve = match self.store_reserve.as_str() {
            "auto" => Reserve::ByDisk { limit },
            written => {
                let reserve = written.parse().map_err(anyhow::Error::msg);
                reserve.with_context(|| {
                    format!("--store-reserve {written}: write auto, a share (18%) or a size (50GiB)")
                })?
            }
        };
        Ok(config)
    }
}

/// A day in a few seconds.
fn spans(seconds: &[u64]) -> anyhow::Result<Option<Removal>> {
    if seconds.is_empty() {
        return Ok(None);
    }
    let [grace, young, declared_within, tombstone, sudden, every, declare_every, pull] = *seconds else {
        bail!("--removal-spans: eight numbers of seconds");
    };
    let of = Duration::from_secs;
    let policy = Policy {
        grace: of(grace),
        young: of(young),
        declared_within: of(declared_within),
        tombstone: of(tombstone),
        sudden: of(sudden),
        ..Policy::default()
    };
    Ok(Some(Removal {
        policy: Arc::new(policy),
        every: of(every),
        declare_every: of(declare_every),
        pull: of(pull),
        settle: of(every),
        ..Removal::default()
    }))
}

/// The folder that a store needs here.
pub(crate) fn folder(store: &StoreConfig) -> Option<&Path> {
    match store {
        StoreConfig::Directory(store) => Some(&store.root),
        StoreConfig::Bucket(store) => Some(&store.copies.root),
        StoreConfig::Memory { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use larder_proxy::store::bucket::Provider;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn of(words: &[&str]) -> Result<StoreConfig, String> {
        let typed = Typed::try_parse_from(["x"].iter().chain(words)).map_err(|error| error.to_string())?;
        typed.store.config().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_bucket_is_what_was_typed() {
        let words = ["--store", "bucket:s3://images/larder", "--store-cluster", "prod-eu", "--store-folder", "/copies"];
        let more = ["--store-size", "7GiB", "--endpoint", "https://minio.example.com:9000/"];
        let StoreConfig::Bucket(config) = of(&[&words[..], &more].concat()).unwrap() else { panic!("no bucket") };
        assert_eq!((config.address.provider, config.cluster.as_str()), (Provider::S3, "prod-eu"));
        assert_eq!((config.copies.root.to_str(), config.copies.limit), (Some("/copies"), Some(7 << 30)));
        assert_eq!(config.endpoint.as_deref(), Some("https://minio.example.com:9000"));
        let StoreConfig::Bucket(config) = of(&["--store", "bucket:az://images", "--store-cluster", "a"]).unwrap()
        else {
            panic!("no bucket")
        };
        assert_eq!(folder(&StoreConfig::Bucket(config)), Some(Path::new(COPIES)));
        assert_eq!(folder(&of(&[]).unwrap()), Some(Path::new("/var/lib/larder/cache")));
    }

    #[test]
    fn what_stays_free_depends_on_whose_disk_it_is_unless_it_is_typed() {
        let reserve = |more: &[&str]| match of(&[&["--store-size", "7GiB"], more].concat()) {
            Ok(StoreConfig::Directory(config)) => config.reserve,
            other => panic!("{other:?}"),
        };
        assert_eq!(reserve(&[]), Reserve::ByDisk { limit: 7 << 30 });
        assert_eq!(reserve(&["--store-reserve", "5%"]), Reserve::Percent(5));
        assert_eq!(reserve(&["--store-reserve", "0"]), Reserve::Bytes(0));
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_said() {
        let refused = |words: &[&str], part: &str| {
            let error = of(words).map(|_| "taken").unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        };
        let bucket = ["--store", "bucket:s3://images/larder"];
        let with = |words: &[&'static str]| [&bucket, &["--store-cluster", "one"][..], words].concat();
        refused(&bucket, "--store-cluster is needed");
        refused(&[&bucket[..], &["--store-cluster", "Prod Eu"]].concat(), "cannot be a cluster's id");
        refused(&["--store", "bucket:images", "--store-cluster", "one"], "a bucket is written s3://NAME/PREFIX");
        refused(&with(&["--endpoint", "minio:9000"]), "--endpoint minio:9000: write https://");
        refused(&with(&["--endpoint", "https://key:secret@minio"]), "write https://");
        refused(&with(&["--endpoint-ca", "/nowhere/ca.pem"]), "--endpoint-ca /nowhere/ca.pem");
        refused(&with(&["--store-folder", "copies"]), "/an/absolute/folder");
        refused(&with(&["--store-size", "much"]), "--store-size much");
        refused(&with(&["--store-reserve", "some"]), "write auto, a share (18%) or a size (50GiB)");
        refused(&["--store", "directory:here"], "write directory:");
        refused(&["--store", "s3://images"], "bucket:s3://NAME/PREFIX");
        for flag in [["--store-cluster", "one"], ["--endpoint", "https://x"], ["--store-folder", "/x"]] {
            refused(&flag, "is for --store bucket:");
        }
    }
}

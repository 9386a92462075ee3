//! From an address and the environment to a client of a bucket.
//!
//! Credentials come from where each provider's own programs look for them in a container: environment, files that it names, the
//! machine's metadata. They are never options of ours.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::signer::Signer;
use object_store::{ObjectStore, RetryConfig};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::address::{BucketAddress, Provider};
use super::credentials::{self, Credentials};
use super::transport::Transport;
use crate::store::StoreError;

/// All that is asked of a bucket.
pub(super) trait Remote: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Remote for T {}

fn unusable(address: &BucketAddress, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Bucket { operation: "set up", place: address.to_string(), reason: reason.to_string() }
}

/// TLS as everywhere in this program, with the roots of the platform and what is added to them.
pub(super) fn tls(
    address: &BucketAddress,
    mut roots: RootCertStore,
    ca_pem: Option<&str>,
) -> Result<ClientConfig, StoreError> {
    for certificate in ca_pem.into_iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        let certificate = certificate.map_err(|error| unusable(address, &format!("its CA cannot be read: {error}")))?;
        roots.add(certificate).map_err(|error| unusable(address, &format!("its CA cannot be used: {error}")))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(address, &error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What the environment has by the first of these names; empty is not set.
fn set(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// What the file that `AWS_SHARED_CREDENTIALS_FILE` names has for `AWS_PROFILE`. The environment's own keys come first, as for AWS's programs.
fn credentials_file(address: &BucketAddress) -> Result<Option<Credentials>, StoreError> {
    let Some(file) = set(&["AWS_SHARED_CREDENTIALS_FILE"]).filter(|_| set(&["AWS_ACCESS_KEY_ID"]).is_none()) else {
        return Ok(None);
    };
    let profile = set(&["AWS_PROFILE"]).unwrap_or_else(|| "default".to_owned());
    let text = std::fs::read_to_string(&file).map(Zeroizing::new);
    let text = text.map_err(|error| unusable(address, &format!("AWS_SHARED_CREDENTIALS_FILE {file}: {error}")))?;
    let found = credentials::of_profile(&text, &profile);
    let missing = || format!("{file} has no key and secret for the profile {profile} (AWS_PROFILE)");
    found.map(Some).ok_or_else(|| unusable(address, &missing()))
}

/// A bucket, and who signs URLs of it.
pub(super) struct Connected {
    pub(super) remote: Arc<dyn Remote>,
    pub(super) signer: Arc<dyn Signer>,
}

impl Connected {
    fn new<T: Remote + Signer>(store: T) -> Self {
        let store = Arc::new(store);
        Self { remote: Arc::clone(&store) as Arc<dyn Remote>, signer: store }
    }
}

/// Sends nothing yet. Retries are ours (`client`), with one budget for all.
pub(super) fn remote(
    address: &BucketAddress,
    endpoint: Option<&str>,
    transport: Transport,
) -> Result<Connected, StoreError> {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    match address.provider {
        Provider::S3 => s3(address, endpoint, transport, retry),
        Provider::Gcs => google(address, endpoint, transport, retry),
        Provider::Azure => azure(address, endpoint, transport, retry),
    }
}

fn s3(
    address: &BucketAddress,
    endpoint: Option<&str>,
    transport: Transport,
    retry: RetryConfig,
) -> Result<Connected, StoreError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.name)
        .with_retry(retry)
        // The server compares what arrived with it and refuses the rest.
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // A plain DELETE is what every server knows.
        .with_disable_bulk_delete(true)
        .with_http_connector(transport);
    if let Some(Credentials { id, secret, token }) = credentials_file(address)? {
        builder = builder.with_access_key_id(id.as_str()).with_secret_access_key(secret.as_str());
        if let Some(token) = token {
            builder = builder.with_token(token.as_str());
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().map(Connected::new).map_err(|error| unusable(address, &error))
}

fn google(
    address: &BucketAddress,
    endpoint: Option<&str>,
    transport: Transport,
    retry: RetryConfig,
) -> Result<Connected, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&address.name)
        .with_retry(retry)
        .with_http_connector(transport);
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder.build().map(Connected::new).map_err(|error| match set(&["GOOGLE_APPLICATION_CREDENTIALS"]) {
        Some(file) => unusable(
            address,
            &format!(
                "{error}; GOOGLE_APPLICATION_CREDENTIALS has to name the key of a service account or gcloud's own file (identities \
                 of other clouds are not understood), not {file}"
            ),
        ),
        None => unusable(address, &error),
    })
}

fn azure(
    address: &BucketAddress,
    endpoint: Option<&str>,
    transport: Transport,
    retry: RetryConfig,
) -> Result<Connected, StoreError> {
    // The second of each is how Azure's own command line calls it.
    let Some(account) = set(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]) else {
        let unknown = "whose container it is was not said: set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY unless \
                       this machine has an identity there";
        return Err(unusable(address, &unknown));
    };
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(account)
        .with_container_name(&address.name)
        .with_retry(retry)
        .with_http_connector(transport);
    if let Some(key) = set(&["AZURE_STORAGE_KEY"]).filter(|_| set(&AZURE_KEYS).is_none()) {
        builder = builder.with_access_key(key);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.to_owned()).with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().map(Connected::new).map_err(|error| unusable(address, &error))
}

/// What the builder itself reads.
const AZURE_KEYS: [&str; 3] = ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"];

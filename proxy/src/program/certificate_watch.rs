//! Whether the certificate that a service shows is there and holds: in `/readyz` and in the metrics.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larder_process::readiness::Readiness;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::server_certificate::ServerCertificate;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until `shutdown`. From the first moment on a service without a certificate is not ready: it refuses everybody.
pub(super) fn watch(
    certificate: Arc<ServerCertificate>,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (missing, expiry) = (readiness.requirement("TLS"), readiness.condition("certificate expiry"));
    let metrics = Arc::clone(metrics);
    let look = move || {
        let Some(validity) = certificate.validity() else {
            missing.set("there is no certificate yet: everybody who asks is refused");
            return;
        };
        missing.clear();
        let until = validity.until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        metrics.cache_certificate_expiry.get_or_create(&[]).set(i64::try_from(until).unwrap_or(i64::MAX));
        match validity.trouble(SystemTime::now()) {
            Some(trouble) => {
                if expiry.set(trouble.clone()) {
                    tracing::warn!("{trouble}");
                }
            }
            None => {
                expiry.clear();
            }
        }
    };
    look();
    async move {
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            look();
        }
    }
}

//! The cluster cache's own authority and certificate: made by whichever replica comes first, kept in one Secret, made known in a ConfigMap.
//!
//! A look is: read the Secret → [`kept`] (is it ours and whole?) → [`plan`] (what has to change?) → write it, if the Secret still is what
//! was read; else look again. Every replica does the same, and whoever is second finds the work done. What is shown is what the Secret
//! holds. Without the API server it is what the last look left in the saved folder.

mod kept;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larder_process::readiness::Condition;
use larder_proxy::server_certificate::ServerCertificate;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::kept::{AUTHORITIES, Kept, Unusable, foreign};
use self::plan::{MakeError, next};
use crate::kubernetes::api_server::{ApiError, Bytes, Kind, Objects};
use crate::kubernetes::name::ObjectName;
use crate::kubernetes::saved_folder::SavedFolder;

/// Of the folder: certificate and key.
const FILE: &str = "certificate.pem";

/// Between looks.
const EVERY: Duration = Duration::from_secs(5);
const EVERY_WHILE_WRONG: Duration = Duration::from_secs(2);

/// How often a Secret that changes under our hands is read again within a look.
const TRIES: usize = 8;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnCertificateConfig {
    pub(crate) secret: ObjectName,
    /// DNS names and addresses that it is for.
    pub(crate) names: BTreeSet<String>,
    /// Where nodes find the authority.
    pub(crate) authority: Option<ObjectName>,
}

/// Its keeper.
#[derive(Debug)]
pub(crate) struct OwnCertificate {
    config: OwnCertificateConfig,
    objects: Arc<dyn Objects>,
    folder: Option<SavedFolder>,
    shown: Arc<ServerCertificate>,
}

/// Why a look did not come to its end.
#[derive(Debug, Error)]
enum Trouble {
    #[error("{kind} {name}: {error}")]
    Api { kind: Kind, name: ObjectName, error: ApiError },
    #[error("{kind} {name} is not there: it is made empty, and filled by this program")]
    Missing { kind: Kind, name: ObjectName },
    #[error("Secret {name}: {error}")]
    Unusable { name: ObjectName, error: Unusable },
    #[error(
        "ConfigMap {name} holds an authority that {issuer:?} vouches for in {AUTHORITIES}: it is left alone; name another one with --authority-configmap"
    )]
    Foreign { name: ObjectName, issuer: String },
    #[error("{0}")]
    Make(#[from] MakeError),
    #[error("Secret {0} changes all the time")]
    Restless(ObjectName),
    #[error("{0}")]
    Show(String),
}

impl OwnCertificate {
    /// Shows what was saved, if it still holds.
    pub(crate) fn open(config: OwnCertificateConfig, objects: Arc<dyn Objects>, folder: Option<SavedFolder>) -> Self {
        let shown = ServerCertificate::none_yet();
        if let Some(folder) = &folder {
            let path = folder.path(FILE);
            let showing = match folder.read(FILE) {
                Ok(None) => Ok(false),
                // Certificate and key are in one file, and each reader takes what it looks for.
                Ok(Some(text)) => shown
                    .show(&path.display().to_string(), text.as_bytes(), text.as_bytes())
                    .map_err(|error| error.to_string()),
                Err(error) => Err(format!("read {}: {error}", path.display())),
            };
            match showing {
                Ok(true) => {
                    tracing::info!(path = %path.display(), "the saved certificate is shown until the Secret was read");
                }
                Ok(false) => {}
                Err(error) => tracing::error!("the saved certificate is not used: {error}"),
            }
        }
        Self { config, objects, folder, shown }
    }

    pub(crate) fn shown(&self) -> Arc<ServerCertificate> {
        Arc::clone(&self.shown)
    }

    /// Looks from time to time until `shutdown`.
    pub(crate) async fn follow(self, condition: Condition, shutdown: CancellationToken) {
        let mut saved = None;
        let following = async {
            loop {
                let pause = match self.look(SystemTime::now(), &mut saved).await {
                    Ok(()) => {
                        condition.clear();
                        EVERY
                    }
                    Err(trouble) => {
                        let text = match self.shown.validity() {
                            None => format!("{trouble}; there is no certificate, so everybody is refused"),
                            Some(_) => format!("{trouble}; the certificate of before stays in use"),
                        };
                        if condition.set(text.clone()) {
                            tracing::error!("own certificate: {text}");
                        }
                        EVERY_WHILE_WRONG
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = following => {}
        }
    }

    async fn look(&self, now: SystemTime, saved: &mut Option<String>) -> Result<(), Trouble> {
        let kept = self.agree(now).await?;
        let (place, serving) = (format!("Secret {}", self.config.secret), &kept.serving);
        let news = self.shown.show(&place, serving.certificate.as_bytes(), serving.key.expose().as_bytes());
        if news.map_err(|error| Trouble::Show(error.to_string()))? {
            tracing::info!(
                secret = %self.config.secret,
                names = ?serving.names,
                until = httpdate::fmt_http_date(serving.lasts.until),
                "this certificate is shown from now on"
            );
        }
        // Both are tried, and the first that fails is told.
        let (copied, published) = (self.save(&kept, saved).await, self.publish(&kept).await);
        copied.and(published)
    }

    /// What the Secret holds once all that has to change was changed, by us or by another replica.
    async fn agree(&self, now: SystemTime) -> Result<Kept, Trouble> {
        let name = || self.config.secret.clone();
        let of = |error| Trouble::Api { kind: Kind::Secret, name: name(), error };
        for _ in 0..TRIES {
            let object = self.objects.get(Kind::Secret, &self.config.secret).await.map_err(of)?;
            let object = object.ok_or_else(|| Trouble::Missing { kind: Kind::Secret, name: name() })?;
            let kept = Kept::read(&object.data).map_err(|error| Trouble::Unusable { name: name(), error })?;
            let next = next(kept, &self.config.names, now)?;
            if next.why.is_empty() {
                return Ok(next.kept);
            }
            let why = next.why.join("; ");
            match self.objects.patch(Kind::Secret, &self.config.secret, &object.version, &next.kept.data()).await {
                Ok(()) => tracing::info!(secret = %self.config.secret, "written: {why}"),
                Err(ApiError::Conflict) => tracing::info!(secret = %self.config.secret, "another replica was faster"),
                Err(error) => return Err(of(error)),
            }
        }
        Err(Trouble::Restless(name()))
    }

    /// Leaves what is shown for a start without the API server. The authority's key is not among it.
    async fn save(&self, kept: &Kept, saved: &mut Option<String>) -> Result<(), Trouble> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        if saved.as_ref() == Some(&kept.serving.certificate) {
            return Ok(());
        }
        let text = Zeroizing::new(format!("{}{}", kept.serving.certificate, kept.serving.key.expose()));
        let path = folder.path(FILE);
        let writing = tokio::task::spawn_blocking(move || folder.write(FILE, &text));
        let written = writing.await.map_err(|error| Trouble::Show(error.to_string()))?;
        written.map_err(|error| Trouble::Show(format!("{} is not written: {error}", path.display())))?;
        *saved = Some(kept.serving.certificate.clone());
        Ok(())
    }

    /// Lets nodes know the authorities.
    async fn publish(&self, kept: &Kept) -> Result<(), Trouble> {
        let Some(name) = &self.config.authority else { return Ok(()) };
        let of = |error| Trouble::Api { kind: Kind::ConfigMap, name: name.clone(), error };
        for _ in 0..TRIES {
            let object = self.objects.get(Kind::ConfigMap, name).await.map_err(of)?;
            let object = object.ok_or_else(|| Trouble::Missing { kind: Kind::ConfigMap, name: name.clone() })?;
            let wanted = kept.published();
            let has = object.data.get(AUTHORITIES).map(Bytes::expose).unwrap_or_default();
            if has == wanted.as_bytes() {
                return Ok(());
            }
            if let Some(issuer) = std::str::from_utf8(has).ok().and_then(foreign) {
                return Err(Trouble::Foreign { name: name.clone(), issuer });
            }
            let data = BTreeMap::from([(AUTHORITIES.to_owned(), Bytes::new(wanted))]);
            match self.objects.patch(Kind::ConfigMap, name, &object.version, &data).await {
                Ok(()) => tracing::info!(configmap = %name, "the authorities were made known"),
                Err(ApiError::Conflict) => {}
                Err(error) => return Err(of(error)),
            }
        }
        Ok(())
    }
}

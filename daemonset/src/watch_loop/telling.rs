//! What the loop knows, as conditions, metrics and the status.

use super::{Life, WatchLoop};
use crate::status::{self, Status};
use crate::supervisor::View;
use larder_node_agent::engine::Readiness as Verdict;
use larder_node_agent::liveness::Health;
use larder_node_agent::placement::Kind;
use std::sync::PoisonError;
use tokio_util::sync::CancellationToken;

impl WatchLoop {
    /// Brings conditions, metrics and the status up to date.
    pub(super) fn tell(&mut self, life: Option<&Life>) {
        let view = self.around.view.borrow().clone();
        let (health, detail) = words(&view);
        // Nothing is in force while nothing is placed, however well the proxy is.
        let in_force = self.around.announcer.is_announced();
        let mut status = Status {
            agent: Some(status::Agent {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                placement: match life {
                    Some(life) if !life.node.engine.places_links() => "file",
                    Some(life) if life.placement.kind() == Kind::RunFolder => "run",
                    _ => "by-agent",
                }
                .to_owned(),
            }),
            proxy: Some(status::Proxy {
                address: self.around.config.listen.mirror.to_string(),
                pid: view.pid,
                health: health.to_owned(),
                detail,
                announced: in_force,
                starts: view.starts,
                kills: view.kills,
                store: self.around.store.clone(),
            }),
            ..Status::default()
        };
        let metrics = &self.around.metrics;
        if let Some(life) = life {
            status.engine = status::engine(&life.node);
            status.report(&life.report, |placed| life.proofs.of(placed));
            metrics.left_alone.set(i64::try_from(life.report.left_alone.len()).unwrap_or(i64::MAX));
            self.tell_configured(life);
        }
        status.conditions.extend(self.around.readiness.report().lines);
        status.kubernetes = self.kubernetes.as_ref().map(|kubernetes| kubernetes.status(self.left_out.clone()));
        metrics.announced.set(in_force.into());
        metrics.count(view.starts, view.kills);
        *self.around.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The condition of the proxy, until `shutdown`. The loop may be at anything, and nobody is ready whose entry is withdrawn.
    pub(crate) fn tell_of_proxy(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (mut view, condition) = (self.around.view.clone(), self.conditions.proxy.clone());
        let follow = async move {
            loop {
                let seen = view.borrow_and_update().clone();
                let (health, detail) = words(&seen);
                if seen.announced {
                    condition.clear();
                } else {
                    condition.set(detail.map_or_else(|| health.to_owned(), |detail| format!("{health}: {detail}")));
                }
                if view.changed().await.is_err() {
                    // Whoever supervises has ended, and the loop says so.
                    return std::future::pending().await;
                }
            }
        };
        async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follow => {}
            }
        }
    }

    fn tell_configured(&self, life: &Life) {
        let wrong = match life.report.readiness {
            Verdict::Cannot | Verdict::NeedsConfigToml => Some(life.report.reason.clone()),
            Verdict::Ready | Verdict::NeedsLiteralPath => life.proofs.missing(),
        };
        match life.proofs.degraded() {
            Some(reason) => drop(self.conditions.unproved.set(reason)),
            None => drop(self.conditions.unproved.clear()),
        }
        let unproved = life.proofs.unproved_registries();
        self.around.metrics.unproved.set(i64::try_from(unproved).unwrap_or(i64::MAX));
        self.around.metrics.configured.set(wrong.is_none().into());
        match wrong {
            Some(reason) => drop(self.conditions.configured.set(reason)),
            None => drop(self.conditions.configured.clear()),
        }
    }
}

/// The proxy's health in a word, and what there is to say about it.
pub(crate) fn words(view: &View) -> (&'static str, Option<String>) {
    let (word, detail) = match &view.health {
        Health::Starting => ("starting", None),
        Health::Well => ("well", None),
        Health::Stalled => ("stalled", None),
        Health::Dead => ("dead", None),
        Health::Hung => ("hung", None),
        Health::HeldOff => ("held-off", Some("it hung a moment ago".to_owned())),
        Health::Stranger(who) => ("stranger", Some(format!("the address belongs to {who}: stop it"))),
        Health::Stopping => ("stopping", None),
    };
    let said: Vec<String> = detail.into_iter().chain(view.problem.clone()).collect();
    (word, (!said.is_empty()).then(|| said.join("; ")))
}

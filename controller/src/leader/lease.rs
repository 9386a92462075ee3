//! The Lease object, read and written.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::election::{Claim, Election, Record, Step, Times};
use super::{Note, Witness};

/// Of a graceful end: whoever waits for it waits for a Pod to stop.
const RELEASE: Duration = Duration::from_secs(3);

/// How often that is tried where something was written in between: a renewal of our own is once at most.
const RELEASES: usize = 3;

/// On the Lease: what a person says to the brake.
pub const WORD: &str = "larder.dev/remove";

/// On the Lease: what a leader leaves to the next one ([`Note`]).
pub const HELD: &str = "larder.dev/held";

/// `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for LeaseName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |text: &str| {
            let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
            (1..=63).contains(&text.len()) && text.bytes().all(fits)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write NAMESPACE/NAME, for example larder-system/larder-controller"),
        }
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Who would lead.
pub struct Candidate {
    api: Api<Lease>,
    name: LeaseName,
    identity: String,
    times: Times,
    witness: Arc<dyn Witness>,
    note: Note,
}

/// How a write ended.
enum Written {
    Record(Record),
    /// Somebody else wrote before.
    Raced,
    Failed(String),
}

impl Candidate {
    /// `identity` is no other candidate's, nor that of an earlier life of this one.
    pub fn new(client: Client, name: LeaseName, identity: String, times: Times, witness: Arc<dyn Witness>) -> Self {
        let api = Api::namespaced(client, &name.namespace);
        Self { api, name, identity, times, witness, note: Note::default() }
    }

    /// With what its work leaves on the lease.
    #[must_use]
    pub fn with_note(self, note: Note) -> Self {
        Self { note, ..self }
    }

    pub(super) fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.witness)
    }

    /// Takes and renews until `stop`, and says until when it leads.
    pub(super) async fn run(self, until: watch::Sender<Option<Instant>>, stop: CancellationToken) {
        let mut election = Election::new(self.identity.clone(), self.times, now());
        let mut trouble = None;
        let mut holder = String::new();
        while !stop.is_cancelled() {
            let doing = async {
                sleep_until(election.next().into()).await;
                match election.step(now()) {
                    Step::Look => self.look(&mut election).await,
                    Step::Renew(claim) => self.claim(&mut election, claim).await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = doing => match done {
                    Ok(()) => trouble = None,
                    Err(words) => {
                        if trouble.as_ref() != Some(&words) {
                            tracing::warn!(lease = %self.name, "the lease of the leader: {words}");
                        }
                        trouble = Some(words);
                    }
                },
            }
            let leads = election.leads_until(now()).map(Instant::from_std);
            until.send_if_modified(|known| std::mem::replace(known, leads) != leads);
            if let Some(now_leads) = election.holder().filter(|now_leads| *now_leads != holder) {
                holder = now_leads.to_owned();
                self.witness.leader(&holder);
                tracing::info!(lease = %self.name, holder, "the leader");
            }
        }
        until.send_replace(None);
        if election.may_be_ours() {
            self.release(election.to_release().cloned()).await;
        }
    }

    async fn look(&self, election: &mut Election) -> Result<(), String> {
        let read = timeout(self.times.renew, self.read()).await;
        match read.unwrap_or_else(|_| Err(NO_ANSWER.to_owned())) {
            Ok(record) => match election.saw(record, now()) {
                Some(claim) => self.claim(election, claim).await,
                None => Ok(()),
            },
            Err(words) => {
                election.failed(now());
                Err(words)
            }
        }
    }

    async fn read(&self) -> Result<Option<Record>, String> {
        let lease = self.api.get_opt(&self.name.name).await.map_err(|error| words(&error))?;
        if let Some(lease) = &lease {
            self.tell(lease);
        }
        Ok(lease.as_ref().map(record))
    }

    fn tell(&self, lease: &Lease) {
        let said = |name| lease.metadata.annotations.as_ref()?.get(name).map(String::as_str);
        self.note.read(said(HELD), record(lease).holder == self.identity);
        self.witness.word(said(WORD));
    }

    async fn claim(&self, election: &mut Election, claim: Claim) -> Result<(), String> {
        let began = now();
        // A write that takes longer leaves no time for another try.
        match timeout(self.times.renew / 3, self.write(&claim)).await {
            Ok(Written::Record(record)) => {
                election.wrote(&claim, record, began, now());
                Ok(())
            }
            Ok(Written::Raced) => {
                election.must_look(now());
                Ok(())
            }
            Ok(Written::Failed(words)) => {
                election.must_look(began + self.times.retry);
                Err(words)
            }
            Err(_) => {
                election.must_look(now());
                Err(NO_ANSWER.to_owned())
            }
        }
    }

    async fn write(&self, claim: &Claim) -> Written {
        let time = MicroTime(Timestamp::now());
        let transitions = claim.replaces.as_ref().map_or(0, |record| record.transitions);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.lease.as_secs().max(1)).ok(),
            renew_time: Some(time.clone()),
            // When its holder took it: what is not in the change stays.
            acquire_time: (!claim.renews || claim.replaces.is_none()).then_some(time),
            lease_transitions: Some(if claim.renews { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        self.put(claim.replaces.as_ref(), spec).await
    }

    async fn put(&self, replaces: Option<&Record>, spec: LeaseSpec) -> Written {
        let manager = Some(crate::FIELD_MANAGER.to_owned());
        let written = match replaces {
            None => {
                let line = self.note.left().filter(|line| !line.is_empty());
                let annotations = line.map(|line| [(HELD.to_owned(), line)].into());
                let name = Some(self.name.name.clone());
                let metadata = ObjectMeta { name, annotations, ..ObjectMeta::default() };
                let parameters = PostParams { field_manager: manager, ..PostParams::default() };
                self.api.create(&parameters, &Lease { metadata, spec: Some(spec) }).await
            }
            Some(record) => return self.change(record, json!(spec)).await,
        };
        self.what(written)
    }

    /// A merge patch that names a version is refused with 409 where there is another one, and leaves alone what others wrote on it.
    async fn change(&self, replaces: &Record, spec: serde_json::Value) -> Written {
        let parameters = PatchParams { field_manager: Some(crate::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let mut metadata = json!({ "resourceVersion": replaces.version });
        if let (Some(line), Some(metadata)) = (self.note.left(), metadata.as_object_mut()) {
            let line = Some(line).filter(|line| !line.is_empty());
            metadata.insert("annotations".to_owned(), json!({ HELD: line }));
        }
        let change = json!({ "metadata": metadata, "spec": spec });
        self.what(self.api.patch(&self.name.name, &parameters, &Patch::Merge(change)).await)
    }

    fn what(&self, written: kube::Result<Lease>) -> Written {
        match written {
            Ok(lease) => {
                self.tell(&lease);
                Written::Record(record(&lease))
            }
            // There is another one by now, or none.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Written::Raced,
            Err(error) => Written::Failed(words(&error)),
        }
    }

    /// Gives it back, so that another one need not wait for it to run out, and with it what the work has said last. As good as done if it fails.
    async fn release(&self, ours: Option<Record>) {
        match timeout(RELEASE, self.give_back(ours)).await {
            Ok(Ok(true)) => tracing::info!(lease = %self.name, "the lease was given back"),
            Ok(Ok(false)) => {}
            Ok(Err(words)) => {
                tracing::warn!(lease = %self.name, "the lease was not given back, it runs out: {words}");
            }
            Err(_) => tracing::warn!(lease = %self.name, "the lease was not given back, it runs out: {NO_ANSWER}"),
        }
    }

    /// Whether it was ours to give back. A renewal that was given up on its way may have arrived, before a look at the lease or after it.
    async fn give_back(&self, mut ours: Option<Record>) -> Result<bool, String> {
        let spec = json!({ "holderIdentity": null, "leaseDurationSeconds": 1 });
        for _ in 0..RELEASES {
            let found = match ours.take() {
                Some(record) => Some(record),
                None => self.read().await?.filter(|record| record.holder == self.identity),
            };
            let Some(record) = found else { return Ok(false) };
            match self.change(&record, spec.clone()).await {
                Written::Record(_) => return Ok(true),
                Written::Raced => {}
                Written::Failed(words) => return Err(words),
            }
        }
        Ok(false)
    }
}

const NO_ANSWER: &str = "the API server does not answer in time";

fn words(error: &kube::Error) -> String {
    crate::api_server::words(error)
}

/// On tokio's clock, which a test may hold.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        lease: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

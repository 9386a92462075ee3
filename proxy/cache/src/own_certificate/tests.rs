use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::*;
use crate::kubernetes::api_server::Object;

type Data = BTreeMap<String, Bytes>;

/// Keeps objects as the API server does, and can be away.
#[derive(Debug, Default)]
struct Kubernetes {
    objects: Mutex<BTreeMap<String, (u64, Data)>>,
    away: Mutex<bool>,
    written: Mutex<u32>,
}

fn key(kind: Kind, name: &ObjectName) -> String {
    format!("{kind} {name}")
}

impl Kubernetes {
    fn with(names: &[&str]) -> Arc<Self> {
        let kubernetes = Self::default();
        for name in names {
            kubernetes.objects.lock().unwrap().insert((*name).to_owned(), (1, BTreeMap::new()));
        }
        Arc::new(kubernetes)
    }

    fn set(&self, object: &str, key: &str, text: &str) {
        let mut objects = self.objects.lock().unwrap();
        let (version, data) = objects.get_mut(object).unwrap();
        *version += 1;
        data.insert(key.to_owned(), Bytes::new(text));
    }

    fn text(&self, object: &str, key: &str) -> String {
        let objects = self.objects.lock().unwrap();
        let bytes = objects.get(object).and_then(|(_, data)| data.get(key)).cloned().unwrap_or_default();
        String::from_utf8(bytes.expose().to_vec()).unwrap()
    }

    fn answers(&self) -> Result<(), ApiError> {
        if *self.away.lock().unwrap() { Err(ApiError::Away("it was stopped".to_owned())) } else { Ok(()) }
    }
}

impl Objects for Kubernetes {
    fn get<'a>(&'a self, kind: Kind, name: &'a ObjectName) -> BoxFuture<'a, Result<Option<Object>, ApiError>> {
        Box::pin(async move {
            self.answers()?;
            let object = self.objects.lock().unwrap().get(&key(kind, name)).cloned();
            // Somebody else's turn between reading and writing.
            tokio::task::yield_now().await;
            Ok(object.map(|(version, data)| Object { version: version.to_string(), data }))
        })
    }

    fn patch<'a>(
        &'a self,
        kind: Kind,
        name: &'a ObjectName,
        version: &'a str,
        changed: &'a BTreeMap<String, Bytes>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            self.answers()?;
            let mut objects = self.objects.lock().unwrap();
            let (now, data) = objects.get_mut(&key(kind, name)).unwrap();
            if now.to_string() != version {
                return Err(ApiError::Conflict);
            }
            *now += 1;
            *self.written.lock().unwrap() += 1;
            data.extend(changed.clone());
            Ok(())
        })
    }
}

const SECRET: &str = "Secret larder/certificate";
const CONFIGMAP: &str = "ConfigMap larder/authority";

fn replica(kubernetes: &Arc<Kubernetes>, folder: Option<&SavedFolder>) -> OwnCertificate {
    let config = OwnCertificateConfig {
        secret: "larder/certificate".parse().unwrap(),
        names: BTreeSet::from(["cache.larder.svc".to_owned()]),
        authority: Some("larder/authority".parse().unwrap()),
    };
    OwnCertificate::open(config, Arc::clone(kubernetes) as Arc<_>, folder.cloned())
}

async fn look(replica: &OwnCertificate) -> Result<(), String> {
    replica.look(SystemTime::now(), &mut None).await.map_err(|trouble| trouble.to_string())
}

#[tokio::test]
async fn replicas_that_start_at_once_agree() {
    let kubernetes = Kubernetes::with(&[SECRET, CONFIGMAP]);
    let replicas: Vec<_> = (0..5).map(|_| replica(&kubernetes, None)).collect();
    for looked in futures_util::future::join_all(replicas.iter().map(look)).await {
        looked.unwrap();
    }
    assert_eq!(*kubernetes.written.lock().unwrap(), 2, "one Secret, one ConfigMap");
    let authority = kubernetes.text(CONFIGMAP, "ca.crt");
    assert_eq!(authority, kubernetes.text(SECRET, "ca.crt"));
    for replica in &replicas {
        // It goes with what is in the Secret, or this would be news.
        let (certificate, key) = (kubernetes.text(SECRET, "tls.crt"), kubernetes.text(SECRET, "tls.key"));
        assert!(!replica.shown().show("", certificate.as_bytes(), key.as_bytes()).unwrap());
    }
}

#[tokio::test]
async fn what_a_person_did_to_the_secret_stops_nothing_and_is_not_written_over() {
    let kubernetes = Kubernetes::with(&[SECRET, CONFIGMAP]);
    let cache = replica(&kubernetes, None);
    look(&cache).await.unwrap();
    let shown = cache.shown().validity();
    kubernetes.set(SECRET, "tls.key", "nonsense");
    assert!(look(&cache).await.unwrap_err().contains("it was damaged: tls.key holds no key"));
    assert_eq!(cache.shown().validity(), shown);
    let theirs = larder_test_origin::private_certificate(&["cache.larder.svc"]);
    kubernetes.set(SECRET, "tls.crt", &theirs.certificate);
    assert!(look(&cache).await.unwrap_err().contains("somebody else's"));
    assert_eq!(kubernetes.text(SECRET, "tls.crt"), theirs.certificate);
    assert_eq!(replica(&kubernetes, None).shown().validity(), None, "a new one has nothing to show");
}

#[tokio::test]
async fn nodes_are_not_told_to_trust_us_in_the_place_of_somebody_else() {
    let kubernetes = Kubernetes::with(&[SECRET, CONFIGMAP]);
    let theirs = larder_test_origin::private_certificate(&["a"]).authority;
    kubernetes.set(CONFIGMAP, "ca.crt", &theirs);
    let cache = replica(&kubernetes, None);
    let error = look(&cache).await.unwrap_err();
    assert!(error.contains("--authority-configmap"), "{error}");
    assert_eq!(kubernetes.text(CONFIGMAP, "ca.crt"), theirs);
    assert!(cache.shown().validity().is_some());
    // What is no certificate is nobody's: a copy that was damaged is mended.
    kubernetes.set(CONFIGMAP, "ca.crt", "nonsense");
    look(&cache).await.unwrap();
    assert_eq!(kubernetes.text(CONFIGMAP, "ca.crt"), kubernetes.text(SECRET, "ca.crt"));
}

#[tokio::test]
async fn without_the_api_server_a_start_shows_what_was_saved_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = SavedFolder::new(&folder.path().join("saved"));
    let kubernetes = Kubernetes::with(&[SECRET, CONFIGMAP]);
    *kubernetes.away.lock().unwrap() = true;
    let early = replica(&kubernetes, Some(&folder));
    assert!(look(&early).await.unwrap_err().contains("Secret larder/certificate: the API server does not answer"));
    assert_eq!(early.shown().validity(), None);
    *kubernetes.away.lock().unwrap() = false;
    look(&early).await.unwrap();
    let text = folder.read(FILE).unwrap().unwrap();
    assert!(
        !text.contains(kubernetes.text(SECRET, "ca.key").lines().nth(1).unwrap()),
        "the authority's key stays there"
    );
    *kubernetes.away.lock().unwrap() = true;
    let late = replica(&kubernetes, Some(&folder));
    assert_eq!(late.shown().validity(), early.shown().validity());
    assert!(look(&late).await.is_err());
    folder.write(FILE, &text[..text.len() / 2]).unwrap();
    assert_eq!(replica(&kubernetes, Some(&folder)).shown().validity(), None, "a file that was cut");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let error = look(&replica(&Kubernetes::with(&[CONFIGMAP]), None)).await.unwrap_err();
    assert!(error.starts_with("Secret larder/certificate is not there"), "{error}");
    let cache = replica(&Kubernetes::with(&[SECRET]), None);
    let error = look(&cache).await.unwrap_err();
    assert!(error.starts_with("ConfigMap larder/authority is not there"), "{error}");
    assert!(cache.shown().validity().is_some());
}

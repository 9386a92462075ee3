use super::{BoxFuture, Confirmation, PullAnswer, PullProbe, SeenProbe, confirm, nowhere};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// An engine and a proxy: what the engine is asked for, the proxy sees, unless the engine goes elsewhere.
#[derive(Clone)]
struct Node {
    asked: Arc<Mutex<BTreeSet<String>>>,
    reaches_us: bool,
    answer: Result<PullAnswer, String>,
}

impl Node {
    fn new(reaches_us: bool, answer: Result<PullAnswer, String>) -> Self {
        Self { asked: Arc::default(), reaches_us, answer }
    }
}

impl PullProbe for Node {
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<PullAnswer, String>> {
        let nonce = reference.strip_prefix("larder.invalid/larder-probe/").unwrap().strip_suffix(":probe").unwrap();
        if self.reaches_us {
            self.asked.lock().unwrap().insert(nonce.to_owned());
        }
        let answer = self.answer.clone();
        Box::pin(async move { answer })
    }
}

impl SeenProbe for Node {
    fn seen(&self, nonce: &str) -> BoxFuture<'_, Result<bool, String>> {
        let seen = self.asked.lock().unwrap().contains(nonce);
        Box::pin(async move { Ok(seen) })
    }
}

struct Silent;

impl SeenProbe for Silent {
    fn seen(&self, _: &str) -> BoxFuture<'_, Result<bool, String>> {
        Box::pin(async { Err("refused".to_owned()) })
    }
}

fn sent(node: &Node) -> Confirmation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(confirm(node, node, &nowhere().unwrap()))
}

fn reason(confirmation: Confirmation) -> String {
    match confirmation {
        Confirmation::NotSeen { reason, .. } | Confirmation::NotAsked { reason } => reason,
        Confirmation::Confirmed { .. } => panic!("confirmed"),
    }
}

#[test]
fn confirmed_when_the_proxy_was_asked_whatever_the_engine_says() {
    for answer in [Ok(PullAnswer::Failed("unexpected status 304".to_owned())), Err("gone".to_owned())] {
        assert!(sent(&Node::new(true, answer)).is_confirmed());
    }
}

#[test]
fn not_seen_says_what_the_engine_said() {
    let elsewhere = Node::new(false, Ok(PullAnswer::Failed("lookup x: no such\nhost".to_owned())));
    assert_eq!(reason(sent(&elsewhere)), "the engine asked elsewhere: lookup x: no such host");
    let pulled = Node::new(false, Ok(PullAnswer::Pulled));
    assert_eq!(reason(sent(&pulled)), "the engine got the image from somewhere else");
    let gone = Node::new(false, Err("/run/x.sock: refused".to_owned()));
    assert_eq!(reason(sent(&gone)), "the engine could not be asked: /run/x.sock: refused");
}

#[test]
fn an_engine_that_failed_before_it_asked_anybody_is_told_apart() {
    let by_itself = |words: &str| match sent(&Node::new(false, Ok(PullAnswer::Failed(words.to_owned())))) {
        Confirmation::NotSeen { by_itself, .. } => by_itself,
        other => panic!("{other:?}"),
    };
    // As containerd says it.
    assert!(by_itself("failed to resolve image: unable to load CA file \"/etc/certs.d/a/ca.crt\""));
    for asked in [
        "failed to do request: Head \"https://larder.invalid/v2/larder-probe/x/manifests/probe\": dial tcp: lookup larder.invalid: no such host",
        "failed to resolve reference \"a.example/x:probe\": a.example/x:probe: not found",
    ] {
        assert!(!by_itself(asked), "{asked}");
    }
}

#[test]
fn an_engines_words_are_bounded() {
    let long = Node::new(false, Ok(PullAnswer::Failed("é".repeat(5000))));
    assert!(reason(sent(&long)).chars().count() < 400);
}

#[test]
fn each_canary_has_a_nonce_of_its_own() {
    let node = Node::new(true, Ok(PullAnswer::Failed(String::new())));
    sent(&node);
    sent(&node);
    assert_eq!(node.asked.lock().unwrap().len(), 2);
}

#[test]
fn a_silent_proxy_confirms_nothing() {
    let node = Node::new(true, Ok(PullAnswer::Failed(String::new())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let confirmation = runtime.block_on(confirm(&node, &Silent, &nowhere().unwrap()));
    assert_eq!(reason(confirmation), "the proxy could not be asked: refused");
}

//! The pull side of the OCI distribution specification (v1.1), requirement by requirement, over real sockets: of a node's proxy and of the
//! service, in both addressings. A test names the section that it is of; what is only a SHOULD is here where clients rely on it.
//!
//! What a registry does not do, we cannot: without its referrers API we answer 404 as it does, and clients turn to the tag schema.

mod discovery;
mod pull;

use super::cluster::Running;
use super::*;

const NAME: &str = "reg.example.com";
const REPOSITORY: &str = "team/app";
const TOKEN: &str = "a-token-of-many-letters";

/// A registry, and everybody who answers for it.
struct Stage {
    origin: TestOrigin,
    image: Image,
    node: Running,
    service: Running,
    _folder: tempfile::TempDir,
}

/// One way to ask.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    stage: &'a Stage,
    is_service: bool,
    by_path: bool,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stage")
    }
}

impl Stage {
    fn start() -> Self {
        let origin = TestOrigin::start();
        let image = Image::build(&ImageSpec::default());
        origin.push(REPOSITORY, "v1", &image);
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("[registries.\"{NAME}\"]\nendpoints = [\"{}\"]\ninsecure = true\n", origin.url());
        fs::write(folder.path().join(REGISTRIES), settings).unwrap();
        fs::write(folder.path().join("tokens"), format!("somebody {TOKEN}\n")).unwrap();
        let registries = Some(folder.path().join(REGISTRIES));
        let memory = || config(StoreConfig::Memory { limit: 64 << 20 }, None);
        let node = Running::start(ProxyConfig { registries: registries.clone(), ..memory() });
        let tokens = Some(folder.path().join("tokens"));
        let service = ServiceConfig { tls: None, tokens, callers: None, anonymous: Vec::new(), control: None };
        let service = Running::start(ProxyConfig { registries, service: Some(service), ..memory() });
        Self { origin, image, node, service, _folder: folder }
    }

    fn ways(&self) -> [Way<'_>; 4] {
        [(false, false), (false, true), (true, false), (true, true)].map(|(is_service, by_path)| Way {
            stage: self,
            is_service,
            by_path,
        })
    }

    async fn end(self) {
        self.node.stop().await;
        self.service.stop().await;
        tokio::task::block_in_place(|| drop(self.origin));
    }
}

impl Way<'_> {
    /// `what` is below the repository: `tags/list?n=2`.
    fn target(&self, repository: &str, what: &str) -> String {
        if self.by_path {
            return format!("/v2/{NAME}/{repository}/{what}");
        }
        let joint = if what.contains('?') { '&' } else { '?' };
        format!("/v2/{repository}/{what}{joint}ns={NAME}")
    }

    async fn ask(&self, method: &str, what: &str) -> Exchanged {
        self.ask_for(method, &self.target(REPOSITORY, what), "").await
    }

    async fn ask_for(&self, method: &str, target: &str, headers: &str) -> Exchanged {
        let running = if self.is_service { &self.stage.service } else { &self.stage.node };
        let token = if self.is_service { format!("Authorization: Bearer {TOKEN}\r\n") } else { String::new() };
        exchange(running.address, method, target, &format!("{token}{headers}")).await
    }

    /// What was answered is in the store from now on.
    async fn until_stored(&self) {
        let running = if self.is_service { &self.stage.service } else { &self.stage.node };
        until_fetched(running.admin).await;
    }
}

/// Section "Error Codes": a JSON body of an answer with 4xx has this form.
fn assert_error(answer: &Exchanged, status: u16, code: Option<&str>) {
    assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
    if answer.body.is_empty() {
        assert_eq!(code, None);
        return;
    }
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let errors = document["errors"].as_array().unwrap();
    assert!(!errors.is_empty());
    for error in errors {
        let said = error["code"].as_str().unwrap();
        assert!(said.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{said}");
        assert!(code.is_none_or(|code| code == said), "{said}, not {code:?}");
    }
}

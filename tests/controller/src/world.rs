//! An API server with the definitions that the chart will ship.

use anyhow::{Context as _, Result, ensure};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use larder_test_callers::ControlPlane;
use larder_test_callers::wait::until;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::Answer;

/// Where the custom resources are.
pub const GROUP: &str = "/apis/larder.dev/v1alpha1";

/// The definitions as they are checked in, by their names.
pub const DEFINITIONS: [(&str, &str); 3] = [
    ("cachedimages.larder.dev", include_str!("../../../chart/files/crds/cachedimages.yaml")),
    ("upstreamregistries.larder.dev", include_str!("../../../chart/files/crds/upstreamregistries.yaml")),
    ("nodemirrors.larder.dev", include_str!("../../../chart/files/crds/nodemirrors.yaml")),
];

/// An API server that knows the custom resources, and clients of it.
pub struct World {
    /// The API server, and its kubectl.
    pub plane: ControlPlane,
    /// What clients of it run on.
    pub runtime: Runtime,
    /// A client that may do everything.
    pub admin: Client,
    /// What the API server warned of when it was given the definitions.
    pub warnings: Vec<String>,
}

impl World {
    /// Starts one, and waits until it serves the custom resources.
    pub fn start() -> Result<Self> {
        let plane = ControlPlane::start()?;
        let runtime = Runtime::new()?;
        let admin = client(&runtime, &plane.administrator())?;
        let mut world = Self { plane, runtime, admin, warnings: Vec::new() };
        for (name, definition) in DEFINITIONS {
            let path = format!(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=test&fieldValidation=Strict"
            );
            let answer = world.apply(&path, definition)?;
            world.warnings.extend(answer.warnings.clone());
            answer.done()?;
        }
        for (name, _) in DEFINITIONS {
            let plural = name.split('.').next().context("a plural")?;
            until("the API server serves the custom resources", || {
                world.get(&format!("{GROUP}/{plural}"))?.done()?;
                // What kubectl knows of them is asked for elsewhere, and comes later.
                let known = world.plane.kubectl(&["api-resources", "--api-group=larder.dev", "--output=name"], "")?;
                ensure!(known.contains(name), "{known}");
                Ok(())
            })?;
        }
        Ok(world)
    }

    /// A client with a token.
    pub fn client(&self, name: &str, token: &str) -> Result<Client> {
        client(&self.runtime, &self.plane.kubeconfig_with_token(name, token)?)
    }

    /// Sends anything as anybody.
    pub fn send(&self, client: &Client, method: Method, path: &str, kind: &str, body: String) -> Result<Answer> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let accept =
            if path.contains("as=Table") { "application/json;as=Table;v=v1;g=meta.k8s.io" } else { "application/json" };
        let request = request.header("accept", accept).body(Body::from(body.into_bytes()))?;
        self.runtime.block_on(async {
            let response = client.send(request).await?;
            let (head, body) = response.into_parts();
            let warnings = head.headers.get_all("warning").iter().filter_map(|warning| warning.to_str().ok());
            let warnings = warnings.map(str::to_owned).collect();
            let bytes = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            Ok(Answer { status: head.status.as_u16(), warnings, body })
        })
    }

    /// Reads something.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send(&self.admin, Method::GET, path, "application/json", String::new())
    }

    /// Creates something.
    pub fn post(&self, path: &str, object: &Value) -> Result<Answer> {
        self.send(&self.admin, Method::POST, path, "application/json", object.to_string())
    }

    /// Changes something by a merge patch.
    pub fn merge(&self, path: &str, change: &Value) -> Result<Answer> {
        self.send(&self.admin, Method::PATCH, path, "application/merge-patch+json", change.to_string())
    }

    /// Server-side apply of YAML, or JSON, which is YAML. The path names the field manager.
    pub fn apply(&self, path: &str, text: &str) -> Result<Answer> {
        ensure!(path.contains("fieldManager="), "{path} names no field manager");
        self.send(&self.admin, Method::PATCH, path, "application/apply-patch+yaml", text.to_owned())
    }
}

pub(crate) fn client(runtime: &Runtime, kubeconfig: &std::path::Path) -> Result<Client> {
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    })
}

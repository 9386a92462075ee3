//! The release's control API, as a program in the cluster asks it: by the Service, with the cache's own authority and an account's token.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{NAME, NAMESPACE, Release};

/// Where it is served.
const PORT: u16 = 7445;

impl Release<'_> {
    /// Makes an account in its namespace, unless there is one.
    pub fn create_account(&self, name: &str) -> Result<()> {
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}});
        self.cluster.kubectl_with_input(&["apply", "--filename", "-"], object.to_string().as_bytes()).map(drop)
    }

    /// A token of an account of its namespace.
    pub fn token(&self, account: &str, audience: &str) -> Result<String> {
        let create = ["create", "token", account, "--audience", audience, "--namespace", NAMESPACE];
        Ok(self.cluster.kubectl(&create)?.trim().to_owned())
    }

    /// Asks the control API; status and body.
    pub fn control(&self, method: &str, target: &str, token: &str) -> Result<(u16, Value)> {
        let (service, authority) = (format!("{NAME}-cache"), format!("{NAME}-cache-authority"));
        let object = self.cluster.get(&["service", &service, "--namespace", NAMESPACE])?;
        let address =
            object.pointer("/spec/clusterIP").and_then(Value::as_str).context("the Service has no address")?;
        let object = self.cluster.get(&["configmap", &authority, "--namespace", NAMESPACE])?;
        let authority = object.pointer("/data/ca.crt").and_then(Value::as_str).context("there is no authority yet")?;
        let node = self.cluster.nodes().first().context("there is no node")?;
        let host = format!("{NAME}-cache.{NAMESPACE}.svc:{PORT}");
        let script = format!(
            "printf '%s' \"$1\" >/run/control.pem && exec curl --silent --show-error --max-time 90 --cacert /run/control.pem --resolve {host}:{address} \
             --request {method} --header \"Authorization: Bearer $2\" --write-out '\\n%{{http_code}}' 'https://{host}{target}'"
        );
        let said = self.cluster.node_exec(node, &["sh", "-c", &script, "control", authority, token])?;
        let (body, status) = said.rsplit_once('\n').context("curl says no status")?;
        Ok((status.trim().parse()?, serde_json::from_str(body).unwrap_or_default()))
    }
}

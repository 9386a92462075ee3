//! etcd and kube-apiserver, with the rights of `docs/cluster-cache-rights.yaml`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use larder_test_node::http::{self, free_address};
use larder_test_node::process::Process;
use larder_test_origin::private_certificate;
use larder_test_parts::Parts;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait::{output, until};

/// As kubeadm calls it, which makes tokens of two clusters look alike.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const ADMINISTRATOR: &str = "administrator-of-the-test";

/// What the documentation says that the cache needs.
pub const RIGHTS: &str = include_str!("../../../docs/cluster-cache-rights.yaml");

/// The one that tests speak to.
pub struct ControlPlane {
    api_server: Option<Process>,
    etcd: Option<Process>,
    etcd_address: SocketAddr,
    etcd_peers: SocketAddr,
    address: SocketAddr,
    programs: PathBuf,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts one, with namespace `larder`, accounts `node`, `controller`, `stranger` and `larder-cache`, and the rights.
    pub fn start() -> Result<Self> {
        let parts = Parts::from_environment()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        let (etcd_address, etcd_peers) = (free_address()?, free_address()?);
        let certificate = private_certificate(&["127.0.0.1"]);
        let first = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let second = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        for (name, text) in [
            ("api.crt", certificate.certificate),
            ("api.key", certificate.key),
            ("ca.crt", certificate.authority),
            ("tokens", format!("{ADMINISTRATOR},admin,admin,system:masters\n")),
            ("first.key", first.serialize_pem()),
            ("first.pub", first.public_key_pem()),
            ("second.key", second.serialize_pem()),
            ("second.pub", second.public_key_pem()),
        ] {
            fs::write(path.join(name), text)?;
        }
        let programs = parts.module("kubernetes-1.34")?;
        let address = free_address()?;
        let mut plane = Self { api_server: None, etcd: None, etcd_address, etcd_peers, address, programs, folder };
        plane.start_etcd()?;
        plane.write_kubeconfig("admin", &format!("token: {ADMINISTRATOR}"))?;
        plane.start_api_server()?;
        plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: larder}}")?;
        for account in ["node", "controller", "stranger"] {
            plane.apply(&format!(
                "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {account}, namespace: larder}}}}"
            ))?;
        }
        plane.apply(RIGHTS)?;
        Ok(plane)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let (clients, peers) = (format!("http://{}", self.etcd_address), format!("http://{}", self.etcd_peers));
        let mut command = Command::new(Parts::from_environment()?.module("etcd")?.join("server"));
        command.arg("--data-dir").arg(self.etcd_data()).args(["--unsafe-no-fsync", "--name", "one"]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("one={peers}")]);
        self.etcd = Some(Process::start("etcd", self.folder.path(), &mut command)?);
        Ok(())
    }

    fn etcd_data(&self) -> PathBuf {
        self.folder.path().join("etcd")
    }

    /// Starts the API server, which signs tokens with its first key.
    pub fn start_api_server(&mut self) -> Result<()> {
        self.start_signing("first", &[])
    }

    /// Starts it with another key for tokens; those of the first stay good, as an administrator does it.
    pub fn start_with_another_key(&mut self) -> Result<()> {
        self.start_signing("second", &["first"])
    }

    fn start_signing(&mut self, key: &str, also_good: &[&str]) -> Result<()> {
        ensure!(self.api_server.is_none(), "it runs");
        let path = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(self.programs.join("kube-apiserver"));
        command.args(["--etcd-servers", &format!("http://{}", self.etcd_address)]);
        command.args(["--bind-address", "127.0.0.1", "--secure-port", &self.address.port().to_string()]);
        command.arg("--tls-cert-file").arg(path("api.crt")).arg("--tls-private-key-file").arg(path("api.key"));
        command.arg("--cert-dir").arg(path("certificates")).arg("--token-auth-file").arg(path("tokens"));
        // Image volumes are on by themselves from 1.35 on.
        command.args(["--feature-gates", "ImageVolume=true"]);
        command.args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24"]);
        command
            .args(["--service-account-issuer", ISSUER, "--service-account-signing-key-file"])
            .arg(path(&format!("{key}.key")));
        for key in [key].iter().chain(also_good) {
            command.arg("--service-account-key-file").arg(path(&format!("{key}.pub")));
        }
        let mut process = Process::start("kube-apiserver", self.folder.path(), &mut command)?;
        until("the API server is ready", || {
            process.check_running()?;
            // It has a moment in which it answers and its own roles are not there yet.
            self.kubectl(&["get", "--raw=/readyz"], "")?;
            self.kubectl(&["get", "clusterrole", "system:service-account-issuer-discovery"], "")
        })?;
        self.api_server = Some(process);
        Ok(())
    }

    /// SIGKILL of the API server.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    /// Has etcd forget all that was before now, as the API server does every five minutes: a watch that would go on from there has to list again.
    pub fn compact_etcd(&self) -> Result<()> {
        let head = self.ask_etcd("/v3/kv/range", &json!({ "key": "AA==" }))?;
        let revision = head.pointer("/header/revision").context("a revision")?.clone();
        self.ask_etcd("/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).map(drop)
    }

    /// As much happens in etcd as so many writes, and nothing that anybody would see.
    pub fn etcd_goes_on(&self, writes: usize) -> Result<()> {
        let put = json!({ "key": "AA==", "value": "AA==" });
        (0..writes).try_for_each(|_| self.ask_etcd("/v3/kv/put", &put).map(drop))
    }

    /// A backup of etcd as it is now. It stands still meanwhile, as if it were killed: whatever it has written is there.
    pub fn back_up_etcd(&self, name: &str) -> Result<()> {
        let etcd = self.etcd.as_ref().context("etcd runs")?;
        etcd.signal(Signal::SIGSTOP)?;
        let stopped = waitpid(etcd.pid(), Some(WaitPidFlag::WUNTRACED))?;
        ensure!(matches!(stopped, WaitStatus::Stopped(..)), "etcd: {stopped:?}");
        let copied = copy(&self.etcd_data(), &self.folder.path().join(name));
        etcd.signal(Signal::SIGCONT)?;
        copied
    }

    /// Stops the API server, puts etcd back to a backup, and starts the API server again, as is done with a real one. Versions are those of then.
    pub fn put_back_etcd(&mut self, name: &str) -> Result<()> {
        (self.api_server, self.etcd) = (None, None);
        fs::remove_dir_all(self.etcd_data())?;
        fs::rename(self.folder.path().join(name), self.etcd_data())?;
        self.start_etcd()?;
        self.start_api_server()
    }

    fn ask_etcd(&self, path: &str, question: &Value) -> Result<Value> {
        let reply = http::post(self.etcd_address, path, &question.to_string())?;
        ensure!(reply.status == 200, "etcd: {}", reply.text());
        let body = reply.body.into_iter().skip_while(|byte| *byte != b'{').collect::<Vec<_>>();
        let end = body.iter().rposition(|byte| *byte == b'}').context("no JSON")?;
        Ok(serde_json::from_slice(body.get(..=end).unwrap_or_default())?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn write_kubeconfig(&self, name: &str, user: &str) -> Result<PathBuf> {
        self.write_kubeconfig_at(name, user, self.address)
    }

    fn write_kubeconfig_at(&self, name: &str, user: &str, address: SocketAddr) -> Result<PathBuf> {
        let (path, authority) = (self.folder.path().join(name), self.folder.path().join("ca.crt"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n\
             clusters: [{{name: it, cluster: {{server: 'https://{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: it, user: {{{user}}}}}]\n",
            address,
            authority.display()
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A kubeconfig with a token of the cache's own account.
    pub fn kubeconfig_of_cache(&self) -> Result<PathBuf> {
        self.kubeconfig_of("larder-cache", None)
    }

    /// A kubeconfig with a token of an account of namespace `larder`; by way of another address, if one is named.
    pub fn kubeconfig_of(&self, account: &str, way: Option<SocketAddr>) -> Result<PathBuf> {
        let token = self.folder.path().join(format!("{account}-token"));
        fs::write(&token, self.kubectl(&["create", "token", account, "--namespace=larder"], "")?.trim())?;
        let address = way.unwrap_or(self.address);
        let name = format!("{account}-{}", address.port());
        self.write_kubeconfig_at(&name, &format!("tokenFile: '{}'", token.display()), address)
    }

    /// A kubeconfig of an administrator.
    pub fn administrator(&self) -> PathBuf {
        self.folder.path().join("admin")
    }

    /// A kubeconfig with a token.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.write_kubeconfig(name, &format!("token: {token}"))
    }

    /// Where the programs of this Kubernetes are.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// kubectl of an administrator.
    pub fn kubectl(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.administrator()).args(words);
        // Not the one of whoever runs the tests, which knows other clusters by the same addresses.
        command.arg("--cache-dir").arg(self.folder.path().join("kubectl"));
        output(&mut command, input)
    }

    /// As `kubectl apply`, which says what was changed.
    pub fn apply(&self, text: &str) -> Result<String> {
        self.kubectl(&["apply", "--filename=-"], text)
    }

    /// A field of an object of namespace `larder`, decoded.
    pub fn field(&self, kind: &str, name: &str, key: &str) -> Result<String> {
        let object: Value =
            serde_json::from_str(&self.kubectl(&["get", kind, name, "--namespace=larder", "--output=json"], "")?)?;
        let text = object.pointer(&format!("/data/{key}")).and_then(Value::as_str).unwrap_or_default();
        if kind == "configmap" {
            return Ok(text.to_owned());
        }
        Ok(String::from_utf8(base64::prelude::BASE64_STANDARD.decode(text)?)?)
    }

    /// Changes one field of a Secret as a person would.
    pub fn set_secret(&self, name: &str, key: &str, text: &str) -> Result<()> {
        let patch = json!({ "stringData": { key: text } }).to_string();
        self.kubectl(&["patch", "secret", name, "--namespace=larder", "--patch", &patch], "").map(drop)
    }

    /// A token as kubelet asks for it (`TokenRequest`).
    pub fn token(&self, account: &str, audience: &str) -> Result<String> {
        let audience = format!("--audience={audience}");
        let words = ["create", "token", account, "--namespace=larder", &audience, "--duration=10m"];
        Ok(self.kubectl(&words, "")?.trim().to_owned())
    }

    /// The same token, signed by the same key, but its time was over an hour ago.
    pub fn expired(&self, token: &str) -> Result<String> {
        let mut parts = token.split('.');
        let (header, claims) = (parts.next().context("a header")?, parts.next().context("claims")?);
        let mut claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
        for name in ["exp", "iat", "nbf"] {
            let time = claims.get_mut(name).with_context(|| format!("{name} of the token"))?;
            *time = json!(time.as_u64().unwrap_or_default().saturating_sub(2 * 3600));
        }
        let text = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let pair = KeyPair::from_pem_and_sign_algo(
            &fs::read_to_string(self.folder.path().join("first.key"))?,
            &PKCS_RSA_SHA256,
        )?;
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes())?)))
    }

    /// For files of tests.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

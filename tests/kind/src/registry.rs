//! A registry beside the cluster: the CNCF distribution in a container on the nodes' network, reachable from the machine as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::wait::until;
use serde_json::Value;

use crate::cache::Key;
use crate::certificate::{CERTIFICATE, Certificate, KEY};
use crate::command;
use crate::docker::{Docker, NETWORK};
use crate::image::{Configuration, Layer, archive};
use crate::machine::Machine;

/// Holds what kubeadm pulls, and never stops while there is a cluster.
pub const SYSTEM_REGISTRY: &str = "larder-test-system";
/// Holds the images of cases, which may stop it: what a public registry is for a real cluster.
pub const ORIGIN: &str = "registry.larder.test";

/// Holds images that are given to nobody without an account.
pub const PRIVATE: &str = "private.larder.test";

/// The only account of a registry that wants one: a name and a password.
pub const ACCOUNT: (&str, &str) = ("puller", "only-for-tests");
/// The same as htpasswd keeps it. bcrypt, which distribution reads alone; no secret of anybody.
const ACCOUNTS: &str = "puller:$2b$05$abcdefghijklmnopqrstuuDt8u8tY.Zm8YU.pieFNyF5h5afvnc0a\n";
/// The same as a client's configuration has it, in base64.
const AUTHENTICATION: &str = "cHVsbGVyOm9ubHktZm9yLXRlc3Rz";

const CONFIGURATION: &str = "version: 0.1\nlog: {accesslog: {disabled: false}}\nstorage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}\n";

/// A registry in a container of the same name.
pub struct Registry<'a> {
    docker: &'a Docker,
    name: &'static str,
    crane: PathBuf,
    authority: Option<PathBuf>,
    private: bool,
}

/// How a registry is started.
pub struct Options<'a> {
    /// Name of the container, and of the registry on the nodes' network.
    pub name: &'static str,
    /// With TLS on 443; else without on 5000.
    pub certificate: Option<&'a Certificate>,
    /// A folder of the machine that keeps its content, else it ends with the container.
    pub storage: Option<&'a Path>,
    /// Whether it wants [`ACCOUNT`] for everything.
    pub private: bool,
}

impl<'a> Registry<'a> {
    /// Starts one, in place of one of the same name.
    pub fn start(machine: &Machine, docker: &'a Docker, options: &Options<'_>) -> Result<Self> {
        let image = image(machine, docker)?;
        let this = Self::of(machine, docker, options)?;
        this.remove()?;
        let mut command = docker.command();
        command.args(["run", "--detach", "--name", options.name, "--network", NETWORK]);
        command.arg("--publish").arg(format!("127.0.0.1::{}", this.port()));
        command.arg("--env").arg(format!("REGISTRY_HTTP_ADDR=:{}", this.port()));
        if let Some(certificate) = options.certificate {
            command.arg("--volume").arg(format!("{}:/certificate:ro", certificate.folder.display()));
            command.arg("--env").arg(format!("REGISTRY_HTTP_TLS_CERTIFICATE=/certificate/{CERTIFICATE}"));
            command.arg("--env").arg(format!("REGISTRY_HTTP_TLS_KEY=/certificate/{KEY}"));
        }
        if options.private {
            command.args(["--env", "REGISTRY_AUTH=htpasswd", "--env", "REGISTRY_AUTH_HTPASSWD_REALM=larder"]);
            command.args(["--env", "REGISTRY_AUTH_HTPASSWD_PATH=/accounts"]);
        }
        if let Some(storage) = options.storage {
            command.arg("--volume").arg(format!("{}:/var/lib/registry", storage.display()));
        }
        command::run(command.arg(image))?;
        this.wait()?;
        Ok(this)
    }

    /// One that was started by an earlier run.
    pub fn of(machine: &Machine, docker: &'a Docker, options: &Options<'_>) -> Result<Self> {
        let authority = options.certificate.map(|certificate| certificate.authority.clone());
        Ok(Self { docker, name: options.name, crane: machine.parts.crane()?, authority, private: options.private })
    }

    /// Puts an image into it: an archive of `docker save`, or of an OCI layout, or a folder with one.
    pub fn push(&self, image: &Path, reference: &str) -> Result<()> {
        let target = format!("{}/{reference}", self.address()?);
        if image.is_file() && is_layout(image)? {
            let folder = tempfile::tempdir()?;
            command::run(Command::new("tar").arg("-xf").arg(image).arg("-C").arg(folder.path()))?;
            self.crane(&["push", "--index", &folder.path().to_string_lossy(), &target])?;
        } else {
            self.crane(&["push", &image.to_string_lossy(), &target])?;
        }
        Ok(())
    }

    /// The digest that a tag or digest resolves to.
    pub fn digest(&self, reference: &str) -> Result<String> {
        let said = self.crane(&["digest", &format!("{}/{reference}", self.address()?)])?;
        Ok(said.trim().to_owned())
    }

    /// Deletes a manifest, and with it every tag that leads to it.
    pub fn delete(&self, reference: &str) -> Result<()> {
        self.crane(&["delete", &format!("{}/{reference}", self.address()?)]).map(drop)
    }

    /// What an image consists of, by the hexadecimal digits of the digests: its manifest, its configuration, its layers.
    pub fn parts(&self, reference: &str) -> Result<Vec<String>> {
        let said = self.crane(&["manifest", &format!("{}/{reference}", self.address()?)])?;
        let manifest: Value = serde_json::from_str(&said).context("crane prints no manifest")?;
        let layers = manifest.get("layers").and_then(Value::as_array).context("a manifest without layers")?;
        let blobs = manifest.get("config").into_iter().chain(layers).filter_map(|blob| blob.get("digest")?.as_str());
        let own = self.digest(reference)?;
        let digits = std::iter::once(own.as_str()).chain(blobs).filter_map(|digest| digest.strip_prefix("sha256:"));
        Ok(digits.map(str::to_owned).collect())
    }

    /// An image of it, by the name that a Pod writes.
    pub fn reference(&self, image: &str) -> String {
        match self.authority {
            Some(_) => format!("{}/{image}", self.name),
            None => format!("{}:5000/{image}", self.name),
        }
    }

    /// Ends it: its name does not resolve any more, and its address answers nothing.
    pub fn stop(&self) -> Result<()> {
        self.docker.run(&["stop", "--time", "1", self.name]).map(drop)
    }

    /// Starts it again with what it held.
    pub fn restart(&self) -> Result<()> {
        self.docker.run(&["start", self.name])?;
        self.wait()
    }

    /// Freezes it: it takes connections and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.docker.run(&["pause", self.name]).map(drop)
    }

    /// The end of being frozen.
    pub fn thaw(&self) -> Result<()> {
        self.docker.run(&["unpause", self.name]).map(drop)
    }

    /// What it wrote, with a line for each request.
    pub fn log(&self) -> Result<String> {
        self.docker.log(self.name)
    }

    fn remove(&self) -> Result<()> {
        remove(self.docker, self.name)
    }

    fn wait(&self) -> Result<()> {
        until(&format!("registry {} answers", self.name), Duration::from_secs(30), || {
            self.crane(&["catalog", &self.address()?])
        })?;
        Ok(())
    }

    fn port(&self) -> u16 {
        if self.authority.is_some() { 443 } else { 5000 }
    }

    /// As the machine reaches it; another one after each start.
    fn address(&self) -> Result<String> {
        let said = self.docker.run(&["port", self.name, &format!("{}/tcp", self.port())])?;
        Ok(said.lines().next().with_context(|| format!("{} has no port on the machine", self.name))?.to_owned())
    }

    fn crane(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.crane);
        if let Some(authority) = &self.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        // Of whatever this machine's user is logged in to, nothing is meant for here.
        let configuration = tempfile::tempdir()?;
        let accounts = if self.private {
            serde_json::json!({"auths": {self.address()?: {"auth": AUTHENTICATION}}})
        } else {
            serde_json::json!({})
        };
        std::fs::write(configuration.path().join("config.json"), accounts.to_string())?;
        command::run(command.args(arguments).env("DOCKER_CONFIG", configuration.path()))
    }
}

/// Removes a registry with what it held.
pub fn remove(docker: &Docker, name: &str) -> Result<()> {
    if docker.run(&["container", "inspect", name]).is_ok() {
        docker.run(&["rm", "--force", "--volumes", name])?;
    }
    Ok(())
}

fn image(machine: &Machine, docker: &Docker) -> Result<String> {
    let program = machine.parts.registry()?;
    let key =
        Key::default().with(CONFIGURATION).with(ACCOUNTS).with_part(program.parent().unwrap_or(&program)).finish();
    let reference = format!("larder-test-registry:{key}");
    if docker.has_image(&reference) {
        return Ok(reference);
    }
    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::write(root.join("registry.yml"), CONFIGURATION)?;
    std::fs::write(root.join("accounts"), ACCOUNTS)?;
    std::fs::copy(program, root.join("registry")).context("could not copy the registry")?;
    let layer = Layer::pack(&root, &work.path().join("layer.tar"))?;
    let configuration = Configuration {
        entrypoint: &["/registry", "serve", "/registry.yml"],
        // Without it, it asks for a collector of traces that nobody runs.
        environment: &["OTEL_TRACES_EXPORTER=none"],
        stop_signal: None,
    };
    let file = work.path().join("image.tar");
    archive(&reference, &[layer], &configuration, &file)?;
    docker.load(&file, &reference)?;
    Ok(reference)
}

/// Whether an archive is an OCI layout and not also what `docker save` writes, which crane reads by itself.
fn is_layout(archive: &Path) -> Result<bool> {
    let names = command::run(Command::new("tar").arg("-tf").arg(archive))?;
    let has = |wanted: &str| names.lines().any(|name| name.trim_start_matches("./") == wanted);
    Ok(has("oci-layout") && !has("manifest.json"))
}

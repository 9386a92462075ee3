//! A real registry, the CNCF distribution, of which tags are given to other images.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use larder_test_callers::wait::{output, until};
use larder_test_node::http::{self, free_address};
use larder_test_node::process::Process;
use larder_test_origin::{Image, OciLayout};
use larder_test_parts::Parts;
use tempfile::TempDir;

/// A running process with a folder of its own.
pub struct Registry {
    process: Option<Process>,
    program: PathBuf,
    address: SocketAddr,
    crane: PathBuf,
    folder: TempDir,
}

impl Registry {
    /// Starts an empty one, without TLS.
    pub fn start() -> Result<Self> {
        let parts = Parts::from_environment()?;
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let settings = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("config.yml"), settings)?;
        let mut registry = Self { process: None, program: parts.registry()?, address, crane: parts.crane()?, folder };
        registry.start_again()?;
        Ok(registry)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it with what it had.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.folder.path().join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("registry", self.folder.path(), &mut command)?;
        until("the registry answers", || {
            process.check_running()?;
            ensure!(http::get(self.address, "/v2/", &[])?.status == 200, "it does not say 200");
            Ok(())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// As references name it.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Gives this tag to an image, whatever had it before; how Pods name it.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<String> {
        let layout = self.folder.path().join(format!("layout-{}", image.index.hex()));
        if !layout.exists() {
            OciLayout::write(&layout, image)?;
        }
        let reference = format!("{}/{repository}:{tag}", self.address);
        let mut command = Command::new(&self.crane);
        output(command.args(["push", "--insecure", "--index"]).arg(&layout).arg(&reference), "")?;
        Ok(reference)
    }
}

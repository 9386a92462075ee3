//! A real registry (CNCF distribution) that can be stopped, started and filled, and whose access log can be read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::http;
use larder_test_node::process::Process;
use larder_test_node::wait::until;
use larder_test_origin::{Image, OciLayout, PrivateCertificate};
use larder_test_parts::Parts;

pub(super) struct Registry {
    program: PathBuf,
    crane: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    tls: bool,
    process: Mutex<Option<Process>>,
}

impl Registry {
    /// With a certificate, or without TLS.
    pub(super) fn start(parts: &Parts, folder: &Path, tls: Option<&PrivateCertificate>) -> Result<Self> {
        let folder = folder.join("registry");
        std::fs::create_dir_all(&folder)?;
        let address = http::free_address()?;
        let mut tls_settings = String::new();
        if let Some(tls) = tls {
            let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
            std::fs::write(&certificate, &tls.certificate)?;
            std::fs::write(&key, &tls.key)?;
            tls_settings = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        }
        let configuration = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n{tls_settings}",
            folder.join("data").display()
        );
        std::fs::write(folder.join("config.yml"), configuration)?;
        let (program, crane, process) = (parts.registry()?, parts.crane()?, Mutex::new(None));
        let registry = Self { program, crane, folder, address, tls: tls.is_some(), process };
        registry.start_again()?;
        Ok(registry)
    }

    /// As references name it.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn start_again(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.folder.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("registry", &self.folder, &mut command)?;
        until("the registry answers", Duration::from_secs(20), || {
            process.check_running()?;
            // 400 is what Go says to somebody who forgot the TLS.
            let expected = if self.tls { 400 } else { 200 };
            ensure!(http::get(self.address, "/v2/", &[])?.status == expected, "it does not say {expected}");
            Ok(())
        })?;
        *self.process.lock().map_err(|_| anyhow::anyhow!("registry lock"))? = Some(process);
        Ok(())
    }

    /// SIGKILL: connecting is refused from now on.
    pub(super) fn stop(&self) -> Result<()> {
        let mut process = self.process.lock().map_err(|_| anyhow::anyhow!("registry lock"))?;
        process.take().context("the registry is not running")?.kill()?;
        ensure!(http::get(self.address, "/v2/", &[]).is_err(), "the registry still answers");
        Ok(())
    }

    /// Puts an image under `repository:tag`.
    pub(super) fn push(&self, reference: &str, image: &Image) -> Result<()> {
        let layout = self.folder.join("layout");
        if layout.exists() {
            std::fs::remove_dir_all(&layout)?;
        }
        OciLayout::write(&layout, image)?;
        let target = format!("{}/{reference}", self.address);
        let output =
            Command::new(&self.crane).args(["push", "--insecure", "--index"]).arg(&layout).arg(&target).output()?;
        ensure!(output.status.success(), "crane could not push {target}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Lines of the access log that hold all of these words.
    pub(super) fn asked(&self, words: &[&str]) -> usize {
        let log = std::fs::read(self.folder.join("registry.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // One line for a request, in the combined log format; the others are the program's own.
        log.lines()
            .filter(|line| line.contains(" HTTP/1.1\" ") || line.contains(" HTTP/2.0\" "))
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }
}

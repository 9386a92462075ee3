//! What a case asks of an engine, whichever it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use larder_cri::{Auth, Cri, Image};
use larder_test_parts::{CrioLine, EngineLine, Parts};
use tokio::runtime::Runtime;

use crate::containerd::{Containerd, ContainerdOptions};
use crate::crio::{Crio, CrioOptions};
use crate::tree::Tree;

/// A running engine in folders of its own.
pub trait Engine: Send + Sync {
    /// Which one, and its line.
    fn engine_line(&self) -> EngineLine;

    /// What speaks to its CRI socket.
    fn client(&self) -> &Client;

    /// The folders whose content must be the same before and after Larder.
    fn own_folders(&self) -> Vec<PathBuf>;

    /// Stops it and starts it again, with the same folders.
    fn restart(&self) -> Result<()>;

    /// The end of its log.
    fn last_lines(&self) -> String;

    /// What Larder places so that it asks the proxy first, as this test sees it.
    fn entry(&self) -> PathBuf;

    /// The folder of which `HOST:PORT/ca.crt` vouches for a registry.
    fn authorities(&self) -> PathBuf;

    /// How its own requests to registries begin in `user-agent`.
    fn user_agent(&self) -> &'static str {
        match self.engine_line() {
            EngineLine::Containerd(_) => "containerd",
            EngineLine::Crio(_) => "cri-o",
        }
    }

    /// Has it trust a registry's private authority, as an administrator does.
    fn trust(&self, registry: &str, authority: &str) -> Result<()> {
        let folder = self.authorities().join(registry);
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join("ca.crt"), authority)?)
    }

    /// The CRI socket.
    fn socket(&self) -> PathBuf {
        self.client().cri.socket().to_owned()
    }

    /// Pulls as kubelet does, without credentials.
    fn pull(&self, reference: &str) -> Result<Pulled> {
        self.pull_as(reference, None)
    }

    /// Pulls as kubelet does, with a Pod's credentials.
    fn pull_as(&self, reference: &str, auth: Option<Auth>) -> Result<Pulled> {
        self.client().pull(reference, auth)
    }

    /// Whether it stays with whoever gave it the manifest: where the rest does not come from there, the pull fails, and only kubelet's next
    /// try goes elsewhere. containerd asks the next host for each request.
    fn stays_after_the_manifest(&self) -> bool {
        matches!(self.engine_line(), EngineLine::Crio(_))
    }

    /// Whether it keeps what it read until it is told to read again, so that what Larder places is a file that outlives the agent. Where
    /// not, it is a link into the agent.
    fn keeps_what_it_read(&self) -> bool {
        matches!(self.engine_line(), EngineLine::Crio(_))
    }

    /// Whether it has to be told of each registry by name. Otherwise one entry is for all.
    fn needs_names(&self) -> bool {
        matches!(self.engine_line(), EngineLine::Crio(_))
    }

    /// Whether what Larder placed leads to the proxy.
    fn is_told_to_ask_us(&self) -> bool {
        self.entry().exists()
    }

    /// The folders whose content must be the same before and after Larder, as they are now.
    fn trees(&self) -> Result<Vec<Tree>> {
        self.own_folders().iter().map(|folder| Tree::read(folder)).collect()
    }

    /// Fails with the names of what differs from [`Engine::trees`] before.
    fn must_be_as_before(&self, before: &[Tree]) -> Result<()> {
        self.trees()?.iter().zip(before).try_for_each(|(now, before)| now.must_equal(before))
    }

    /// Pulls as kubelet does where the proxy cannot give what it promised: an engine that stays fails once, and never twice.
    fn pull_in_the_end(&self, reference: &str) -> Result<Pulled> {
        match self.pull(reference) {
            Err(_) if self.stays_after_the_manifest() => self.pull(reference).context("the second try"),
            answer => answer,
        }
    }

    /// Whether the engine has an image.
    fn has(&self, reference: &str) -> Result<bool> {
        Ok(self.client().image(reference)?.is_some())
    }

    /// Removes an image by each of its references, and its content with it.
    fn remove(&self, reference: &str) -> Result<()> {
        let client = self.client();
        // By a reference, CRI-O takes away no more than that.
        let named = client.image(reference)?.map_or_else(|| reference.to_owned(), |image| image.id);
        client.runtime.block_on(client.cri.remove_image(&named))?;
        ensure!(!self.has(reference)?, "{reference} is still there after it was removed");
        Ok(())
    }

    /// References of all images.
    fn images(&self) -> Result<Vec<String>> {
        let client = self.client();
        let images = client.runtime.block_on(client.cri.list_images())?;
        Ok(images.into_iter().flat_map(|image| image.tags.into_iter().chain(image.digests)).collect())
    }
}

/// Starts an engine of any line with nothing special about it.
pub fn start(line: EngineLine, folder: &Path) -> Result<Box<dyn Engine>> {
    start_knowing(line, folder, "")
}

/// Starts one that knows machines by these names: `/etc/hosts`, when it is not the machine's.
pub fn start_knowing(line: EngineLine, folder: &Path, hosts: &str) -> Result<Box<dyn Engine>> {
    let hosts = hosts.to_owned();
    Ok(match line {
        EngineLine::Containerd(line) => {
            Box::new(Containerd::start(line, folder, ContainerdOptions { hosts, ..ContainerdOptions::default() })?)
        }
        EngineLine::Crio(line) => Box::new(Crio::start(line, folder, CrioOptions { hosts, ..CrioOptions::default() })?),
    })
}

/// The program's version of a line: `2.4.2`.
pub fn version(line: EngineLine) -> Result<String> {
    let parts = Parts::from_environment()?;
    Ok(match line {
        EngineLine::Containerd(line) => parts.containerd(line)?.version,
        EngineLine::Crio(CrioLine::Library(_)) => parts.version(&line.to_string())?,
        EngineLine::Crio(line) => parts.crio(line)?.version,
    })
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image's reference as the engine has it.
    pub image: String,
    /// How long it took.
    pub took: Duration,
}

/// An engine's CRI socket, for callers that may block.
pub struct Client {
    runtime: Runtime,
    cri: Cri,
}

impl Client {
    /// Connects with the first call.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let cri = {
            let _context = runtime.enter();
            Cri::connect(socket)?
        };
        Ok(Self { runtime, cri })
    }

    /// Fails while the CRI service does not answer.
    pub fn check_answers(&self) -> Result<()> {
        self.runtime.block_on(self.cri.version())?;
        Ok(())
    }

    fn pull(&self, reference: &str, auth: Option<Auth>) -> Result<Pulled> {
        let started = Instant::now();
        let image = self
            .runtime
            .block_on(self.cri.pull_image(reference, auth, Duration::from_mins(2)))
            .with_context(|| format!("failed to pull {reference}"))?;
        Ok(Pulled { image, took: started.elapsed() })
    }

    fn image(&self, reference: &str) -> Result<Option<Image>> {
        Ok(self.runtime.block_on(self.cri.image(reference))?)
    }
}

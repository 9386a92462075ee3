//! What the steps share: a registry with an image, an engine, and where Larder will run.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_test_node::engine::{self, Engine};
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::folder;
use larder_test_node::tree::Tree;
use larder_test_origin::{Image, ImageSpec, private_certificate};
use larder_test_parts::{EngineLine, Parts};
use tempfile::TempDir;

use super::registry::Registry;
use super::story::{Told, seconds};
use crate::workspace;

pub(super) struct Stage {
    // Dropped in this order: who uses something goes before it.
    larder: OnceLock<Larder>,
    pub(super) engine: Box<dyn Engine>,
    pub(super) registry: Registry,
    pub(super) image: Image,
    pub(super) before: Vec<Tree>,
    program: PathBuf,
    folder: TempDir,
}

/// Some 60 MiB in layers as real images have them: one big, some middling, one tiny.
pub(super) fn image(seed: u64) -> Image {
    Image::build(&ImageSpec {
        layers: vec![30 << 20, 18 << 20, 11 << 20, 1 << 20, 4 << 10],
        seed,
        ..ImageSpec::default()
    })
}

impl Stage {
    pub(super) fn set(line: EngineLine, told: &Told) -> Result<Self> {
        let parts = Parts::from_environment()?;
        let program = workspace::build_program("larder-node", "dev")?;
        told.note(program.display().to_string());
        let folder = folder()?;
        let engine = engine::start(line, folder.path())?;
        // What an engine has to be told by name can be learnt only if nobody tells it, so its own files say whom to trust.
        let tls = engine.needs_names().then(|| private_certificate(&["127.0.0.1"]));
        let registry = Registry::start(&parts, folder.path(), tls.as_ref())?;
        let image = image(1);
        registry.push("shop/frontend:v1", &image)?;
        told.saw(format!(
            "registry: a real one (CNCF distribution) at {}, holding shop/frontend:v1, {} platforms, {:.0} MiB each",
            registry.name(),
            image.platforms.len(),
            mebibytes(image.host_size())
        ));
        let place = folder.path().display();
        told.saw(format!("engine:   {} {}, in folders of its own below {place}", name(line), engine::version(line)?));
        if let Some(tls) = &tls {
            engine.trust(&registry.name(), &tls.authority)?;
            told.saw("          it trusts the registry's private authority; of Larder nobody told it anything");
        }
        let before = engine.trees()?;
        Ok(Self { larder: OnceLock::new(), engine, registry, image, before, program, folder })
    }

    /// `larder-node run`, started when it is first wanted.
    pub(super) fn larder(&self) -> Result<&Larder> {
        self.larder.get().context("larder-node has not been started")
    }

    pub(super) fn options(&self) -> LarderOptions {
        let settings = format!(
            "[registries.\"{}\"]\ninsecure = true   # it is on this machine, without TLS\n",
            self.registry.name()
        );
        LarderOptions {
            registries: if self.engine.needs_names() { String::new() } else { settings },
            program: Some(self.program.clone()),
            ..LarderOptions::default()
        }
    }

    /// The command line, without running it.
    pub(super) fn prepare_larder(&self) -> Result<&Larder> {
        let larder = Larder::prepare(&*self.engine, self.folder.path(), &self.options())?;
        Ok(self.larder.get_or_init(|| larder))
    }

    pub(super) fn by_tag(&self) -> String {
        format!("{}/shop/frontend:v1", self.registry.name())
    }

    pub(super) fn by_digest(&self) -> String {
        format!("{}/shop/frontend@{}", self.registry.name(), self.image.index)
    }

    /// Another image in the registry, `shop/NAME:v1`; its reference.
    pub(super) fn push_another(&self, name: &str, image: &Image) -> Result<String> {
        self.registry.push(&format!("shop/{name}:v1"), image)?;
        Ok(format!("{}/shop/{name}:v1", self.registry.name()))
    }

    /// How often the registry was asked by the engine itself for a path that begins so.
    pub(super) fn asked_by_engine(&self, path: &str) -> usize {
        self.registry.asked(&["GET", path, &format!("{}/", self.engine.user_agent())])
            + self.registry.asked(&["HEAD", path, &format!("{}/", self.engine.user_agent())])
    }

    pub(super) fn store(&self) -> PathBuf {
        self.folder.path().join("larder/store")
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(super) fn logs(&self) -> String {
        let larder = self.larder.get().map(Larder::last_lines).unwrap_or_default();
        format!("larder-node says:\n{larder}\n\nthe engine says:\n{}", self.engine.last_lines())
    }

    /// Leaves everything running until a person has had enough.
    pub(super) fn play(&self) -> Result<()> {
        let larder = self.larder()?;
        larder.start_again()?;
        let registry = self.registry.name();
        let engine = self.engine.socket();
        println!(
            "It is running. To play with, in another terminal:\n\n  \
             curl -s http://{listen}/v2/{path}/shop/frontend/tags/list     # the proxy, as a person asks it\n  \
             curl -s http://{agent}/readyz; curl -s http://{agent}/status     # the agent\n  \
             curl -s http://{proxy}/metrics | grep ^larder\n  \
             cat {entry}                               # what the engine reads\n  \
             crictl --image-endpoint unix://{engine} images\n\n\
             The registry is {registry}. Press Enter to end it.",
            listen = larder.listen,
            path = registry.replace(':', "__"),
            agent = larder.agent_admin,
            proxy = larder.proxy_admin,
            entry = self.engine.entry().display(),
            engine = engine.display(),
        );
        std::io::stdin().read_line(&mut String::new())?;
        larder.stop()
    }
}

/// As people call it.
pub(super) fn name(line: EngineLine) -> &'static str {
    match line {
        EngineLine::Containerd(_) => "containerd",
        EngineLine::Crio(_) => "CRI-O",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `60 MiB in 0.42 s`
pub(super) fn pulled(bytes: u64, took: Duration) -> String {
    format!("{:.0} MiB in {}", mebibytes(bytes), seconds(took))
}

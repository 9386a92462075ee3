//! `cargo xtask image`: one OCI image with our programs, made without a container engine.
//!
//! It holds nothing but the programs (static), the certificate authorities that Mozilla trusts, and the names of two users. The same
//! commit and toolchain make the same digest: every time is the commit's, every name is sorted, no path of the machine is in a program.
//!
//! The flow: [`programs`] builds them, [`layer`] packs the file system, [`archive`] wraps it so that `kind load`, `skopeo`
//! and `ctr import` read it.

mod archive;
mod layer;
mod programs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::workspace;
use programs::{Architecture, Purpose};

/// The name of the image, as in the chart's values; the tag is the workspace's version.
const NAME: &str = "registry.example/larder";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For which processor; another one than this machine's needs its target and a linker for it
    #[arg(long, value_enum, default_value_t = Architecture::of_this_machine())]
    architecture: Architecture,

    /// Where the archive is put [default: larder-VERSION-ARCHITECTURE.tar in Cargo's target folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The name in the archive, without tag
    #[arg(long, default_value = NAME)]
    name: String,

    /// The tag in the archive [default: the workspace's version]
    #[arg(long)]
    tag: Option<String>,
}

/// What was made.
pub(crate) struct Built {
    /// The archive.
    pub(crate) path: PathBuf,
    /// Name and tag.
    pub(crate) reference: String,
    /// Of the manifest.
    pub(crate) digest: String,
    /// Bytes of the compressed layer.
    pub(crate) layer_size: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let built = build(arguments, Purpose::Use)?;
    println!("{}", built.path.display());
    let mebibytes = built.layer_size.div_ceil(1 << 20);
    println!("{} is {} (at most {mebibytes} MiB compressed)", built.reference, built.digest);
    Ok(ExitCode::SUCCESS)
}

/// What the command makes without any option, but compiled in less time: what tests and the demo put on a cluster.
pub(crate) fn build_for_tests() -> Result<Built> {
    let architecture = Architecture::of_this_machine();
    let output = Some(programs::target_folder()?.join("larder-for-tests.tar"));
    build(&Arguments { architecture, output, name: NAME.to_owned(), tag: None }, Purpose::Tests)
}

fn build(arguments: &Arguments, purpose: Purpose) -> Result<Built> {
    let commit = Commit::read()?;
    let programs = programs::build(arguments.architecture, purpose)?;
    let layer = layer::pack(&programs, commit.seconds)?;
    let tag = arguments.tag.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let described = archive::Described {
        reference: format!("{}:{tag}", arguments.name),
        architecture: arguments.architecture,
        revision: commit.hash,
        created: commit.time,
    };
    let archive = archive::wrap(&layer, &described)?;
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => programs::target_folder()?.join(format!(
            "larder-{}-{}.tar",
            env!("CARGO_PKG_VERSION"),
            arguments.architecture.name()
        )),
    };
    let temporary = path.with_extension("tar.new");
    std::fs::write(&temporary, &archive.bytes)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .with_context(|| format!("could not write {}", path.display()))?;
    let layer_size = layer.compressed.len() as u64;
    Ok(Built { path, reference: described.reference, digest: archive.digest, layer_size })
}

/// Whether what is built is the commit and nothing else.
fn is_clean() -> Result<bool> {
    let mut git = std::process::Command::new("git");
    git.current_dir(workspace::root()).args(["status", "--porcelain"]);
    let output = git.output().context("could not run git")?;
    Ok(output.status.success() && output.stdout.is_empty())
}

/// What the image is made of.
struct Commit {
    /// With a word behind it when there is more than the commit.
    hash: String,
    /// RFC 3339.
    time: String,
    seconds: u64,
}

impl Commit {
    fn read() -> Result<Self> {
        let mut git = std::process::Command::new("git");
        git.current_dir(workspace::root()).args(["log", "-1", "--format=%H %cI %ct"]);
        let output = git.output().context("could not run git")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = said.split_whitespace();
        match (words.next(), words.next(), words.next().and_then(|seconds| seconds.parse().ok())) {
            (Some(hash), Some(time), Some(seconds)) => {
                let changed = if is_clean()? { "" } else { "-dirty" };
                Ok(Self { hash: format!("{hash}{changed}"), time: time.to_owned(), seconds })
            }
            _ => anyhow::bail!(
                "git says nothing of a commit, whose time and hash go into the image: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        }
    }
}

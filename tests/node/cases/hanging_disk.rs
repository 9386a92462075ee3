//! The store's disk stops answering: a frozen file system lets reads of cached pages through and blocks every write for ever.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::Node;
use larder_test_origin::{Image, ImageSpec};
use larder_test_parts::EngineLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[Case::any("a_disk_that_hangs_does_not_hang_pulls", hangs)];

/// An ext4 in a file, which is thawed and unmounted at the end.
struct Disk {
    folder: PathBuf,
    file: PathBuf,
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("failed to run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Disk {
    fn mount() -> Result<Self> {
        let folder = larder_test_node::node::folder()?.keep();
        let file = folder.with_extension("img");
        std::fs::File::create(&file)?.set_len(256 << 20)?;
        let disk = Self { folder, file };
        run("mkfs.ext4", &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), disk.file.as_ref()])?;
        run("mount", &["-o".as_ref(), "loop,noatime".as_ref(), disk.file.as_ref(), disk.folder.as_ref()])?;
        Ok(disk)
    }

    fn freeze(&self) -> Result<()> {
        run("fsfreeze", &["--freeze".as_ref(), self.folder.as_ref()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["--unfreeze".as_ref(), self.folder.as_ref()]);
        let _ = run("umount", &["--lazy".as_ref(), self.folder.as_ref()]);
        let _ = std::fs::remove_dir(&self.folder);
        let _ = std::fs::remove_file(&self.file);
    }
}

fn hangs(line: EngineLine) -> Result<()> {
    let disk = Disk::mount()?;
    let node = Node::on_with(line, &ImageSpec::default(), |_, _| {
        Ok(LarderOptions { store: Some(disk.folder.join("store")), ..LarderOptions::default() })
    })?;
    node.engine.pull(&node.by_tag())?;
    node.engine.remove(&node.by_tag())?;
    disk.freeze()?;
    let cached = node.engine.pull(&node.by_tag())?;
    ensure!(
        cached.took < Duration::from_secs(10),
        "a cached image took {:?}\n{}",
        cached.took,
        node.larder.last_lines()
    );
    // What was never seen has to be written, which hangs: it goes through without being kept.
    node.origin.push("team/new", "v1", &Image::build(&ImageSpec { seed: 4, ..ImageSpec::default() }));
    let reference = format!("{}/team/new:v1", node.origin.registry());
    let new = node.engine.pull(&reference)?;
    ensure!(new.took < Duration::from_secs(15), "a new image took {:?}\n{}", new.took, node.larder.last_lines());
    node.engine.remove(&reference)?;
    // Once the disk is known to hang, nobody waits for it again.
    let again = node.engine.pull(&reference)?;
    ensure!(again.took < Duration::from_secs(8), "the next pull took {:?}\n{}", again.took, node.larder.last_lines());
    Ok(())
}

//! Builds a pinned Go program into the cache, unless it is there.
//!
//! Invariant: a folder with its final name is complete, for it gets that name, by rename, after everything in it was written out. Two
//! runs that want the same program take turns by a lock on a file, which the kernel releases when its holder dies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::pin::{InC, Pin, hexadecimal};

/// The folder with the program's commands.
pub fn built(pin: &Pin, cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let key = key(pin, &toolchain()?);
    let folder = cache.join(&key);
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(cache).with_context(|| format!("could not make {}", cache.display()))?;
    let lock_path = cache.join(format!(".{key}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("could not make {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        progress(&format!("{} is being built by another run; waiting for it", pin.name));
        lock.lock().with_context(|| format!("could not lock {}", lock_path.display()))?;
    }
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = cache.join(format!(".{key}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("could not remove {}", unfinished.display()))?;
    }
    fs::create_dir(&unfinished).with_context(|| format!("could not make {}", unfinished.display()))?;

    progress(&format!("building {} ({} {}), which takes a minute or two", pin.name, pin.module, pin.version));
    let began = Instant::now();
    run_go(pin, &unfinished, &cache.join(format!(".{key}.log")))?;
    for command in &pin.packages {
        let name = command_name(command);
        let path = unfinished.join(name);
        let written = File::open(&path).and_then(|file| file.sync_all());
        written.with_context(|| format!("go build left no {}", path.display()))?;
    }
    if let Some(program) = pin.in_c() {
        run_cc(&source(pin)?, program, &unfinished)?;
    }
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("could not move what was built to {}", folder.display()))?;
    progress(&format!("built {} in {:.0} s", pin.name, began.elapsed().as_secs_f64()));
    Ok(folder)
}

/// The folder with the module's own source, as the Go module cache keeps it: read-only, and the same for everybody.
pub fn source(pin: &Pin) -> Result<PathBuf> {
    let mut command = go();
    command.args(["mod", "download", "-json", &format!("{}@{}", pin.module, pin.version)]);
    let output = command.current_dir(&pin.folder).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("could not run go")?;
    let said = String::from_utf8(output.stdout).context("go mod download says something that is not text")?;
    ensure!(output.status.success(), "could not have the source of {}: {said}", pin.module);
    // One value to a line; a path that JSON would write with escapes is no module's.
    let folder = said.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.strip_suffix("\","));
    folder.map(PathBuf::from).with_context(|| format!("go mod download names no folder of {}", pin.module))
}

/// The folder's name: readable, and different whenever the program would be.
fn key(pin: &Pin, toolchain: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(&pin.hash);
    hasher.update(toolchain);
    let digest = hasher.finalize();
    let hash = hexadecimal(digest.get(..6).unwrap_or_default());
    // The line in a name such as "containerd-2.4" is the beginning of the version.
    let name = pin.name.rsplit_once('-').filter(|(_, line)| line.starts_with(|first: char| first.is_ascii_digit()));
    let name = name.map_or(pin.name.as_str(), |(name, _)| name);
    format!("{name}-{}-{hash}", pin.version.trim_start_matches('v'))
}

/// What `go` compiles with and for.
fn toolchain() -> Result<String> {
    let output = go().args(["env", "GOVERSION", "GOOS", "GOARCH"]).stderr(Stdio::inherit()).output();
    let output = output.context("could not run go: the test parts are built with Go 1.26 or newer")?;
    ensure!(output.status.success(), "go env failed");
    String::from_utf8(output.stdout).context("go env says something that is not text")
}

fn run_go(pin: &Pin, out: &Path, log: &Path) -> Result<()> {
    let log_file = File::create(log).with_context(|| format!("could not make {}", log.display()))?;
    let mut command = go();
    if pin.links_c() {
        command.env("CGO_ENABLED", "1");
    }
    command.arg("build").args(pin.flags()).arg("-o").arg(format!("{}/", out.display())).args(&pin.packages);
    command.stdin(Stdio::null());
    if pin.program.is_empty() {
        command.current_dir(&pin.folder);
    } else {
        command.current_dir(with_source(pin, log)?);
    }
    command.stdout(log_file.try_clone()?).stderr(log_file);
    let status = command.status().context("could not run go")?;
    if !status.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("go: downloading")).collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n");
        bail!("could not build {} ({status}); the end of {}:\n{tail}", pin.name, log.display());
    }
    Ok(())
}

/// A folder beside `log` with a program of ours and the pin of its library.
fn with_source(pin: &Pin, log: &Path) -> Result<PathBuf> {
    let folder = log.with_extension("source");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    for name in ["go.mod", "go.sum"] {
        let to = folder.join(name);
        fs::copy(pin.folder.join(name), &to).with_context(|| format!("could not write {}", to.display()))?;
    }
    for (name, text) in &pin.program {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(folder)
}

/// Compiles a program in C from the module's source.
fn run_cc(source: &Path, program: InC, out: &Path) -> Result<()> {
    let folder = source.join(program.sources);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    let path = out.join(program.name);
    // Rust has it linked with the same.
    let output = Command::new("cc").args(program.flags).arg("-o").arg(&path).args(&files).stdin(Stdio::null()).output();
    let output = output.context("could not run cc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "could not compile {}: {}", program.name, said.trim());
    File::open(&path).and_then(|file| file.sync_all()).with_context(|| format!("cc left no {}", path.display()))
}

/// `go` with nothing in its environment that would change what comes out.
fn go() -> Command {
    let mut command = Command::new("go");
    command.env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS").env_remove("GOEXPERIMENT");
    command
}

/// The name that `go build` gives a command: the last part of its path that is no major version.
fn command_name(package: &str) -> &str {
    let is_major =
        |part: &str| part.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    package.rsplit('/').find(|part| !is_major(part)).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command of the standard library: it needs no network and builds in a second or two.
    fn pin(folder: &Path) -> Pin {
        fs::write(folder.join("go.mod"), "module x\n\ngo 1.26\n").unwrap();
        Pin {
            name: "gofmt-1".to_owned(),
            folder: folder.to_owned(),
            module: "cmd".to_owned(),
            version: "v1.2.3".to_owned(),
            packages: vec!["cmd/gofmt".to_owned()],
            program: Vec::new(),
            hash: "0".to_owned(),
        }
    }

    #[test]
    fn a_major_version_is_no_name() {
        assert_eq!(command_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(command_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
    }

    #[test]
    fn builds_once_and_clears_what_a_killed_run_left() {
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pin = pin(source.path());
        let leftover = cache.path().join(format!(".{}.unfinished", key(&pin, &toolchain().unwrap())));
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("gofmt"), "half").unwrap();

        let said = std::sync::Mutex::new(Vec::new());
        let progress = |line: &str| said.lock().unwrap().push(line.to_owned());
        // Two at the same moment, as two test runs would be.
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| built(&pin, cache.path(), &progress));
            (built(&pin, cache.path(), &progress).unwrap(), other.join().unwrap().unwrap())
        });
        assert_eq!(first, second);
        assert!(first.file_name().unwrap().to_str().unwrap().starts_with("gofmt-1.2.3-"));
        let started = said.lock().unwrap().iter().filter(|line| line.starts_with("building")).count();
        assert_eq!(started, 1, "{said:?}");
        assert!(fs::metadata(first.join("gofmt")).unwrap().len() > 100_000);
        assert!(!leftover.exists());
    }

    #[test]
    fn a_failed_build_leaves_no_folder_and_says_why() {
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut pin = pin(source.path());
        pin.packages = vec!["cmd/nothing".to_owned()];
        let error = built(&pin, cache.path(), &|_| ()).unwrap_err();
        assert!(error.to_string().contains("cmd/nothing"), "{error}");
        let left = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| name.to_string_lossy().starts_with('.')));
    }
}

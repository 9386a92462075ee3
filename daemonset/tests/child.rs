//! The proxy as a child process: it gives root up, reaches its folders all the same, and ends with its parent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USER: u32 = 65532;

struct Proxy {
    child: Child,
    admin: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail when it has ended, which is as well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Below a folder that only its owner can pass, as a home is.
fn start(closed: &Path) -> anyhow::Result<Proxy> {
    let run_folder = closed.join("proxy");
    std::fs::create_dir(&run_folder)?;
    std::fs::write(run_folder.join("key"), "07".repeat(32))?;
    std::fs::write(run_folder.join("registries.toml"), "")?;
    let admin = free_address()?;
    let child = Command::new(env!("CARGO_BIN_EXE_larder-node"))
        .args(["proxy", "--until-stdin-closes", "--run-folder"])
        .arg(&run_folder)
        .args(["--listen", &free_address()?.to_string(), "--admin", &admin.to_string()])
        .args(["--store", &format!("directory:{}", closed.join("store").display()), "--store-size", "1GiB"])
        .args(["--user", &USER.to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    Ok(Proxy { child, admin })
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_is_nobody_serves_and_ends_with_its_parent() {
    let closed = tempfile::tempdir().unwrap();
    let mut proxy = start(closed.path()).unwrap();
    until("ready", || get(proxy.admin, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200")));

    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(field("Uid:"), vec![USER.to_string(); 4]);
        assert_eq!(field("Gid:"), vec![USER.to_string(); 4]);
        assert!(field("Groups:").is_empty(), "{:?}", field("Groups:"));
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
    } else {
        eprintln!("SKIPPED: giving root up, because this is not root");
    }

    drop(proxy.child.stdin.take());
    let ended = until("the end", || proxy.child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_proxy_that_waits_for_its_agent_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder-node"))
        .args(["proxy", "--store", "memory:1MB", "--log-format", "json", "--run-folder"])
        .arg(folder.path().join("not-made-yet"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says so once it listens to signals.
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for the agent") && line.starts_with('{'), "{line}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = until("the end", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "ended by itself, as the first process of a container has to: {ended}");
}

#[test]
fn a_run_folder_that_cannot_be_looked_into_is_an_error_and_not_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_larder-node"))
        .args(["proxy", "--store", "memory:1MB", "--run-folder"])
        .arg(file.join("proxy"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--user"), "{said}");
}

#[test]
fn wrong_usage_is_two_and_a_failure_is_one() {
    let code = |arguments: &[&str]| {
        let program = Command::new(env!("CARGO_BIN_EXE_larder-node")).args(arguments).output().unwrap();
        (program.status.code(), String::from_utf8(program.stderr).unwrap())
    };
    assert_eq!(code(&["plan", "--no-such-flag"]).0, Some(2));
    assert_eq!(code(&[]).0, Some(2));
    let (status, words) = code(&["plan", "--cri-socket", "/nonexistent/engine.sock"]);
    assert_eq!(status, Some(1));
    assert!(words.contains("/nonexistent/engine.sock"), "{words}");
    assert_eq!(code(&["--help"]).0, Some(0));
}

#[test]
fn a_store_is_made_ready_for_a_proxy_that_cannot_do_so_itself() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("below/store");
    for round in ["made", "there already"] {
        let done = Command::new(env!("CARGO_BIN_EXE_larder-node"))
            .args(["prepare-store", "--store", &format!("directory:{}", store.display()), "--user", &USER.to_string()])
            .status();
        assert!(done.unwrap().success(), "{round}");
        for path in [store.as_path(), &store.join("version")] {
            let owner = std::fs::metadata(path).unwrap().uid();
            let expected = if nix::unistd::geteuid().is_root() { USER } else { nix::unistd::geteuid().as_raw() };
            assert_eq!(owner, expected, "{round}: {}", path.display());
        }
    }
}

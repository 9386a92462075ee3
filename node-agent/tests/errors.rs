//! What a person reads when something fails: an error says its causes itself, once, so that a rendered chain repeats nothing.

use std::io;
use std::path::PathBuf;

use larder_node_agent::change::ChangeError;
use larder_node_agent::engine::EngineError;
use larder_node_agent::engine::detect::DetectError;
use larder_node_agent::host::HostError;
use larder_node_agent::listener::sockets::SocketsError;
use larder_node_agent::placement::PlacementError;

fn denied() -> io::Error {
    io::Error::from_raw_os_error(13)
}

fn path() -> PathBuf {
    PathBuf::from("/run/x")
}

fn host() -> HostError {
    HostError::Io { operation: "write", path: path(), cause: io::Error::from_raw_os_error(5) }
}

fn all() -> Vec<anyhow::Error> {
    vec![
        host().into(),
        EngineError::Host(host()).into(),
        EngineError::Detect(DetectError::Connect { socket: path(), cause: denied() }).into(),
        DetectError::Proc { path: path(), cause: denied() }.into(),
        ChangeError::Host(host()).into(),
        ChangeError::HalfDone {
            cause: Box::new(host()),
            undo: Box::new(HostError::Full { path: path() }),
            left: vec![],
        }
        .into(),
        PlacementError::Io { path: path(), cause: denied() }.into(),
        PlacementError::Namespace { what: "unshare", cause: nix::Error::EPERM }.into(),
        SocketsError::from(nix::Error::EPERM).into(),
    ]
}

#[test]
fn no_rendered_chain_repeats_itself_or_hides_the_cause() {
    for error in all() {
        let (said, rendered) = (error.to_string(), format!("{error:#}"));
        assert_eq!(rendered, said, "the chain adds something to what the error says");
        for cause in ["os error 13", "os error 5", "EPERM"] {
            assert!(rendered.matches(cause).count() <= 1, "{rendered}");
        }
        assert!(["os error 13", "os error 5", "EPERM"].iter().any(|cause| rendered.contains(cause)), "{rendered}");
    }
}

#[test]
fn a_missing_permission_says_what_to_do() {
    let connect = DetectError::Connect { socket: path(), cause: denied() };
    for error in [connect.to_string(), HostError::Denied { path: path() }.to_string()] {
        let is_root = nix::unistd::geteuid().is_root();
        let advice = if is_root { "root is refused too" } else { "run it as root" };
        assert!(error.contains("/run/x") && error.contains(advice), "{error}");
    }
    let none = DetectError::None { looked: vec![path()] }.to_string();
    for word in ["/run/x", "start the engine", "--cri-socket", "--host-root"] {
        assert!(none.contains(word), "{none}");
    }
}

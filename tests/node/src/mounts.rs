//! A program that sees files of its own where this machine has others.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounts each word at the next one, up to `--`, and becomes what comes after it.
const SCRIPT: &str = r#"
set -e
while [ "$1" != -- ]; do
    [ -e "$2" ] || mkdir -p "$2"
    mount --bind "$1" "$2"
    shift 2
done
shift
exec "$@"
"#;

/// `program`, for which each of `mounts` (what, where) is at its place. Where this machine has no such folder, an empty one is made.
pub fn seeing(mounts: &[(PathBuf, PathBuf)], program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    for (what, place) in mounts {
        command.arg(what).arg(place);
    }
    command.arg("--").arg(program);
    command
}

//! Holds a private mount with one target until its standard input ends, as an agent does: what the placement tests kill.
//!
//! `holds-a-private-mount MOUNT-POINT ENGINE-PID`; prints the folder of targets as the engine sees it, then obeys the
//! words `announce` and `withdraw`, one a line, and repeats each when it is done.

use larder_node_agent::placement::{Placement, PrivateMount};
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let point = arguments.next().map(PathBuf::from).ok_or("no mount point")?;
    let engine = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).ok_or("no process id of an engine")?;
    let mount = PrivateMount::enter(&point)?;
    let placement = Placement::in_private_mount(&mount, engine)?;
    placement.write(Path::new("_default/hosts.toml"), b"of the agent")?;
    placement.announce()?;
    println!("{}", placement.targets().display());
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.as_str() {
            "announce" => placement.announce()?,
            "withdraw" => placement.withdraw()?,
            other => return Err(format!("what is {other}?").into()),
        }
        println!("{line}");
    }
    Ok(())
}

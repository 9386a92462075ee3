//! Keeping what this process inherited open from the programs that it starts.
#![expect(unsafe_code, reason = "nothing safe changes a descriptor that is known by its number alone")]

use std::fs;
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Sets close-on-exec on every descriptor but the standard ones. Nothing of this process notices.
pub(super) fn close_on_exec() -> Result<()> {
    for entry in fs::read_dir("/proc/self/fd").context("could not read /proc/self/fd")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|number| *number > 2);
        let Some(number) = number else { continue };
        // SAFETY: it is not -1, and it is used for this call only, which reads and writes nothing through it. Should another thread
        // close it meanwhile, the kernel says EBADF, or sets a flag that std sets on all of its descriptors anyhow.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            Ok(_) | Err(Errno::EBADF) => {}
            Err(error) => return Err(error).with_context(|| format!("could not keep descriptor {number} here")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_gets_none_of_them() {
        let file = fs::File::open("/proc/self/status").unwrap();
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let of_children = || {
            let output = Command::new("sh").args(["-c", "readlink /proc/$$/fd/*"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(of_children().contains("/status"), "the file was not inherited before");
        close_on_exec().unwrap();
        assert!(!of_children().contains("/status"), "{}", of_children());
    }
}

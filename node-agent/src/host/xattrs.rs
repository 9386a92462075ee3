//! Extended attributes of an open file: read all, or make them exactly those that are wanted.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
};

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr},
    io::Errno,
};

/// What the kernel allows for the list of names, and for one value.
const MOST: usize = 64 * 1024;

/// All that we may see; none where the file system has none.
pub(super) fn read(file: BorrowedFd<'_>) -> Result<BTreeMap<OsString, Vec<u8>>, Errno> {
    let mut list = vec![0; MOST];
    let length = match flistxattr(file, list.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    list.truncate(length);
    let mut xattrs = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MOST];
        match fgetxattr(file, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                xattrs.insert(OsStr::from_bytes(name).to_owned(), value);
            }
            // Gone since it was listed, or listed although the file system does not hand it out.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

/// Sets what differs and removes what is not wanted; a security label that the kernel gave by itself stays if none is wanted.
pub(super) fn write(file: BorrowedFd<'_>, wanted: &BTreeMap<OsString, Vec<u8>>) -> Result<(), Errno> {
    let present = read(file)?;
    for (name, value) in wanted {
        if present.get(name) != Some(value) {
            fsetxattr(file, name.as_os_str(), value, XattrFlags::empty())?;
        }
    }
    for name in present.keys().filter(|name| !wanted.contains_key(*name) && !name.as_bytes().starts_with(b"security."))
    {
        fremovexattr(file, name.as_os_str())?;
    }
    Ok(())
}

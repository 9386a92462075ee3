//! A folder laid out like a node's root: made, photographed, compared.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, Uid, fchown, openat2},
    io::Errno,
};

use crate::host::{Attributes, Host, Kind, Occupant, Owner, RootedHost, Timestamp};

/// Where the journal is in these trees; `/var/lib` is there, `larder` is not.
pub(super) const FOLDER: &str = "/var/lib/larder/node-agent";

/// Begins and ends the block that these tests splice into administrators' files.
pub(super) const BEGIN: &[u8] = b"# larder begin\n";
pub(super) const END: &[u8] = b"# larder end\n";

#[derive(Debug, Clone)]
pub(super) enum Node {
    File { bytes: Vec<u8>, mode: u32, uid: u32, xattr: Option<Vec<u8>>, modified: i64 },
    Link { target: String, uid: u32 },
    Directory { mode: u32, uid: u32 },
}

pub(super) struct Tree {
    folder: tempfile::TempDir,
    pub(super) host: RootedHost,
}

/// What one name is, with everything that must come back. Times of directories are not among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
    modified: Option<(i64, i64)>,
    xattrs: Option<Attributes>,
}

/// Gives the directory `path` below `root` to `uid`, by links that end within `root` as they do for the host.
fn own(root: &Path, path: &Path, uid: u32) {
    let root = fs::File::open(root).unwrap();
    let inside = path.strip_prefix("/").unwrap();
    let directory = loop {
        match openat2(&root, inside, OFlags::RDONLY, Mode::empty(), ResolveFlags::IN_ROOT) {
            // A rename anywhere on the machine disturbs the kernel's look at a `..` (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => break opened.unwrap(),
        }
    };
    fchown(directory, Some(Uid::from_raw(uid)), None).unwrap();
}

impl Tree {
    /// In memory where there is such a place, because these tests sync thousands of times.
    pub(super) fn new(nodes: &[(String, Node)]) -> Self {
        let memory = Path::new("/dev/shm");
        let at =
            if fs::metadata(memory).is_ok_and(|found| found.is_dir()) { memory.into() } else { std::env::temp_dir() };
        Self::new_in(&at, nodes)
    }

    pub(super) fn new_in(at: &Path, nodes: &[(String, Node)]) -> Self {
        let folder = tempfile::Builder::new().prefix("larder-change-").tempdir_in(at).expect("a temporary folder");
        fs::create_dir_all(folder.path().join("var/lib")).unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        let host = RootedHost::open(folder.path()).unwrap();
        let root = rustix::process::geteuid().is_root();
        let owner = |uid: u32| root.then_some(Owner { uid, gid: uid });
        let xattrs_work = xattrs_work(&host);
        for (path, node) in nodes {
            let path = Path::new(path);
            let parent = host.metadata(path.parent().unwrap());
            if !parent.is_ok_and(|it| it.kind == Kind::Directory) || host.exists(path).unwrap() {
                continue;
            }
            match node {
                Node::File { bytes, mode, uid, xattr, modified } => {
                    let xattrs = xattr.clone().filter(|_| xattrs_work);
                    let attributes = Attributes {
                        // Only root reads what it may not read.
                        mode: if root { *mode } else { *mode | 0o600 },
                        owner: owner(*uid),
                        modified: Some(Timestamp { seconds: *modified, nanoseconds: 123_000_000 }),
                        xattrs: Some(xattrs.into_iter().map(|value| ("user.larder-test".into(), value)).collect()),
                    };
                    host.write(path, bytes, &attributes, &Occupant::Absent).unwrap();
                }
                Node::Link { target, uid } => {
                    host.stage_link(path, Path::new(target), owner(*uid)).unwrap();
                    host.commit(path, &Occupant::Absent).unwrap();
                }
                Node::Directory { mode, uid } => {
                    host.create_directory(path, *mode | 0o700).unwrap();
                    if root {
                        own(folder.path(), path, *uid);
                    }
                }
            }
        }
        Self { folder, host }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn file(&self, path: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), bytes).unwrap();
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
    }

    pub(super) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn reopened(&self) -> RootedHost {
        RootedHost::open(self.folder.path()).unwrap()
    }

    /// Everything, the journal too.
    pub(super) fn photograph(&self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        self.walk(Path::new("/"), &mut seen);
        seen
    }

    /// Everything but the journal, with times of files or without.
    pub(super) fn photograph_of_engine(&self, with_times: bool) -> BTreeMap<String, Seen> {
        let mut seen = self.photograph();
        seen.retain(|path, _| !path.starts_with("/var/lib/larder"));
        if !with_times {
            for seen in seen.values_mut() {
                seen.modified = None;
                if let Some(attributes) = &mut seen.xattrs {
                    attributes.modified = None;
                }
            }
        }
        seen
    }

    fn walk(&self, directory: &Path, seen: &mut BTreeMap<String, Seen>) {
        for entry in self.host.list(directory).unwrap() {
            let path = directory.join(&entry.name);
            let real = self.path(path.to_str().unwrap());
            let metadata = fs::symlink_metadata(&real).unwrap();
            let content = match entry.kind {
                Kind::File => fs::read(&real).unwrap(),
                Kind::Link => fs::read_link(&real).unwrap().into_os_string().into_encoded_bytes(),
                Kind::Directory | Kind::Other => Vec::new(),
            };
            let is_file = entry.kind == Kind::File;
            let now = Seen {
                kind: entry.kind,
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                content,
                modified: is_file.then(|| (metadata.mtime(), metadata.mtime_nsec())),
                xattrs: is_file.then(|| self.host.attributes(&path).unwrap()),
            };
            seen.insert(path.to_str().unwrap().to_owned(), now);
            if entry.kind == Kind::Directory {
                self.walk(&path, seen);
            }
        }
    }
}

/// tmpfs has `user.*` attributes only since Linux 6.6.
pub(super) fn xattrs_work(host: &RootedHost) -> bool {
    let path = Path::new("/xattr-probe");
    let xattrs = Some([("user.larder-test".into(), b"1".to_vec())].into());
    let works = host.write(path, b"", &Attributes { xattrs, ..Attributes::new(0o600) }, &Occupant::Absent).is_ok();
    if let occupant @ Occupant::Is(_) = host.occupant(path).unwrap() {
        host.remove(path, &occupant).unwrap();
    }
    works
}

pub(super) fn splice(bytes: &[u8]) -> Vec<u8> {
    [BEGIN, b"asks the proxy\n", END, bytes].concat()
}

/// What an engine's adapter does for its own format.
pub(super) fn unsplice(bytes: &[u8]) -> Option<Vec<u8>> {
    let find = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
    let (begin, end) = (find(BEGIN)?, find(END)? + END.len());
    (begin < end).then(|| [&bytes[..begin], &bytes[end..]].concat())
}

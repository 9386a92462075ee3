//! Files that the proxy needs and may not read: token and CA of the cluster cache, where they are root's alone.
//!
//! The proxy reads them before it gives root up. When they change later it is nobody, so this process, which is root still, leaves copies
//! in the run folder, where the proxy looks for what it is refused. They go with this process ([`Copies`]). Where somebody else starts
//! the proxy, how it gets them is theirs to say.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larder_proxy::cluster_cache::{CA_COPY, TOKEN_COPY};
use larder_proxy::small_file;
use tokio_util::sync::CancellationToken;

use crate::args::ClusterCacheArgs;
use crate::run_folder::RunFolder;

/// As often as the proxy looks at them.
const LOOK: Duration = Duration::from_secs(5);

/// The copies, which are of no use to anybody once the proxy has ended: whoever drops this last removes them.
#[derive(Debug)]
pub(crate) struct Copies {
    files: HandedOn,
    folder: Arc<RunFolder>,
}

impl Copies {
    /// What could not be copied is said, and tried again ([`Self::follow`]).
    pub(crate) fn of(files: HandedOn, folder: Arc<RunFolder>) -> Self {
        if let Some(problem) = files.look(&folder) {
            tell(&problem);
        }
        Self { files, folder }
    }

    /// Brings them up to date from time to time, until `shutdown`.
    pub(crate) fn follow(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        self.files.clone().follow(Arc::clone(&self.folder), shutdown)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for (_, copy) in &self.files.0 {
            if let Err(error) = self.folder.remove_copy(copy) {
                tracing::warn!(error = format!("{error:#}"), "a copy for the proxy is left behind: remove it");
            }
        }
    }
}

fn tell(problem: &str) {
    tracing::warn!(problem, "the proxy does not learn of a changed token or CA of the cluster cache");
}

/// The files, and what their copies are called. One that is not named any more leaves none.
#[derive(Debug, Clone)]
pub(crate) struct HandedOn([(Option<PathBuf>, &'static str); 2]);

impl HandedOn {
    pub(crate) fn new(args: &ClusterCacheArgs) -> Self {
        Self([(args.cache_ca.clone(), CA_COPY), (args.cache_token_file.clone(), TOKEN_COPY)])
    }

    /// Brings the copies up to date; what could not be done. Blocks.
    fn look(&self, folder: &RunFolder) -> Option<String> {
        let mut problem = None;
        for (path, copy) in &self.0 {
            let done = match path.as_ref().map(|path| (path, small_file::read(path))) {
                None => folder.remove_copy(copy),
                Some((_, Ok(bytes))) => folder.write_copy(copy, &bytes),
                // The proxy, too, is to see that it is gone.
                Some((_, Err(error))) if error.kind() == io::ErrorKind::NotFound => folder.remove_copy(copy),
                Some((path, Err(error))) => Err(anyhow::anyhow!("read {}: {error}", path.display())),
            };
            if let Err(error) = done {
                problem.get_or_insert(format!("{error:#}"));
            }
        }
        problem
    }

    /// The same from time to time, until `shutdown`.
    async fn follow(self, folder: Arc<RunFolder>, shutdown: CancellationToken) {
        let mut told = None;
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let (files, to) = (self.clone(), Arc::clone(&folder));
            let looked = tokio::task::spawn_blocking(move || files.look(&to)).await;
            let problem = looked.unwrap_or_else(|error| Some(error.to_string()));
            if problem != told
                && let Some(problem) = &problem
            {
                tell(problem);
            }
            told = problem;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use nix::unistd::{Gid, Uid};

    use super::*;
    use crate::config::User;

    #[test]
    fn copies_go_with_the_agent_and_are_given_to_the_proxy_of_another_user() {
        let outer = tempfile::tempdir().unwrap();
        let token = outer.path().join("token");
        std::fs::write(&token, "secret").unwrap();
        let files = HandedOn([(None, CA_COPY), (Some(token), TOKEN_COPY)]);
        let names = |folder: &RunFolder| {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_str().unwrap().contains("cache-")).count()
        };
        let open = |gid| {
            let user = User { uid: Uid::from_raw(65532), gid: Gid::from_raw(gid) };
            Arc::new(RunFolder::open(&outer.path().join("run"), user, "").unwrap())
        };
        // An agent that is killed leaves a copy, and what it was about to write.
        let killed = open(65533);
        assert_eq!(files.look(&killed), None);
        std::fs::write(killed.path().join(format!(".{TOKEN_COPY}.new")), "secr").unwrap();
        drop(killed);
        let folder = open(65534);
        let copies = Copies::of(files, Arc::clone(&folder));
        if crate::privileges::is_root() {
            assert_eq!(std::fs::metadata(folder.path().join(TOKEN_COPY)).unwrap().gid(), 65534);
        }
        drop(copies);
        assert_eq!(names(&folder), 0);
    }

    #[test]
    fn copies_follow_their_files_and_are_nobody_elses() {
        let outer = tempfile::tempdir().unwrap();
        let user = User { uid: Uid::from_raw(65532), gid: Gid::from_raw(65533) };
        let folder = RunFolder::open(&outer.path().join("run"), user, "").unwrap();
        let token = outer.path().join("token");
        let files = HandedOn([(None, CA_COPY), (Some(token.clone()), TOKEN_COPY)]);
        let copy = folder.path().join(TOKEN_COPY);
        assert_eq!((files.look(&folder), copy.exists()), (None, false), "it is not there yet");
        for text in ["one", "another", ""] {
            std::fs::write(&token, text).unwrap();
            assert_eq!(files.look(&folder), None);
            assert_eq!(std::fs::read_to_string(&copy).unwrap(), text);
            assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o640);
        }
        std::fs::remove_file(&token).unwrap();
        assert_eq!((files.look(&folder), copy.exists()), (None, false));
        std::fs::create_dir(&token).unwrap();
        assert!(files.look(&folder).unwrap().contains("no regular file"));
    }
}

//! `plan`, `apply`, `status` and `restore` as a person types them, on the files of a node that no engine runs on.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    const CONFIG: &str =
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";

    struct Node {
        root: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("etc/containerd/certs.d")).unwrap();
            std::fs::create_dir_all(root.path().join("run")).unwrap();
            std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
            std::fs::write(root.path().join("etc/containerd/config.toml"), CONFIG).unwrap();
            Self { root }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join(path.trim_start_matches('/'))
        }

        fn larder(&self, words: &[&str]) -> Output {
            let mut command = Command::new(env!("CARGO_BIN_EXE_larder-node"));
            // No agent answers there.
            command.args(words).args(["--admin", "127.0.0.1:1", "--host-root"]).arg(self.root.path()).output().unwrap()
        }

        fn done(&self, words: &[&str]) -> String {
            let output = self.larder(words);
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        }

        /// Where the entry for every registry leads, if it does.
        fn entry(&self) -> Option<PathBuf> {
            let target = std::fs::read_link(self.at("etc/containerd/certs.d/_default")).ok()?;
            let inside = self.at(target.to_str()?);
            inside.join("hosts.toml").is_file().then_some(inside)
        }

        fn in_run(&self) -> Vec<PathBuf> {
            let Ok(entries) = std::fs::read_dir(self.at("run/larder")) else { return Vec::new() };
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    }

    fn damage(journal: &Path) {
        let newest = std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        std::fs::write(newest.unwrap().join("manifest.json"), "nonsense").unwrap();
    }

    #[test]
    fn a_second_apply_that_fails_leaves_the_first_at_work() {
        let node = Node::new();
        node.done(&["apply"]);
        let entry = node.entry().expect("the first apply placed an entry");
        damage(&node.at("var/lib/larder/node"));
        // Something is to be changed, so the journal is needed.
        let failed = node.larder(&["apply", "--listen", "127.0.0.1:7555"]);
        let said = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains("is damaged") && said.contains("away to go on without it"), "{said}");
        assert_eq!(node.entry(), Some(entry));
    }

    #[test]
    fn a_first_apply_that_fails_leaves_no_folder_behind() {
        let node = Node::new();
        std::fs::create_dir_all(node.at("var/lib/larder")).unwrap();
        std::fs::write(node.at("var/lib/larder/node"), "no folder").unwrap();
        assert_eq!(node.larder(&["apply"]).status.code(), Some(1));
        assert_eq!(node.in_run(), Vec::<PathBuf>::new());
        assert_eq!(node.entry(), None);
    }

    #[test]
    fn what_was_applied_is_shown_as_placed_and_can_be_taken_back() {
        let node = Node::new();
        assert!(node.done(&["restore", "--dry-run"]).contains("nothing of ours is there"));
        node.done(&["apply"]);
        let status = node.done(&["status"]);
        assert!(status.contains("placed     every other registry: default-link"), "{status}");
        assert!(status.contains("placed by hand"), "{status}");
        assert!(!status.contains("left on the node"), "{status}");

        let plan = node.done(&["restore", "--dry-run"]);
        assert!(plan.contains("- link /etc/containerd/certs.d/_default"), "{plan}");
        let plan: serde_json::Value =
            serde_json::from_str(&node.done(&["restore", "--dry-run", "--output=json"])).unwrap();
        assert_eq!(plan["plan"]["changes"][0]["path"], "/etc/containerd/certs.d/_default");
        assert!(node.entry().is_some(), "a dry run changes nothing");

        node.done(&["restore"]);
        assert!(!node.at("etc/containerd/certs.d/_default").is_symlink());
        let status = node.done(&["status"]);
        assert!(!status.contains("placed") && !status.contains("left on the node"), "{status}");
    }

    #[test]
    fn restore_needs_no_engine_but_to_see_what_was_kept() {
        // Dry runs, because they look at the very machine; whether an engine runs on it makes no difference.
        let restore = |state: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_larder-node"));
            let output = command.args(["restore", "--dry-run", "--state-dir"]).arg(state).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let kept = tempfile::tempdir().unwrap();
        let (code, said) = restore(kept.path());
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = restore(Path::new("/nonexistent/larder"));
        if std::fs::read_dir("/proc/1/root").is_ok() {
            assert_eq!(code, Some(0), "{said}");
        } else {
            // Nothing of the node is seen from here: "nothing of ours is there" would be a guess.
            assert!(code == Some(1) && said.contains("--host-root"), "{code:?}: {said}");
        }
    }

    #[test]
    fn a_value_that_makes_no_sense_is_wrong_usage() {
        let node = Node::new();
        for words in [
            &["apply", "--state-dir", "relative"][..],
            &["plan", "--listen", "127.0.0.1:0"],
            &["run", "--store", "nonsense"],
            &["run", "--user", "x"],
            &["proxy", "--store-size", "0", "--store", "directory:/nonexistent/x"],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_larder-node"));
            let output = command.args(words).args(["--admin", "127.0.0.1:0"]).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
            assert!(said.contains("wrong usage: --"), "{said}");
        }
        assert_eq!(node.larder(&["plan", "--exit-code"]).status.code(), Some(3));
    }

    #[test]
    fn a_status_of_nothing_at_all_is_a_failure() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-node"));
        let output = command.args(["status", "--admin", "127.0.0.1:1", "--cri-socket", "/nonexistent/x.sock"]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains("engine     none found") && page.contains("/nonexistent/x.sock"), "{page}");
    }
}

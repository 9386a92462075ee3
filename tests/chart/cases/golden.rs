//! Golden directories: values, and what helm makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use larder_test_chart::helm::Helm;
use larder_test_chart::objects::{Object, objects};

/// A test of one golden directory.
pub(crate) type Test = (&'static str, fn(&Helm, &Golden) -> Result<()>);

pub(crate) const TESTS: &[Test] = &[("rendered", rendered), ("lint", lint)];

/// One directory.
#[derive(Clone, Debug)]
pub(crate) struct Golden {
    folder: PathBuf,
    kubernetes: Option<String>,
}

impl Golden {
    pub(crate) fn all() -> Result<Vec<Self>> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
        let mut all = Vec::new();
        for entry in fs::read_dir(&golden).with_context(|| format!("read {}", golden.display()))? {
            let folder = entry?.path();
            let kubernetes = fs::read_to_string(folder.join("kube-version")).ok();
            all.push(Self { folder, kubernetes: kubernetes.map(|version| version.trim().to_owned()) });
        }
        all.sort_by(|one, other| one.folder.cmp(&other.folder));
        ensure!(all.len() >= 12, "there are {} golden directories in {}", all.len(), golden.display());
        Ok(all)
    }

    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn values(&self) -> PathBuf {
        self.folder.join("values.yaml")
    }

    pub(crate) fn render(&self, helm: &Helm) -> Result<String> {
        helm.template(&self.values(), self.kubernetes.as_deref(), &[])
    }

    /// What an install sends.
    pub(crate) fn objects(&self, helm: &Helm) -> Result<Vec<Object>> {
        Ok(objects(&self.render(helm)?)?.into_iter().filter(|object| !object.is_hook()).collect())
    }

    /// What `helm test` sends.
    pub(crate) fn hooks(&self, helm: &Helm) -> Result<Vec<Object>> {
        Ok(objects(&self.render(helm)?)?.into_iter().filter(Object::is_hook).collect())
    }
}

fn rendered(helm: &Helm, case: &Golden) -> Result<()> {
    let (now, path) = (without_definitions(&case.render(helm)?), case.folder.join("rendered.yaml"));
    if std::env::var("LARDER_GOLDEN").is_ok_and(|word| word == "write") {
        return fs::write(&path, now).with_context(|| format!("write {}", path.display()));
    }
    let known = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut lines = known.lines().zip(now.lines()).enumerate();
    if let Some((number, (known, now))) = lines.find(|(_, (known, now))| known != now) {
        bail!("{}:{}: it was\n{known}\nand is\n{now}\n(LARDER_GOLDEN=write takes it over)", path.display(), number + 1);
    }
    ensure!(known == now, "{} has {} bytes, the rendering {}", path.display(), known.len(), now.len());
    Ok(())
}

/// The definitions of custom resources are a thousand lines, the same ones each time; `definitions` compares them with what was made.
fn without_definitions(rendered: &str) -> String {
    let documents = rendered.split("\n---\n").map(|document| match document.split_once("\nspec:\n") {
        Some((head, _)) if document.contains("\nkind: CustomResourceDefinition\n") => {
            format!("{head}\nspec: (files/crds)")
        }
        _ => document.to_owned(),
    });
    documents.collect::<Vec<_>>().join("\n---\n")
}

fn lint(helm: &Helm, case: &Golden) -> Result<()> {
    helm.lint(&case.values(), case.kubernetes.as_deref())
}

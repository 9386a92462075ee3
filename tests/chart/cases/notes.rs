//! What helm says after an install is true for the values that it was given.

use anyhow::{Result, ensure};
use larder_test_chart::helm::Helm;

pub(crate) const TESTS: &[crate::Test] = &[("notes::are_true", are_true)];

const POOL: &str = "name: a, nodeLabel: {key: k, values: [v]}";

fn are_true(helm: &Helm) -> Result<()> {
    let (nobody, crio, edited) =
        ("still registry.example", "CRI-O is told of each registry", "but for the config_path");
    let openshift = "oc label namespace larder-system";
    let (pending, emptied, alone) =
        ("If its Pod stays Pending", "Its images go when its Pod is replaced", "what it pulled itself");
    let (safe, none, old) = ("kubectl get cachedimages", "There is no controller", "want Kubernetes 1.30");
    let mirrors = "kubectl get nodemirrors";
    let differs = "nodes do not ask it for the images of that registry";
    for (values, says, does_not_say) in [
        ("{}".to_owned(), vec![nobody], vec![crio, edited, openshift]),
        ("image: {registry: harbor.corp.example}".to_owned(), vec![], vec![nobody]),
        ("engine: crio".to_owned(), vec![crio], vec!["cannot configure"]),
        ("openshift: {enabled: true}".to_owned(), vec![openshift], vec![]),
        (format!("pools: [{{{POOL}, engine: crio}}]"), vec![crio], vec![]),
        (format!("pools: [{{{POOL}, engine: crio, enabled: false}}]"), vec![], vec![crio]),
        ("agent: {engineRestart: {allow: true}}".to_owned(), vec![edited], vec![]),
        (format!("pools: [{{{POOL}, agent: {{engineRestart: {{allow: true}}}}}}]"), vec![edited], vec![]),
        (
            "store: {type: emptyDir}".to_owned(),
            vec!["as they were found; the cluster cache's stay"],
            vec!["images stay"],
        ),
        (
            "store: {type: emptyDir}\ncache: {enabled: false}".to_owned(),
            vec!["as they were found.", alone],
            vec![pending, "stay"],
        ),
        ("{}".to_owned(), vec![pending, "stay in the claim larder-cache."], vec![emptied, alone]),
        ("cache: {store: {existingClaim: mine}}".to_owned(), vec!["stay in the claim mine."], vec![]),
        ("cache: {store: {type: emptyDir}}".to_owned(), vec![emptied], vec![pending, "claim larder-cache."]),
        (
            "cache: {external: {url: 'https://cache.example'}}".to_owned(),
            vec!["https://cache.example before", none, differs, "unless it was started with --kubernetes"],
            vec![pending, alone, "larder-cache", safe],
        ),
        (
            "cache: {external: {url: 'https://cache.example'}}\nagent: {kubernetes: false}".to_owned(),
            vec!["https://cache.example before"],
            vec![differs],
        ),
        ("{}".to_owned(), vec![safe], vec![none]),
        ("cache: {enabled: false}".to_owned(), vec![none, "cache.enabled"], vec![safe, old]),
        ("controller: {enabled: false}".to_owned(), vec![mirrors], vec![none, safe]),
        (
            "serviceAccount: {create: false}".to_owned(),
            vec![safe, "would have the agents' rights"],
            vec![none, mirrors],
        ),
        ("agent: {kubernetes: false}".to_owned(), vec![safe], vec![none, mirrors, "do not speak", differs]),
        ("{}".to_owned(), vec![mirrors], vec![differs]),
        ("cache: {kubernetes: false}".to_owned(), vec![mirrors, differs], vec!["--kubernetes"]),
        ("cache: {enabled: false}".to_owned(), vec![mirrors], vec![differs]),
    ] {
        let notes = helm.notes(&values)?;
        for words in says {
            ensure!(notes.contains(words), "{values}: it does not say {words:?}:\n{notes}");
        }
        for words in does_not_say {
            ensure!(!notes.contains(words), "{values}: it says {words:?}:\n{notes}");
        }
    }
    Ok(())
}

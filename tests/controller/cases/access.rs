//! Who may read and write what: `chart/files/access.yaml`, tried with real tokens.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use kube::Client;
use larder_test_controller::{Answer, GROUP, World, until};
use larder_test_node::process::Process;
use serde_json::{Value, json};

const ACCESS: &str = include_str!("../../../chart/files/access.yaml");

/// Two nodes, a Pod on each, and rights as the agent's role will have them.
const NODES: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: one}}
- {apiVersion: v1, kind: Node, metadata: {name: two}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: remover, namespace: kube-system}}
- apiVersion: v1
  kind: Pod
  metadata: {name: agent-one, namespace: larder}
  spec: {nodeName: one, serviceAccountName: node, containers: [{name: agent, image: a}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: agent-two, namespace: larder}
  spec: {nodeName: two, serviceAccountName: node, containers: [{name: agent, image: a}]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: mirrors}
  rules:
  - {apiGroups: [larder.dev], resources: [nodemirrors, nodemirrors/status], verbs: [get, create, update, patch]}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: mirrors}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: mirrors}
  subjects:
  - {kind: ServiceAccount, name: node, namespace: larder}
  - {kind: ServiceAccount, name: remover, namespace: kube-system}
";

fn get(world: &World, path: &str) -> Result<Value> {
    world.get(path)?.done()
}

/// A client with a token as kubelet asks for it: bound to a Pod.
fn of_pod(world: &World, pod: &str) -> Result<Client> {
    let uid = get(world, &format!("/api/v1/namespaces/larder/pods/{pod}"))?["metadata"]["uid"]
        .as_str()
        .context("uid")?
        .to_owned();
    let (name, uid) = (format!("--bound-object-name={pod}"), format!("--bound-object-uid={uid}"));
    let words = ["create", "token", "node", "--namespace=larder", "--bound-object-kind=Pod", &name, &uid];
    let token = world.plane.kubectl(&words, "")?;
    world.client(pod, token.trim())
}

fn mirror(world: &World, name: &str, owner: &str) -> Result<Value> {
    let uid = get(world, &format!("/api/v1/nodes/{owner}"))?["metadata"]["uid"].clone();
    Ok(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "NodeMirror",
        "metadata": {
            "name": name, "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": owner, "uid": uid }],
        },
    }))
}

fn create(world: &World, who: &Client, object: &Value, query: &str) -> Result<Answer> {
    world.send(who, Method::POST, &format!("{GROUP}/nodemirrors{query}"), "application/json", object.to_string())
}

/// As the agent writes it: server-side apply of the status.
fn status(world: &World, who: &Client, name: &str) -> Result<Answer> {
    let text = json!({ "apiVersion": "larder.dev/v1alpha1", "kind": "NodeMirror", "status": { "agentVersion": "1" } });
    let path = format!("{GROUP}/nodemirrors/{name}/status?fieldManager=larder-node&force=true");
    world.send(who, Method::PATCH, &path, "application/apply-patch+yaml", text.to_string())
}

fn patch(world: &World, who: &Client, name: &str, metadata: &Value) -> Result<Answer> {
    let text = json!({ "metadata": metadata }).to_string();
    world.send(who, Method::PATCH, &format!("{GROUP}/nodemirrors/{name}"), "application/merge-patch+json", text)
}

fn label(world: &World, who: &Client, name: &str) -> Result<Answer> {
    patch(world, who, name, &json!({ "labels": { "a": "b" } }))
}

/// Whoever takes over a node keeps nobody from deleting its object, the definition or the release, and puts nothing on it that tools of others go by.
fn a_node_gives_its_mirror_nothing_but_its_owner(world: &World, one: &Client) -> Result<()> {
    let mirror = mirror(world, "one", "one")?;
    let owner = &mirror["metadata"]["ownerReferences"][0];
    let with = |field: &str, value: Value| {
        let mut owner = owner.clone();
        owner[field] = value;
        owner
    };
    let (finalizers, owners) = ("adds no finalizer", "the owner of a NodeMirror is its Node");
    let labels = "labels and annotations are for people";
    for (metadata, words) in [
        (json!({ "finalizers": ["evil.example/stay"] }), finalizers),
        (json!({ "finalizers": ["foregroundDeletion"] }), finalizers),
        (json!({ "ownerReferences": [with("blockOwnerDeletion", json!(true))] }), owners),
        (json!({ "ownerReferences": [with("controller", json!(true))] }), owners),
        (json!({ "ownerReferences": [with("kind", json!("Pod"))] }), owners),
        (json!({ "ownerReferences": [with("apiVersion", json!("evil.example/v1"))] }), owners),
        (json!({ "ownerReferences": [owner, with("uid", json!("0"))] }), owners),
        (json!({ "ownerReferences": [] }), owners),
        (json!({ "labels": { "app.kubernetes.io/managed-by": "Helm" } }), labels),
        (json!({ "annotations": { "argocd.argoproj.io/tracking-id": "shop:/Pod:a/b" } }), labels),
        (json!({ "annotations": { "a": "a".repeat(200_000) } }), labels),
    ] {
        let asked = format!("{metadata:.120}");
        patch(world, one, "one", &metadata)?.refused(422, words).with_context(|| asked.clone())?;
        // And from the first moment.
        let mut made = mirror.clone();
        for (field, value) in metadata.as_object().into_iter().flatten() {
            made["metadata"][field] = value.clone();
        }
        create(world, one, &made, "?dryRun=All")?.refused(422, words).with_context(|| asked)?;
    }
    patch(world, one, "one", &json!({ "ownerReferences": [with("blockOwnerDeletion", json!(false))] }))?.done()?;

    // What somebody else put there stays, and keeps the node from nothing; what is there may be taken away.
    let theirs = json!({
        "labels": { "team": "web" }, "annotations": { "seen-by": "me" }, "finalizers": ["people.example/look"],
    });
    patch(world, &world.admin, "one", &theirs)?.done()?;
    status(world, one, "one")?.done()?;
    patch(world, one, "one", &json!({ "ownerReferences": [owner] }))?.done()?;
    let other = json!({ "finalizers": ["people.example/look", "evil.example/stay"] });
    patch(world, one, "one", &other)?.refused(422, finalizers)?;
    patch(world, one, "one", &json!({ "labels": { "team": "db" } }))?.refused(422, labels)?;
    patch(world, one, "one", &json!({ "annotations": null }))?.refused(422, labels)?;
    patch(world, one, "one", &json!({ "finalizers": null }))?.done()?;
    let theirs = get(world, &format!("{GROUP}/nodemirrors/one"))?["metadata"].clone();
    ensure!(theirs["labels"] == json!({ "team": "web" }) && theirs["finalizers"].is_null(), "{theirs}");
    Ok(())
}

pub(crate) fn a_node_writes_its_own_mirror_only(world: &World) -> Result<()> {
    world.plane.apply(NODES)?;
    world.plane.apply(ACCESS)?;
    let (one, two) = (&of_pod(world, "agent-one")?, &of_pod(world, "agent-two")?);
    let (mirror_one, mirror_two) = (mirror(world, "one", "one")?, mirror(world, "two", "two")?);
    let not_its_own = "this token is of the node one, which writes its own NodeMirror only";
    // A policy is in force a moment after it was made, and so are rights.
    until("the policy is in force", || create(world, one, &mirror_two, "?dryRun=All")?.refused(403, not_its_own))?;

    let mut without_owner = mirror_one.clone();
    without_owner["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    create(world, one, &without_owner, "")?.refused(422, "the owner of a NodeMirror is its Node")?;
    create(world, one, &mirror(world, "one", "two")?, "")?.refused(422, "the owner of a NodeMirror is its Node")?;
    create(world, one, &mirror_one, "")?.done()?;
    create(world, two, &mirror_two, "")?.done()?;
    status(world, one, "one")?.done()?;
    status(world, one, "two")?.refused(403, not_its_own)?;
    label(world, one, "two")?.refused(403, not_its_own)?;
    a_node_gives_its_mirror_nothing_but_its_owner(world, one)?;

    // The same account, with a token that is bound to nothing.
    let unbound = &world
        .client("unbound", world.plane.kubectl(&["create", "token", "node", "--namespace=larder"], "")?.trim())?;
    status(world, unbound, "one")?.refused(403, "whose token names that node")?;
    create(world, unbound, &mirror(world, "three", "one")?, "")?.refused(403, "whose token names that node")?;

    // People with rights, and what removes objects with their owners.
    label(world, &world.admin, "two")?.done()?;
    let remover = world.plane.kubectl(&["create", "token", "remover", "--namespace=kube-system"], "")?;
    let remover = world.client("remover", remover.trim())?;
    patch(world, &remover, "one", &json!({ "ownerReferences": null }))?.done()?;
    // Whom somebody took the owner from still says how the node is.
    status(world, one, "one")?.done()?;
    ensure!(
        get(world, &format!("{GROUP}/nodemirrors/one"))?["status"]["agentVersion"] == "1",
        "what was written is what is there"
    );
    Ok(())
}

fn may(world: &World, user: &str, verb: &str, resource: &str) -> Result<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": { "user": user, "resourceAttributes": { "group": "larder.dev", "verb": verb, "resource": resource } },
    });
    let answer = world.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)?.done()?;
    Ok(answer["status"]["allowed"] == true)
}

pub(crate) fn who_may_view_sees_images(world: &World) -> Result<()> {
    world.plane.apply(ACCESS)?;
    for role in ["view", "edit", "admin"] {
        world.plane.apply(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {role}-of-all}}, \
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}, \
             subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {role}er}}]}}"
        ))?;
    }
    // It is what adds one role to another.
    let mut command = Command::new(world.plane.programs().join("kube-controller-manager"));
    command.arg("--kubeconfig").arg(world.plane.administrator()).args(["--leader-elect=false", "--secure-port=0"]);
    command.arg("--controllers=clusterrole-aggregation-controller");
    let mut controllers = Process::start("kube-controller-manager", world.plane.folder(), &mut command)?;
    until("whoever may view sees images", || {
        controllers.check_running()?;
        ensure!(may(world, "viewer", "list", "cachedimages")?, "not yet");
        ensure!(may(world, "adminer", "list", "cachedimages")?, "not yet");
        Ok(())
    })?;
    for user in ["viewer", "editer", "adminer"] {
        for resource in ["upstreamregistries", "nodemirrors"] {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
                ensure!(!may(world, user, verb, resource)?, "{user} may {verb} {resource}");
            }
        }
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            ensure!(!may(world, user, verb, "cachedimages")?, "{user} may {verb} cachedimages");
        }
    }
    ensure!(!may(world, "nobody", "list", "cachedimages")?, "whoever has no role sees nothing");
    Ok(())
}

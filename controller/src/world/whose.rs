//! Whose an object is: by who owns what is meant by it, which is its image, and not by who has ever touched it.
//!
//! Who sets a field and unsets it again, or notes something on an object, stays in its `managedFields` for good, and means nothing by that. Who made an object
//! owns `spec.image`, and so does who applies it by the server. Who applies it in the client (`kubectl apply`, Argo CD) writes only what differs, which the
//! image of an object that was there already does not; each of these leaves an annotation by which it knows its own again, or is known by its name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::FIELD_MANAGER;
use crate::decide::expiry::MadeBy;

/// What those leave on an object who have it in a file or a release, and do not own its image for that.
const DECLARED: [&str; 3] = [
    // `kubectl apply`, Argo CD.
    "kubectl.kubernetes.io/last-applied-configuration",
    // Argo CD that replaces.
    "argocd.argoproj.io/tracking-id",
    // Helm 3 that adopts.
    "meta.helm.sh/release-name",
];

/// Who writes whole objects from a file, by its name in `managedFields`: of the image that is there already the API server does not make it an owner, and some
/// leave no note.
const REPLACERS: [&str; 3] = ["kubectl-replace", "argocd-application-controller", "kapp"];

/// Who made a `CachedImage`, or says that it is to be there. Nothing is lost for want of a word: where nobody owns the image it is a person's.
pub(super) fn made_by(meta: &ObjectMeta) -> MadeBy {
    let fields = meta.managed_fields.as_deref().unwrap_or_default();
    let replaces = |entry: &ManagedFieldsEntry| entry.manager.as_deref().is_some_and(|name| REPLACERS.contains(&name));
    let is_noted = meta.annotations.iter().flatten().any(|(key, _)| DECLARED.contains(&key.as_str()));
    let is_declared = is_noted || of_itself(fields).any(replaces);
    let mut owners = of_itself(fields).filter(|entry| owns_image(entry)).peekable();
    let is_ours = owners.peek().is_some() && owners.all(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    if is_ours && !is_declared { MadeBy::Controller } else { MadeBy::Person }
}

fn owns_image(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:image").is_some())
}

/// Who wrote to an object itself. What is written to its status makes it nobody's.
fn of_itself(fields: &[ManagedFieldsEntry]) -> impl Iterator<Item = &ManagedFieldsEntry> {
    fields.iter().filter(|entry| entry.subresource.is_none())
}

/// Whether the controller made an object, and nobody else has written to it: of one that is there to be edited every edit is meant.
pub(crate) fn is_ours_alone(fields: &[ManagedFieldsEntry]) -> bool {
    let mut writers = of_itself(fields).peekable();
    let is_ours = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    writers.peek().is_some() && writers.all(is_ours)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the API server writes it (1.34), which names each field by itself.
    fn owned(pointers: &[&str]) -> Value {
        let mut fields = json!({});
        for pointer in pointers {
            let mut at = &mut fields;
            for key in pointer.split('/') {
                at = &mut at[format!("f:{key}")];
            }
            *at = json!({});
        }
        fields
    }

    const IMAGE: &str = "spec/image";
    const RETAIN: &str = "spec/retain";
    const NOTE: &str = "metadata/annotations/note";

    fn entry(manager: &str, operation: &str, pointers: &[&str]) -> Value {
        json!({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": owned(pointers)})
    }

    fn of(annotation: Option<&str>, entries: &[Value]) -> MadeBy {
        let annotations = annotation.map(|key| json!({ key: "x" }));
        made_by(&serde_json::from_value(json!({"annotations": annotations, "managedFields": entries})).unwrap())
    }

    #[test]
    fn an_object_is_of_who_means_its_image() {
        let ours = entry(FIELD_MANAGER, "Apply", &[IMAGE, "metadata/labels/larder.dev~1registry"]);
        let mut status = entry(FIELD_MANAGER, "Apply", &["status/digest"]);
        status["subresource"] = json!("status");
        let mut odd = entry("anybody", "Update", &[IMAGE]);
        odd["subresource"] = json!("status");
        let [last_applied, tracking, release] = DECLARED.map(Some);
        let cases: &[(&str, Option<&str>, &[Value], MadeBy)] = &[
            ("the controller's", None, &[ours.clone(), status.clone()], MadeBy::Controller),
            ("whose status somebody writes", None, &[ours.clone(), odd], MadeBy::Controller),
            (
                "retained, and not any more",
                None,
                &[ours.clone(), entry("kubectl-patch", "Update", &[RETAIN]), status.clone()],
                MadeBy::Controller,
            ),
            ("edited", None, &[ours.clone(), entry("kubectl-edit", "Update", &["spec/expiry"])], MadeBy::Controller),
            (
                "annotated",
                Some("note"),
                &[ours.clone(), entry("kubectl-annotate", "Update", &[NOTE])],
                MadeBy::Controller,
            ),
            (
                "labelled by an admission of what we write",
                None,
                &[ours.clone(), entry(FIELD_MANAGER, "Update", &[NOTE])],
                MadeBy::Controller,
            ),
            ("retained by the server", None, &[ours.clone(), entry("person", "Apply", &[RETAIN])], MadeBy::Controller),
            (
                "applied by the server",
                None,
                &[ours.clone(), entry("kustomize-controller", "Apply", &[IMAGE])],
                MadeBy::Person,
            ),
            (
                "applied",
                last_applied,
                &[ours.clone(), entry("kubectl-client-side-apply", "Update", &[NOTE])],
                MadeBy::Person,
            ),
            ("of Argo CD", tracking, std::slice::from_ref(&ours), MadeBy::Person),
            ("of Helm", release, std::slice::from_ref(&ours), MadeBy::Person),
            ("made by hand", None, &[entry("kubectl-create", "Update", &[IMAGE, RETAIN]), status], MadeBy::Person),
            ("nobody's", None, &[entry("kubectl-patch", "Update", &[RETAIN])], MadeBy::Person),
            ("of which nothing is said", None, &[], MadeBy::Person),
        ];
        for name in REPLACERS {
            let replaced = entry(name, "Update", &["spec/expiry"]);
            assert_eq!(of(None, &[ours.clone(), replaced]), MadeBy::Person, "replaced by {name}");
        }
        for (what, annotation, entries, is) in cases {
            assert_eq!(of(*annotation, entries), *is, "{what}");
        }
    }
}

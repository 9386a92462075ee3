//! A Pod of the API server, as decisions take it. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::decide::Moment;
use crate::decide::pod::{Ended, IGNORE, Place, Pod, PullPolicy, Use, is_ignored};

mod api;

pub use api::ApiPod;
use api::{ContainerStatus, PodSpec, PodStatus};

/// What kubelet writes on the Pods that stand for those of its own files.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What decisions need of `pod`. None of what lacks a name or a namespace, which the API server never sends.
pub fn pod(pod: &ApiPod) -> Option<Pod> {
    let metadata = &pod.metadata;
    let labels = metadata.labels.as_ref();
    let owners = metadata.owner_references.iter().flatten();
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    Some(Pod {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
        ignored: is_ignored(labels.and_then(|labels| labels.get(IGNORE)).map(String::as_str)),
        of_daemon_set: owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet"),
        is_mirror: metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR)),
        created: metadata.creation_timestamp.as_ref().map(moment),
        ended: status.and_then(ended),
        uses: spec.map(|spec| uses(spec, status)).unwrap_or_default(),
    })
}

/// `Succeeded` and `Failed` are final. A Pod that is being deleted runs until it is gone, and is used until then.
fn ended(status: &PodStatus) -> Option<Ended> {
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let finished =
        statuses(status).filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    Some(Ended { at: finished.map(moment).max() })
}

fn uses(spec: &PodSpec, status: Option<&PodStatus>) -> Vec<Use> {
    let one = |place, name: &str, image: Option<&String>, policy: Option<&String>| {
        let written = image.filter(|image| !image.is_empty())?.clone();
        let of_status = status.into_iter().flat_map(statuses).find(|status| status.name == name);
        let image_id = match place {
            Place::Volume => String::new(),
            _ => of_status.and_then(|status| status.image_id.clone()).unwrap_or_default(),
        };
        Some(Use { written, place, policy: policy.and_then(|policy| PullPolicy::parse(policy)), image_id })
    };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| Some((volume, volume.image.as_ref()?)));
    init.map(|c| one(Place::InitContainer, &c.name, c.image.as_ref(), c.image_pull_policy.as_ref()))
        .chain(
            spec.containers
                .iter()
                .flatten()
                .map(|c| one(Place::Container, &c.name, c.image.as_ref(), c.image_pull_policy.as_ref())),
        )
        .chain(
            ephemeral.map(|c| one(Place::EphemeralContainer, &c.name, c.image.as_ref(), c.image_pull_policy.as_ref())),
        )
        .chain(
            volumes.map(|(v, image)| one(Place::Volume, &v.name, image.reference.as_ref(), image.pull_policy.as_ref())),
        )
        .flatten()
        .collect()
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let containers = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    containers.chain(init).chain(status.ephemeral_container_statuses.iter().flatten())
}

fn moment(time: &Time) -> Moment {
    Moment::from_millis(u64::try_from(time.0.as_millisecond()).unwrap_or_default())
}

#[cfg(test)]
mod tests;

//! What decisions need of a Pod. The shell makes one from what the API server says (`pods.rs`).

use larder_oci::ReferenceError;

use super::image_id::{Running, running};
use super::{Image, Moment};

/// The label that keeps a Pod's images, or a namespace's, out of the cache. Any value but `false` does.
pub use larder_api::labels::IGNORE;

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// Whether it has the label [`IGNORE`].
    pub ignored: bool,
    /// Whether a `DaemonSet` owns it: sooner or later every node wants its images.
    pub of_daemon_set: bool,
    /// Whether it stands for a Pod that a node runs from a file of its own (annotation `kubernetes.io/config.mirror`).
    /// It counts as any other: the node pulls its images too.
    pub is_mirror: bool,
    /// When it was made.
    pub created: Option<Moment>,
    /// Set when it has ended (phase `Succeeded` or `Failed`): nothing of it will be pulled again. It keeps `lastUsed`
    /// and is no use.
    pub ended: Option<Ended>,
    /// What its containers and volumes name, in the order of the Pod.
    pub uses: Vec<Use>,
}

/// A Pod's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When its last container ended, where somebody says.
    pub at: Option<Moment>,
}

/// One container, or one image volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// As it is written.
    pub written: String,
    /// Where.
    pub place: Place,
    /// As it is written; the API server fills it in where a person does not.
    pub policy: Option<PullPolicy>,
    /// `imageID` of its status, empty until it was created.
    pub image_id: String,
}

/// Where in a Pod an image stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `spec.containers`
    Container,
    /// `spec.initContainers`
    InitContainer,
    /// `spec.ephemeralContainers`
    EphemeralContainer,
    /// `spec.volumes[].image`
    Volume,
}

/// `imagePullPolicy`, and `pullPolicy` of an image volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PullPolicy {
    /// Asks the registry at every start what the tag means.
    Always,
    /// Pulls what the node does not have.
    IfNotPresent,
    /// Never pulls.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Always" => Some(Self::Always),
            "IfNotPresent" => Some(Self::IfNotPresent),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }

    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }

    /// What Kubernetes fills in for this image ("Default image pull policy").
    pub fn default_of(image: &Image) -> Self {
        if image.tag() == Some("latest") { Self::Always } else { Self::IfNotPresent }
    }
}

impl Use {
    /// What it names, or why that is no reference: the Pod cannot start with it either, and that is shown.
    pub fn image(&self) -> Result<Image, ReferenceError> {
        Image::parse(&self.written)
    }

    /// What is pulled when, of the image that it names.
    pub fn policy_of(&self, image: &Image) -> PullPolicy {
        self.policy.unwrap_or_else(|| PullPolicy::default_of(image))
    }

    /// What it runs.
    pub fn running(&self, image: &Image) -> Running {
        running(image, &self.image_id)
    }
}

/// Whether labels say that what bears them is to be left out.
pub fn is_ignored<'a>(value: impl Into<Option<&'a str>>) -> bool {
    value.into().is_some_and(|value| !value.eq_ignore_ascii_case("false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pulled_when_unless_it_is_said() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (written, policy) in [
            ("nginx", PullPolicy::Always),
            ("nginx:latest", PullPolicy::Always),
            ("nginx:1", PullPolicy::IfNotPresent),
            (&format!("nginx@{digest}"), PullPolicy::IfNotPresent),
            (&format!("nginx:latest@{digest}"), PullPolicy::IfNotPresent),
        ] {
            assert_eq!(PullPolicy::default_of(&Image::parse(written).unwrap()), policy, "{written}");
        }
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            assert_eq!(PullPolicy::parse(policy.as_str()), Some(policy));
        }
        assert_eq!(PullPolicy::parse("always"), None);
    }

    #[test]
    fn any_value_but_false_ignores() {
        for (value, ignored) in
            [(None, false), (Some(""), true), (Some("true"), true), (Some("False"), false), (Some("no"), true)]
        {
            assert_eq!(is_ignored(value), ignored, "{value:?}");
        }
    }
}

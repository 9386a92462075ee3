//! [`Cri`]: the calls that Larder makes, each with its time limit.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Response;
use tonic::transport::{Channel, Endpoint};

use crate::runtime_v1::image_service_client::ImageServiceClient;
use crate::runtime_v1::runtime_service_client::RuntimeServiceClient;
use crate::runtime_v1::{
    ContainerState, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest, PullImageRequest,
    RemoveImageRequest, StatusRequest, VersionRequest,
};
use crate::{Auth, CriError, runtime_v1};

/// Connecting to a unix socket takes no time unless the engine's backlog is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// For calls that the engine answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// For removing an image: the engine may delete snapshots meanwhile.
const REMOVE_LIMIT: Duration = Duration::from_mins(1);
/// The same as kubelet's: a node with thousands of images has a long list.
const MESSAGE_LIMIT: usize = 16 << 20;
/// `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// An engine at its CRI socket. Clones share one connection.
#[derive(Clone)]
pub struct Cri {
    socket: PathBuf,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// What the engine calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `containerd` or `cri-o`.
    pub runtime_name: String,
    /// For example `v2.4.2` or `1.34.0`.
    pub runtime_version: String,
    /// Of the CRI: `v1`.
    pub runtime_api_version: String,
}

/// The engine's own view of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its condition `RuntimeReady`: containers can be started. Images can be pulled before that.
    pub runtime_ready: bool,
    /// JSON texts by topic; containerd tells its configuration under `config`.
    pub info: BTreeMap<String, String>,
}

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image's configuration, as the engine writes it.
    pub id: String,
    /// References with a tag.
    pub tags: Vec<String>,
    /// References with a digest.
    pub digests: Vec<String>,
    /// Bytes, as the engine counts them.
    pub size: u64,
}

/// A container that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The engine's name for it.
    pub id: String,
    /// Its image as whoever created the container named it: what the Pod says, where the engine remembers that, else an id.
    pub image: String,
    /// Whether it runs; else it is created, has ended, or nobody knows.
    pub running: bool,
}

impl Cri {
    /// The engine at `socket` (a path, without `unix://`). Connects with the first call, and again whenever the connection was lost;
    /// so only a path that cannot be a socket is an error here.
    ///
    /// Needs a Tokio runtime around it.
    pub fn connect(socket: &Path) -> Result<Self, CriError> {
        let unusable = |reason| CriError::SocketPath { socket: socket.to_owned(), reason };
        let path = socket.to_str().ok_or_else(|| unusable("it is not UTF-8"))?;
        if !socket.is_absolute() {
            return Err(unusable("it is not absolute"));
        }
        if path.len() > SOCKET_PATH_LIMIT {
            return Err(unusable("it is longer than 107 bytes"));
        }
        if path.contains('\0') {
            return Err(unusable("it holds a zero byte"));
        }
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| unusable("it makes no URI"))?;
        let channel = endpoint.connect_timeout(CONNECT_LIMIT).connect_lazy();
        Ok(Self {
            socket: socket.to_owned(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
        })
    }

    /// The socket that this was made for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Name and version of the engine. Answered as soon as the engine's CRI service is there.
    pub async fn version(&self) -> Result<Version, CriError> {
        let request = VersionRequest { version: "v1".to_owned() };
        let call = || {
            let (mut client, request) = (self.runtime.clone(), request.clone());
            async move { client.version(request).await }
        };
        let answer = self.call("Version", ANSWER_LIMIT, call).await?;
        Ok(Version {
            runtime_name: answer.runtime_name,
            runtime_version: answer.runtime_version,
            runtime_api_version: answer.runtime_api_version,
        })
    }

    /// Readiness and configuration of the engine (the verbose form).
    pub async fn status(&self) -> Result<Status, CriError> {
        let call = || {
            let mut client = self.runtime.clone();
            async move { client.status(StatusRequest { verbose: true }).await }
        };
        let answer = self.call("Status", ANSWER_LIMIT, call).await?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(Status {
            runtime_ready: conditions.iter().any(|condition| condition.r#type == "RuntimeReady" && condition.status),
            info: answer.info.into_iter().collect(),
        })
    }

    /// Pulls an image as kubelet would, whether the engine has it or not. Returns the engine's reference for it. Once `deadline` has
    /// passed, the engine is told to give the pull up.
    pub async fn pull_image(
        &self,
        reference: &str,
        auth: Option<Auth>,
        deadline: Duration,
    ) -> Result<String, CriError> {
        let request = PullImageRequest { image: Some(spec(reference)), auth: auth.map(|auth| auth.message()) };
        let call = || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.pull_image(request).await }
        };
        Ok(self.call("PullImage", deadline, call).await?.image_ref)
    }

    /// The image that the engine has under this reference, tag, digest or id.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, CriError> {
        let request = ImageStatusRequest { image: Some(spec(reference)), verbose: false };
        let call = || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.image_status(request).await }
        };
        Ok(self.call("ImageStatus", ANSWER_LIMIT, call).await?.image.map(Image::from))
    }

    /// Whether the engine has an image under this reference.
    pub async fn image_present(&self, reference: &str) -> Result<bool, CriError> {
        Ok(self.image(reference).await?.is_some())
    }

    /// Removes an image with all its references. It is no error if there is none.
    pub async fn remove_image(&self, reference: &str) -> Result<(), CriError> {
        let request = RemoveImageRequest { image: Some(spec(reference)) };
        let call = || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.remove_image(request).await }
        };
        self.call("RemoveImage", REMOVE_LIMIT, call).await?;
        Ok(())
    }

    /// All images that the engine has.
    pub async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        let call = || {
            let mut client = self.images.clone();
            async move { client.list_images(ListImagesRequest { filter: None }).await }
        };
        let answer = self.call("ListImages", ANSWER_LIMIT, call).await?;
        Ok(answer.images.into_iter().map(Image::from).collect())
    }

    /// All containers that the engine has, also those that have ended. Sandboxes of Pods are not among them.
    pub async fn list_containers(&self) -> Result<Vec<Container>, CriError> {
        let call = || {
            let mut client = self.runtime.clone();
            async move { client.list_containers(ListContainersRequest { filter: None }).await }
        };
        let answer = self.call("ListContainers", ANSWER_LIMIT, call).await?;
        Ok(answer.containers.into_iter().map(Container::from).collect())
    }

    /// Dropping an unanswered call resets its HTTP/2 stream, which cancels the work in the engine.
    ///
    /// A connection that ended since the last call is noticed only when something is written to it. So one that breaks is no answer
    /// yet: the call is made once more, over a new one. No call here does more when it is made twice.
    async fn call<T, F>(&self, name: &'static str, limit: Duration, call: impl Fn() -> F) -> Result<T, CriError>
    where
        F: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        let error = |status: &tonic::Status| CriError::from_status(&self.socket, name, status);
        let answer = async {
            match call().await {
                Err(status) if !error(&status).is_refusal() => call().await,
                answer => answer,
            }
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(error(&status)),
            Err(_) => Err(CriError::TimedOut { socket: self.socket.clone(), call: name, after: limit }),
        }
    }
}

impl fmt::Debug for Cri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cri").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl From<runtime_v1::Image> for Image {
    fn from(image: runtime_v1::Image) -> Self {
        Self { id: image.id, tags: image.repo_tags, digests: image.repo_digests, size: image.size }
    }
}

impl From<runtime_v1::Container> for Container {
    fn from(container: runtime_v1::Container) -> Self {
        let running = container.state() == ContainerState::ContainerRunning;
        let spec = container.image.unwrap_or_default();
        // Kubelet hands an id to the engine, and what the Pod says beside it.
        let image = if spec.user_specified_image.is_empty() { spec.image } else { spec.user_specified_image };
        Self { id: container.id, image, running }
    }
}

fn spec(reference: &str) -> ImageSpec {
    ImageSpec { image: reference.to_owned(), ..ImageSpec::default() }
}

#[cfg(test)]
mod tests;

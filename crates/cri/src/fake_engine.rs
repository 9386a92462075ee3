//! An engine for this crate's tests: the generated server half over a unix socket.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::runtime_v1::image_service_server::{ImageService, ImageServiceServer};
use crate::runtime_v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::runtime_v1::{
    Container, ContainerState, Image, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListContainersRequest,
    ListContainersResponse, ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse,
    RemoveImageRequest, RemoveImageResponse, RuntimeCondition, RuntimeStatus, StatusRequest, StatusResponse,
    VersionRequest, VersionResponse,
};

/// Has one image, `present`; hangs on pulling `hang`; refuses to pull `absent`.
#[derive(Clone, Default)]
pub(crate) struct FakeEngine {
    /// User name, password and reference of the last pull.
    pub(crate) pulled: Arc<Mutex<Option<(String, String, String)>>>,
    /// References that were removed.
    pub(crate) removed: Arc<Mutex<Vec<String>>>,
    /// Sees its last sender go when a hanging pull is given up.
    pub(crate) hanging: Arc<Mutex<Option<tokio::sync::mpsc::Sender<()>>>>,
}

impl FakeEngine {
    pub(crate) fn serve(&self, socket: &Path) -> JoinHandle<()> {
        let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(listener);
        tokio::spawn(async move { server.await.unwrap() })
    }
}

fn present() -> Image {
    Image {
        id: "sha256:1".to_owned(),
        repo_tags: vec!["present".to_owned()],
        repo_digests: vec!["present@sha256:2".to_owned()],
        size: 7,
        ..Image::default()
    }
}

#[tonic::async_trait]
impl RuntimeService for FakeEngine {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: request.into_inner().version,
            runtime_name: "fake".to_owned(),
            runtime_version: "v1.2.3".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let condition =
            |name: &str, status| RuntimeCondition { r#type: name.to_owned(), status, ..RuntimeCondition::default() };
        let conditions = vec![condition("NetworkReady", false), condition("RuntimeReady", true)];
        let info = [("config".to_owned(), "{}".to_owned())];
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: if request.into_inner().verbose { info.into() } else { [].into() },
            ..StatusResponse::default()
        }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let container = |id: &str, user_specified_image: &str, state: ContainerState| Container {
            id: id.to_owned(),
            image: Some(ImageSpec {
                image: "sha256:1".to_owned(),
                user_specified_image: user_specified_image.to_owned(),
                ..ImageSpec::default()
            }),
            state: state.into(),
            ..Container::default()
        };
        let containers = vec![
            container("1", "present", ContainerState::ContainerRunning),
            container("2", "", ContainerState::ContainerExited),
        ];
        Ok(Response::new(ListContainersResponse { containers }))
    }
}

#[tonic::async_trait]
impl ImageService for FakeEngine {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        Ok(Response::new(ListImagesResponse { images: vec![present()] }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let asked = request.into_inner().image.unwrap().image;
        Ok(Response::new(ImageStatusResponse {
            image: (asked == "present").then(present),
            ..ImageStatusResponse::default()
        }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let image = request.image.unwrap().image;
        let auth = request.auth.unwrap_or_default();
        *self.pulled.lock().unwrap() = Some((auth.username, auth.password, image.clone()));
        match image.as_str() {
            "hang" => {
                let _held = self.hanging.lock().unwrap().take();
                std::future::pending().await
            }
            "absent" => Err(Status::not_found("no such image")),
            _ => Ok(Response::new(PullImageResponse { image_ref: "sha256:1".to_owned() })),
        }
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.removed.lock().unwrap().push(request.into_inner().image.unwrap().image);
        Ok(Response::new(RemoveImageResponse {}))
    }
}

//! Clusters on kind, from nothing but what this repository pins: node images, control plane, registries, and the Docker below them.
//!
//! From below: [`docker`] is a Docker that runs already or one of our own; [`debian`] the file system of every node; [`node_image`] a
//! node with one engine ([`engine`]); [`system_images`] what kubeadm wants to pull; [`registry`] a registry beside the cluster;
//! [`requests`] what that one was asked; [`bucket`] a bucket beside it; [`cluster`] all of it together, with what a case needs to break it and to look at it;
//! [`release`] Larder on it, as helm puts it there.
//!
//! Everything that takes long is built once into the cache of the parts and found again by a key over all that went into it ([`cache`]).
//! What only some machines need is detected ([`bounds`]), never assumed, and what a run needs is asked for first ([`machine`], [`room`]).
//! The cases are in `cases/`.

pub mod at_once;
pub mod bounds;
pub mod bucket;
pub mod cache;
pub mod certificate;
pub mod cluster;
pub mod command;
pub mod debian;
pub mod docker;
pub mod engine;
pub mod image;
pub mod machine;
pub mod node_image;
pub mod registry;
pub mod release;
pub mod requests;
pub mod room;
pub mod runtime;
pub mod system_images;
pub mod test_image;

pub use at_once::at_once;
pub use cluster::Cluster;
pub use engine::Engine;
pub use machine::Machine;
pub use release::Release;

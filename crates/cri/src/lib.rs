//! Client of the container runtime interface (CRI v1), the gRPC protocol by which kubelet speaks to containerd and CRI-O.
//!
//! Larder asks an engine the same way as kubelet does: what it is ([`Cri::version`]), how it is configured ([`Cri::status`]), and
//! to pull an image, which is the only proof that the engine's pulls go where its configuration says ([`Cri::pull_image`]).
//!
//! Invariants: every call has a time limit and an upper bound for what it accepts; every error names the socket and the call. A
//! [`Cri`] survives a restart of the engine: the next call connects again.
//!
//! `runtime_v1.rs` is generated from Kubernetes' definition and checked in (`cargo xtask generate-cri`); [`client`] is written by hand.

pub mod auth;
pub mod client;
pub mod error;

#[rustfmt::skip]
#[expect(
    unreachable_pub,
    clippy::pedantic,
    clippy::enum_variant_names,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
#[cfg_attr(test, expect(clippy::allow_attributes, reason = "generated code: the half of the server"))]
mod runtime_v1;

pub use auth::Auth;
pub use client::{Container, Cri, Image, Status, Version};
pub use error::CriError;

#[cfg(test)]
mod fake_engine;

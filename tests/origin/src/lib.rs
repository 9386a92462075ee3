//! A registry that can have a bad day on command.
//!
//! Real registries run in the node tier too; this one exists because a real one cannot be told to reset a connection
//! after 100 kB or to lie about a byte. It speaks the pull side of the distribution API over plain sockets, keeps an
//! access log of everything that it was asked, and runs on threads of its own, so that a test may block.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test double may fail loudly"
)]

mod behaviour;
mod image;
mod layout;
mod log;
mod request;
mod respond;
mod server;
mod tls;

pub use behaviour::{Behaviour, Matcher, Rule};
pub use image::{Image, ImageSpec, Platform};
pub use layout::OciLayout;
pub use log::Access;
pub use server::{Origin, OriginBuilder};
pub use tls::{PrivateCertificate, private_certificate};

//! What is wanted, for how long, and whose turn it is. Pure: no IO, no clock, and nothing of the wire.
//!
//! A decision a file. The way through it: Pods ([`pod`]) name images ([`image`]); what is left out, and why, say the
//! [`filter`]s ([`labels`], [`glob`]); the rest is counted in the [`index`] and bounded per namespace ([`bounds`]); each
//! image has [`platforms`] and a time to go ([`expiry`], by a [`clock`] that is right, and not all at once: [`expiring`]); together they are [`pins`], held back by the [`brake`], fetched
//! when it is their [`turns`], and looked at in [`rounds`]. What people say of a [`registry`] holds for its images, what of its [`quota`] is
//! kept for pulls among it; what it does is its [`health`], by its [`standing`] with the caches, and told of where it is an [outage](outages); what a person
//! reads are [`conditions`].

pub mod backoff;
pub mod bounds;
pub mod brake;
pub mod clock;
pub mod conditions;
pub mod digests;
pub mod expiring;
pub mod expiry;
pub mod filter;
pub mod glob;
pub mod health;
pub mod image;
pub mod image_id;
pub mod index;
pub mod labels;
pub mod moment;
pub mod outages;
pub mod pins;
pub mod platforms;
pub mod pod;
pub mod quota;
pub mod registry;
pub mod rounds;
pub mod spread;
pub mod standing;
pub mod turns;

pub use image::Image;
pub use moment::Moment;

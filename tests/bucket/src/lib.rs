//! Real S3 servers for tests, and what can go wrong between us and them.
//!
//! [`server`] starts one over a folder of its own; [`faults`] is a connection to it that does what networks and servers do on a bad day.

pub mod faults;
pub mod server;

pub use faults::{Fault, Faults};
pub use server::{BUCKET, CREDENTIALS, Kind, Server};

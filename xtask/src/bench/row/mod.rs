//! The rows of the table, a family a file.

mod bucket_requests;
mod cluster_herd;
mod cluster_hit;
mod cold;
mod containerd;
mod controller;
mod herd;
mod lead;
mod manifests;
mod many_images;
mod ranges;
mod redirect;
mod scale_up;
mod slow_leader;
mod slow_readers;
mod warm;

use anyhow::Result;
use larder_test_origin::{Behaviour, Image, ImageSpec, Matcher, Origin};

use super::Bench;
use super::sheet::Finding;

pub(super) use controller::Size;

/// A row of the table, as it is typed and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Row {
    /// Many clients, one blob that nobody has
    Herd,
    /// One client, one blob that nobody has, at a fast origin
    Cold,
    /// Others want what a slow client asked for first
    SlowLeader,
    /// One blob in parallel open-ended ranges
    Ranges,
    /// A blob that is in the store
    Warm,
    /// A manifest that is in the store
    Manifests,
    /// The memory that many slow readers cost
    SlowReaders,
    /// An image of many layers, pulled by a real containerd
    Containerd,
    /// A blob that the cluster cache has, through a node
    ClusterHit,
    /// Many clients, nodes and two replicas of the cluster cache, one image
    ClusterHerd,
    /// Requests to the bucket for a pull
    BucketRequests,
    /// A thousand new nodes
    ScaleUp,
    /// A blob that only the bucket has, with nodes that are sent there
    Redirect,
    /// The controller with thousands of Pods
    Controller,
    /// The controller among many `CachedImages`
    ManyImages,
    /// The same on a busy machine: how it renews its lease
    Lead,
}

impl Row {
    /// In the order of the table.
    pub(super) const ALL: [Self; 16] = [
        Self::Herd,
        Self::Cold,
        Self::SlowLeader,
        Self::Ranges,
        Self::Warm,
        Self::Manifests,
        Self::SlowReaders,
        Self::Containerd,
        Self::ClusterHit,
        Self::ClusterHerd,
        Self::BucketRequests,
        Self::ScaleUp,
        Self::Redirect,
        Self::Controller,
        Self::ManyImages,
        Self::Lead,
    ];

    /// As it is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Herd => "herd",
            Self::Cold => "cold",
            Self::SlowLeader => "slow-leader",
            Self::Ranges => "ranges",
            Self::Warm => "warm",
            Self::Manifests => "manifests",
            Self::SlowReaders => "slow-readers",
            Self::Containerd => "containerd",
            Self::ClusterHit => "cluster-hit",
            Self::ClusterHerd => "cluster-herd",
            Self::BucketRequests => "bucket-requests",
            Self::ScaleUp => "scale-up",
            Self::Redirect => "redirect",
            Self::Controller => "controller",
            Self::ManyImages => "many-images",
            Self::Lead => "lead",
        }
    }

    /// Measures all of the family.
    pub(super) fn measure(self, bench: &mut Bench) -> Result<Vec<Finding>> {
        match self {
            Self::Herd => herd::measure(bench),
            Self::Cold => cold::measure(bench),
            Self::SlowLeader => slow_leader::measure(bench),
            Self::Ranges => ranges::measure(bench),
            Self::Warm => warm::measure(bench),
            Self::Manifests => manifests::measure(bench),
            Self::SlowReaders => slow_readers::measure(bench),
            Self::Containerd => containerd::measure(bench),
            Self::ClusterHit => cluster_hit::measure(bench),
            Self::ClusterHerd => cluster_herd::measure(bench),
            Self::BucketRequests => bucket_requests::measure(bench),
            Self::ScaleUp => scale_up::measure(bench),
            Self::Redirect => redirect::measure(bench),
            Self::Controller => controller::measure(bench),
            Self::ManyImages => many_images::measure(bench),
            Self::Lead => lead::measure(bench),
        }
    }
}

/// The repository of everything that is measured.
pub(super) const REPOSITORY: &str = "bench/app";

/// The tests' registry with a line of a certain width to each of those who ask.
fn shaped_origin(bench: &Bench) -> Origin {
    let origin = Origin::start();
    origin.behave(Matcher::path("/blobs/").method("GET"), Behaviour::Shape(bench.scale.line));
    origin
}

/// Puts a blob that nobody has seen into `origin`, instead of the one before it; gives its path.
fn next_blob(bench: &mut Bench, origin: &Origin, size: usize) -> (String, larder_oci::Digest) {
    origin.delete(REPOSITORY);
    let digest = origin.push_blob(REPOSITORY, bench.blobs.fresh(size));
    (format!("/v2/{REPOSITORY}/blobs/{digest}"), digest)
}

/// An image for the machine that is measured, with layers of these sizes.
fn image_of(layers: Vec<usize>, seed: u64) -> Image {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    Image::build(&ImageSpec { layers, architectures: vec![architecture], seed })
}

/// Puts such an image into `origin` as `v1`, instead of the one before it.
fn next_image(origin: &Origin, layers: Vec<usize>, seed: u64) -> Image {
    let image = image_of(layers, seed);
    origin.delete(REPOSITORY);
    origin.push(REPOSITORY, "v1", &image);
    image
}

/// How often `origin` was asked for a blob, since its log was cleared.
fn blobs_asked_of(origin: &Origin) -> usize {
    origin.log().iter().filter(|access| access.is_blob_get()).count()
}

/// Bytes.
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn float(number: u64) -> f64 {
    number as f64
}

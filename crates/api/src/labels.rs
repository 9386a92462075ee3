//! Labels, annotations and names of writers that several programs have to spell alike.

/// On a Pod or a namespace, with any value but `false`: its images are not wanted.
pub const IGNORE: &str = "larder.dev/ignore";

/// On a CachedImage: the name of the UpstreamRegistry that it comes from, where that is short enough for a label.
pub const REGISTRY: &str = "larder.dev/registry";

/// The controller as writer (field manager of server-side apply).
pub const CONTROLLER: &str = "larder-controller";

/// The agent of a node as writer.
pub const NODE: &str = "larder-node";

//! Media types of manifests.

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's form of an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's form of a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What to accept when asking for a manifest: all forms that an engine could want, so that an origin never converts.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// Whether it names a list of manifests. Parameters (`; charset=…`) and case don't matter.
pub fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].contains(&essence(media_type).as_str())
}

/// Whether it names a manifest or a list of them.
pub fn is_manifest(media_type: &str) -> bool {
    is_index(media_type) || [OCI_MANIFEST, DOCKER_MANIFEST].contains(&essence(media_type).as_str())
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        assert!(is_index("Application/vnd.oci.image.index.v1+json; charset=utf-8"));
        assert!(is_manifest(DOCKER_MANIFEST));
        assert!(!is_index(OCI_MANIFEST));
        assert!(!is_manifest("application/octet-stream"));
    }
}

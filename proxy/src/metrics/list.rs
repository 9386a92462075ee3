//! The list: one registration a metric, with the name and the meaning that `/metrics` shows.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use super::Metrics;

/// Puts every metric on the page. Taken apart without `..`, so that none is forgotten.
#[expect(clippy::too_many_lines, reason = "it is the list: one registration per metric, in one place")]
pub(super) fn register(metrics: &mut Metrics) {
    let Metrics {
        exposition,
        registries: _,
        requests,
        response_bytes,
        response_cuts,
        time_to_first_byte,
        stale_answers,
        origin_requests,
        origin_bytes,
        origin_time,
        origin_circuit_open,
        origin_quota_remaining,
        origin_quota_limit,
        origin_queue,
        origin_queue_wait,
        origin_queue_hurried,
        origin_held_back,
        cluster_cache_questions,
        cache_token_reviews,
        cache_certificate_expiry,
        fetches_running,
        fetch_resumes,
        fetch_mismatches,
        promises_broken,
        images_refused,
        store_bytes,
        store_limit_bytes,
        store_pinned_bytes,
        store_pulled_bytes,
        store_evictions,
        store_damaged,
        store_writable,
        bucket_requests,
        bucket_owed,
        bucket_pins,
        bucket_condemned,
        bucket_removed,
        bucket_swept,
        bucket_removal_age,
        bucket_brake,
        connections,
        connections_refused,
        settings_invalid,
    } = metrics;
    let list = exposition;
    list.register("build", "Version of this program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    list.register("requests", "Requests answered", requests.clone());
    list.register_with_unit("response", "Body bytes handed to clients", Unit::Bytes, response_bytes.clone());
    list.register("response_cuts", "Bodies cut before their end", response_cuts.clone());
    list.register_with_unit(
        "time_to_first_byte",
        "From the request's head to the first body byte",
        Unit::Seconds,
        time_to_first_byte.clone(),
    );
    list.register("stale_answers", "Cached answers given without the origin's confirmation", stale_answers.clone());
    list.register("origin_requests", "Requests sent to origins, token services included", origin_requests.clone());
    list.register_with_unit("origin_received", "Body bytes received from origins", Unit::Bytes, origin_bytes.clone());
    list.register_with_unit(
        "origin_response",
        "From a request to an origin to its head",
        Unit::Seconds,
        origin_time.clone(),
    );
    list.register(
        "origin_circuit_open",
        "1 while the circuit breaker of an origin is open",
        origin_circuit_open.clone(),
    );
    list.register(
        "origin_quota_remaining",
        "What the origin says is left of its pull quota",
        origin_quota_remaining.clone(),
    );
    list.register("origin_quota_limit", "The pull quota that the origin states", origin_quota_limit.clone());
    list.register("origin_queue", "Requests that wait for their turn at an origin", origin_queue.clone());
    list.register_with_unit(
        "origin_queue_wait",
        "How long requests waited for their turn at an origin",
        Unit::Seconds,
        origin_queue_wait.clone(),
    );
    list.register(
        "origin_queue_hurried",
        "Requests that had waited long enough for their turn and went without one",
        origin_queue_hurried.clone(),
    );
    list.register_with_unit(
        "origin_held_back",
        "How long pulls were held back for the sake of an origin's quota",
        Unit::Seconds,
        origin_held_back.clone(),
    );
    list.register(
        "cluster_cache_questions",
        "Questions to the cluster cache, by how they ended",
        cluster_cache_questions.clone(),
    );
    list.register(
        "cache_token_reviews",
        "Tokens of callers that the API server, or saved keys, had to say something about, by what they said",
        cache_token_reviews.clone(),
    );
    list.register_with_unit(
        "cache_certificate_expiry_timestamp",
        "When the certificate ends that callers are shown, since 1970",
        Unit::Seconds,
        cache_certificate_expiry.clone(),
    );
    list.register("fetches_running", "Fetches that run now", fetches_running.clone());
    list.register("fetch_resumes", "Fetches continued after the origin broke off", fetch_resumes.clone());
    list.register("fetch_mismatches", "Content from an origin that did not have its digest", fetch_mismatches.clone());
    list.register(
        "promises_broken",
        "Images not given in full to a client that could not go elsewhere any more",
        promises_broken.clone(),
    );
    list.register(
        "images_refused",
        "Images whose manifests are refused for a while, after something of them could not be given",
        images_refused.clone(),
    );
    list.register_with_unit("store", "Size of the store", Unit::Bytes, store_bytes.clone());
    list.register_with_unit("store_limit", "Limit of the store's size", Unit::Bytes, store_limit_bytes.clone());
    list.register_with_unit(
        "store_pinned",
        "Content of the store that holders pinned: it is not evicted",
        Unit::Bytes,
        store_pinned_bytes.clone(),
    );
    list.register_with_unit(
        "store_pulled",
        "Content of the store that is pinned only because it was pulled through: it gives way",
        Unit::Bytes,
        store_pulled_bytes.clone(),
    );
    list.register("store_evictions", "Blobs removed to stay within the limit", store_evictions.clone());
    list.register("store_damaged", "Files of the store found damaged and dropped", store_damaged.clone());
    list.register("store_writable", "1 while the store takes new content", store_writable.clone());
    list.register("bucket_requests", "Requests sent to the bucket, retries included", bucket_requests.clone());
    list.register("bucket_owed", "Blobs and records that wait for a bucket that does not answer", bucket_owed.clone());
    list.register("bucket_pins", "Pins of all clusters on the bucket", bucket_pins.clone());
    list.register("bucket_condemned", "Uploads that nobody may rely on any more", bucket_condemned.clone());
    list.register("bucket_removed", "Uploads removed from the bucket", bucket_removed.clone());
    list.register(
        "bucket_swept",
        "Checksums, notes and uploads in parts that were left in the bucket, and removed",
        bucket_swept.clone(),
    );
    list.register_with_unit(
        "bucket_removal_age",
        "Since it was last looked for what nobody wants",
        Unit::Seconds,
        bucket_removal_age.clone(),
    );
    list.register(
        "bucket_brake",
        "1 while nothing leaves the bucket before a person says that so few pins are right",
        bucket_brake.clone(),
    );
    list.register("connections", "Client connections that are open", connections.clone());
    list.register(
        "connections_refused",
        "Connections closed without a request being served",
        connections_refused.clone(),
    );
    list.register(
        "settings_invalid",
        "1 while the registries file is wrong and the settings read before are in force, or a part of it is left out",
        settings_invalid.clone(),
    );
}

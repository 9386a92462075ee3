//! The custom resources, and the controller, on a real API server.
//!
//! Cases of one group are a file. Those of the first list share one API server ([`World`]), which starts with the first of them; those of the second have one
//! each, for they break it, and want `larder-controller` and `larder-cache` as they were just built.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod access;
mod bounds;
mod cache_client;
mod cache_side;
mod counted;
mod definitions;
mod fields;
mod following;
mod leader;
mod life;
mod node_side;
mod registries;
mod safety;
mod scale;
mod statuses;
mod trouble;
mod validation;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use larder_test_controller::World;
use libtest_mimic::{Arguments, Trial};

type Case = fn(&World) -> anyhow::Result<()>;
type OwnCase = fn() -> anyhow::Result<()>;
type Shared = Arc<OnceLock<Result<World, String>>>;

fn main() -> ExitCode {
    let shared = Shared::default();
    let cases: [(&'static str, Case); 14] = [
        ("definitions::the_api_server_takes_them", definitions::the_api_server_takes_them),
        ("definitions::they_are_explained", definitions::they_are_explained),
        ("definitions::a_table_answers_at_a_glance", definitions::a_table_answers_at_a_glance),
        ("validation::what_is_wrong_of_an_image_is_refused", validation::what_is_wrong_of_an_image_is_refused),
        ("validation::what_is_wrong_of_a_registry_is_refused", validation::what_is_wrong_of_a_registry_is_refused),
        ("validation::what_is_right_is_taken", validation::what_is_right_is_taken),
        ("validation::what_an_object_is_of_cannot_change", validation::what_an_object_is_of_cannot_change),
        ("fields::every_field_comes_back", fields::every_field_comes_back),
        ("fields::defaults_and_unknown_fields", fields::defaults_and_unknown_fields),
        ("fields::a_status_has_bounds", fields::a_status_has_bounds),
        ("fields::what_is_not_there_is_known_by_what_is_said_to_a_write", fields::what_is_not_there),
        ("fields::two_writers_do_not_tread_on_each_other", fields::two_writers),
        ("access::a_node_writes_its_own_mirror_only", access::a_node_writes_its_own_mirror_only),
        ("access::who_may_view_sees_images_and_nothing_else", access::who_may_view_sees_images),
    ];
    let own: &[(&'static str, OwnCase)] = &[
        ("bounds::one_namespace_has_so_many_images", bounds::one_namespace_has_so_many_images),
        ("bounds::one_namespace_has_so_many_bytes", bounds::one_namespace_has_so_many_bytes),
        ("cache_client::pins_over_tls_and_what_may_be_replaced", cache_client::pins_over_tls),
        ("cache_side::endpoints_and_authority_are_what_an_object_says", cache_side::endpoints_and_authority),
        ("counted::what_pods_name_and_what_is_left_out", counted::what_pods_name_and_what_is_left_out),
        ("following::a_moved_tag_is_followed_where_somebody_says_so", following::a_moved_tag),
        ("following::what_is_lost_of_it_comes_back_as_it_was", following::what_is_lost_of_it),
        ("leader::never_two_write_and_a_partition_ends_the_work", leader::never_two_write),
        ("life::a_pods_image_is_cached_and_goes_when_nobody_uses_it", life::from_pod_to_expiry),
        ("life::it_is_kept_as_long_as_somebody_means_it", life::kept_as_long_as_somebody_means_it),
        ("life::what_a_pod_runs_is_pinned_and_fetched_once", life::what_a_pod_runs_is_pinned_and_fetched_once),
        ("life::deleted_by_hand_it_is_unpinned_and_comes_back_while_a_pod_wants_it", life::deleted_by_hand),
        ("life::observing_changes_nothing", life::observing),
        ("life::a_hand_over_changes_no_status", life::a_hand_over_changes_no_status),
        ("scale::a_thousand_pods_and_no_more_writes_than_images_need", scale::a_thousand_pods),
        ("safety::what_a_restart_must_not_forget", safety::what_a_restart_must_not_forget),
        ("safety::a_definition_that_is_deleted_loses_nothing", safety::a_definition_that_is_deleted),
        ("trouble::what_etcd_has_forgotten_is_listed_again", trouble::compacted),
        ("node_side::settings_in_and_the_mirror_out", node_side::in_and_out),
        ("registries::an_outage_shows_and_so_do_its_end_and_the_quota", registries::from_traffic),
        ("registries::what_waits_for_a_quota_says_so", registries::a_quota_is_kept),
        ("registries::people_say_what_is_skipped_and_for_how_long_it_is_kept", registries::as_people_say),
        ("statuses::what_a_registry_said_to_a_fetch_is_said_with_it", statuses::what_a_fetch_heard),
        ("statuses::what_a_registry_said_before_is_no_word_of_a_fetch", statuses::what_a_fetch_did_not_hear),
        ("statuses::what_is_wrong_is_said_where_people_look", statuses::what_is_wrong_is_said),
        ("trouble::refused_by_the_cache_it_says_so", trouble::refused),
        ("trouble::who_makes_objects_keeps_nobodys_image_out", trouble::squatters),
        ("trouble::an_etcd_that_is_put_back_is_listed_anew", trouble::put_back),
        ("trouble::cache_and_api_server_away_and_back", trouble::away_and_back),
        ("trouble::a_sudden_drop_is_held_back_and_the_leader_is_killed", trouble::brake_and_kill),
    ];
    let mut trials = Vec::new();
    for (name, run) in cases {
        let shared = Arc::clone(&shared);
        trials.push(trial(name, move || {
            let world = shared.get_or_init(|| World::start().map_err(|error| format!("{error:?}")));
            run(world.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?)
        }));
    }
    trials.extend(own.iter().map(|&(name, run)| trial(name, run)));
    drop(shared);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &'static str, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let began = Instant::now();
        run().map_err(|error| format!("{error:?}"))?;
        if std::env::var_os("LARDER_TEST_TIMES").is_some() {
            eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        }
        Ok(())
    })
}

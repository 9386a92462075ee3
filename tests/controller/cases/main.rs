//! The custom resources, and the controller, on a real API server.
//!
//! Cases of one group are a file. Those of the list below share one API server ([`World`]), which starts with the first of them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod access;
mod definitions;
mod fields;
mod validation;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use larder_test_controller::World;
use libtest_mimic::{Arguments, Trial};

type Case = fn(&World) -> anyhow::Result<()>;
type Shared = Arc<OnceLock<Result<World, String>>>;

fn main() -> ExitCode {
    let shared = Shared::default();
    let cases: [(&'static str, Case); 13] = [
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
        ("fields::two_writers_do_not_tread_on_each_other", fields::two_writers),
        ("access::a_node_writes_its_own_mirror_only", access::a_node_writes_its_own_mirror_only),
        ("access::who_may_view_sees_images_and_nothing_else", access::who_may_view_sees_images),
    ];
    let trials = cases.map(|(name, run)| {
        let shared = Arc::clone(&shared);
        Trial::test(name, move || {
            let world = shared.get_or_init(|| World::start().map_err(|error| format!("{error:?}"))).as_ref()?;
            let began = Instant::now();
            run(world).map_err(|error| format!("{error:?}"))?;
            if std::env::var_os("LARDER_TEST_TIMES").is_some() {
                eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
            }
            Ok(())
        })
    });
    drop(shared);
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

//! Who may ask the cluster cache, and its own certificate, with a real API server.
//!
//! Every case has a control plane of its own, for each of them breaks something of it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod certificate;
mod rights;
mod tokens;

use std::process::ExitCode;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};

type Case = fn() -> anyhow::Result<()>;

fn main() -> ExitCode {
    let cases: [(&'static str, Case); 4] = [
        ("tokens::with_the_api_server_and_a_day_without_it", tokens::with_the_api_server_and_a_day_without_it),
        ("certificate::two_replicas_make_one_and_nobody_elses_is_touched", certificate::two_replicas_make_one),
        ("certificate::an_upgrade_leaves_it_alone", certificate::an_upgrade_leaves_it_alone),
        ("rights::the_documented_ones_are_enough_and_needed", rights::enough_and_needed),
    ];
    let trials = cases.map(|(name, run)| {
        Trial::test(name, move || {
            let began = Instant::now();
            run().map_err(|error| format!("{error:?}"))?;
            if std::env::var_os("LARDER_TEST_TIMES").is_some() {
                eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
            }
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

//! Every case of the chart.
//!
//! A folder under `golden/` is a file of values and what helm makes of it; each gets the same tests. `LARDER_GOLDEN=write` writes the
//! renderings anew, which whoever did it then reads. An optional file `kube-version` in the folder says what it is rendered for.
#![expect(clippy::indexing_slicing, reason = "test cases may fail loudly")]

mod cluster_cache;
mod controller;
mod dashboard;
mod golden;
mod invariants;
mod notes;
mod nulls;
mod openshift;
mod placement;
mod refusals;
mod registries;
mod rights;

use std::process::ExitCode;

use anyhow::Result;
use larder_test_chart::helm::Helm;
use libtest_mimic::{Arguments, Failed, Trial};

use golden::Golden;

/// A test that is not about one rendering.
type Test = (&'static str, fn(&Helm) -> Result<()>);

fn trial(name: String, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

fn trials() -> Result<Vec<Trial>> {
    let helm = Helm::from_environment()?;
    let mut trials = Vec::new();
    for case in Golden::all()? {
        for (name, run) in golden::TESTS
            .iter()
            .chain(invariants::TESTS)
            .chain(placement::TESTS)
            .chain(openshift::TESTS)
            .chain(cluster_cache::TESTS)
            .chain(controller::TESTS)
            .chain(rights::TESTS)
        {
            let (helm, case) = (helm.clone(), case.clone());
            trials.push(trial(format!("{}::{name}", case.name()), move || run(&helm, &case)));
        }
    }
    for refusal in refusals::ALL {
        let helm = helm.clone();
        trials.push(trial(format!("refused::{}", refusal.name), move || refusal.run(&helm)));
    }
    let of_helm = helm.clone();
    trials.push(trial("what_programs_take_is_taken".to_owned(), move || refusals::taken(&of_helm)));
    for (name, run) in
        registries::TESTS.iter().chain(dashboard::TESTS).chain(notes::TESTS).chain(nulls::TESTS).chain(rights::PAGE)
    {
        let helm = helm.clone();
        trials.push(trial((*name).to_owned(), move || run(&helm)));
    }
    Ok(trials)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

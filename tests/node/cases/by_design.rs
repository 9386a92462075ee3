//! Cases that only containerd has, and why CRI-O has none of that name. Checked: a new case of containerd alone has to be listed here.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use larder_test_parts::CrioLine;

use crate::{Case, Run, cases};

pub(crate) const CASES: &[Case] = &[Case::crio("what_only_containerd_has_is_listed_with_its_reason", listed)];

const NO_FOLDER: &str = "CRI-O has no folder of hosts.toml files, and so no list of folders";
const NO_RESTART: &str =
    "CRI-O needs no edit of its own configuration, and so no restart: registries.conf.d is always read";

/// Names, and why.
const ONLY_CONTAINERD: &[(&str, &str)] = &[
    ("an_administrators_ca_serves_us_too", "CRI-O's is in a_registry_that_nobody_named_is_learnt_and_stays_known"),
    ("a_redirect_of_the_administrators_is_left_alone", "CRI-O's is a_location_of_the_administrators_is_left_alone"),
    ("a_server_of_the_administrators_is_left_alone", "`server` is a word of hosts.toml; CRI-O's is `location`"),
    ("a_colon_list_reaches_us", NO_FOLDER),
    ("the_second_folder_of_a_list_is_not_hidden", NO_FOLDER),
    ("no_configuration_at_all", NO_FOLDER),
    (
        "one_registry_that_the_engine_cannot_pull_from_is_news_about_that_registry",
        "containerd has an entry for each such registry beside the one for all; CRI-O's are one file, read as a whole or not at all",
    ),
    ("config_toml_without_permission_is_told_and_not_touched", NO_RESTART),
    ("config_toml_with_permission_is_edited_and_restored", NO_RESTART),
    ("config_toml_takes_one_restart_of_an_engine_that_runs_for_a_while", NO_RESTART),
    ("config_toml_is_rolled_back_by_the_next_agent_when_the_first_was_killed", NO_RESTART),
    ("config_toml_by_hand", NO_RESTART),
    ("config_toml_is_rolled_back_when_the_command_fails", NO_RESTART),
    ("config_toml_is_rolled_back_when_the_engine_does_not_come_back", NO_RESTART),
    ("config_toml_is_rolled_back_when_the_command_forks_an_engine_with_our_few_rights", NO_RESTART),
    ("parallel_ranges_cost_the_origin_each_byte_once", "containers/image fetches a layer in one piece"),
];

fn listed(_: CrioLine) -> Result<()> {
    let of_containerd: BTreeSet<&str> =
        cases().iter().filter(|case| matches!(case.run, Run::Containerd(_))).map(|case| case.name).collect();
    let listed: BTreeSet<&str> = ONLY_CONTAINERD.iter().map(|(name, _)| *name).collect();
    let unlisted: Vec<_> = of_containerd.difference(&listed).collect();
    ensure!(unlisted.is_empty(), "containerd alone has these, and nobody says why: {unlisted:?}");
    let gone: Vec<_> = listed.difference(&of_containerd).collect();
    ensure!(gone.is_empty(), "these are listed, and no cases of containerd alone: {gone:?}");
    Ok(())
}

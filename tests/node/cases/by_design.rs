//! Cases that only containerd has, and why CRI-O has none of that name; cases that only a daemon of CRI-O has, and why the library alone
//! has none. Checked: a new case of containerd alone has to be listed here.

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

const RELOADS: &str = "how CRI-O starts and reads again is its daemon's own doing; around the library alone that is ours, and shows nothing";
const CLIENTS: &str = "these clients bring a library of their own, whatever engine is beside them";

/// Names, and why.
const ONLY_A_DAEMON: &[(&str, &str)] = &[
    (
        "what_only_containerd_has_is_listed_with_its_reason",
        "it looks at these lists, which are the same for every line",
    ),
    ("a_mirror_in_a_drop_in_is_asked_after_a_reload_and_not_before", RELOADS),
    ("a_malformed_drop_in_keeps_it_from_starting", RELOADS),
    ("a_malformed_drop_in_at_a_reload_leaves_what_was", RELOADS),
    ("a_dangling_link_as_drop_in_is_no_drop_in", "the tests of registries.conf say what each library makes of one"),
    ("many_reloads_at_once_end_with_the_newest_files", RELOADS),
    ("a_reload_that_fails_late_has_applied_the_registries", RELOADS),
    ("a_reload_that_was_skipped_is_seen_told_and_made_up_for", RELOADS),
    ("skopeo_pulls_by_the_same_files_as_root_and_as_anybody", CLIENTS),
    ("podman_pulls_by_the_same_files", CLIENTS),
    ("buildah_pulls_by_the_same_files", CLIENTS),
    ("the_page_of_the_cluster_cache_shows_what_works_with_curl_skopeo_and_crane", CLIENTS),
    ("of_two_engines_a_person_says_which", "which process is meant depends on no library"),
    ("found_by_its_usual_socket", "which process is meant depends on no library"),
];

fn listed(_: CrioLine) -> Result<()> {
    let of_containerd: BTreeSet<&str> =
        cases().iter().filter(|case| matches!(case.run, Run::Containerd(_))).map(|case| case.name).collect();
    let listed: BTreeSet<&str> = ONLY_CONTAINERD.iter().map(|(name, _)| *name).collect();
    let unlisted: Vec<_> = of_containerd.difference(&listed).collect();
    ensure!(unlisted.is_empty(), "containerd alone has these, and nobody says why: {unlisted:?}");
    let gone: Vec<_> = listed.difference(&of_containerd).collect();
    ensure!(gone.is_empty(), "these are listed, and no cases of containerd alone: {gone:?}");
    let all: BTreeSet<&str> = cases().iter().map(|case| case.name).collect();
    let gone: Vec<_> = ONLY_A_DAEMON.iter().map(|(name, _)| *name).filter(|name| !all.contains(name)).collect();
    ensure!(gone.is_empty(), "these are listed, and no cases at all: {gone:?}");
    Ok(())
}

/// Whether the library alone has nothing that such a case could show.
pub(crate) fn needs_a_daemon(name: &str) -> bool {
    ONLY_A_DAEMON.iter().any(|(listed, _)| *listed == name)
}

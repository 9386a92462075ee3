use super::{Command, parse};
use clap::CommandFactory as _;
use std::ffi::OsString;
use std::path::Path;

fn line(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn store_of(words: &[&str]) -> String {
    match parse(line(words)).unwrap().0.command {
        Command::Run(run) => run.proxy.store.store,
        other => panic!("{other:?}"),
    }
}

fn refused(file: &Path, text: &str) -> String {
    std::fs::write(file, text).unwrap();
    parse(line(&["larder-node", "--config", file.to_str().unwrap(), "plan"])).unwrap_err().to_string()
}

#[test]
fn the_definition_is_consistent() {
    super::Typed::command().debug_assert();
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.toml");
    std::fs::write(&file, "store = \"memory:1GiB\"\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n").unwrap();
    let config = format!("--config={}", file.display());
    assert_eq!(store_of(&["larder-node", "run"]), "directory:/var/lib/larder/store");
    assert_eq!(store_of(&["larder-node", &config, "run"]), "memory:1GiB");
    assert_eq!(store_of(&["larder-node", "run", &config]), "memory:1GiB");
    assert_eq!(store_of(&["larder-node", "run", &config, "--store", "memory:5MB"]), "memory:5MB");
    match parse(line(&["larder-node", &config, "status"])).unwrap().0.command {
        Command::Status(status) => assert_eq!(status.run.agent.listen.listen.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_word_in_the_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.toml");
    assert!(refused(&file, "stoer = 1").contains("stoer: there is no such option"));
    assert!(refused(&file, "config = \"other\"").contains("cannot name another one"));
    assert!(refused(&file, "store = { a = 1 }").contains("store: it must be"));
    assert!(refused(&file, "store = ").contains("larder.toml"));
}

#[test]
fn what_a_newcomer_reads() {
    let mut command = super::Typed::command().term_width(100);
    command.build();
    insta::assert_snapshot!("help", command.render_help());
    for name in [
        "run",
        "proxy",
        "prepare-store",
        "agent",
        "check pull",
        "check nodes",
        "check stay",
        "plan",
        "apply",
        "restore",
        "status",
    ] {
        let found = name.split(' ').fold(&mut command, |found, word| found.find_subcommand_mut(word).unwrap());
        let help = found.render_help().to_string();
        assert!(help.contains(&format!("Usage: larder-node {name} ")), "{help}");
        insta::assert_snapshot!(format!("help-{}", name.replace(' ', "-")), help);
    }
}

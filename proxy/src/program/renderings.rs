//! What a person reads when the proxy does not start.
//!
//! The rule for errors of libraries: `Display` says everything once, its cause included, and then the cause is no
//! [`std::error::Error::source`] as well, so that a chain (`{:#}` of `anyhow`) repeats nothing.

use std::error::Error;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use larder_oci::{Algorithm, Digest};

use super::*;
use crate::fetch::FetchError;
use crate::source::SourceError;

fn no_such_file() -> io::Error {
    io::Error::from_raw_os_error(2)
}

/// As `{:#}` of an `anyhow::Error` renders it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn settings(text: &str) -> OpenError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registries.toml");
    fs::write(&path, text).unwrap();
    SettingsFile::open(&path).unwrap_err().into()
}

#[test]
fn a_chain_says_everything_once() {
    let (path, address) = (PathBuf::from("/run/larder/x"), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = listener.local_addr().unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let errors: Vec<(Box<dyn Error>, &str)> = vec![
        (Box::new(OpenError::Store(StoreError::Io { path: path.clone(), error: no_such_file() })), "No such file"),
        (Box::new(OpenError::Settings(SettingsFile::open(&path).unwrap_err())), "No such file"),
        (Box::new(OpenError::Key(ProbeKey::read(Path::new("/run/larder/x")).unwrap_err())), "No such file"),
        (Box::new(OpenError::Bind(BindError::Io { address, error: no_such_file() })), "No such file"),
        (Box::new(OpenError::Admin(AdminServer::bind(taken, Scope::All).unwrap_err())), "in use"),
        (Box::new(settings("registries = 1")), "line 1"),
        (Box::new(settings("[registries.\"https://quay.io\"]")), "write \"quay.io\""),
        (
            Box::new(FetchError::Source {
                digest,
                error: SourceError::Unreachable { reason: "no connection to x".into() },
            }),
            "no connection to x",
        ),
        (Box::new(larder_oci::children(b"{").unwrap_err()), "EOF"),
        (Box::new(larder_oci::ImageReference::parse("a/b@sha256:1").unwrap_err()), "sha256:1"),
        (Box::new(RunError::Task(TaskError::Failed { name: "admin", reason: "of course".to_owned() })), "of course"),
    ];
    for (error, part) in errors {
        let text = chain(error.as_ref());
        assert_eq!(text.matches(part).count(), 1, "{text}");
        let parts: Vec<&str> = text.split(": ").collect();
        let repeated = parts.iter().enumerate().find(|(index, part)| parts[index + 1..].contains(part));
        assert_eq!(repeated, None, "{text}");
    }
}

//! Names that whoever may create a Pod can write: none of them changes what is pulled, or what CRI-O is told.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::crio::{Crio, CrioOptions};
use larder_test_node::engine::Engine as _;
use larder_test_node::http;
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::{Node, listed};
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin, OriginBuilder};
use larder_test_parts::CrioLine;

use crate::Case;

pub(crate) const CASES: &[Case] =
    &[Case::crio("hostile_names_pull_what_they_did_and_leave_the_files_readable", hostile_names)];

/// What a Pod could name, of registries that are there and of others.
fn names(origin: &Origin, others: &[Origin; 2], image: &Image, proxy: &str) -> Vec<String> {
    let registry = origin.registry();
    let (port, digest) = (origin.address().port(), &image.index);
    let long = vec!["a".repeat(60); 3].join("/");
    vec![
        format!("{registry}/team/app:v1@{digest}"),
        format!("{registry}/team/app@sha256:{}", "0".repeat(64)),
        format!("{registry}/team/../app:v1"),
        format!("{registry}/team//app:v1"),
        format!("{registry}/team/%2e%2e/app:v1"),
        format!("{registry}/Team/App:v1"),
        format!("{registry}/team/app:v1\n[[registry]]"),
        format!("{registry}/team/app:{}", "v".repeat(128)),
        format!("{registry}/{long}:v1"),
        format!("{registry}\"/team/app:v1"),
        format!("localhost:{port}/team/app:v1"),
        format!("LocalHost:{port}/team/app:v1"),
        format!("127.1:{port}/team/app:v1"),
        format!("{}/team/app:v1", others[0].address()),
        format!("{}/team/app:v1", others[1].address()),
        // As if it were a registry: what it has of the origin, and itself once more.
        format!("{proxy}/127.0.0.1__{port}/team/none:v1"),
        format!("{proxy}/{}/127.0.0.1__{port}/team/app:v1", proxy.replace(':', "__")),
        "larder.invalid/team/app:v1".to_owned(),
        "..:1/x:v1".to_owned(),
    ]
}

fn hostile_names(line: CrioLine) -> Result<()> {
    let addresses = [([127, 0, 0, 3], 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let others = addresses.map(|address| OriginBuilder::default().address(address).start());
    for other in &others {
        other.push("team/app", "v1", &Image::build(&ImageSpec { seed: 6, ..ImageSpec::default() }));
    }
    let listen = http::free_address()?;
    let mut without = Vec::new();
    let node: Node<Crio> = Node::around(
        &ImageSpec::default(),
        |folder| Ok(Box::new(Crio::start(line, folder, CrioOptions::default())?)),
        |engine, origin| {
            let image = Image::build(&ImageSpec::default());
            for name in names(origin, &others, &image, &listen.to_string()) {
                let is_pulled = engine.pull(&name).is_ok();
                without.push((name, is_pulled));
            }
            // They are still there when Larder looks at what is in use.
            Ok(LarderOptions { registries: listed(origin), listen: Some(listen), ..LarderOptions::default() })
        },
    )?;
    ensure!(without.iter().any(|(_, is_pulled)| *is_pulled), "none of these names an image: the case shows nothing");
    for (name, was_pulled) in &without {
        let pulled = node.engine.pull(name);
        ensure!(pulled.is_ok() == *was_pulled, "{name:?}: pulled without us: {was_pulled}; with us: {pulled:?}");
    }
    let ours = until("what was pulled is learnt from", Duration::from_secs(20), || {
        let ours = std::fs::read_to_string(node.engine.entry())?;
        ensure!(ours.contains(&others[0].address().to_string()), "it is not: {ours}");
        Ok(ours)
    })?;
    node.larder.wait_until_configured(Duration::from_secs(20))?;
    let of_itself = format!("prefix = \"{listen}\"");
    ensure!(!ours.contains(&of_itself), "an entry leads from the proxy to the proxy: {ours}");
    // It starts with what we wrote, and does what it did.
    node.engine.restart().context("with what was learnt from these names")?;
    node.larder.wait_until_configured(Duration::from_secs(30))?;
    node.origin.clear_log();
    node.origin.push("team/last", "v1", &Image::build(&ImageSpec { seed: 7, ..ImageSpec::default() }));
    node.engine.pull(&format!("{}/team/last:v1", node.origin.registry()))?;
    ensure!(node.asked_by_engine() == 0, "the engine goes to the origin itself: {:#?}", node.origin.log());
    Ok(())
}

//! A policy that asks for signatures means through us what it means without us, and goes on doing so while the registry is away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_oci::Digest;
use larder_test_node::crio::{Crio, Files};
use larder_test_node::engine::Engine as _;
use larder_test_node::node::{Node, from_larder};
use larder_test_node::signing::{Gpg, attachment, sign_with_sigstore};
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::CrioLine;
use serde_json::{Value, json};

use crate::Case;
use crate::crio_files::node;

pub(crate) const CASES: &[Case] = &[
    Case::crio("a_sigstore_signature_is_verified_through_us_also_without_the_registry", sigstore).smoke(),
    Case::crio("a_signature_at_a_lookaside_is_verified_without_us", lookaside).smoke(),
];

/// The manifest that is signed: what of `Node`'s image the engine takes.
fn signed() -> Digest {
    Image::build(&ImageSpec::default()).host_platform().manifest.clone()
}

/// Another image under its own name, and its reference.
fn push(origin: &Origin, repository: &str, seed: u64) -> String {
    origin.push(repository, "v1", &Image::build(&ImageSpec { seed, layers: vec![1000], ..ImageSpec::default() }));
    format!("{}/{repository}:v1", origin.registry())
}

/// Everything of the registry has to be signed so; of others nothing.
fn require(files: &Files, origin: &Origin, requirement: &Value) -> Result<()> {
    let registry = origin.registry().to_string();
    let policy = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {registry: [requirement]}},
    });
    Ok(std::fs::write(files.containers().join("policy.json"), policy.to_string())?)
}

/// It is refused for want of a signature, or of a good one, as `why` says.
fn is_refused(node: &Node<Crio>, reference: &str, why: &[&str]) -> Result<()> {
    let error = node.engine.pull(reference).err().with_context(|| format!("{reference} was pulled"))?;
    let words = format!("{error:#}").to_lowercase();
    ensure!(why.iter().any(|why| words.contains(why)), "{reference}: it says {error:#}");
    ensure!(!node.engine.has(reference)?, "{reference} is there after it was refused");
    Ok(())
}

const NONE: [&str; 1] = ["a signature was required, but no signature exists"];
const FORGED: [&str; 2] = ["cryptographic signature verification failed", "invalid signature"];

fn sigstore(line: CrioLine) -> Result<()> {
    let (keys, others) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut attached = None;
    let node = node(line, |files, origin| {
        attached = Some(sign_with_sigstore(line.library(), origin, "team/app", keys.path())?);
        push(origin, "team/forged", 2);
        sign_with_sigstore(line.library(), origin, "team/forged", others.path())?;
        push(origin, "team/unsigned", 3);
        std::fs::copy(keys.path().join("public.key"), files.containers().join("public.key"))?;
        let registry = origin.registry();
        let attachments = format!("docker:\n  \"{registry}\":\n    use-sigstore-attachments: true\n");
        Ok(std::fs::write(files.signatures("mine.yaml"), attachments)?)
    })?;
    let [forged, unsigned] = ["forged", "unsigned"].map(|name| format!("{}/team/{name}:v1", node.origin.registry()));
    // While nobody asks for signatures these are images like others, and are kept.
    for reference in [&forged, &unsigned] {
        node.engine.pull(reference)?;
        node.engine.remove(reference)?;
    }
    let key = json!({"type": "sigstoreSigned", "keyPath": "/etc/containers/public.key"});
    require(&node.engine.files(), &node.origin, &key)?;
    node.warm_and_keep_log()?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the registry itself: {:#?}", node.origin.log());
    let name = attachment(&signed());
    let looked_for = node.origin.log().iter().any(|access| from_larder(access) && access.path.ends_with(&name));
    ensure!(looked_for, "nobody looked for {name}: {:#?}", node.origin.log());
    is_refused(&node, &forged, &FORGED)?;
    is_refused(&node, &unsigned, &NONE)?;
    ensure!(node.asked_by_engine() == 0, "the engine went to the registry itself: {:#?}", node.origin.log());

    let attached = attached.context("nothing was signed")?;
    until("the signature is in the store", Duration::from_secs(10), || {
        node.stored(&attached).map(drop).context("it is not")
    })?;
    node.origin.stop();
    node.engine.pull(&node.by_tag()).context("what is signed, without the registry")?;
    node.engine.remove(&node.by_tag())?;
    node.engine.pull(&node.by_digest()).context("the same by digest")?;
    node.engine.remove(&node.by_digest())?;
    is_refused(&node, &forged, &FORGED).context("without the registry")?;
    is_refused(&node, &unsigned, &NONE).context("without the registry")?;

    node.origin.start_again();
    node.larder.stop()?;
    node.engine.pull(&node.by_tag()).context("without us")?;
    is_refused(&node, &forged, &FORGED).context("without us")?;
    is_refused(&node, &unsigned, &NONE).context("without us")
}

/// The mirror's name is not known there, so such a registry is left alone, and its pulls mean what they meant.
fn lookaside(line: CrioLine) -> Result<()> {
    let gpg = Gpg::new()?;
    let node = node(line, |files, origin| {
        let lookaside = files.containers().join("lookaside");
        gpg.sign(&format!("{}/team/app:v1", origin.registry()), &signed(), &lookaside, "team/app")?;
        push(origin, "team/unsigned", 3);
        std::fs::write(files.containers().join("public.gpg"), gpg.public_key()?)?;
        let registry = origin.registry();
        let place = format!("docker:\n  \"{registry}\":\n    lookaside: file:///etc/containers/lookaside\n");
        std::fs::write(files.signatures("mine.yaml"), place)?;
        let key = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/containers/public.gpg"});
        require(files, origin, &key)
    })?;
    let unsigned = format!("{}/team/unsigned:v1", node.origin.registry());
    let status = node.larder.status()?.to_string();
    ensure!(status.contains("lookaside"), "the status does not say why the registry is left alone: {status}");
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_larder() == 0, "it came through us: {:#?}", node.origin.log());
    is_refused(&node, &unsigned, &NONE)?;
    // Where nobody asks for signatures, nothing is in the way.
    node.engine.remove(&node.by_tag())?;
    require(&node.engine.files(), &node.origin, &json!({"type": "insecureAcceptAnything"}))?;
    until("it is pulled through us", Duration::from_secs(20), || {
        node.origin.clear_log();
        node.engine.pull(&node.by_tag())?;
        node.engine.remove(&node.by_tag())?;
        ensure!(node.asked_by_engine() == 0, "the engine goes to the registry itself: {}", node.larder.last_lines());
        Ok(())
    })
}

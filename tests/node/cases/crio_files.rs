//! CRI-O and those who write its files while Larder runs: it follows, says by name what it cannot follow, and makes nothing worse.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use larder_test_node::crio::{Crio, CrioOptions, Files};
use larder_test_node::engine::Engine as _;
use larder_test_node::larder::LarderOptions;
use larder_test_node::node::Node;
use larder_test_node::wait::until;
use larder_test_origin::{Image, ImageSpec, Origin};
use larder_test_parts::CrioLine;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::crio("reloads_are_for_news_only", reloads),
    Case::crio("a_reload_that_was_skipped_is_seen_told_and_made_up_for", skipped_reload),
    Case::crio("an_administrators_mirror_comes_after_ours_and_blocked_is_blocked", administrator).smoke(),
    Case::crio("files_rewritten_again_and_again_are_followed_to_the_end", rewrites),
    Case::crio("a_location_of_the_administrators_is_left_alone", redirected).smoke(),
    Case::crio("a_malformed_neighbour_is_named_and_made_no_worse", malformed),
    Case::crio("files_that_lead_to_the_null_device_are_empty_files", switched_off).smoke(),
];

/// CRI-O with what `furnish` adds to its files, and Larder.
pub(crate) fn node(line: CrioLine, furnish: impl FnOnce(&Files, &Origin) -> Result<()>) -> Result<Node<Crio>> {
    Node::around(
        &ImageSpec::default(),
        |folder| Ok(Box::new(Crio::start(line, folder, CrioOptions::default())?)),
        |engine, origin| {
            furnish(&engine.files(), origin)?;
            Ok(LarderOptions::default())
        },
    )
}

/// How often CRI-O has read its files again.
pub(crate) fn reloads_of(engine: &Crio) -> usize {
    engine.log().matches("Configuration reload completed").count()
}

fn drop_in(node: &Node<Crio>) -> Result<String> {
    Ok(std::fs::read_to_string(node.engine.entry())?)
}

/// As machine configs are written: beside it, and renamed.
fn replace(files: &Files, name: &str, text: &str) -> Result<()> {
    let (path, new) = (files.drop_in(name), files.drop_in(&format!(".{name}.new")));
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, path)?)
}

fn mirrored_to(origin: &Origin, mirror: &str, more: &str) -> String {
    format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n{more}[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n",
        origin.registry()
    )
}

/// One when an agent takes over what another left, who may not have lived to tell; none while it works and nothing changes.
fn reloads(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    let before = reloads_of(&node.engine);
    ensure!(before > 0, "it was never told to read again: the case shows nothing");
    let agents = 3;
    for _ in 0..agents {
        node.larder.kill_agent()?;
        node.larder.start_again()?;
    }
    ensure!(reloads_of(&node.engine) == before + agents, "{before} reloads became {}", reloads_of(&node.engine));
    node.larder.stop()?;
    until("the planned stop is one reload", Duration::from_secs(5), || {
        ensure!(reloads_of(&node.engine) == before + agents + 1, "{} after {before}", reloads_of(&node.engine));
        Ok(())
    })
}

fn skipped_reload(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.larder.stop()?;
    let level = node.engine.files().settings("20-level.conf");
    std::fs::write(&level, "[crio.runtime]\nlog_level = \"nonsense\"\n")?;
    node.larder.launch()?;
    let words = until("the agent has seen that the engine does not ask", Duration::from_secs(20), || {
        let words = node.larder.wait_until_not_ready(Duration::from_secs(5))?;
        ensure!(node.engine.log().contains("nonsense"), "CRI-O was not told to read again yet: {words}");
        ensure!(node.larder.log().contains("the engine does not ask the proxy"), "it was not seen yet: {words}");
        Ok(words)
    })?;
    ensure!(words.contains("configured"), "it says {words}");
    node.engine.pull(&node.by_tag())?;
    node.engine.remove(&node.by_tag())?;
    std::fs::write(&level, "[crio.runtime]\nlog_level = \"info\"\n")?;
    node.larder.wait_until_configured(Duration::from_secs(30)).context("after the file was mended")?;
    node.origin.clear_log();
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine goes to the origin itself");
    Ok(())
}

fn administrator(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    let files = node.engine.files();
    std::fs::write(files.drop_in("50-mine.conf"), mirrored_to(&node.origin, "mirror.example.com", ""))?;
    until("his mirror is asked after ours", Duration::from_secs(10), || {
        let text = drop_in(&node)?;
        let (ours, his) =
            (text.find(&format!("{}/{}", node.larder.listen, "127.0.0.1__")), text.find("mirror.example.com"));
        ensure!(ours.is_some() && his.is_some() && ours < his, "{text}");
        Ok(())
    })?;
    node.larder.wait_until_configured(Duration::from_secs(10))?;
    node.origin.stop();
    node.engine.pull(&node.by_tag()).context("from Larder, before his mirror is asked")?;
    node.engine.remove(&node.by_tag())?;
    let blocked = mirrored_to(&node.origin, "mirror.example.com", "blocked = true\n");
    std::fs::write(files.drop_in("50-mine.conf"), blocked)?;
    until("what he blocked is blocked", Duration::from_secs(10), || {
        let error = node.engine.pull(&node.by_tag()).err();
        let Some(error) = error else {
            node.engine.remove(&node.by_tag())?;
            anyhow::bail!("it was pulled");
        };
        ensure!(format!("{error:#}").contains("blocked"), "it says {error:#}");
        Ok(())
    })?;
    ensure!(!drop_in(&node)?.contains(node.origin.registry().as_str()), "we still have an entry for it");
    Ok(())
}

fn rewrites(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    let files = node.engine.files();
    for round in 0..10 {
        let main = format!("unqualified-search-registries = [\"round-{round}.example.com\"]\n");
        let new = files.containers().join("registries.conf.new");
        std::fs::write(&new, main)?;
        std::fs::rename(new, files.registries_conf())?;
        replace(&files, "99-worker.conf", &mirrored_to(&node.origin, &format!("mirror-{round}.example.com"), ""))?;
        // Each is seen before the next comes: a machine config is not written faster than that.
        until("it is followed", Duration::from_secs(10), || {
            let text = drop_in(&node)?;
            let seen = [format!("round-{round}.example.com"), format!("mirror-{round}.example.com")];
            ensure!(seen.iter().all(|name| text.contains(name)), "round {round}: {text}");
            Ok(())
        })?;
    }
    node.larder.wait_until_configured(Duration::from_secs(30))?;
    let confirmed = || {
        let status = node.larder.status()?;
        status["placed"][0]["confirmed_at"].as_u64().with_context(|| format!("it is not confirmed: {status}"))
    };
    let before = confirmed()?;
    until("the second of that proof is over", Duration::from_secs(5), || {
        ensure!(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() > before);
        Ok(())
    })?;
    // Faster than anybody follows: what counts is the last one.
    for round in 0..200 {
        replace(&files, "99-worker.conf", &mirrored_to(&node.origin, &format!("fast-{round}.example.com"), ""))?;
    }
    until("the last one is followed, and proved anew", Duration::from_secs(10), || {
        let text = drop_in(&node)?;
        ensure!(text.contains("fast-199.example.com"), "{text}");
        ensure!(confirmed()? > before, "what is known is the proof of the files of before");
        Ok(())
    })?;
    // One that would be read after ours.
    replace(&files, "zz-z.conf", &mirrored_to(&node.origin, "last.example.com", ""))?;
    until("ours is read after it", Duration::from_secs(10), || {
        let ours = std::fs::read_to_string(files.drop_in("zz-z.zz-larder.conf"))?;
        ensure!(ours.contains("last.example.com"), "{ours}");
        ensure!(!node.engine.entry().exists(), "there are two of ours");
        Ok(())
    })?;
    node.origin.stop();
    // Between our file and the end of the reload CRI-O goes by the other one, and nothing here says when that is over.
    until("CRI-O goes by ours", Duration::from_secs(10), || node.engine.pull(&node.by_tag()).map(drop))?;
    Ok(())
}

fn redirected(line: CrioLine) -> Result<()> {
    let vetting = Origin::start();
    let vetted = Image::build(&ImageSpec { seed: 9, ..ImageSpec::default() });
    vetting.push("team/app", "v1", &vetted);
    let node = node(line, |files, origin| {
        let to = format!(
            "[[registry]]\nprefix = \"{}\"\nlocation = \"{}\"\ninsecure = true\n",
            origin.registry(),
            vetting.registry()
        );
        Ok(std::fs::write(files.drop_in("50-vetting.conf"), to)?)
    })?;
    // It reads that file when it is told of ours.
    node.engine.pull(&node.by_tag())?;
    ensure!(node.engine.has(&node.digest_reference(&vetted.index))?, "what was pulled is not the vetted image");
    ensure!(node.origin.log().is_empty(), "the origin was asked behind his back: {:#?}", node.origin.log());
    let status = node.larder.status()?.to_string();
    ensure!(status.contains("redirected to"), "status does not say that it was left alone: {status}");
    Ok(())
}

/// As an administrator switches off what a package brought.
fn switched_off(line: CrioLine) -> Result<()> {
    let node = node(line, |files, _| {
        symlink("/dev/null", files.drop_in("50-of-a-package.conf"))?;
        Ok(symlink("/dev/null", files.signatures("of-a-package.yaml"))?)
    })?;
    node.engine.pull(&node.by_tag())?;
    ensure!(node.asked_by_engine() == 0, "the engine goes to the origin itself: {:#?}", node.origin.log());
    // Also when it is the newest file that there is.
    symlink("/dev/null", node.engine.files().drop_in("zz-zz.conf"))?;
    node.engine.restart()?;
    node.larder.wait_until_configured(Duration::from_secs(30))?;
    node.engine.remove(&node.by_tag())?;
    node.origin.stop();
    node.engine.pull(&node.by_tag()).context("through us, after its restart")?;
    Ok(())
}

fn malformed(line: CrioLine) -> Result<()> {
    let node = node(line, |_, _| Ok(()))?;
    node.warm()?;
    let before = drop_in(&node)?;
    let broken = node.engine.files().drop_in("50-broken.conf");
    std::fs::write(&broken, "[[registry]\n")?;
    let words = node.larder.wait_until_not_ready(Duration::from_secs(10))?;
    ensure!(words.contains("50-broken.conf"), "it says {words}");
    ensure!(drop_in(&node)? == before, "ours was changed");
    node.engine.pull(&node.by_tag()).context("with what CRI-O read before")?;
    ensure!(node.asked_by_engine() == 0, "the engine goes to the origin itself");
    node.engine.remove(&node.by_tag())?;
    std::fs::remove_file(broken)?;
    node.larder.wait_until_configured(Duration::from_secs(10))
}

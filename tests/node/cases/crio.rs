//! What the adapter for CRI-O relies on, seen on the real one without Larder; and that CRI-O is told of our file.

use std::os::unix::fs::symlink;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use larder_test_node::crio::{Crio, CrioOptions};
use larder_test_node::engine::Engine as _;
use larder_test_node::larder::{Larder, LarderOptions};
use larder_test_node::node::{folder, listed};
use larder_test_node::wait::until;
use larder_test_origin::{Access, Behaviour, Image, ImageSpec, Matcher, Origin};
use larder_test_parts::{CrioLine, LibraryLine};
use nix::sys::signal::Signal;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case::crio("pulls_from_the_origin_by_tag_and_by_digest", pulls),
    Case::crio("a_mirror_in_a_drop_in_is_asked_after_a_reload_and_not_before", mirror),
    Case::crio("a_malformed_drop_in_keeps_it_from_starting", malformed),
    Case::crio("a_malformed_drop_in_at_a_reload_leaves_what_was", malformed_reload),
    Case::crio("a_dangling_link_as_drop_in_is_no_drop_in", dangling),
    Case::crio("reloads_during_a_pull_leave_it_with_its_mirror", reload_in_a_pull),
    Case::crio("many_reloads_at_once_end_with_the_newest_files", storm),
    Case::crio("a_reload_that_fails_late_has_applied_the_registries", fails_late),
    Case::crio("a_reserved_name_reaches_its_mirror_and_leaves_nothing", reserved).smoke(),
    Case::crio("a_namespace_twice_in_registries_d_fails_every_pull", namespace_twice).smoke(),
    Case::crio("what_an_agent_did_not_live_to_tell_is_told_by_the_next", never_told),
];

/// A registry that has `team/app:v1`.
fn registry(seed: u64) -> (Origin, Image) {
    let origin = Origin::start();
    let image = Image::build(&ImageSpec { seed, ..ImageSpec::default() });
    origin.push("team/app", "v1", &image);
    (origin, image)
}

/// A drop-in that has CRI-O ask `mirror` before `origin`. Both have the image under the same name.
fn mirrored(origin: &Origin, mirror: &Origin) -> String {
    format!(
        "[[registry]]\nprefix = \"{0}\"\nlocation = \"{0}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{1}\"\ninsecure = true\n",
        origin.registry(),
        mirror.registry()
    )
}

fn pulls(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let (origin, image) = registry(1);
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    for reference in ["team/app:v1".to_owned(), format!("team/app@{}", image.index)] {
        let reference = format!("{}/{reference}", origin.registry());
        engine.pull(&reference)?;
        ensure!(engine.has(&reference)?, "CRI-O does not have {reference}: {:?}", engine.images()?);
        engine.remove(&reference)?;
    }
    let agents: Vec<_> =
        origin.log().iter().filter_map(|access| access.header("user-agent").map(str::to_owned)).collect();
    ensure!(agents.iter().all(|agent| agent.starts_with(engine.user_agent())), "it calls itself {agents:?}");
    Ok(())
}

fn mirror(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((origin, _), (mirror, _)) = (registry(1), registry(1));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    std::fs::write(engine.files().drop_in("zz-mirror.conf"), mirrored(&origin, &mirror))?;
    engine.pull(&reference)?;
    engine.remove(&reference)?;
    ensure!(mirror.log().is_empty(), "the mirror was asked before a reload");
    engine.reload()?;
    origin.clear_log();
    engine.pull(&reference)?;
    ensure!(!mirror.log().is_empty(), "the mirror was not asked after a reload");
    ensure!(origin.log().is_empty(), "the origin was asked as well: {:#?}", origin.log());
    Ok(())
}

fn malformed(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let engine = Crio::start_furnished(line, folder.path(), CrioOptions::default(), |files| {
        Ok(std::fs::write(files.drop_in("50-broken.conf"), "[[registry]\n")?)
    })?;
    let log = engine.wait_until_ended()?;
    ensure!(log.contains("invalid registries") && log.contains("50-broken.conf"), "it says {log}");
    Ok(())
}

fn malformed_reload(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((origin, _), (mirror, _)) = (registry(1), registry(1));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start_furnished(line, folder.path(), CrioOptions::default(), |files| {
        Ok(std::fs::write(files.drop_in("50-mirror.conf"), mirrored(&origin, &mirror))?)
    })?;
    engine.wait_until_ready()?;
    let broken = engine.files().drop_in("60-broken.conf");
    std::fs::write(&broken, "[[registry]\n")?;
    let error = engine.reload().err().context("CRI-O says that it has read a malformed drop-in")?;
    ensure!(error.to_string().contains("system registries reload failed"), "it says {error}");
    engine.pull(&reference)?;
    ensure!(!mirror.log().is_empty(), "the mirror is forgotten");
    std::fs::remove_file(&broken)?;
    engine.reload()
}

fn dangling(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((origin, _), (mirror, _)) = (registry(1), registry(1));
    let reference = format!("{}/team/app:v1", origin.registry());
    let target = folder.path().join("target.conf");
    let engine = Crio::start_furnished(line, folder.path(), CrioOptions::default(), |files| {
        Ok(symlink(&target, files.drop_in("zz-mirror.conf"))?)
    })?;
    engine.wait_until_ready()?;
    let pull_asks_the_mirror = || {
        mirror.clear_log();
        engine.pull(&reference)?;
        engine.remove(&reference)?;
        anyhow::Ok(!mirror.log().is_empty())
    };
    ensure!(!pull_asks_the_mirror()?, "a link that leads nowhere brought a mirror");
    std::fs::write(&target, mirrored(&origin, &mirror))?;
    engine.reload()?;
    ensure!(pull_asks_the_mirror()?, "what the link leads to was not read at a reload");
    engine.restart()?;
    ensure!(pull_asks_the_mirror()?, "what the link leads to was not read at a start");
    std::fs::remove_file(&target)?;
    ensure!(pull_asks_the_mirror()?, "a pull looked at the files");
    engine.reload()?;
    ensure!(!pull_asks_the_mirror()?, "the mirror stayed after its file was gone");
    Ok(())
}

fn reload_in_a_pull(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let (origin, mirror) = (Origin::start(), Origin::start());
    let image = Image::build(&ImageSpec { layers: vec![4_000_000], ..ImageSpec::default() });
    for registry in [&origin, &mirror] {
        registry.push("team/app", "v1", &image);
    }
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start_furnished(line, folder.path(), CrioOptions::default(), |files| {
        Ok(std::fs::write(files.drop_in("zz-mirror.conf"), mirrored(&origin, &mirror))?)
    })?;
    engine.wait_until_ready()?;
    mirror.behave(Matcher::path(image.largest_layer().as_str()), Behaviour::Shape(2_000_000));
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| engine.pull(&reference));
        until("the mirror is asked for a blob", Duration::from_secs(10), || {
            ensure!(mirror.log().iter().any(Access::is_blob_get), "not yet");
            Ok(())
        })?;
        std::fs::remove_file(engine.files().drop_in("zz-mirror.conf"))?;
        for _ in 0..3 {
            engine.reload()?;
        }
        ensure!(!pull.is_finished(), "the pull was over before the reloads: the case shows nothing");
        pull.join().expect("pull does not panic")?;
        ensure!(origin.log().is_empty(), "the pull changed to the origin: {:#?}", origin.log());
        anyhow::Ok(())
    })?;
    engine.remove(&reference)?;
    engine.pull(&reference)?;
    ensure!(!origin.log().is_empty(), "the next pull still goes to the mirror");
    Ok(())
}

fn storm(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((origin, _), (mirror, _)) = (registry(1), registry(1));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    let drop_in = engine.files().drop_in("zz-mirror.conf");
    for _ in 0..50 {
        std::fs::write(&drop_in, "")?;
        engine.signal(Signal::SIGHUP)?;
    }
    std::fs::write(&drop_in, mirrored(&origin, &mirror))?;
    engine.signal(Signal::SIGHUP)?;
    // Signals that come while it reads are one more reload, not each its own: the last one is never lost.
    until("the mirror is asked", Duration::from_secs(10), || {
        engine.pull(&reference)?;
        engine.remove(&reference)?;
        ensure!(!mirror.log().is_empty(), "it is not: {}", engine.last_lines());
        Ok(())
    })
}

/// So "Unable to reload configuration" says nothing about the registries: only a pull does.
fn fails_late(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((origin, _), (mirror, _)) = (registry(1), registry(1));
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    std::fs::write(engine.files().containers().join("seccomp.json"), "{")?;
    std::fs::write(
        engine.files().settings("20-seccomp.conf"),
        "[crio.runtime]\nseccomp_profile = \"/etc/containers/seccomp.json\"\n",
    )?;
    std::fs::write(engine.files().drop_in("zz-mirror.conf"), mirrored(&origin, &mirror))?;
    let error = engine.reload().err().context("CRI-O says that it has read a malformed profile")?;
    ensure!(error.to_string().contains("seccomp"), "it says {error}");
    engine.pull(&reference)?;
    ensure!(!mirror.log().is_empty(), "the mirror was not asked");
    // A step before the registries keeps them from being read.
    std::fs::write(engine.files().settings("20-seccomp.conf"), "[crio.runtime]\nlog_level = \"nonsense\"\n")?;
    std::fs::remove_file(engine.files().drop_in("zz-mirror.conf"))?;
    mirror.clear_log();
    engine.remove(&reference)?;
    let error = engine.reload().err().context("CRI-O says that it has read a malformed log level")?;
    ensure!(error.to_string().contains("nonsense"), "it says {error}");
    engine.pull(&reference)?;
    ensure!(!mirror.log().is_empty(), "the registries were read again");
    Ok(())
}

fn reserved(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let mirror = Origin::start();
    let engine = Crio::start_furnished(line, folder.path(), CrioOptions::default(), |files| {
        let location = format!("{}/larder.invalid", mirror.registry());
        Ok(std::fs::write(
            files.drop_in("zz-mirror.conf"),
            format!(
                "[[registry]]\nprefix = \"larder.invalid\"\nlocation = \"larder.invalid\"\nblocked = true\n\
                 [[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n"
            ),
        )?)
    })?;
    engine.wait_until_ready()?;
    let error = engine.pull("larder.invalid/x:nonce").err().context("there is an image of that name")?;
    // Blocked, so nobody is asked for that name, not even DNS.
    ensure!(format!("{error:#}").contains("registry larder.invalid is blocked"), "it says {error:#}");
    let asked: Vec<_> = mirror.log().iter().map(|access| format!("{} {}", access.method, access.path)).collect();
    ensure!(asked == ["GET /v2/", "GET /v2/larder.invalid/x/manifests/nonce"], "the mirror was asked {asked:?}");
    ensure!(engine.images()?.is_empty(), "there are images: {:?}", engine.images()?);
    Ok(())
}

fn namespace_twice(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let (origin, _) = registry(1);
    let reference = format!("{}/team/app:v1", origin.registry());
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    let attachments = "docker:\n  \"127.0.0.1:7439\":\n    use-sigstore-attachments: true\n";
    // Before 5.34 such a link fails every pull by itself.
    if line.library() >= LibraryLine::V5_34 {
        symlink("/run/nothing/here", engine.files().signatures("dangling.yaml"))?;
    }
    std::fs::write(engine.files().signatures("one.yaml"), attachments)?;
    engine.pull(&reference)?;
    engine.remove(&reference)?;
    std::fs::write(engine.files().signatures("two.yaml"), attachments)?;
    // Read for each pull, whatever image it is of.
    let error = engine.pull(&reference).err().context("two files with the same namespace fail no pull")?;
    ensure!(format!("{error:#}").contains("two.yaml"), "it says {error:#}");
    std::fs::remove_file(engine.files().signatures("two.yaml"))?;
    engine.pull(&reference)?;
    Ok(())
}

fn never_told(line: CrioLine) -> Result<()> {
    let folder = folder()?;
    let ((first, _), (second, _)) = (registry(1), registry(2));
    let engine = Crio::start(line, folder.path(), CrioOptions::default())?;
    let drop_in = engine.files().drop_in("zz-larder.conf");
    let options = |registries| LarderOptions { registries, ..LarderOptions::default() };
    let both = options(listed(&first) + &listed(&second));
    let larder = Larder::start(&engine, folder.path(), &both)?;
    let of_both = std::fs::read(&drop_in)?;
    larder.stop()?;
    let listen = Some(larder.listen);
    let of_one = LarderOptions { listen, ..options(listed(&first)) };
    Larder::start(&engine, folder.path(), &of_one)?.kill_agent()?;
    // As an agent leaves it that wrote of the second registry, and was killed before it told CRI-O.
    std::fs::write(&drop_in, &of_both)?;
    let larder = Larder::start(&engine, folder.path(), &LarderOptions { listen, ..both })?;
    let reference = format!("{}/team/app:v1", second.registry());
    let comes_through_us = || {
        second.clear_log();
        engine.pull(&reference)?;
        engine.remove(&reference)?;
        let by_itself =
            |access: &Access| access.header("user-agent").is_some_and(|agent| agent.starts_with(engine.user_agent()));
        anyhow::Ok(!second.log().iter().any(by_itself))
    };
    ensure!(comes_through_us()?, "it is said to be configured, and CRI-O does not ask us:\n{}", larder.last_lines());
    // The other way round: taken away, and CRI-O was not told.
    larder.kill_agent()?;
    std::fs::remove_file(&drop_in)?;
    let before = engine.log().len();
    let restore = larder.command("restore", &[])?;
    ensure!(restore.status.success(), "restore: {}", String::from_utf8_lossy(&restore.stderr));
    until("CRI-O has read its files again", Duration::from_secs(10), || {
        let log = engine.log();
        ensure!(log.get(before..).unwrap_or_default().contains("Configuration reload completed"), "it has not");
        Ok(())
    })
}

//! Pins on a disk: what a restart, a crash and a damaged record leave of them.

use std::fs;

use futures_util::FutureExt as _;

use super::*;
use crate::pins::conformance::pins_conformance_tests;
use crate::pins::kept::KeptBy;
use crate::pins::{Content, Holder, Pin, PinName, Pins, Place, Platforms, Put};
use crate::store::conformance::content;
use crate::store::directory::pins::{load, load_while};
use larder_oci::ImageReference;

pins_conformance_tests!(bounded; {
    let folder = folder();
    let store = DirectoryStore::open(DirectoryConfig { limit: Some(LIMIT), ..config(folder.path()) }).unwrap();
    let guard = background(&store);
    ((Arc::clone(&store) as Arc<dyn Pins>, store as Arc<dyn Store>), (folder, guard))
});

fn pin(holder: &str, image: &str, blobs: &[&Bytes]) -> Pin {
    let name = PinName { holder: Holder::parse(holder).unwrap(), image: ImageReference::parse(image).unwrap() };
    let digests = blobs.iter().map(|bytes| sha256(bytes)).collect();
    let content = Content { root: sha256(blobs[0]), digests, bytes: 1 };
    Pin { name, platforms: Platforms::All, put_at: UNIX_EPOCH, content: Some(content) }
}

async fn stored(store: &DirectoryStore, bytes: &Bytes) {
    store.put_bytes(&sha256(bytes), bytes.clone()).await.unwrap();
}

fn is_there(root: &Path, bytes: &Bytes) -> bool {
    root.join(layout::blob(&sha256(bytes))).exists()
}

/// More than the store may hold, of what nobody pins.
async fn flood(store: &DirectoryStore, seed: u64) {
    for number in 0..12 {
        let bytes = content(seed + number, 128 << 10);
        let _ = store.put_bytes(&sha256(&bytes), bytes).await;
    }
}

#[tokio::test]
async fn what_is_pinned_stays_over_a_restart_and_nothing_goes_before_the_pins_are_counted() {
    let folder = folder();
    let config = || DirectoryConfig { limit: Some(LIMIT), ..config(folder.path()) };
    let (pinned, other, away) = (content(1, 128 << 10), content(2, 128 << 10), content(3, 10));
    {
        let store = DirectoryStore::open(config()).unwrap();
        stored(&store, &pinned).await;
        stored(&store, &other).await;
        assert_eq!(store.put(pin("me", "a:1", &[&pinned])).await.unwrap(), Put::Complete);
        assert!(matches!(store.put(pin("me", "a:2", &[&pinned, &away])).await.unwrap(), Put::Incomplete(_)));
    }
    let store = DirectoryStore::open(config()).unwrap();
    // Not even what nobody pins: nobody knows that yet.
    flood(&store, 100).await;
    assert!(is_there(folder.path(), &pinned) && is_there(folder.path(), &other));
    let _guard = background(&store);
    until("pins are counted", || store.shared.pins.all()).await;
    until("there is room again", || store.health() == crate::store::StoreHealth::Ok).await;
    flood(&store, 200).await;
    assert!(is_there(folder.path(), &pinned) && !is_there(folder.path(), &other));
    let incomplete = store.incomplete(None, 10).await.unwrap();
    assert_eq!(incomplete.pins.len(), 1);
    assert_eq!(incomplete.pins[0].pin, pin("me", "a:2", &[&pinned, &away]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_pin_of_a_holder_who_comes_while_pins_are_counted_is_counted() {
    for (new, before) in [("z", None), ("b", Some("c")), ("a", Some("c"))] {
        let folder = folder();
        let config = || DirectoryConfig { limit: Some(LIMIT), ..config(folder.path()) };
        let (old, first) = (content(1, 100), content(2, 100));
        {
            let store = DirectoryStore::open(config()).unwrap();
            for (holder, bytes) in [("aa", &old), ("c", &old), ("d", &first)] {
                stored(&store, bytes).await;
                store.put(pin(holder, "a:1", &[&old])).await.unwrap();
            }
        }
        let store = DirectoryStore::open(config()).unwrap();
        let (at, mut wish) = (Arc::clone(&store), Some(pin(new, "a:1", &[&first])));
        let runtime = tokio::runtime::Handle::current();
        let counting = move || {
            load_while(&at.shared, |next| {
                if next.map(Holder::as_str) == before
                    && let Some(wish) = wish.take()
                {
                    assert_eq!(runtime.block_on(at.put(wish)).unwrap(), Put::Complete);
                }
            })
        };
        tokio::task::spawn_blocking(counting).await.unwrap().unwrap();
        assert!(store.shared.pins.all());
        assert_eq!(store.shared.pins.by(&sha256(&first)), KeptBy::Holder, "{new}");
        assert!(store.delete(&pin(new, "a:1", &[&first]).name).await.unwrap());
        assert_ne!(store.shared.pins.by(&sha256(&first)), KeptBy::Holder, "{new}: counted once");
    }
}

#[tokio::test]
async fn a_count_that_begins_after_the_first_pins_of_a_new_store_counts_none_of_them_again() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let (bytes, wish) = (content(5, 100), pin("me", "a:1", &[&content(5, 100)]));
    stored(&store, &bytes).await;
    assert_eq!(store.put(wish.clone()).await.unwrap(), Put::Complete);
    while load(&store.shared).unwrap() {}
    assert_eq!(store.shared.pins.by(&sha256(&bytes)), KeptBy::Holder);
    assert!(store.delete(&wish.name).await.unwrap());
    assert_eq!(store.shared.pins.by(&sha256(&bytes)), KeptBy::Nobody);
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_mark_is_tidied_up() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let bytes = content(4, 100);
    stored(&store, &bytes).await;
    let wish = pin("me", "a:1", &[&bytes]);
    assert_eq!(store.put(wish.clone()).await.unwrap(), Put::Complete);
    let mark = folder.path().join(layout::pin(layout::INCOMPLETE, &wish.name.place()));
    let nobodys = Place::parse(&format!("me/{}", "a".repeat(64))).unwrap();
    let other = folder.path().join(layout::pin(layout::INCOMPLETE, &nobodys));
    for mark in [&mark, &other] {
        std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
        std::fs::write(mark, b"").unwrap();
    }
    assert_eq!(store.incomplete(None, 10).await.unwrap().pins, []);
    assert!(!mark.exists() && !other.exists());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_no_pin_and_can_be_put_again() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let bytes = content(5, 100);
    stored(&store, &bytes).await;
    let wish = pin("me", "a:1", &[&bytes]);
    store.put(wish.clone()).await.unwrap();
    let path = folder.path().join(layout::pin(layout::PINS, &wish.name.place()));
    let other = pin("me", "b:1", &[&bytes]);
    store.put(other.clone()).await.unwrap();
    let of_other = std::fs::read(folder.path().join(layout::pin(layout::PINS, &other.name.place()))).unwrap();
    for damage in [&b"{"[..], b"", br#"{"version":2}"#, &of_other] {
        std::fs::write(&path, damage).unwrap();
        assert_eq!(store.get(&wish.name).await.unwrap(), None);
        let listed = store.list(None, None, 10).await.unwrap().pins;
        assert_eq!(listed.len(), 1, "{}", String::from_utf8_lossy(damage));
    }
    assert_eq!(store.put(wish.clone()).await.unwrap(), Put::Complete);
    assert!(store.get(&wish.name).await.unwrap().is_some());
}

#[tokio::test]
async fn the_records_of_what_is_pinned_are_not_swept_for_being_too_many() {
    use crate::store::{Link, Name};
    use larder_oci::{Registry, Repository};
    let folder = folder();
    let config =
        DirectoryConfig { maximum_records: 3, sweep_every: Duration::from_millis(50), ..config(folder.path()) };
    let store = DirectoryStore::open(config).unwrap();
    let name =
        Name { registry: Registry::parse("reg.example.com").unwrap(), repository: Repository::parse("a").unwrap() };
    let bytes = content(6, 100);
    stored(&store, &bytes).await;
    store.put(pin("me", "reg.example.com/a:1", &[&bytes])).await.unwrap();
    let link = |digest: Digest| Link { digest, media_type: None, size: None, public: true, confirmed_at: UNIX_EPOCH };
    // The oldest of all.
    store.put_link(&name, link(sha256(&bytes))).await.unwrap();
    for number in 0..10_u8 {
        store.put_link(&name, link(sha256(&[number]))).await.unwrap();
    }
    let _guard = background(&store);
    until("records are swept", || {
        std::fs::read_dir(folder.path().join("names/reg.example.com/a/_links")).unwrap().count() <= 3
    })
    .await;
    assert!(store.link(&name, &sha256(&bytes)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_pulled_and_not_used_for_a_month_is_nobodys_any_more() {
    let (folder, hand) = (folder(), Hand::new());
    let sweep_every = Duration::from_millis(50);
    let config = DirectoryConfig { clock: hand.clock(), sweep_every, ..config(folder.path()) };
    let kept_for = config.pull_kept;
    let store = DirectoryStore::open(config).unwrap();
    let bytes = content(7, 100);
    stored(&store, &bytes).await;
    let now = || (hand.clock())();
    let names: Vec<PinName> = [("pull", "a"), ("pull", "b"), ("me", "c")]
        .into_iter()
        .map(|(holder, image)| pin(holder, image, &[&bytes]).name)
        .collect();
    for name in &names {
        store.put(Pin { name: name.clone(), put_at: now(), ..pin("me", "x", &[&bytes]) }).await.unwrap();
    }
    hand.advance(kept_for / 2);
    store.put(Pin { name: names[1].clone(), put_at: now(), ..pin("me", "x", &[&bytes]) }).await.unwrap();
    hand.advance(kept_for / 2 + Duration::from_secs(1));
    let _guard = background(&store);
    let path = folder.path().join(layout::pin(layout::PINS, &names[0].place()));
    until("the pin is let go of", || !path.exists()).await;
    assert!(store.get(&names[1]).await.unwrap().is_some(), "it was used later");
    assert!(store.get(&names[2]).await.unwrap().is_some(), "a holder said so");
}

/// Whether it is complete, as its record says.
async fn is_complete(store: &DirectoryStore, pin: &Pin) -> bool {
    store.get(&pin.name).await.unwrap().unwrap().complete
}

#[tokio::test]
async fn what_a_disk_lost_is_seen_without_reading_it_and_what_cannot_be_asked_is_not_lost() {
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let blobs = [content(1, 100), content(2, 100), content(3, 600 << 10), content(4, 100)];
    for bytes in &blobs {
        stored(&store, bytes).await;
    }
    let path = |bytes: &Bytes| folder.path().join(layout::blob(&sha256(bytes)));
    let pins =
        [pin("me", "a:1", &[&blobs[0], &blobs[3]]), pin("me", "a:2", &[&blobs[1]]), pin("me", "a:3", &[&blobs[2]])];
    for pin in &pins {
        assert_eq!(store.put(pin.clone()).await.unwrap(), Put::Complete);
        assert_eq!(store.look_again(&pin.name).await.unwrap(), Some(Put::Complete));
    }
    // A disk that does not answer: something is where a folder should be.
    let shard = path(&blobs[0]).parent().unwrap().to_owned();
    let aside = folder.path().join("aside");
    fs::rename(&shard, &aside).unwrap();
    fs::write(&shard, b"").unwrap();
    store.look_again(&pins[0].name).await.unwrap_err();
    assert!(is_complete(&store, &pins[0]).await, "an error is no absence");
    fs::remove_file(&shard).unwrap();
    fs::rename(&aside, &shard).unwrap();
    assert_eq!(store.look_again(&pins[0].name).await.unwrap(), Some(Put::Complete));
    // Removed, emptied, and cut short by a byte.
    fs::remove_file(path(&blobs[0])).unwrap();
    fs::write(path(&blobs[1]), b"").unwrap();
    fs::File::options().write(true).open(path(&blobs[2])).unwrap().set_len((600 << 10) - 1).unwrap();
    for (pin, bytes) in pins.iter().zip(&blobs) {
        let missing = [sha256(bytes)].into();
        assert_eq!(store.look_again(&pin.name).await.unwrap(), Some(Put::Incomplete(missing)), "{}", pin.name.image);
        assert!(!is_complete(&store, pin).await);
        assert!(!is_there(folder.path(), bytes), "it is fetched anew");
        assert_eq!(store.shared.pins.by(&sha256(bytes)), KeptBy::Holder, "and kept when it comes");
    }
    assert_eq!(store.shared.pins.by(&sha256(&blobs[3])), KeptBy::Holder);
    for (pin, bytes) in pins.iter().zip(&blobs) {
        stored(&store, bytes).await;
        assert_eq!(store.put(pin.clone()).await.unwrap(), Put::Complete);
    }
    // Who asks for what is not there says so to whoever looks after pins, if a complete one reaches it: who fetches what is missing asks for it, too.
    let coming = pin("me", "a:4", &[&blobs[3], &content(5, 100)]);
    assert_eq!(store.put(coming).await.unwrap(), Put::Incomplete([sha256(&content(5, 100))].into()));
    let told = store.shared.lost.next().await;
    assert!(told.contains(&sha256(&blobs[1])) && told.contains(&sha256(&blobs[2])), "what was dropped: {told:?}");
    fs::remove_file(path(&blobs[0])).unwrap();
    for bytes in [&content(5, 100), &content(6, 100), &blobs[0]] {
        assert!(store.blob(&sha256(bytes)).await.unwrap().is_none());
    }
    assert_eq!(store.shared.lost.next().await, [sha256(&blobs[0])].into());
    // It is known by then.
    assert_eq!(store.look_again(&pins[0].name).await.unwrap(), Some(Put::Incomplete([sha256(&blobs[0])].into())));
    assert!(store.blob(&sha256(&blobs[0])).await.unwrap().is_none());
    assert_eq!(store.shared.lost.next().now_or_never(), None);
}

#[tokio::test]
async fn records_that_a_disk_lost_are_written_anew_from_the_pin() {
    use crate::pins::records::name_of;
    let folder = folder();
    let store = DirectoryStore::open(config(folder.path())).unwrap();
    let blobs = [content(1, 100), content(2, 100)];
    for bytes in &blobs {
        stored(&store, bytes).await;
    }
    let wish = pin("me", "reg.example.com/team/app:1", &[&blobs[0], &blobs[1]]);
    let (name, tag) = (name_of(&wish.name.image), larder_oci::Tag::parse("1").unwrap());
    assert_eq!(store.put(wish.clone()).await.unwrap(), Put::Complete);
    let link = folder.path().join(layout::link(&name, &sha256(&blobs[1])));
    let damage: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(folder.path().join("names/reg.example.com")).unwrap(),
        &|| fs::remove_file(folder.path().join(layout::tag(&name, &tag))).unwrap(),
        &|| fs::write(&link, b"").unwrap(),
        &|| fs::write(&link, b"{").unwrap(),
    ];
    for lose in damage {
        lose();
        assert_eq!(store.look_again(&wish.name).await.unwrap(), Some(Put::Complete));
        for bytes in &blobs {
            assert!(store.held(&name, &sha256(bytes)).await.unwrap().is_some());
        }
        assert_eq!(store.tag(&name, &tag).await.unwrap().unwrap().digest, sha256(&blobs[0]));
    }
    // Nothing is written that is there.
    let written = || store.shared.stats.records_written.load(std::sync::atomic::Ordering::Relaxed);
    let before = written();
    assert_eq!(store.look_again(&wish.name).await.unwrap(), Some(Put::Complete));
    assert_eq!(written(), before);
    // A disk that does not take them is no reason to call it whole.
    fs::remove_file(&link).unwrap();
    fs::remove_dir(folder.path().join("temporary")).unwrap();
    store.look_again(&wish.name).await.unwrap_err();
}

//! What pins promise is looked after: blobs, the records by which they are given, and the image of before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use larder_oci::{Digest, Tag};

use super::{Kept, at, content, named, pin, sha256, store_bytes};
use crate::pins::records::name_of;
use crate::pins::{Pin, PinName, Pins, Put};
use crate::store::{Link, Name, Store, TagRecord};

/// Where there is no look over all, every pin is looked at.
async fn needs_no_look(pins: &dyn Pins, name: &PinName) -> bool {
    let kept = pins.get(name).await.unwrap().unwrap();
    pins.overview().await.unwrap().is_none_or(|seen| seen.has_all_of(&kept))
}

async fn is_to_be_looked_at(pins: &dyn Pins, name: &PinName) -> bool {
    let kept = pins.get(name).await.unwrap().unwrap();
    pins.overview().await.unwrap().is_none_or(|seen| !seen.has_all_of(&kept))
}

async fn until_told(pins: &dyn Pins, lost: &Digest) {
    let mut told = BTreeSet::new();
    while !told.contains(lost) {
        let some = tokio::time::timeout(Duration::from_mins(1), pins.lost()).await;
        told.extend(some.expect("it is said"));
    }
}

pub(crate) async fn what_is_complete_is_looked_at_again((pins, store): Kept) {
    let (name, other, blobs) = (named("me", "a:1"), named("me", "b:1"), [content(30, 100), content(31, 100)]);
    assert_eq!(pins.look_again(&name).await.unwrap(), None, "there is none");
    assert_eq!(pins.get(&name).await.unwrap(), None, "nor does it come into being");
    store_bytes(&store, &blobs[0]).await;
    let wish = pin(&name, at(0), &[&blobs[0], &blobs[1]]);
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete([sha256(&blobs[1])].into()));
    assert_eq!(pins.look_again(&name).await.unwrap(), None, "it is not complete");
    store_bytes(&store, &blobs[1]).await;
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    assert_eq!(pins.put(pin(&other, at(0), &[&blobs[0]])).await.unwrap(), Put::Complete);
    let before = pins.get(&name).await.unwrap();
    assert!(needs_no_look(&*pins, &name).await, "nothing of it needs a look");
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Complete));
    assert_eq!(pins.get(&name).await.unwrap(), before);
    // Whoever drops it says so, and what it was is known, protected, and to be brought again.
    let lost = sha256(&blobs[1]);
    store.remove_damaged(&lost).await.unwrap();
    until_told(&*pins, &lost).await;
    assert!(is_to_be_looked_at(&*pins, &name).await);
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Incomplete([lost].into())));
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert!(kept.goes_on_as_planned(), "whoever brings it asks for what it was");
    assert_eq!((kept.pin, kept.complete), (wish.clone(), false));
    let page = pins.incomplete(None, 10).await.unwrap();
    assert_eq!(page.pins.iter().map(|kept| &kept.pin.name).collect::<Vec<_>>(), [&name]);
    assert_eq!(pins.look_again(&other).await.unwrap(), Some(Put::Complete), "nothing of it went");
    store_bytes(&store, &blobs[1]).await;
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.pin, kept.complete, kept.older), (wish, true, None));
}

pub(crate) async fn what_is_protected_is_complete_once_it_is_put((pins, store): Kept) {
    let (name, blobs) = (named("me", "a:1"), [content(50, 100), content(51, 100)]);
    store_bytes(&store, &blobs[0]).await;
    let wish = pin(&name, at(5), &[&blobs[0]]);
    for _ in 0..2 {
        assert!(pins.protect(wish.clone()).await.unwrap());
        let kept = pins.get(&name).await.unwrap().unwrap();
        assert_eq!((kept.pin, kept.complete), (wish.clone(), false), "whatever is there");
    }
    assert_eq!(store.link(&name_of(&name.image), &sha256(&blobs[0])).await.unwrap(), None, "nobody has seen it");
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    assert!(pins.protect(wish.clone()).await.unwrap());
    assert!(pins.get(&name).await.unwrap().unwrap().complete, "it says the same");
    assert!(!pins.protect(pin(&name, at(4), &[&blobs[1]])).await.unwrap(), "it is older");
    assert!(pins.protect(pin(&name, at(6), &[&blobs[0], &blobs[1]])).await.unwrap());
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.complete, kept.older, kept.older_lacks), (false, wish.content, false));
}

/// What of an image is given, with what its tag means.
struct Given<'a> {
    store: &'a Arc<dyn Store>,
    name: Name,
    tag: Tag,
}

impl Given<'_> {
    async fn has(&self, digest: &Digest) -> bool {
        self.store.held(&self.name, digest).await.unwrap().is_some()
    }

    async fn meaning(&self) -> Digest {
        self.store.tag(&self.name, &self.tag).await.unwrap().unwrap().digest
    }

    /// There is no way to remove one: it names what is not there, which nobody can be given.
    async fn lose_tag(&self) {
        let nothing = TagRecord { digest: sha256(b"nothing"), checked_at: SystemTime::now() };
        self.store.put_tag(&self.name, &self.tag, nothing).await.unwrap();
    }
}

pub(crate) async fn records_of_what_is_complete_are_written_anew((pins, store): Kept) {
    let (name, blobs) = (named("me", "reg.example.com/app:1"), [content(52, 100), content(53, 100)]);
    let given = Given { store: &store, name: name_of(&name.image), tag: Tag::parse("1").unwrap() };
    let digests = [sha256(&blobs[0]), sha256(&blobs[1])];
    store_bytes(&store, &blobs[0]).await;
    let wish = pin(&name, at(0), &[&blobs[0], &blobs[1]]);
    assert!(matches!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete(_)));
    assert!(!given.has(&digests[0]).await, "what was never complete proves nothing");
    store_bytes(&store, &blobs[1]).await;
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Complete);
    for digest in &digests {
        assert!(given.has(digest).await);
        store.remove_link(&given.name, digest).await.unwrap();
    }
    given.lose_tag().await;
    assert!(is_to_be_looked_at(&*pins, &name).await);
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Complete));
    for digest in &digests {
        let link = store.link(&given.name, digest).await.unwrap().unwrap();
        // Nobody knows when; and it says no more than that somebody without credentials was given it.
        let expected = Link {
            digest: digest.clone(),
            media_type: None,
            size: None,
            public: true,
            confirmed_at: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(link, expected);
    }
    assert_eq!(given.meaning().await, digests[0]);
    assert!(needs_no_look(&*pins, &name).await);
    let another = Name { repository: "another".parse().unwrap(), ..given.name.clone() };
    assert_eq!(store.link(&another, &digests[0]).await.unwrap(), None, "it is nobody else's");
    // What the tag means by now, and is there, is nothing that was lost.
    let moved = content(54, 100);
    store_bytes(&store, &moved).await;
    let link =
        Link { digest: sha256(&moved), media_type: None, size: None, public: true, confirmed_at: SystemTime::now() };
    store.put_link(&given.name, link).await.unwrap();
    let record = TagRecord { digest: sha256(&moved), checked_at: SystemTime::now() };
    store.put_tag(&given.name, &given.tag, record).await.unwrap();
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Complete));
    assert_eq!(given.meaning().await, sha256(&moved));
    // What is there of something that is not whole is given, too.
    store.remove_damaged(&digests[1]).await.unwrap();
    until_told(&*pins, &digests[1]).await;
    store.remove_link(&given.name, &digests[0]).await.unwrap();
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Incomplete([digests[1].clone()].into())));
    assert!(given.has(&digests[0]).await && !given.has(&digests[1]).await);
}

pub(crate) async fn what_an_older_image_loses_is_seen_and_said((pins, store): Kept) {
    let name = named("me", "reg.example.com/app:1");
    let (old, new): ([Bytes; 2], _) = ([content(55, 100), content(56, 100)], content(57, 100));
    let given = Given { store: &store, name: name_of(&name.image), tag: Tag::parse("1").unwrap() };
    for bytes in &old {
        store_bytes(&store, bytes).await;
    }
    let before = pin(&name, at(0), &[&old[0], &old[1]]);
    assert_eq!(pins.put(before.clone()).await.unwrap(), Put::Complete);
    let wish = pin(&name, at(1), &[&new]);
    assert_eq!(pins.put(wish.clone()).await.unwrap(), Put::Incomplete([sha256(&new)].into()));
    let waiting = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((&waiting.older, waiting.older_lacks), (&before.content, false));
    assert!(needs_no_look(&*pins, &name).await);
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Complete), "it is that of before that is promised");
    assert_eq!(pins.get(&name).await.unwrap().unwrap(), waiting);
    let lost = sha256(&old[1]);
    store.remove_damaged(&lost).await.unwrap();
    until_told(&*pins, &lost).await;
    assert!(is_to_be_looked_at(&*pins, &name).await);
    for _ in 0..2 {
        assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Incomplete([lost.clone()].into())));
        let kept = pins.get(&name).await.unwrap().unwrap();
        assert_eq!((kept.complete, &kept.older, kept.older_lacks), (false, &before.content, true));
    }
    // A newer wish changes nothing about it.
    let newer = Pin { put_at: at(2), ..wish };
    assert!(matches!(pins.put(newer.clone()).await.unwrap(), Put::Incomplete(_)));
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((&kept.older, kept.older_lacks), (&before.content, true));
    store_bytes(&store, &old[1]).await;
    store.remove_link(&given.name, &sha256(&old[0])).await.unwrap();
    given.lose_tag().await;
    assert_eq!(pins.look_again(&name).await.unwrap(), Some(Put::Complete));
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((&kept.older, kept.older_lacks), (&before.content, false));
    assert!(given.has(&sha256(&old[0])).await && given.has(&lost).await);
    assert_eq!(given.meaning().await, sha256(&old[0]));
    store_bytes(&store, &new).await;
    assert_eq!(pins.put(newer.clone()).await.unwrap(), Put::Complete);
    let kept = pins.get(&name).await.unwrap().unwrap();
    assert_eq!((kept.pin, kept.complete, kept.older, kept.older_lacks), (newer, true, None, false));
}

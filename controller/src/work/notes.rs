//! What a person should hear of an image without looking. Pure: from its status as it was, and as it was written.

use larder_api::CachedImageStatus;
use larder_api::cached_image::{Cached, UpstreamAvailable};
use larder_api::condition::{Reason as _, get};

use crate::events::Note;

/// What becomes of an image that the cache never had, over several writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Arrival {
    /// It is not on its way to be safe for the first time.
    #[default]
    None,
    /// Its reference is there, and not yet all that belongs to it.
    OnTheWay,
}

/// Of the conditions. `arrival` is what was seen before, and is what is seen after.
pub(super) fn notes(before: &CachedImageStatus, after: &CachedImageStatus, arrival: &mut Arrival) -> Vec<Note> {
    let mut notes = Vec::new();
    let message = |condition: &str| {
        let found = after.conditions.iter().find(|known| known.type_ == condition);
        found.map(|known| known.message.clone()).unwrap_or_default()
    };
    // The size stays when the image is gone: whoever has one was there once, whichever controller saw it.
    let was_ever_there = before.digest.is_some() || before.size_bytes.is_some();
    let is_first = !was_ever_there || *arrival == Arrival::OnTheWay;
    let (was, is) = (get::<Cached>(&before.conditions), get::<Cached>(&after.conditions));
    *arrival = if is_first && after.digest.is_some() && is != Some(Cached::Complete) {
        Arrival::OnTheWay
    } else {
        Arrival::None
    };
    let is_for_somebody =
        |reason: &Cached| matches!(reason, Cached::Refused | Cached::Private | Cached::NotFound | Cached::OverLimit);
    let was_there = was == Some(Cached::Complete) && before.digest.is_some();
    match is.filter(|is| Some(*is) != was) {
        Some(reason) if is_for_somebody(&reason) => {
            notes.push(Note::warning(reason.as_str(), message(Cached::CONDITION)));
        }
        Some(Cached::Complete) if is_first => {
            let words = format!("{}: it can be pulled while its registry is away", message(Cached::CONDITION));
            notes.push(Note::news("Cached", words));
        }
        Some(Cached::CacheUnreachable) | None => {}
        // Nothing that anybody decided.
        Some(_) if was_there && after.digest.is_none() => {
            let words = format!("the cluster cache no longer has what it had: {}", message(Cached::CONDITION));
            notes.push(Note::warning("Lost", words));
        }
        Some(_) => {}
    }
    let (was, is) = (get::<UpstreamAvailable>(&before.conditions), get::<UpstreamAvailable>(&after.conditions));
    if let Some(reason @ UpstreamAvailable::Gone) = is.filter(|is| Some(*is) != was) {
        notes.push(Note::warning(reason.as_str(), message(UpstreamAvailable::CONDITION)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use larder_api::Time;
    use larder_api::condition::set;

    use super::*;

    /// A status with this reason; whether the cache has it, and whether it ever had it.
    fn status(reason: Cached, has: bool, had: bool) -> CachedImageStatus {
        let mut status = CachedImageStatus {
            digest: has.then(|| "sha256:…".to_owned()),
            size_bytes: had.then_some(12),
            ..CachedImageStatus::default()
        };
        let time = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        set(&mut status.conditions, reason, "12 MiB are kept", None, &time);
        status
    }

    /// What is told while its status is one after the other, by controllers that begin anew at each `None`.
    fn told(states: &[Option<(Cached, bool, bool)>]) -> Vec<&'static str> {
        let (mut before, mut arrival) = (CachedImageStatus::default(), Arrival::default());
        let mut told = Vec::new();
        for state in states {
            let Some((reason, has, had)) = *state else {
                arrival = Arrival::default();
                continue;
            };
            let after = status(reason, has, had);
            told.extend(notes(&before, &after, &mut arrival).into_iter().map(|note| note.reason()));
            before = after;
        }
        told
    }

    #[test]
    fn that_an_image_became_safe_is_told_once() {
        use Cached::{CacheUnreachable, Complete, Fetching, Incomplete, Pending, Queued, Retrying};
        let there = Some((Complete, true, true));
        let cases: [(&str, &[_], &[_]); 8] = [
            ("at once", &[there], &["Cached"]),
            ("fetched", &[Some((Pending, false, false)), Some((Fetching, false, false)), there], &["Cached"]),
            ("and seen by the next one", &[Some((Fetching, false, false)), None, there, None, there], &["Cached"]),
            (
                "with a digest that comes behind it",
                &[Some((Incomplete, true, true)), Some((Incomplete, true, true)), there],
                &["Cached"],
            ),
            ("another digest later", &[there, Some((Incomplete, true, true)), there], &["Cached"]),
            ("the cache is away", &[there, Some((CacheUnreachable, true, true)), there, None, there], &["Cached"]),
            ("lost, and fetched again", &[there, Some((Queued, false, true)), there], &["Cached", "Lost"]),
            (
                "it took a while",
                &[Some((Retrying, false, false)), None, Some((Queued, false, false)), there],
                &["Cached"],
            ),
        ];
        for (what, states, all) in cases {
            assert_eq!(told(states), all, "{what}");
        }
    }

    #[test]
    fn what_somebody_must_do_something_about_is_told_when_it_becomes_so() {
        let not = |reason| Some((reason, false, false));
        assert_eq!(told(&[not(Cached::NotFound), not(Cached::NotFound), None, not(Cached::NotFound)]), ["NotFound"]);
        assert_eq!(told(&[not(Cached::Pending), not(Cached::Private), not(Cached::Refused)]), ["Private", "Refused"]);
        let mut before = status(Cached::Complete, true, true);
        let mut after = before.clone();
        let time = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        set(&mut before.conditions, UpstreamAvailable::Present, "", None, &time);
        set(&mut after.conditions, UpstreamAvailable::Gone, "it is gone", None, &time);
        let told = notes(&before, &after, &mut Arrival::default());
        assert_eq!(told, [Note::warning("Gone", "it is gone".to_owned())]);
        assert_eq!(notes(&after, &after, &mut Arrival::default()), []);
    }
}

//! What the origin has said a moment ago, for a client that asks the same thing twice in one pull.
//!
//! CRI-O up to 1.30 asks for the manifest, and the one of its platform, when it looks at the image and again when it pulls it; later
//! ones try a failed pull once more, as an artifact. The origin is to notice nothing of it, and a tag is still to mean what the
//! origin says at the next pull. So an answer is given once more and not again, for a moment only, and no more once the client
//! has gone on to a blob of the repository: whoever then asks for the tag begins another pull.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_oci::ManifestReference;
use tokio::time::Instant;

use crate::store::Name;

/// For how long an answer: between the two questions the client does nothing but connect anew.
pub(super) const ANSWER: Duration = Duration::from_secs(1);

/// For how long a failure: in between the client asks the origin itself, which fails as well.
pub(super) const FAILURE: Duration = Duration::from_secs(3);

/// Answers that are remembered; losing one costs a question.
const ANSWERS: usize = 256;

/// Answers of one kind.
#[derive(Debug)]
pub(super) struct Recent<T> {
    answers: Mutex<HashMap<(Name, ManifestReference), (Instant, T)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { answers: Mutex::default() }
    }
}

impl<T> Recent<T> {
    /// The origin has just said so, and may be quoted for as long as `time`.
    pub(super) fn note(&self, name: &Name, reference: &ManifestReference, answer: T, time: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= ANSWERS {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() < ANSWERS {
            answers.insert((name.clone(), reference.clone()), (now + time, answer));
        }
    }

    /// What it said, once.
    pub(super) fn take(&self, name: &Name, reference: &ManifestReference) -> Option<T> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = answers.remove(&(name.clone(), reference.clone()))?;
        (until > Instant::now()).then_some(answer)
    }

    /// A client has gone on in this repository.
    pub(super) fn forget(&self, name: &Name) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(of, _), _| of != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::testing::name;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_given_once_more_within_the_window_and_before_the_pull_goes_on() {
        let recent = Recent::default();
        let (app, tag) = (name("team/app"), ManifestReference::parse("v1").unwrap());
        recent.note(&app, &tag, 1, ANSWER);
        assert_eq!((recent.take(&app, &tag), recent.take(&app, &tag)), (Some(1), None));
        recent.note(&app, &tag, 2, ANSWER);
        recent.forget(&name("team/other"));
        tokio::time::advance(ANSWER / 2).await;
        assert_eq!(recent.take(&app, &tag), Some(2));
        recent.note(&app, &tag, 3, ANSWER);
        recent.forget(&app);
        assert_eq!(recent.take(&app, &tag), None);
        recent.note(&app, &tag, 4, ANSWER);
        tokio::time::advance(ANSWER).await;
        assert_eq!(recent.take(&app, &tag), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded() {
        let recent = Recent::default();
        for number in 0..2 * ANSWERS {
            recent.note(&name(&format!("team/app{number}")), &ManifestReference::parse("v1").unwrap(), number, ANSWER);
        }
        assert_eq!(recent.answers.lock().unwrap().len(), ANSWERS);
        tokio::time::advance(ANSWER).await;
        recent.note(&name("team/app"), &ManifestReference::parse("v1").unwrap(), 1, ANSWER);
        assert_eq!(recent.answers.lock().unwrap().len(), 1);
    }
}

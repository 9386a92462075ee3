//! Answers of the API server, for a while: it is not asked about every request of a pull.
//!
//! Bounded in number and in time; what is kept of a token is a keyed hash. When there is no room, the answer that would end soonest goes:
//! refusals live shorter than acceptances, so whoever invents tokens pushes out other inventions and not the nodes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_proxy::server::gate::{Caller, Unaccepted};
use tokio::time::Instant;

/// A token, hashed.
pub(super) type Hash = [u8; 32];

/// A caller, or nobody.
pub(super) type Answer = Result<Caller, Unaccepted>;

/// A token that was good is good for that long, and not beyond its own end: so long does a deleted Pod's token still open the door.
pub(super) const ACCEPTED: Duration = Duration::from_mins(5);

/// A token that was not good is asked about again after that.
pub(super) const REFUSED: Duration = Duration::from_secs(10);

/// As many as there may be nodes that changed their token within [`ACCEPTED`].
const MOST: usize = 16 * 1024;

/// What was said.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    answers: Mutex<HashMap<Hash, Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    until: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self { most: MOST, answers: Mutex::default() }
    }
}

impl Memory {
    pub(super) fn get(&self, hash: &Hash) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = answers.get(hash).filter(|remembered| Instant::now() < remembered.until)?;
        Some(remembered.answer.clone())
    }

    pub(super) fn put(&self, hash: Hash, answer: Answer, lasts: Duration) {
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= self.most && !answers.contains_key(&hash) {
            answers.retain(|_, remembered| now < remembered.until);
            while answers.len() >= self.most {
                let Some(soonest) =
                    answers.iter().min_by_key(|(_, remembered)| remembered.until).map(|(hash, _)| *hash)
                else {
                    break;
                };
                answers.remove(&soonest);
            }
        }
        answers.insert(hash, Remembered { answer, until: now + lasts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller { name: name.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_end_and_inventions_push_out_inventions() {
        let memory = Memory { most: 3, ..Memory::default() };
        memory.put([0; 32], Ok(caller("node")), ACCEPTED);
        for invention in 1..100 {
            memory.put([invention; 32], Err(Unaccepted::Unknown), REFUSED);
        }
        assert_eq!(memory.answers.lock().unwrap().len(), 3);
        assert_eq!(memory.get(&[0; 32]), Some(Ok(caller("node"))));
        assert_eq!(memory.get(&[99; 32]), Some(Err(Unaccepted::Unknown)));
        tokio::time::advance(REFUSED).await;
        assert_eq!(memory.get(&[99; 32]), None);
        tokio::time::advance(ACCEPTED).await;
        assert_eq!(memory.get(&[0; 32]), None);
    }
}

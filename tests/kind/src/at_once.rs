//! The same for several things at a time.

use std::thread;

use anyhow::{Result, anyhow};

/// Does `work` for every item, each on a thread of its own. Everybody is waited for; the first error in the order of the items counts.
pub fn at_once<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    let outcomes: Vec<Result<T>> = thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked")))).collect()
    });
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn all_run_at_the_same_time_and_are_given_back_in_order() {
        let all_are_here = Barrier::new(3);
        let doubled = at_once([1, 2, 3], |number| {
            all_are_here.wait();
            Ok(number * 2)
        });
        assert_eq!(doubled.unwrap(), [2, 4, 6]);
    }

    #[test]
    fn an_error_waits_for_the_others() {
        let ended = AtomicUsize::new(0);
        let error = at_once([1, 2], |number| {
            ended.fetch_add(1, Ordering::SeqCst);
            if number == 1 { Err(anyhow!("one failed")) } else { Ok(()) }
        });
        assert_eq!((error.unwrap_err().to_string().as_str(), ended.into_inner()), ("one failed", 2));
        assert!(at_once([1], |_| -> Result<()> { panic!("on purpose") }).is_err());
    }
}

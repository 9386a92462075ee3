use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn leading_for(time: Duration) -> (watch::Sender<Option<Instant>>, Leadership) {
    let (sender, until) = watch::channel(Some(Instant::now() + time));
    (sender, Leadership { until })
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_given_up_when_the_lead_is_over_and_not_begun_after_it() {
    let (_sender, leadership) = leading_for(Duration::from_secs(10));
    let written = AtomicUsize::new(0);
    let write = async |time| {
        tokio::time::sleep(Duration::from_secs(time)).await;
        written.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(leadership.writing(write(4)).await, Ok(()));
    let began = Instant::now();
    assert_eq!(leadership.writing(write(60)).await, Err(NotLeading));
    assert_eq!(began.elapsed(), Duration::from_secs(6));
    assert_eq!(leadership.writing(write(0)).await, Err(NotLeading));
    assert_eq!(written.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_goes_on_where_it_was() {
    let (sender, leadership) = leading_for(Duration::from_secs(10));
    let writing = tokio::spawn(async move { leadership.writing(tokio::time::sleep(Duration::from_secs(25))).await });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        sender.send_replace(Some(Instant::now() + Duration::from_secs(10)));
    }
    assert_eq!(writing.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn another_leader_ends_it_at_once() {
    let (sender, leadership) = leading_for(Duration::from_secs(10));
    let began = Instant::now();
    let writing = tokio::spawn(async move { leadership.writing(std::future::pending::<()>()).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    sender.send_replace(None);
    assert_eq!(writing.await.unwrap(), Err(NotLeading));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

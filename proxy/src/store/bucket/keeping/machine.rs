//! Driving a machine of the protocol to its end.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::store::removal::{
    Answer, Collector, Declared, Declarer, Forgetter, Forgotten, Operation, Pinned, Pinner, Run, Step, Unpinner,
};

/// Answers that are none, after which a machine is left where it is.
const UNKNOWN: u32 = 3;
/// After the first of them; the next pause doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Whoever carries operations out.
pub(super) trait Hands: Sync {
    /// Once, without repeating it.
    fn carry_out<'a>(&'a self, operation: &'a Operation) -> BoxFuture<'a, Answer>;
}

/// What the machines have in common.
pub(super) trait Machine {
    /// How it ends.
    type End;
    fn next(&self) -> Step<Self::End>;
    fn feed(&mut self, answer: Answer);
}

macro_rules! machines {
    ($($machine:ident: $end:ty),* $(,)?) => {
        $(
            impl Machine for $machine {
                type End = $end;
                fn next(&self) -> Step<$end> {
                    $machine::next(self)
                }
                fn feed(&mut self, answer: Answer) {
                    $machine::feed(self, answer);
                }
            }
        )*
    };
}

machines!(Collector: Run, Declarer: Declared, Forgetter: Forgotten, Pinner: Pinned, Unpinner: ());

/// The bucket did not answer often enough. What was begun is as if the process had died there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftThere;

/// Drives `machine` until it is at an end. Each operation is carried out once; `seen` is told what came of it.
pub(super) async fn run<M: Machine + Send>(
    machine: &mut M,
    hands: &dyn Hands,
    mut seen: impl FnMut(&Operation, &Answer) + Send,
) -> Result<M::End, LeftThere>
where
    M::End: Send,
{
    let (mut unknown, mut pause) = (0, PAUSE);
    loop {
        let operation = match machine.next() {
            Step::Do(operation) => operation,
            Step::Done(end) => return Ok(end),
        };
        let answer = hands.carry_out(&operation).await;
        seen(&operation, &answer);
        if answer == Answer::Unknown {
            unknown += 1;
            if unknown >= UNKNOWN {
                return Err(LeftThere);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        machine.feed(answer);
    }
}

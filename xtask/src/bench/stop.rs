//! Ending early without leaving anything behind.
//!
//! SIGINT and SIGTERM only raise a flag, so that every program that was started is ended and every folder removed on the way out. No signal
//! is blocked for that: programs that are started would inherit it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use larder_test_node::wait::Hopeless;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants an end.
#[derive(Clone)]
pub(super) struct Stop {
    wanted: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn listen() -> Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let raise = Arc::clone(&wanted);
        let runtime = Builder::new_current_thread().enable_io().build().context("start listening to signals")?;
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            eprintln!("stopping");
            raise.store(true, Ordering::Relaxed);
        })?;
        Ok(Self { wanted })
    }

    /// Fails when somebody does: no waiting helps any more.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_wanted() {
            return Err(Hopeless("stopped on request".to_owned()).into());
        }
        Ok(())
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

//! What every Larder process needs, whatever it does: logging, an admin server, readiness, an orderly end.
//!
//! Nothing here knows images. A program's `main` calls [`logging::init`], makes a [`readiness::Readiness`], spawns its
//! parts with [`tasks::Tasks`], serves [`admin::AdminServer`] (and [`metrics_server::MetricsServer`], which may be refused its address), and ends when a signal or the end of any task says so.

pub mod admin;
pub mod causes;
pub mod command_line;
pub mod logging;
pub mod metrics_server;
pub mod readiness;
pub mod secret;
pub mod signals;
pub mod size;
pub mod small_file;
pub mod tasks;

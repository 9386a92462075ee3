//! Logs: to standard error, as text for people or as JSON, one event a line.
//!
//! What is logged is said by `LARDER_LOG` (`info`, `warn,larder_proxy=debug`); a panic is an event like any other, so that the
//! one that a connection's task swallowed is not lost.

use std::env;
use std::io::{self, IsTerminal};
use std::panic;
use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged.
pub const VARIABLE: &str = "LARDER_LOG";

/// What is logged when the variable is not set.
/// The client of Kubernetes reports each request that failed; whoever asked says it once, with what it means.
const DEFAULT: &str = "info,kube_client::client::builder=off,object_store=warn";

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// The word that names the format on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format { format: other.to_owned() }),
        }
    }
}

/// Why logging did not start.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// Not a known format.
    #[error("log format {format:?} is not known; it is text or json")]
    Format {
        /// What was given.
        format: String,
    },
    /// The filter is not understood.
    #[error("{VARIABLE}={filter:?} is no filter ({reason}); write for example info or warn,larder_proxy=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has a logger already.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging for the whole process, filtered by `LARDER_LOG`, and logs panics from now on.
pub fn init(format: Format) -> Result<(), LoggingError> {
    let filter = filter(&env::var(VARIABLE).unwrap_or_default())?;
    // Who cannot write a line would say so on standard error as well, and that panics when nobody reads it any more.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LoggingError::Twice)?;
    log_panics();
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let text = if text.trim().is_empty() { DEFAULT } else { text };
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| LoggingError::Filter { filter: text.to_owned(), reason: error.to_string() })
}

/// A panic unwinds and ends one task; the log line is what remains of it.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload_as_str().unwrap_or("no message");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(location, thread = thread.name().unwrap_or("unnamed"), "panic: {payload}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_wrong_is_refused_with_an_example() {
        let error = filter("larder_proxy=loud").unwrap_err().to_string();
        assert!(error.starts_with("LARDER_LOG=\"larder_proxy=loud\" is no filter ("), "{error}");
        assert!(error.ends_with("; write for example info or warn,larder_proxy=debug"), "{error}");
        assert_eq!(filter("").unwrap().to_string(), "kube_client::client::builder=off,object_store=warn,info");
        assert!(filter("warn,larder_proxy=debug").is_ok());
        // What the chart's `logFilter` takes (tests/chart).
        for right in [
            "debug",
            "WARN",
            "info,larder_proxy::pull=trace",
            "larder_proxy",
            "a=0,b=off",
            "[pull]=debug",
            "a[pull]",
            " ",
        ] {
            assert!(filter(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn a_format_is_named_by_its_word() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
        }
        insta::assert_snapshot!("xml".parse::<Format>().unwrap_err(), @r#"log format "xml" is not known; it is text or json"#);
    }
}

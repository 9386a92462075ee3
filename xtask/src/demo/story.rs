//! How the demo looks: numbered steps, what was seen in each, how long it took.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The story so far.
pub(super) struct Story {
    colours: bool,
    steps: usize,
    began: Instant,
}

/// What one step has to say.
pub(super) struct Told {
    colours: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

fn paint(colours: bool, code: &str, text: &str) -> String {
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

impl Story {
    pub(super) fn begin(title: &str) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        println!("\n{}\n", paint(colours, BOLD, title));
        Self { colours, steps: 0, began: Instant::now() }
    }

    /// Tells one step. Its title is printed first, so that a person sees what is being waited for.
    pub(super) fn step<T>(&mut self, title: &str, body: impl FnOnce(&Told) -> Result<T>) -> Result<T> {
        self.steps += 1;
        println!("{} {}", paint(self.colours, BOLD, &format!("{:>2}.", self.steps)), paint(self.colours, BOLD, title));
        let began = Instant::now();
        let outcome = body(&Told { colours: self.colours });
        let took = paint(self.colours, DIM, &format!("({})", seconds(began.elapsed())));
        match &outcome {
            Ok(_) => println!("    {} {took}\n", paint(self.colours, GREEN, "✔")),
            Err(_) => println!("    {} {took}\n", paint(self.colours, RED, "✘ not as it should be")),
        }
        outcome
    }

    pub(super) fn failed(&self, error: &anyhow::Error, logs: &str) {
        println!("{} {error:#}\n", paint(self.colours, RED, "The story ends here:"));
        println!("{logs}");
    }

    pub(super) fn end(&self) {
        let took = seconds(self.began.elapsed());
        println!("{} {} steps, all as they should be, in {took}", paint(self.colours, GREEN, "✔"), self.steps);
    }
}

impl Told {
    /// Something that was seen.
    pub(super) fn saw(&self, text: impl AsRef<str>) {
        println!("    {} {}", paint(self.colours, DIM, "·"), text.as_ref());
    }

    /// Something in the background: a command, a path.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        println!("    {}", paint(self.colours, DIM, text.as_ref()));
    }

    /// Many lines as they are, a little to the right.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            let code = match line.chars().next() {
                Some('+') => GREEN,
                Some('-') => RED,
                _ => DIM,
            };
            println!("    │ {}", paint(self.colours, code, line));
        }
    }
}

/// `0.42 s`
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The beginning of a digest, enough to tell it from another.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

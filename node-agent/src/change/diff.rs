//! A plan as a person reads it: what appears, what goes, and a unified diff of what is edited, without its secrets.

use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

use super::{Change, Plan, Wanted, masked::masked_bytes, present::Present, verify::satisfied};
use crate::host::{Host, Result};

/// Lines around an edit.
const CONTEXT: usize = 3;

/// Whether the diff is for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI: what appears green, what goes red.
    Always,
}

/// What applying the plan would change now; empty when nothing.
pub fn diff(host: &dyn Host, plan: &Plan, colour: Colour) -> Result<String> {
    let mut page = Page { text: String::new(), colour };
    for change in &plan.changes {
        let present = Present::look(host, &change.path)?;
        if !satisfied(host, change, &present)? {
            page.change(change, &present);
        }
    }
    Ok(page.text)
}

struct Page {
    text: String,
    colour: Colour,
}

#[derive(Clone, Copy, PartialEq)]
enum Tone {
    Plain,
    Appears,
    Goes,
    Heading,
}

impl Page {
    fn change(&mut self, change: &Change, present: &Present) {
        let path = change.path.display();
        let lasts = if change.volatile { "; gone when the agent or the node stops" } else { "" };
        self.line(Tone::Heading, &format!("# {}{lasts}", change.why));
        match present {
            Present::Link { target, .. } => self.line(Tone::Goes, &format!("- link {path} → {}", target.display())),
            Present::Directory if change.after == Wanted::Absent => {
                self.line(Tone::Goes, &format!("- directory {path}"));
            }
            Present::Directory => self.line(Tone::Plain, &format!("! {path} is a directory")),
            Present::Other => self.line(Tone::Plain, &format!("! {path} is a special file")),
            Present::Absent | Present::File { .. } => {}
        }
        let before = match present {
            Present::File { bytes, .. } => Some(bytes.as_slice()),
            _ => None,
        };
        match &change.after {
            Wanted::Link { target } => {
                self.file(change, before, None);
                self.line(Tone::Appears, &format!("+ link {path} → {}", target.display()));
            }
            Wanted::Directory { mode } => self.line(Tone::Appears, &format!("+ directory {path} (mode {mode:04o})")),
            Wanted::Absent => self.file(change, before, None),
            Wanted::Splice { bytes } => self.file(change, before, Some(bytes)),
            Wanted::File { bytes, mode } => {
                let is = match present {
                    Present::File { attributes, .. } => Some(attributes.mode),
                    _ => None,
                };
                match is {
                    Some(is) if is != *mode => self.line(Tone::Plain, &format!("~ mode {path} {is:04o} → {mode:04o}")),
                    Some(_) => {}
                    None => self.line(Tone::Appears, &format!("+ file {path} (mode {mode:04o})")),
                }
                self.file(change, before, Some(bytes));
            }
        }
        self.text.push('\n');
    }

    /// The unified diff of a file's bytes; `None` is no file.
    fn file(&mut self, change: &Change, before: Option<&[u8]>, after: Option<&[u8]>) {
        if before == after {
            return;
        }
        let named = |there: Option<&[u8]>| match there {
            Some(_) => change.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        self.line(Tone::Goes, &format!("--- {}", named(before)));
        self.line(Tone::Appears, &format!("+++ {}", named(after)));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let (before, after) = (masked_bytes(before), masked_bytes(after));
        if before == after {
            self.line(Tone::Plain, "(what differs is not shown)");
        }
        let lines = TextDiff::from_lines(before.as_ref(), after.as_ref());
        for hunk in lines.unified_diff().context_radius(CONTEXT).iter_hunks() {
            self.line(Tone::Heading, &hunk.header().to_string());
            for line in hunk.iter_changes() {
                let (sign, tone) = match line.tag() {
                    ChangeTag::Equal => (' ', Tone::Plain),
                    ChangeTag::Delete => ('-', Tone::Goes),
                    ChangeTag::Insert => ('+', Tone::Appears),
                };
                self.line(tone, &format!("{sign}{}", line.value().strip_suffix('\n').unwrap_or(line.value())));
                if line.missing_newline() {
                    self.line(Tone::Plain, "\\ No newline at end of file");
                }
            }
        }
    }

    /// One line. What others wrote must not steer the reader's terminal.
    fn line(&mut self, tone: Tone, line: &str) {
        let mut shown = String::with_capacity(line.len());
        for character in line.chars() {
            match character {
                '\t' => shown.push('\t'),
                control if control.is_control() => shown.extend(control.escape_default()),
                other => shown.push(other),
            }
        }
        let code = match tone {
            Tone::Appears => "32",
            Tone::Goes => "31",
            Tone::Heading => "36",
            Tone::Plain => "",
        };
        // Writing to a String cannot fail.
        let _written = if self.colour == Colour::Never || code.is_empty() {
            writeln!(self.text, "{shown}")
        } else {
            writeln!(self.text, "\u{1b}[{code}m{shown}\u{1b}[0m")
        };
    }
}

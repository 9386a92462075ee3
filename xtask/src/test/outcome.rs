//! What a tier's output says happened, in the form that Rust's test harness and libtest-mimic share.

/// Counts and names over one or more test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: Vec<Skip>,
    pub(crate) failed_names: Vec<String>,
}

/// A test, or a whole tier, that did not run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: Option<String>,
}

impl Outcome {
    /// A tier that could not even start: one failure.
    pub(crate) fn broken() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// A tier that cannot run on this machine.
    pub(crate) fn skipped(tier: &str, reason: &str) -> Self {
        Self { skipped: vec![Skip { name: tier.to_owned(), reason: Some(reason.to_owned()) }], ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failed_names.extend(other.failed_names);
    }

    /// Takes note of one line; tells whether it is worth showing to a person who waits.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            let noise = line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok");
            return !noise;
        };
        let (verdict, reason) = match verdict.split_once(", ") {
            Some((verdict, reason)) => (verdict, Some(reason.to_owned())),
            None => (verdict, None),
        };
        // libtest-mimic fills names up to the same length.
        let name = name.trim_end().to_owned();
        match verdict {
            "ok" => {
                self.passed += 1;
                false
            }
            "FAILED" => {
                self.failed += 1;
                self.failed_names.push(name);
                true
            }
            "ignored" => {
                self.skipped.push(Skip { name, reason });
                true
            }
            _ => true,
        }
    }

    /// Something went wrong beside the tests.
    pub(crate) fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failed_names.push(what.to_owned());
    }

    /// A program that ended badly without naming a failed test (it was killed, or did not compile) has failed all the same.
    pub(crate) fn ended(&mut self, successfully: bool) {
        if !successfully && self.failed == 0 {
            self.failed = 1;
        }
    }

    /// `3 passed, 0 failed, 1 skipped`.
    pub(crate) fn counts(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome {
        let mut outcome = Outcome::default();
        for line in text.lines() {
            outcome.read(line);
        }
        outcome
    }

    #[test]
    fn counts_what_the_harness_prints() {
        let outcome = read(
            "\nrunning 4 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored, needs a disk\ntest e - should panic ... ok\n\n\
             failures:\n    c\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(outcome.counts(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(outcome.failed_names, ["c"]);
        assert_eq!(outcome.skipped[0], Skip { name: "d".to_owned(), reason: Some("needs a disk".to_owned()) });
    }

    #[test]
    fn a_name_is_without_the_space_that_aligns_it() {
        let outcome = read("test containerd-2.4::pull_by_tag          ... FAILED\n");
        assert_eq!(outcome.failed_names, ["containerd-2.4::pull_by_tag"]);
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure_once() {
        let mut outcome = read("test a ... ok\n");
        outcome.ended(false);
        assert_eq!(outcome.counts(), "1 passed, 1 failed, 0 skipped");
        let mut outcome = read("test a ... FAILED\n");
        outcome.ended(false);
        assert_eq!(outcome.failed, 1);
    }
}

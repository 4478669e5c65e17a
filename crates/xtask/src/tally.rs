//! What was checked, and what of it is wrong.

use anyhow::{Result, bail};

/// Counts checks. All of them are tried even if something is wrong, so that one run shows every fault.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u32,
    faults: Vec<String>,
}

impl Tally {
    /// Notes whether something is as it should be.
    pub(crate) fn that(&mut self, what: &str, holds: bool) {
        if holds {
            self.passed += 1;
            println!("  ok     {what}");
        } else {
            println!("  WRONG  {what}");
            self.faults.push(what.to_owned());
        }
    }

    /// The same for two texts.
    pub(crate) fn same(&mut self, what: &str, is: &str, should: &str) {
        if is == should {
            self.that(what, true);
        } else {
            self.that(&format!("{what}: {is:?} instead of {should:?}"), false);
        }
    }

    /// Says how many there were. With a fault it shows the log, and is an error.
    pub(crate) fn conclude(self, subject: &str, log: impl FnOnce() -> String) -> Result<()> {
        println!("\n{} checks passed, {} failed", self.passed, self.faults.len());
        if !self.faults.is_empty() {
            println!("\nThe log of fpush:\n{}", log().trim_end());
            bail!("{subject} is not right:\n- {}", self.faults.join("\n- "));
        }
        Ok(())
    }
}

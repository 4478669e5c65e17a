//! What a program asks of the machine that runs it: `objdump` reads it.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// A version of glibc, such as 2.31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Glibc {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Glibc {
    /// A version without a third number.
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self {
            major,
            minor,
            patch: 0,
        }
    }

    /// Reads `2.31` or `2.2.5`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch = numbers.next().transpose().ok()?.unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}")?;
        if *patch > 0 {
            write!(f, ".{patch}")?;
        }
        Ok(())
    }
}

/// The oldest glibc that a program starts with: that of its newest symbol.
pub(crate) fn glibc(program: &Path) -> Result<Glibc> {
    let symbols = process::said_by(Command::new("objdump").arg("-T").arg(program))?;
    newest(&symbols).with_context(|| format!("{} asks for no glibc", program.display()))
}

/// The libraries that a program or a library names.
pub(crate) fn libraries(file: &Path) -> Result<Vec<String>> {
    let headers = process::said_by(Command::new("objdump").arg("-p").arg(file))?;
    let needed = headers
        .lines()
        .filter_map(|line| line.trim().strip_prefix("NEEDED"));
    Ok(needed.map(|name| name.trim().to_owned()).collect())
}

/// The newest glibc among symbols as `objdump -T` shows them.
fn newest(symbols: &str) -> Option<Glibc> {
    let versions = symbols.split("GLIBC_").skip(1);
    versions
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
            Glibc::parse(rest.get(..end?)?)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_counts_and_numbers_are_not_texts() {
        let symbols = "\
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.2.5) memcpy
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.28) fcntl64
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.9)  pipe2
0000000000000000  w   DF *UND*\t0000000000000000 (GCC_3.0)    _Unwind_Resume
";
        assert_eq!(newest(symbols), Some(Glibc::new(2, 28)));
        assert_eq!(newest("no symbols"), None);
    }

    #[test]
    fn a_version_is_read_and_shown() {
        for text in ["2.31", "2.2.5"] {
            assert_eq!(Glibc::parse(text).unwrap().to_string(), text);
        }
        assert!(Glibc::parse("2.31") > Glibc::parse("2.4"));
        assert!(Glibc::parse("2.31") < Glibc::parse("2.31.1"));
        assert_eq!(Glibc::parse("PRIVATE"), None);
    }
}

//! What a stranger chose, in the log.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

/// The setting `monitoring.senders`: whether domains of senders are named in the log, in metrics and on the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderNames {
    /// In the log, and those who send most in metrics and on the page.
    #[default]
    Top,
    /// Nowhere.
    Off,
}

impl SenderNames {
    /// As they are written in the settings.
    pub const CHOICES: &[(&str, Self)] = &[("top", Self::Top), ("off", Self::Off)];

    /// Puts it in force for the whole process, which has one log.
    pub fn set(self) {
        ARE_OFF.store(self == Self::Off, Ordering::Relaxed);
    }

    /// What is in force.
    #[must_use]
    pub fn current() -> Self {
        if ARE_OFF.load(Ordering::Relaxed) {
            Self::Off
        } else {
            Self::Top
        }
    }
}

static ARE_OFF: AtomicBool = AtomicBool::new(false);

/// The domain of a sender for the log; `None` if it must not be there.
#[must_use]
pub fn sender(domain: &str) -> Option<Cut<'_>> {
    match SenderNames::current() {
        SenderNames::Top => Some(Cut(domain)),
        SenderNames::Off => None,
    }
}

/// Prints at most the first 64 characters of something that a stranger chose, with control characters
/// escaped.
pub struct Cut<'a>(pub &'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(CUT) {
            write!(f, "{}", character.escape_debug())?;
        }
        if characters.next().is_some() {
            f.write_str("…")
        } else {
            Ok(())
        }
    }
}

const CUT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_chose_is_cut_and_escaped() {
        assert_eq!(Cut("a\nb").to_string(), "a\\nb");
        assert_eq!(Cut(&"x".repeat(100)).to_string(), format!("{}…", "x".repeat(64)));
        assert_eq!(Cut(&"x".repeat(64)).to_string(), "x".repeat(64));
    }
}

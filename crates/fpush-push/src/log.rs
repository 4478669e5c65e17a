//! What a stranger chose, in the log.

use std::fmt;

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

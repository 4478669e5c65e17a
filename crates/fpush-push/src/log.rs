//! Keeping strangers from filling the log.

use std::{fmt, sync::Mutex};

use tokio::time::{Duration, Instant};

/// Lets a few messages a minute through and counts the others. One for each kind of message that a stranger
/// can cause.
#[derive(Debug)]
pub struct LogGate {
    state: Mutex<GateState>,
}

#[derive(Debug)]
struct GateState {
    minute: Option<Instant>,
    passed: u32,
    withheld: u64,
}

impl LogGate {
    /// A gate that has let nothing through yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(GateState {
                minute: None,
                passed: 0,
                withheld: 0,
            }),
        }
    }

    /// Whether a message may be written now: `Some` with the number of those that were not written since the
    /// last one that was.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if state
            .minute
            .is_none_or(|start| now.duration_since(start) >= MINUTE)
        {
            state.minute = Some(now);
            state.passed = 0;
        }
        if state.passed == PER_MINUTE {
            state.withheld += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.withheld))
    }
}

impl Default for LogGate {
    fn default() -> Self {
        Self::new()
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

const MINUTE: Duration = Duration::from_secs(60);
const PER_MINUTE: u32 = 5;
const CUT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_five_a_minute_through_and_counts_the_rest() {
        let gate = LogGate::new();
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(gate.pass(start), Some(0));
        }
        assert_eq!(gate.pass(start), None);
        assert_eq!(gate.pass(start + Duration::from_secs(59)), None);
        assert_eq!(gate.pass(start + Duration::from_secs(60)), Some(2));
        assert_eq!(gate.pass(start + Duration::from_secs(60)), Some(0));
    }

    #[test]
    fn what_a_stranger_chose_is_cut_and_escaped() {
        assert_eq!(Cut("a\nb").to_string(), "a\\nb");
        assert_eq!(Cut(&"x".repeat(100)).to_string(), format!("{}…", "x".repeat(64)));
        assert_eq!(Cut(&"x".repeat(64)).to_string(), "x".repeat(64));
    }
}

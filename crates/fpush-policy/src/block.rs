//! One token's block.

use std::time::Duration;

use crate::ticks::Tick;

/// Why a token is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum BlockReason {
    /// The provider declared it dead.
    Dead,
    /// Something failed that nobody could explain.
    Unexplained,
    /// The provider called it dead or wrong, and is not believed; or it cannot reach the token's platform.
    #[serde(alias = "Malformed")]
    Doubted,
}

/// One token's block; kept for a while after it ended, because the second block lasts longer. Eight bytes, because a million
/// of them are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Until then.
    pub(crate) end: Tick,
    /// When it began, without its last eight bits; in their place six for the era and two for the reason.
    rest: u32,
}

/// Under which settings a token was blocked: what the provider said to older ones counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Era(u8);

impl Era {
    /// The next one; `None` after the last one that has a number.
    pub(crate) fn next(self) -> Option<Self> {
        (self.0 < LAST_ERA).then_some(Self(self.0 + 1))
    }
}

impl Block {
    /// A block, as if it had begun up to 13 s earlier.
    pub(crate) fn new(start: Tick, end: Tick, reason: BlockReason, era: Era) -> Self {
        let reason = match reason {
            BlockReason::Dead => 0,
            BlockReason::Unexplained => 1,
            BlockReason::Doubted => 2,
        };
        Self {
            end,
            rest: start.to_number() & !0xff | u32::from(era.0) << 2 | reason,
        }
    }

    pub(crate) fn start(self) -> Tick {
        Tick::from_number(self.rest & !0xff)
    }

    pub(crate) fn reason(self) -> BlockReason {
        match self.rest & 3 {
            0 => BlockReason::Dead,
            1 => BlockReason::Unexplained,
            _ => BlockReason::Doubted,
        }
    }

    pub(crate) fn era(self) -> Era {
        Era((self.rest as u8) >> 2)
    }
}

const LAST_ERA: u8 = 63;
/// A block is as if it had begun up to so much earlier: what 256 ticks are.
pub(crate) const START_PRECISION: Duration = Duration::from_secs(13);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_what_it_was_made_of_in_eight_bytes() {
        assert_eq!(size_of::<Block>(), 8);
        let mut era = Era::default();
        let mut eras = 1;
        loop {
            for reason in [BlockReason::Dead, BlockReason::Unexplained, BlockReason::Doubted] {
                for start in [0, 255, 256, u32::MAX] {
                    let (start, end) = (Tick::from_number(start), Tick::from_number(start / 3));
                    let block = Block::new(start, end, reason, era);
                    assert_eq!((block.end, block.reason(), block.era()), (end, reason, era));
                    assert!(block.start() <= start && start.since(block.start()) < 256);
                }
            }
            let Some(next) = era.next() else { break };
            era = next;
            eras += 1;
        }
        assert_eq!(eras, 64);
    }
}

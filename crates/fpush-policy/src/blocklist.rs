//! Tokens that nothing is sent to for a while.

use std::time::{Duration, Instant};

use fpush_push::{Fingerprint, settings::Section};

use crate::{
    block::{Block, BlockReason, Era, START_PRECISION},
    recency::Recency,
    records::{BlockRecord, Clocks},
    ticks::{Tick, Ticks},
};

/// `blacklist` of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocklistSettings {
    /// `invalidToken`: for tokens that the provider declared dead.
    pub dead: BlockRule,
    /// `pushError`: after errors that nobody could explain.
    pub unexplained: BlockRule,
    /// `blockExtension`: a publish in the second half of a block makes it last at least this long from then.
    pub extension: Duration,
}

/// How long one kind of block lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRule {
    /// `initalBlocking`: the first time.
    pub initial: Duration,
    /// `extendedBlocking`: when the token is found again after its block ended.
    pub extended: Duration,
}

impl BlocklistSettings {
    /// Reads `blacklist`; everything in it is optional.
    pub fn read(module: &mut Section<'_>) -> Self {
        let mut section = module.section_or_empty("blacklist");
        let settings = Self {
            dead: BlockRule::read(&mut section, "invalidToken", 24 * HOUR, 5 * 24 * HOUR),
            unexplained: BlockRule::read(&mut section, "pushError", 10 * MINUTE, 20 * MINUTE),
            extension: section.duration("blockExtension", 10 * MINUTE),
        };
        section.finish();
        settings
    }
}

impl BlockRule {
    fn read(blacklist: &mut Section<'_>, key: &'static str, initial: Duration, extended: Duration) -> Self {
        let mut section = blacklist.section_or_empty(key);
        // The original's spelling is the one in everybody's files.
        let spelling = if section.has("initialBlocking") {
            "initialBlocking"
        } else {
            "initalBlocking"
        };
        let rule = Self {
            initial: section.duration(spelling, initial),
            extended: section.duration("extendedBlocking", extended),
        };
        section.finish();
        rule
    }
}

#[derive(Debug)]
pub(crate) struct Blocklist {
    settings: BlocklistSettings,
    blocks: Recency<Block>,
    ticks: Ticks,
    era: Era,
    /// Before this place there may be blocks that count no more.
    unswept: usize,
    changes: u64,
}

impl Blocklist {
    pub(crate) fn new(settings: BlocklistSettings, ticks: Ticks) -> Self {
        Self {
            settings,
            blocks: Recency::new(MAX_TOKENS),
            ticks,
            era: Era::default(),
            unswept: 0,
            changes: 0,
        }
    }

    /// Other rules from now on. Blocks that run keep their end.
    pub(crate) fn set_settings(&mut self, settings: BlocklistSettings) {
        self.settings = settings;
    }

    pub(crate) fn settings(&self) -> &BlocklistSettings {
        &self.settings
    }

    /// Whether there is or was a block of a token.
    pub(crate) fn knows(&self, token: Fingerprint) -> bool {
        !self.blocks.is_empty() && self.blocks.get(token).is_some()
    }

    /// How often a token was blocked or forgiven.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many tokens are remembered.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// A part of what is remembered, in no order, from this place on, and the place of the next part.
    pub(crate) fn part(&self, from: usize, most: usize, clocks: Clocks) -> (Vec<BlockRecord>, Option<usize>) {
        let record = |(token, block): (Fingerprint, &Block)| BlockRecord {
            token: token.to_parts(),
            reason: block.reason(),
            start: clocks.to_millis(self.ticks.instant(block.start())),
            end: clocks.to_millis(self.ticks.instant(block.end)),
        };
        let (part, next) = self.blocks.part(from, most);
        let part = part.filter(|(_, block)| self.counts(block)).map(record);
        (part.collect(), next)
    }

    /// Remembers what was written down. The end of a block is never later than its rule has it: the clock may have been
    /// wrong when it was written.
    pub(crate) fn remember(&mut self, records: impl IntoIterator<Item = BlockRecord>, clocks: Clocks) {
        for record in records {
            let (first, second) = self.lengths(record.reason);
            let latest = clocks.now + first.max(second);
            let start = clocks.to_instant(record.start).min(clocks.now);
            let end = self.ticks.until(clocks.to_instant(record.end).min(latest));
            let block = Block::new(self.ticks.until(start), end, record.reason, self.era);
            self.blocks.touch(Fingerprint::from_parts(record.token), block);
        }
    }

    /// Whether a publish for the token must be turned away now. Asking prolongs a block in its second half, but never
    /// beyond the longest one of its kind.
    pub(crate) fn check(&mut self, token: Fingerprint, now: Instant) -> Option<BlockReason> {
        let (block, tick) = self.running(token, now)?;
        let (start, end, reason) = (block.start(), block.end, block.reason());
        if tick.since(start) >= end.since(start) / 2 {
            let longest = match reason {
                BlockReason::Dead => self.settings.dead.longest(),
                // It may be alive, and must not be silenced for as long as it gets messages.
                BlockReason::Unexplained => self.settings.unexplained.extended,
                BlockReason::Doubted => Duration::ZERO,
            };
            let prolonged = tick.plus(self.settings.extension).min(start.plus(longest));
            if let Some(block) = self.blocks.get_mut(token) {
                block.end = end.max(prolonged);
            }
        }
        Some(reason)
    }

    /// Why nothing is sent to the token, and until when; unlike [`check`](Self::check) this prolongs nothing.
    pub(crate) fn look(&self, token: Fingerprint, now: Instant) -> Option<(BlockReason, Instant)> {
        let (block, _) = self.running(token, now)?;
        Some((block.reason(), self.ticks.instant(block.end)))
    }

    /// Whether nothing was asked of the provider about a dead token for an hour, so that one push may go out to it: its app may have
    /// begun to use it again. To be followed by [`asked`](Self::asked) when it does.
    pub(crate) fn may_ask(&self, token: Fingerprint, now: Instant) -> bool {
        let block = self.running(token, now);
        block.is_some_and(|(block, now)| {
            // A start is up to so much too early.
            block.reason() == BlockReason::Dead && block.start().plus(HOUR + START_PRECISION) <= now
        })
    }

    /// The provider is asked about a dead token: the next hour begins.
    pub(crate) fn asked(&mut self, token: Fingerprint, now: Instant) {
        let start = self.ticks.until(now);
        if let Some(block) = self.blocks.get_mut(token) {
            *block = Block::new(start, block.end, block.reason(), block.era());
            self.changes += 1;
        }
    }

    /// Whether a token was dead when it was blocked.
    pub(crate) fn was_dead(&self, token: Fingerprint) -> bool {
        let block = self.blocks.get(token);
        block.is_some_and(|block| self.counts(block) && block.reason() == BlockReason::Dead)
    }

    /// Blocks a token: for longer if it was blocked for the same reason before. A block that still runs is
    /// never shortened, and what is dead does not become less so by another answer that was under way.
    pub(crate) fn block(&mut self, token: Fingerprint, reason: BlockReason, now: Instant) {
        self.forget(now);
        let (first, second) = self.lengths(reason);
        let start = self.ticks.until(now);
        let before = self.blocks.get(token).filter(|block| self.counts(block));
        let end = match before {
            Some(block) if start < block.end => {
                if block.reason() == BlockReason::Dead && reason != BlockReason::Dead {
                    return;
                }
                block.end.max(start.plus(first))
            }
            Some(block) if block.reason() == reason => start.plus(second),
            Some(_) | None => start.plus(first),
        };
        self.changes += 1;
        let block = Block::new(start, end, reason, self.era);
        self.blocks.touch(token, block);
    }

    /// Blocks a token as another instance does, until then or as long as its rule has it.
    pub(crate) fn adopt(&mut self, token: Fingerprint, reason: BlockReason, until: Instant, now: Instant) {
        self.forget(now);
        let (first, second) = self.lengths(reason);
        self.changes += 1;
        let end = self.ticks.until(until.min(now + first.max(second)));
        let block = Block::new(self.ticks.until(now), end, reason, self.era);
        self.blocks.touch(token, block);
    }

    /// Blocks that run, of a part of all, and for how long, and the place of the next part.
    pub(crate) fn running_part(
        &self,
        from: usize,
        most: usize,
        now: Instant,
    ) -> (
        impl Iterator<Item = (Fingerprint, BlockReason, Duration)>,
        Option<usize>,
    ) {
        let tick = self.ticks.until(now);
        let runs = move |block: &Block| tick < block.end && self.counts(block);
        let (part, next) = self.blocks.part(from, most);
        let part = part.filter(move |(_, block)| runs(block));
        let part = part.map(move |(token, block)| {
            let left = self.ticks.instant(block.end).saturating_duration_since(now);
            (token, block.reason(), left)
        });
        (part, next)
    }

    /// Forgets all tokens that the provider called dead or wrong, because it said so to other settings: at once what it
    /// blocks by that, and [little by little](Self::sweep) what it remembers.
    pub(crate) fn unblock_all(&mut self) {
        match self.era.next() {
            Some(era) => {
                self.era = era;
                self.unswept = self.blocks.len();
            }
            // So many reloads, each of which began the sweeping anew: nothing of a former era, nor of the one that ends now,
            // may be taken for one of those that follow.
            None => {
                for era in [self.era, Era::default()] {
                    self.era = era;
                    self.unswept = self.blocks.len();
                    while self.unswept > 0 {
                        self.sweep();
                    }
                }
            }
        }
        self.changes += 1;
    }

    /// Goes on forgetting what counts no more. To be called once a second.
    pub(crate) fn sweep(&mut self) {
        let to = self.unswept.min(self.blocks.len());
        self.unswept = to.saturating_sub(SWEPT_AT_A_TIME);
        let (part, _) = self.blocks.part(self.unswept, to - self.unswept);
        let gone: Vec<_> = part
            .filter(|(_, block)| !self.counts(block))
            .map(|(token, _)| token)
            .collect();
        // From the end on: what takes the place of one that is forgotten was looked at.
        for token in gone {
            self.blocks.remove(token);
        }
    }

    /// Forgets a token that proved to be alive.
    pub(crate) fn unblock(&mut self, token: Fingerprint) {
        if !self.blocks.is_empty() && self.blocks.remove(token).is_some() {
            self.changes += 1;
        }
    }

    /// Forgets what ended long ago: a few with each call, because nobody shall wait while a million are forgotten.
    fn forget(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_A_TIME {
            match self.blocks.oldest() {
                Some(block) if self.ticks.until(now) >= block.end.plus(self.lengths(block.reason()).1) => {
                    self.blocks.pop_oldest();
                }
                Some(_) | None => return,
            }
        }
    }

    /// A block that has not ended, and what time it is.
    fn running(&self, token: Fingerprint, now: Instant) -> Option<(Block, Tick)> {
        let block = *self.blocks.get(token)?;
        let now = self.ticks.until(now);
        (now < block.end && self.counts(&block)).then_some((block, now))
    }

    /// Whether it is not of an era that has ended. What nobody could explain, the provider did not say.
    fn counts(&self, block: &Block) -> bool {
        block.reason() == BlockReason::Unexplained || block.era() == self.era
    }

    /// How long the first block lasts, and the second.
    fn lengths(&self, reason: BlockReason) -> (Duration, Duration) {
        let BlocklistSettings {
            dead, unexplained, ..
        } = &self.settings;
        match reason {
            BlockReason::Dead => (dead.initial, dead.extended),
            BlockReason::Unexplained => (unexplained.initial, unexplained.extended),
            // The provider is asked for it six times an hour at most, whatever the settings say.
            BlockReason::Doubted => [unexplained.initial.max(SHORTEST_DOUBT); 2].into(),
        }
    }
}

impl BlockRule {
    fn longest(&self) -> Duration {
        self.initial.max(self.extended)
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const SHORTEST_DOUBT: Duration = Duration::from_secs(600);

/// More than are added at a time.
const FORGOTTEN_AT_A_TIME: u32 = 8;
/// In less than a millisecond.
const SWEPT_AT_A_TIME: usize = 5_000;
/// Beyond it the token that was blocked longest ago is forgotten.
const MAX_TOKENS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use fpush_push::TokenHasher;

    struct Fixture {
        list: Blocklist,
        start: Instant,
        token: Fingerprint,
    }

    impl Fixture {
        fn new() -> Self {
            let settings = BlocklistSettings {
                dead: BlockRule {
                    initial: 24 * HOUR,
                    extended: 120 * HOUR,
                },
                unexplained: BlockRule {
                    initial: 10 * MINUTE,
                    extended: 20 * MINUTE,
                },
                extension: 10 * MINUTE,
            };
            let (token, start) = (TokenHasher::with_key([7; 16]).fingerprint("t"), Instant::now());
            Self {
                list: Blocklist::new(settings, Ticks::new(start)),
                start,
                token,
            }
        }

        fn check(&mut self, after: Duration) -> Option<BlockReason> {
            self.list.check(self.token, self.start + after)
        }

        fn block(&mut self, reason: BlockReason, after: Duration) {
            self.list.block(self.token, reason, self.start + after);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_block_lasts_its_time_and_the_second_longer() {
        let mut f = Fixture::new();
        assert_eq!(f.check(Duration::ZERO), None);
        f.block(BlockReason::Dead, Duration::ZERO);
        assert_eq!(f.check(HOUR), Some(BlockReason::Dead));
        assert_eq!(f.check(24 * HOUR), None);
        f.block(BlockReason::Dead, 25 * HOUR);
        assert_eq!(f.check(144 * HOUR), Some(BlockReason::Dead));
        assert_eq!(f.check(145 * HOUR), None);
    }

    #[test]
    fn a_publish_in_the_second_half_prolongs_a_block_and_never_shortens_it() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        // In the middle of a day, the extension of ten minutes changes nothing.
        assert_eq!(f.check(13 * HOUR), Some(BlockReason::Dead));
        assert_eq!(f.check(24 * HOUR - SECOND), Some(BlockReason::Dead));
        assert_eq!(f.check(24 * HOUR + 9 * MINUTE), Some(BlockReason::Dead));

        let mut f = Fixture::new();
        f.block(BlockReason::Unexplained, Duration::ZERO);
        assert_eq!(
            f.check(4 * MINUTE),
            Some(BlockReason::Unexplained),
            "first half: not prolonged"
        );
        assert_eq!(f.check(10 * MINUTE), None);
    }

    #[test]
    fn a_second_verdict_while_the_block_runs_does_not_count_as_a_second_block() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        f.block(BlockReason::Dead, SECOND);
        assert_eq!(f.check(25 * HOUR), None);
    }

    #[test]
    fn a_lesser_verdict_does_not_shorten_the_block_of_a_dead_token() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        f.block(BlockReason::Unexplained, SECOND);
        f.block(BlockReason::Doubted, SECOND);
        assert_eq!(f.check(11 * HOUR), Some(BlockReason::Dead));

        let mut f = Fixture::new();
        f.block(BlockReason::Unexplained, Duration::ZERO);
        f.block(BlockReason::Dead, SECOND);
        assert_eq!(f.check(11 * HOUR), Some(BlockReason::Dead));
    }

    /// What an incident put there must not stay because its server goes on publishing.
    #[test]
    fn a_dead_tokens_block_ends_however_much_is_published() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        let mut at = Duration::ZERO;
        while f.check(at).is_some() {
            at += MINUTE;
        }
        assert_eq!(at, 120 * HOUR);
    }

    #[test]
    fn a_doubted_token_is_blocked_for_ten_minutes_each_time_or_longer_as_the_settings_say() {
        let mut f = Fixture::new();
        for (initial, length) in [(MINUTE, 10 * MINUTE), (30 * MINUTE, 30 * MINUTE)] {
            let mut settings = f.list.settings.clone();
            settings.unexplained.initial = initial;
            f.list.set_settings(settings);
            for round in 0..3u32 {
                let start = HOUR * (round + 1) + initial * 100;
                f.block(BlockReason::Doubted, start);
                assert_eq!(f.check(start + length - SECOND), Some(BlockReason::Doubted));
                assert_eq!(f.check(start + length), None, "asking has not prolonged it");
            }
        }
    }

    #[test]
    fn other_settings_forget_what_the_provider_said_of_tokens() {
        let mut f = Fixture::new();
        let hasher = TokenHasher::with_key([7; 16]);
        let tokens = ["a", "b", "c"].map(|token| hasher.fingerprint(token));
        let reasons = [BlockReason::Dead, BlockReason::Doubted, BlockReason::Unexplained];
        for (token, reason) in tokens.into_iter().zip(reasons) {
            f.list.block(token, reason, f.start);
        }
        f.list.unblock_all();
        let left = tokens.map(|token| f.list.check(token, f.start));
        assert_eq!(left, [None, None, Some(BlockReason::Unexplained)]);
        // What is said to the other settings counts.
        f.list.block(tokens[0], BlockReason::Doubted, f.start);
        assert_eq!(f.list.check(tokens[0], f.start), Some(BlockReason::Doubted));
    }

    /// Pushes wait for each of them.
    #[test]
    fn no_call_forgets_many_blocks() {
        let mut f = Fixture::new();
        let hasher = TokenHasher::with_key([7; 16]);
        let tokens: Vec<_> = (0..4 * SWEPT_AT_A_TIME)
            .map(|number| hasher.fingerprint(&number.to_string()))
            .collect();
        let reason = |number: usize| match number % 3 {
            0 => BlockReason::Unexplained,
            _ => BlockReason::Dead,
        };
        for (number, token) in tokens.iter().enumerate() {
            f.list.block(*token, reason(number), f.start);
        }
        f.list.unblock_all();
        let mut before = f.list.len();
        assert_eq!(before, tokens.len(), "no one at once");
        for _ in 0..4 {
            f.list.unblock(tokens[0]);
            f.list.sweep();
            assert!(before - f.list.len() <= SWEPT_AT_A_TIME + 1);
            before = f.list.len();
        }
        assert!(
            f.list
                .blocks
                .part(0, before)
                .0
                .all(|(_, block)| f.list.counts(block)),
            "all were looked at"
        );
        assert!(tokens.iter().enumerate().skip(1).all(|(number, token)| {
            f.list.look(*token, f.start).is_some() == (reason(number) == BlockReason::Unexplained)
        }));

        let late = 2_000 * HOUR;
        f.block(BlockReason::Dead, late);
        assert_eq!(before + 1 - f.list.len(), FORGOTTEN_AT_A_TIME as usize);
    }

    #[test]
    fn a_blocked_token_takes_forty_bytes() {
        let mut f = Fixture::new();
        let (hasher, tokens) = (TokenHasher::with_key([7; 16]), 250_000_u32);
        f.list.blocks = Recency::new(tokens);
        for number in 0..tokens {
            f.list.block(
                hasher.fingerprint(&number.to_string()),
                BlockReason::Dead,
                f.start,
            );
        }
        let each = f.list.blocks.size() / tokens as usize;
        assert!(each <= 40, "{each}");
    }

    /// Their numbers begin anew after 64.
    #[test]
    fn no_block_of_an_era_that_has_ended_counts_in_a_later_one() {
        let hasher = TokenHasher::with_key([7; 16]);
        let blocked = |f: &Fixture, token| f.list.look(token, f.start).map(|(reason, _)| reason);
        let unexplained = hasher.fingerprint("unexplained");
        for before in 0..130 {
            let mut f = Fixture::new();
            (0..before).for_each(|_| f.list.unblock_all());
            f.block(BlockReason::Dead, Duration::ZERO);
            f.list.block(unexplained, BlockReason::Unexplained, f.start);
            for after in 1..200 {
                f.list.unblock_all();
                let new = hasher.fingerprint(&after.to_string());
                f.list.block(new, BlockReason::Dead, f.start);
                assert_eq!(blocked(&f, f.token), None, "{after} after {before}");
                assert_eq!(blocked(&f, new), Some(BlockReason::Dead));
                assert_eq!(blocked(&f, unexplained), Some(BlockReason::Unexplained));
            }
        }
    }

    #[test]
    fn what_is_written_down_is_read_in_parts_and_without_what_counts_no_more() {
        let mut f = Fixture::new();
        let hasher = TokenHasher::with_key([7; 16]);
        for number in 0..10 {
            let reason = [BlockReason::Dead, BlockReason::Unexplained][number % 2];
            f.list
                .block(hasher.fingerprint(&number.to_string()), reason, f.start);
        }
        f.list.unblock_all();
        let clocks = crate::testing::clocks();
        let (mut sizes, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            let part;
            (part, from) = f.list.part(place, 4, clocks);
            sizes.push(part.len());
        }
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn a_dead_token_may_be_asked_for_once_an_hour() {
        let mut f = Fixture::new();
        let may_ask = |f: &Fixture, after| f.list.may_ask(f.token, f.start + after);
        assert!(!may_ask(&f, HOUR), "nothing is known of it");
        f.block(BlockReason::Dead, Duration::ZERO);
        assert!(f.list.was_dead(f.token));
        for hour in 0..5 {
            let begin = hour * (HOUR + MINUTE);
            assert!(!may_ask(&f, begin + HOUR - SECOND));
            assert!(may_ask(&f, begin + HOUR + MINUTE));
            f.list.asked(f.token, f.start + begin + HOUR + MINUTE);
        }
        assert_eq!(f.check(24 * HOUR), None, "that nobody answered prolongs nothing");
        assert!(!may_ask(&f, 24 * HOUR), "it is not blocked");
        for reason in [BlockReason::Doubted, BlockReason::Unexplained] {
            let mut f = Fixture::new();
            f.block(reason, Duration::ZERO);
            f.list.settings.unexplained.initial = 10 * HOUR;
            assert!(!may_ask(&f, 5 * MINUTE) && !may_ask(&f, 2 * HOUR) && !f.list.was_dead(f.token));
        }
    }

    #[test]
    fn a_living_token_is_forgotten() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        f.list.unblock(f.token);
        f.block(BlockReason::Dead, 30 * HOUR);
        assert_eq!(f.check(54 * HOUR), None, "the first block again");
    }

    #[test]
    fn what_ended_long_ago_is_forgotten() {
        let mut f = Fixture::new();
        f.block(BlockReason::Dead, Duration::ZERO);
        let other = TokenHasher::with_key([7; 16]).fingerprint("other");
        f.list.block(other, BlockReason::Dead, f.start + 143 * HOUR);
        assert_eq!(f.list.blocks.len(), 2);
        f.list.block(other, BlockReason::Dead, f.start + 145 * HOUR);
        assert_eq!(f.list.blocks.len(), 1);
    }
}

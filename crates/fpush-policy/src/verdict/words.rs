//! Tokens that were called dead or wrong and are not believed dead.

use fpush_push::Fingerprint;

use crate::recency::Recency;

use super::{
    FEW,
    history::{FirstWord, Totals},
    window::{DAY, Seconds},
};

/// What was said against each, the last token that something was said against last.
#[derive(Debug)]
pub(crate) struct Words {
    by_token: Recency<FirstWord>,
    /// How many of them are what may be about us.
    about_us: usize,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self {
            by_token: Recency::new(MAX_WORDS),
            about_us: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    pub(crate) fn of(&self, token: Fingerprint) -> Option<FirstWord> {
        self.by_token.get(token).copied()
    }

    /// Whether only a few tokens are called what may be about us. Many are of an app that names the wrong module, as likely as
    /// not, however many others are accepted.
    pub(crate) fn are_few_wrong(&self) -> bool {
        self.about_us < FEW
    }

    /// Takes note of what is known of a token now. Forgets a few that nothing was said against for long.
    pub(crate) fn note(&mut self, token: Fingerprint, word: FirstWord, now: Seconds) {
        for _ in 0..FORGOTTEN_AT_A_TIME {
            let oldest = self.by_token.oldest();
            if oldest.is_none_or(|word| u64::from(word.last_day) + WORD_DAYS >= now / DAY) {
                break;
            }
            let gone = self.by_token.pop_oldest();
            self.gone(gone);
        }
        self.remember(token, word);
    }

    /// Takes note of what was known of a token.
    pub(crate) fn remember(&mut self, token: Fingerprint, word: FirstWord) {
        self.about_us += usize::from(!word.beyond_doubt);
        let gone = self.by_token.touch(token, word);
        self.gone(gone);
    }

    /// Forgets a token. Returns whether something was said against it.
    pub(crate) fn forget(&mut self, token: Fingerprint) -> bool {
        if self.by_token.is_empty() {
            return false;
        }
        let gone = self.by_token.remove(token);
        self.gone(gone);
        gone.is_some()
    }

    /// Begins all hours again.
    pub(crate) fn begin_again(&mut self, now: Seconds, totals: Totals) {
        self.by_token
            .update_all(|word| *word = word.begun_again(now, totals));
    }

    /// Some of them, in no order, from this place on, and the place of the next part.
    pub(crate) fn part(
        &self,
        from: usize,
        most: usize,
    ) -> (impl Iterator<Item = (Fingerprint, &FirstWord)>, Option<usize>) {
        self.by_token.part(from, most)
    }

    fn gone(&mut self, word: Option<FirstWord>) {
        self.about_us -= usize::from(word.is_some_and(|word| !word.beyond_doubt));
    }
}

/// Beyond it the token that was called dead or wrong longest ago is forgotten.
pub(super) const MAX_WORDS: u32 = 200_000;
/// A token of which nothing was said for so many days is forgotten.
const WORD_DAYS: u64 = 30;
const FORGOTTEN_AT_A_TIME: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::fingerprint,
        verdict::history::Word::{AboutUs, BeyondDoubt},
    };

    #[test]
    fn those_that_may_be_about_us_are_counted_whatever_becomes_of_them() {
        let mut words = Words::new();
        words.by_token = Recency::new(4);
        let mut now = 0;
        let mut note = |words: &mut Words, token: &str, word| {
            now += DAY;
            words.note(
                fingerprint(token),
                FirstWord::new(word, now, Totals::default()),
                now,
            );
            let of_us = words.part(0, 4).0.filter(|(_, word)| !word.beyond_doubt);
            assert_eq!(words.about_us, of_us.count());
            assert_eq!(words.are_few_wrong(), words.about_us < FEW);
        };
        for (token, word) in [
            ("a", AboutUs),
            ("b", AboutUs),
            ("a", BeyondDoubt),
            ("c", AboutUs),
            ("d", BeyondDoubt),
            // Each takes the place of the oldest.
            ("e", AboutUs),
            ("f", AboutUs),
            ("e", AboutUs),
        ] {
            note(&mut words, token, word);
        }
        assert_eq!(words.about_us, 3);
        assert!(words.forget(fingerprint("e")) && !words.forget(fingerprint("e")));
        assert!(words.are_few_wrong());
        now += 40 * DAY;
        let word = FirstWord::new(BeyondDoubt, now, Totals::default());
        words.note(fingerprint("g"), word, now);
        assert_eq!((words.len(), words.about_us), (1, 0), "the others are forgotten");
    }
}

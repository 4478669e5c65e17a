//! Words of servers that strangers have chosen.

use fpush_push::Fingerprint;

use super::{
    Belief, VerdictGuard, Word,
    history::{FirstWord, Totals},
    window::{DAY, HOUR, Seconds},
};

impl VerdictGuard {
    /// A server that a stranger has chosen called one of its own receivers dead or wrong: whether it is to be taken for dead.
    /// It has nobody else's receivers by which it could be judged, so only time counts: an hour after a first word beyond
    /// doubt, a day after any other.
    pub(crate) fn weigh_alone(&mut self, token: Fingerprint, word: Word, now: Seconds) -> Belief {
        let first = self.words.of(token);
        // What may have been about us does not make a word beyond doubt the second one.
        let first = first.filter(|first| first.beyond_doubt || word.may_be_about_us());
        let patience = match word {
            Word::BeyondDoubt => HOUR,
            Word::AboutUs | Word::AnotherApps => DAY,
        };
        let believed = first.is_some_and(|first| first.age(now) >= patience);
        let word = match first {
            Some(first) => first.said_again(now),
            None => FirstWord::new(word, now, Totals::default()),
        };
        self.words.note(token, word, now);
        self.changes += 1;
        if believed { Belief::Dead } else { Belief::Doubted }
    }
}

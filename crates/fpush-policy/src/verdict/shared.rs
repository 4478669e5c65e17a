//! What instances tell each other of a lane's words, and of the deaths that these cost.

use fpush_push::Fingerprint;

use super::{
    Publisher, Seconds, VerdictGuard, Whose,
    alive::Alive,
    history::{FirstWord, Word},
    window::Window,
    words::Words,
};
use crate::shared::{OwnDeaths, SharedWord};

impl VerdictGuard {
    /// Takes note of what the provider has said to another instance, if that says more than what is known. What may be about us
    /// counts from now on, because what this lane has answered since is not known of an earlier time.
    pub(crate) fn learn(&mut self, token: Fingerprint, word: SharedWord, now: Seconds) {
        let SharedWord { age, .. } = word;
        let known = self.words.of(token);
        let says_more = match known {
            None => true,
            Some(known) if known.beyond_doubt == word.beyond_doubt => {
                known.age(now) < u64::from(age) || known.days < word.days
            }
            Some(known) => word.beyond_doubt && !known.beyond_doubt,
        };
        if !says_more {
            return;
        }
        let totals = self.totals_until_now();
        let learnt = FirstWord::learnt(word, now, totals);
        let learnt = match known.filter(|known| known.beyond_doubt == word.beyond_doubt) {
            Some(known) => learnt.with(known),
            None => learnt,
        };
        // Of what it stands for there is no more than one.
        self.words.forget(token);
        self.words.note(token, learnt, now);
        self.changes += 1;
    }

    /// Goes on under other fingerprints of tokens, with what is known of the lane and of domains.
    pub(crate) fn rekey(&mut self) {
        self.window = Window::default();
        self.words = Words::new();
        self.accepted = [None; 2];
        self.alive = Alive::default();
        self.deaths.rekey();
        self.changes += 1;
    }

    /// What other instances count with, of tokens that were taken for dead; none where there is no bound.
    pub(crate) fn own_deaths(&self) -> Option<OwnDeaths> {
        Some(self.deaths.own(self.shared_lane()?))
    }

    /// By what other instances know the lane.
    fn shared_lane(&self) -> Option<u16> {
        match self.whose {
            Whose::Main => Some(0),
            Whose::Vendor(vendor) => Some(u16::from(vendor) + 1),
            Whose::Strangers => None,
        }
    }

    /// The same, if it is other than they think.
    pub(crate) fn take_deaths(&mut self) -> Option<OwnDeaths> {
        self.deaths.take_news(self.shared_lane()?)
    }

    /// Whether a token that is taken for dead may be that although other instances cannot be asked.
    pub(crate) fn may_die_alone(&self) -> bool {
        self.deaths.has_room_alone()
    }

    /// A token is not to be taken for dead after all, because the instances have no room for it together.
    pub(crate) fn refuse_death(&mut self, token: Fingerprint, publisher: Publisher, now: Seconds) {
        self.deaths.refused();
        let totals = self.totals_until_now();
        // What may be about us is never the first word that is believed.
        let first = self.words.of(token);
        let word = first.unwrap_or_else(|| FirstWord::new(Word::BeyondDoubt, now, totals));
        self.words.note(token, word.published_by(publisher.standing), now);
        self.changes += 1;
    }

    /// What is to be told to others of the words against a token, if there is something.
    pub(crate) fn to_share(&self, token: Fingerprint, now: Seconds) -> Option<SharedWord> {
        let word = self.words.of(token).filter(|word| word.of_known)?;
        Some(word.to_share(now))
    }

    /// A part of the words, from this place on, as far as they are to be told to others, and the place of the next part.
    pub(crate) fn words(
        &self,
        from: usize,
        most: usize,
        now: Seconds,
    ) -> (impl Iterator<Item = (Fingerprint, SharedWord)>, Option<usize>) {
        let (part, next) = self.words.part(from, most);
        let part = part.filter(|(_, word)| word.of_known);
        (part.map(move |(token, word)| (token, word.to_share(now))), next)
    }

    #[cfg(test)]
    pub(crate) fn is_proven_domain(&self, domain: Fingerprint) -> bool {
        self.is_proven(domain)
    }
}

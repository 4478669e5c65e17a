//! Pushes that were acknowledged while their lane was down.
//!
//! There may be millions of them. Of each one there is a head in memory: what it is for, when it came, and when it is worth
//! nothing any more. Its body is in memory only while it is not written down, or holds what must not be written down, or
//! while there are few. Bodies are read again when the turn of their pushes comes near.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Instant,
};

use fpush_push::{Fingerprint, TokenHasher};
use uuid::Uuid;

use crate::{
    fair::Standing,
    hold,
    job::{PushJob, SenderDomain},
    limiter::Target,
    recency::Recency,
    shares::{Bound, Shares},
    ticks::{Tick, Ticks},
};

/// The spool of a module.
#[derive(Debug)]
pub(crate) struct Spool {
    /// Heads by key and class, in the order in which they came: those of known domains, and the others. Whose turn it is
    /// alternates, so that what a stranger has published says little about the lane.
    known: Recency<Head>,
    unknown: Recency<Head>,
    turn: Standing,
    /// Those whose turn is near and whose bodies are being read, and their keys by number.
    loading: HashMap<Fingerprint, (Standing, Head)>,
    loading_keys: HashMap<u64, Fingerprint>,
    /// By number.
    bodies: HashMap<u64, Box<PushJob>>,
    /// Numbers of bodies that are to be read.
    wanted: Vec<u64>,
    shares: Shares,
    bound: Bound,
    /// As in the hold queue.
    touched: Option<Vec<u64>>,
    /// Those whose bodies are not in memory and which are worth something for longer than is written down, and until when.
    extended: Vec<(u64, Instant)>,
    ticks: Ticks,
}

/// What is known of a push without its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) token: Fingerprint,
    share: Fingerprint,
    /// When the newest publish came for which it goes out.
    arrived: Tick,
    expires: Tick,
    places: u32,
    encrypted: u32,
}

/// A push whose turn is near.
#[derive(Debug)]
pub(crate) enum Near {
    /// It may go out.
    Ready(u64, Box<PushJob>, Instant),
    /// Its body is asked for.
    Asked,
    /// It is worth nothing any more, and was for this token.
    Expired(Fingerprint),
}

impl Spool {
    pub(crate) fn new(ticks: Ticks) -> Self {
        Self {
            known: Recency::new(MOST),
            unknown: Recency::new(MOST),
            turn: Standing::Known,
            loading: HashMap::new(),
            loading_keys: HashMap::new(),
            bodies: HashMap::new(),
            wanted: Vec::new(),
            shares: Shares::default(),
            bound: IN_MEMORY,
            touched: None,
            extended: Vec::new(),
            ticks,
        }
    }

    /// From now on it takes note of what changes, which is written down: there is room for more.
    pub(crate) fn begin_noting(&mut self) {
        self.touched.get_or_insert_default();
        self.bound = WRITTEN_DOWN;
    }

    /// What has changed since this was called last, by numbers.
    pub(crate) fn take_touched(&mut self) -> Vec<u64> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What of those that have not changed otherwise is worth something for longer since this was called last, and until when.
    pub(crate) fn take_extended(&mut self) -> Vec<(u64, Instant)> {
        std::mem::take(&mut self.extended)
    }

    fn touch(&mut self, number: u64) {
        if let Some(touched) = &mut self.touched {
            touched.push(number);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len() + self.unknown.len() + self.loading.len()
    }

    pub(crate) fn has_room(&self, sender: &SenderDomain) -> bool {
        self.shares.has_room(sender, self.bound)
    }

    pub(crate) fn has_room_for_encrypted(&self, share: Fingerprint) -> bool {
        self.shares.has_room_for_encrypted(share)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.shares.is_full(self.bound)
    }

    /// When the first one came that still waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let heads = [self.known.oldest(), self.unknown.oldest()];
        let oldest = heads.into_iter().flatten().map(|head| head.arrived).min()?;
        Some(self.ticks.instant(oldest))
    }

    /// The number under which a push for this is here.
    pub(crate) fn find(&self, target: Target) -> Option<u64> {
        Some(self.head(target.slot_key())?.number)
    }

    /// When the push for this came, if one is here.
    pub(crate) fn arrived(&self, target: Target) -> Option<Instant> {
        Some(self.ticks.instant(self.head(target.slot_key())?.arrived))
    }

    /// When the push for this is given up, if one is here.
    pub(crate) fn expires(&self, target: Target) -> Option<Instant> {
        Some(self.ticks.instant(self.head(target.slot_key())?.expires))
    }

    fn head(&self, key: Fingerprint) -> Option<&Head> {
        if self.len() == 0 {
            return None;
        }
        let waiting = self.known.get(key).or_else(|| self.unknown.get(key));
        waiting.or_else(|| Some(&self.loading.get(&key)?.1))
    }

    /// Takes a push. One for the same key gives it its number and its place, and goes. Returns the number.
    pub(crate) fn put(&mut self, job: Box<PushJob>, expires: Instant, fresh: impl FnOnce() -> u64) -> u64 {
        let key = job.target().slot_key();
        let mut head = Head {
            number: 0,
            token: job.token,
            share: job.sender.share,
            arrived: self.ticks.until(job.arrived),
            expires: self.ticks.until(expires),
            places: hold::places(&job) as u32,
            encrypted: job.encrypted() as u32,
        };
        let former = self.head(key).copied();
        if let Some(former) = former {
            self.shares
                .take(former.share, former.places as usize, former.encrypted as usize);
            head.number = former.number;
            head.expires = former.expires.max(head.expires);
        } else {
            head.number = fresh();
        }
        self.shares
            .add(head.share, head.places as usize, head.encrypted as usize);
        let standing = job.sender.last_accepted.standing();
        if let Some(there) = self.known.get_mut(key) {
            *there = head;
        } else if let Some(there) = self.unknown.get_mut(key) {
            *there = head;
        } else {
            // What is being read is an older one.
            self.stop_loading(head.number);
            self.line(standing).touch(key, head);
        }
        self.bodies.insert(head.number, job);
        self.touch(head.number);
        head.number
    }

    /// Takes a push that is written down.
    pub(crate) fn remember(&mut self, job: &PushJob, number: u64, expires: Instant) {
        let head = Head {
            number,
            token: job.token,
            share: job.sender.share,
            arrived: self.ticks.until(job.arrived),
            expires: self.ticks.until(expires),
            places: hold::places(job) as u32,
            encrypted: 0,
        };
        self.shares.add(head.share, head.places as usize, 0);
        self.line(job.sender.last_accepted.standing())
            .touch(job.target().slot_key(), head);
    }

    fn line(&mut self, standing: Standing) -> &mut Recency<Head> {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Unknown => &mut self.unknown,
        }
    }

    /// A push is written down: its body may be read again.
    pub(crate) fn written(&mut self, number: u64) {
        if self.bodies.len() > MOST_BODIES
            && let Entry::Occupied(body) = self.bodies.entry(number)
            && body.get().encrypted() == 0
        {
            body.remove();
        }
    }

    /// A body by its number, if it is in memory.
    pub(crate) fn body(&self, number: u64) -> Option<(&PushJob, Instant)> {
        let job = self.bodies.get(&number)?;
        let head = self.head(job.target().slot_key())?;
        Some((job, self.ticks.instant(head.expires)))
    }

    /// Takes out what a push that was accepted covers: the one for the same key, if it came before that one.
    pub(crate) fn cover(&mut self, target: Target, arrived: Instant) -> bool {
        let key = target.slot_key();
        let is_older = |head: &Head| head.arrived <= self.ticks.until(arrived);
        if !self.head(key).is_some_and(is_older) {
            return false;
        }
        self.remove(key).is_some()
    }

    /// Takes out what is here for a key and class.
    pub(crate) fn remove(&mut self, key: Fingerprint) -> Option<Head> {
        let number = self.head(key)?.number;
        let waiting = self.known.remove(key).or_else(|| self.unknown.remove(key));
        let head = waiting.or_else(|| Some(self.stop_loading(number)?.2))?;
        self.forget(head);
        self.touch(number);
        Some(head)
    }

    /// The push for this is worth something until then, too. Returns whether there is one.
    pub(crate) fn extend(&mut self, target: Target, expires: Instant) -> bool {
        let (key, until) = (target.slot_key(), self.ticks.until(expires));
        let known = self.known.get_mut(key);
        let waiting = known.or_else(|| self.unknown.get_mut(key));
        let Some(head) = waiting.or_else(|| Some(&mut self.loading.get_mut(&key)?.1)) else {
            return false;
        };
        if until <= head.expires {
            return true;
        }
        head.expires = until;
        let number = head.number;
        if self.bodies.contains_key(&number) {
            self.touch(number);
        } else if self.touched.is_some() {
            self.extended.push((number, expires));
        }
        true
    }

    /// Takes out the push for this, with the time at which it is given up, if its body is in memory. What has none is written down.
    pub(crate) fn take_with_body(&mut self, target: Target) -> Option<(Box<PushJob>, Instant)> {
        let (job, expires) = self.body(self.find(target)?)?;
        let taken = (Box::new(job.clone()), expires);
        self.remove(target.slot_key());
        Some(taken)
    }

    /// Takes out the push with this id, which could not be written down. Returns whether it was here.
    pub(crate) fn take_back(&mut self, number: u64, id: Uuid) -> bool {
        let job = self.bodies.get(&number).filter(|job| job.push.id == id);
        let key = job.map(|job| job.target().slot_key());
        key.is_some_and(|key| self.remove(key).is_some())
    }

    /// Takes out the push of this key, if it is the one with this number, and with this id as far as its body is in memory.
    /// Returns for which token it was.
    pub(crate) fn take_same(&mut self, number: u64, key: Fingerprint, id: Uuid) -> Option<Fingerprint> {
        let is_other = self.bodies.get(&number).is_some_and(|job| job.push.id != id);
        if is_other || self.head(key)?.number != number {
            return None;
        }
        Some(self.remove(key)?.token)
    }

    fn forget(&mut self, head: Head) -> Option<Box<PushJob>> {
        self.shares
            .take(head.share, head.places as usize, head.encrypted as usize);
        self.bodies.remove(&head.number)
    }

    /// Whether one waits that is not near to its turn, and none is being read.
    pub(crate) fn has_next(&self) -> bool {
        self.loading.is_empty() && !(self.known.is_empty() && self.unknown.is_empty())
    }

    /// Takes the next one near to its turn.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Near> {
        let turn = match self.turn {
            Standing::Known if self.known.is_empty() => Standing::Unknown,
            Standing::Unknown if self.unknown.is_empty() => Standing::Known,
            turn => turn,
        };
        self.turn = match turn {
            Standing::Known => Standing::Unknown,
            Standing::Unknown => Standing::Known,
        };
        let line = self.line(turn);
        let (key, head) = line.oldest_entry()?;
        line.pop_oldest();
        if head.expires <= self.ticks.until(now) {
            self.forget(head);
            self.touch(head.number);
            return Some(Near::Expired(head.token));
        }
        if self.bodies.contains_key(&head.number) {
            let expires = self.ticks.instant(head.expires);
            let job = self.forget(head)?;
            return Some(Near::Ready(head.number, job, expires));
        }
        self.loading.insert(key, (turn, head));
        self.loading_keys.insert(head.number, key);
        self.wanted.push(head.number);
        Some(Near::Asked)
    }

    pub(crate) fn wants_bodies(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The numbers of the bodies that are to be read.
    pub(crate) fn take_wanted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.wanted)
    }

    fn stop_loading(&mut self, number: u64) -> Option<(Fingerprint, Standing, Head)> {
        let key = self.loading_keys.remove(&number)?;
        let (standing, head) = self.loading.remove(&key)?;
        Some((key, standing, head))
    }

    /// Finds those whose bodies are in memory under the fingerprints that this makes. The others are found by their numbers when
    /// their turn comes; until then one more may be held for a key.
    pub(crate) fn rekey(&mut self, hasher: &TokenHasher) {
        let mut numbers: Vec<_> = self.bodies.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(job) = self.bodies.get_mut(&number) else {
                continue;
            };
            let before = job.target().slot_key();
            job.rekey(hasher);
            let (key, token) = (job.target().slot_key(), job.token);
            for line in [&mut self.known, &mut self.unknown] {
                if let Some(head) = line.remove(before) {
                    line.touch(key, Head { token, ..head });
                }
            }
        }
    }

    /// How many bodies are being read.
    pub(crate) fn loading(&self) -> usize {
        self.loading.len()
    }

    /// A body was read: takes its push out, and says when that expires. `None` if something has happened to it meanwhile.
    pub(crate) fn loaded(&mut self, number: u64) -> Option<Instant> {
        let head = self.take_loading(number)?;
        Some(self.ticks.instant(head.expires))
    }

    fn take_loading(&mut self, number: u64) -> Option<Head> {
        let (_, _, head) = self.stop_loading(number)?;
        self.forget(head);
        Some(head)
    }

    /// A body is not there: its push is lost. Returns for which token it was.
    pub(crate) fn missing(&mut self, number: u64) -> Option<Fingerprint> {
        let head = self.take_loading(number)?;
        self.touch(number);
        Some(head.token)
    }

    /// A body cannot be read now: its push goes back to the end of its line.
    pub(crate) fn not_loaded(&mut self, number: u64) {
        if let Some((key, standing, head)) = self.stop_loading(number) {
            self.line(standing).touch(key, head);
        }
    }

    /// Takes out some that are worth nothing any more. Returns for which tokens they were.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Fingerprint> {
        let mut expired = Vec::new();
        for standing in [Standing::Known, Standing::Unknown] {
            for _ in 0..PART {
                let until = self.ticks.until(now);
                let oldest = self.line(standing).oldest_entry();
                let Some((key, _)) = oldest.filter(|(_, head)| head.expires <= until) else {
                    break;
                };
                expired.extend(self.remove(key).map(|head| head.token));
            }
        }
        expired
    }
}

const IN_MEMORY: Bound = Bound {
    anybody: 66_000,
    all: 100_000,
};
/// In places of half a kibibyte: a gibibyte of disk at most.
const WRITTEN_DOWN: Bound = Bound {
    anybody: 1_340_000,
    all: 2_000_000,
};
/// Beyond it the oldest would go; the bounds above come first.
const MOST: u32 = 2_000_000;
/// In memory, beside those that have to be.
const MOST_BODIES: usize = 10_000;
/// Taken out at a time.
const PART: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{known::LastAccepted, testing::job_of};

    /// What cannot be read says nothing about who published it: a stranger's push is none of a known domain's by that.
    #[test]
    fn what_cannot_be_read_goes_back_to_the_end_of_its_own_line() {
        let now = Instant::now();
        let mut spool = Spool::new(Ticks::new(now));
        for (number, last_accepted) in [
            (0, LastAccepted::Never),
            (1, LastAccepted::Lately),
            (2, LastAccepted::Never),
        ] {
            let mut job = job_of("a.org", &number.to_string());
            job.sender = job.sender.accepted(last_accepted).into();
            spool.remember(&job, number, now + Duration::from_secs(60));
        }
        let next = |spool: &mut Spool| {
            assert!(matches!(spool.next(now), Some(Near::Asked)));
            spool.take_wanted()
        };
        assert_eq!([next(&mut spool), next(&mut spool)], [[1], [0]]);
        spool.not_loaded(0);
        assert_eq!(
            (spool.known.len(), spool.unknown.len(), spool.loading()),
            (0, 2, 1)
        );
        assert_eq!(
            [next(&mut spool), next(&mut spool)],
            [[2], [0]],
            "behind the other one"
        );
        spool.not_loaded(1);
        assert_eq!((spool.known.len(), spool.len()), (1, 3));
    }
}

//! Shares of what strangers can use up, and turns.
//!
//! Who owns a domain can invent any number of names below it. So shares go by the registrable domain, and turns inside a
//! share by the full name. The cost of a step grows with the logarithm of the number of domains that wait, and not with
//! what waits.

mod gate;
mod lines;

use self::lines::{Line, Lines, Queue};

pub use self::gate::{Gate, Passed};

/// Who wants a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender<K> {
    /// Its registrable domain: what a share goes by.
    pub share: K,
    /// Its full name: what turns inside the share go by.
    pub name: K,
    /// Whether half of all places is kept for domains like it.
    pub standing: Standing,
}

/// What is known of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A push of it was accepted not long ago.
    Known,
    /// It may be anybody's, made for the purpose.
    Unknown,
}

/// A place in a [`FairQueue`], with which it can be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket<K> {
    sender: Sender<K>,
    number: u64,
}

/// What somebody finds who wants a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered<K, T> {
    /// A place.
    Waiting(Ticket<K>),
    /// The place of the last in the longest line.
    Displacing(Ticket<K>, T),
    /// None: all places are taken, and no line is longer than its own.
    Full(T),
}

/// A bounded queue that is served in turns, by registrable domain, and inside each by full name.
///
/// A share binds only while others want the room: one domain may have all places, until a newcomer of another one takes
/// the place of the last in the longest line. Domains that are not known have half of the places at most.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    places: usize,
    known: Shares<K, T>,
    unknown: Shares<K, T>,
    /// Whose turn it is, if both wait.
    turn: Standing,
    next_number: u64,
}

/// By registrable domain, and in each by full name.
type Shares<K, T> = Lines<K, Lines<K, Queue<T>>>;

impl<K: Ord + Clone, T> FairQueue<K, T> {
    /// An empty queue with so many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            places,
            known: Lines::default(),
            unknown: Lines::default(),
            turn: Standing::Known,
            next_number: 0,
        }
    }

    /// Sets the number of places. Places that are taken stay taken.
    pub fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len() + self.unknown.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the last place in the line of a sender.
    pub fn enter(&mut self, sender: Sender<K>, item: T) -> Entered<K, T> {
        let path = [sender.share.clone(), sender.name.clone()];
        let (half, is_full) = (self.places.div_ceil(2), self.len() >= self.places);
        let (own, others) = match sender.standing {
            Standing::Known => (&mut self.known, &mut self.unknown),
            Standing::Unknown => (&mut self.unknown, &mut self.known),
        };
        let is_bound = match sender.standing {
            Standing::Known => false,
            Standing::Unknown => own.len() >= half,
        };
        let displaced = if is_full && own.len() < half {
            // The others have more than their half.
            others.last()
        } else if is_full || is_bound {
            own.displace(&path)
        } else {
            None
        };
        if displaced.is_none() && (is_full || is_bound) {
            return Entered::Full(item);
        }
        let ticket = self.join(sender, item);
        match displaced {
            Some(displaced) => Entered::Displacing(ticket, displaced),
            None => Entered::Waiting(ticket),
        }
    }

    /// Takes the last place in the line of a sender, however many wait: for what is bounded elsewhere.
    pub fn join(&mut self, sender: Sender<K>, item: T) -> Ticket<K> {
        let number = self.next_number;
        self.next_number += 1;
        let path = [sender.share.clone(), sender.name.clone()];
        self.shares(sender.standing).enter(&path, number, item);
        Ticket { sender, number }
    }

    /// Takes out whose turn it is.
    pub fn serve(&mut self) -> Option<T> {
        let standing = match self.turn {
            Standing::Known if self.known.len() > 0 => Standing::Known,
            Standing::Unknown if self.unknown.len() == 0 => Standing::Known,
            Standing::Known | Standing::Unknown => Standing::Unknown,
        };
        let next = self.shares(standing).next()?;
        self.turn = match standing {
            Standing::Known => Standing::Unknown,
            Standing::Unknown => Standing::Known,
        };
        Some(next)
    }

    /// Gives a place up; `None` if it is not there any more.
    pub fn leave(&mut self, ticket: &Ticket<K>) -> Option<T> {
        let Sender {
            share,
            name,
            standing,
        } = &ticket.sender;
        let path = [share.clone(), name.clone()];
        self.shares(*standing).leave(&path, ticket.number)
    }

    fn shares(&mut self, standing: Standing) -> &mut Shares<K, T> {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Unknown => &mut self.unknown,
        }
    }
}

#[cfg(test)]
mod tests;

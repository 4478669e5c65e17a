//! Questions to the database that are under way: a bound for all, and a share for each sender.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
};

use fpush_push::{registrable, sync::lock};

/// Counts the questions under way.
#[derive(Default)]
pub(crate) struct Asking {
    /// Domains are chosen by strangers: the hash has a key.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: usize,
    of_domain: HashMap<u64, usize>,
}

/// A question that is under way until this is dropped.
pub(crate) struct Question {
    asking: Arc<Asking>,
    domain: u64,
}

impl Asking {
    /// Begins a question of a sender, unless too many are under way: in all, or of the sender's registrable domain, so
    /// that invented nodes of one do not keep the others from their devices.
    pub(crate) fn begin(self: &Arc<Self>, sender: &str) -> Option<Question> {
        let domain = self.hasher.hash_one(registrable(sender));
        let mut state = lock(&self.state);
        if state.all >= MOST {
            return None;
        }
        let of_domain = state.of_domain.entry(domain).or_insert(0);
        if *of_domain >= MOST_OF_DOMAIN {
            return None;
        }
        *of_domain += 1;
        state.all += 1;
        Some(Question {
            asking: Arc::clone(self),
            domain,
        })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut state = lock(&self.asking.state);
        state.all -= 1;
        if let Some(of_domain) = state.of_domain.get_mut(&self.domain) {
            *of_domain -= 1;
            if *of_domain == 0 {
                state.of_domain.remove(&self.domain);
            }
        }
    }
}

/// Of all senders.
const MOST: usize = 1_000;
/// Of one registrable domain.
const MOST_OF_DOMAIN: usize = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_domain_leaves_room_for_others() {
        let asking = Arc::new(Asking::default());
        let flood: Vec<_> = (0..2 * MOST)
            .filter_map(|number| asking.begin(&format!("host{number}.evil.org")))
            .collect();
        assert_eq!(flood.len(), MOST_OF_DOMAIN);
        let other = asking.begin("good.example");
        assert!(other.is_some());
        drop(flood);
        drop(other);
        let state = asking.state.lock().unwrap();
        assert!(state.all == 0 && state.of_domain.is_empty());
    }
}

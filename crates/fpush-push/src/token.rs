//! Device tokens, and their fingerprints, which are used where the token itself must not be kept or shown.

use std::{
    fmt,
    hash::Hasher as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{Class, Subscription};

/// A device token as the publish named it. It is shown nowhere: neither `Debug` nor `Display` print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Takes the token unchanged; whether it can be one for a provider is
    /// [`PushTrait::canonical`](crate::PushTrait::canonical)'s to say.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// The token in clear, for the request to the provider and for nothing else.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Turns tokens into fingerprints with a key of this installation (kept in the state directory, or drawn at each start), or of all
/// instances that share what they know, so that a fingerprint says nothing about the token to a reader of the memory or the log.
/// Clones share the key. Domains have a key of their own, which stays when the other one becomes that of other instances:
/// what is known of domains is not shared.
#[derive(Clone)]
pub struct TokenHasher {
    /// Its two halves.
    key: Arc<[AtomicU64; 2]>,
    domain_key: [u64; 2],
}

impl TokenHasher {
    /// Draws a key from the operating system.
    ///
    /// # Errors
    ///
    /// The operating system has no randomness to give.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        Ok(Self::with_key(key))
    }

    /// Takes the key of an earlier run, for domains as well, so that fingerprints that were written down are found again.
    #[must_use]
    pub fn with_key(key: [u8; 16]) -> Self {
        Self::with_keys(key, key)
    }

    /// Takes the keys of an earlier run: that of tokens, and that of domains.
    #[must_use]
    pub fn with_keys(key: [u8; 16], domain_key: [u8; 16]) -> Self {
        Self {
            key: Arc::new(halves(key).map(AtomicU64::new)),
            domain_key: halves(domain_key),
        }
    }

    /// The key, to be written down where nobody else reads it.
    #[must_use]
    pub fn key(&self) -> [u8; 16] {
        bytes(self.halves())
    }

    /// The key of domains, likewise.
    #[must_use]
    pub fn domain_key(&self) -> [u8; 16] {
        bytes(self.domain_key)
    }

    /// Takes another key, for all clones: that of the instances that this one shares fingerprints with. What was hashed
    /// before is not found again, domains excepted.
    pub fn set_key(&self, key: [u8; 16]) {
        for (half, new) in self.key.iter().zip(halves(key)) {
            half.store(new, Ordering::Relaxed);
        }
    }

    /// The fingerprint of a token. All Web Push subscriptions at one endpoint are one receiver: who knows an endpoint could
    /// otherwise make any number of tokens for it.
    #[must_use]
    pub fn fingerprint(&self, token: &str) -> Fingerprint {
        let receiver = Subscription::of_token(token).map_or(token, |subscription| subscription.endpoint);
        hash(self.halves(), &[], receiver)
    }

    /// The fingerprint of a domain that publishes, or of what is as good as one.
    #[must_use]
    pub fn domain(&self, name: &str) -> Fingerprint {
        hash(self.domain_key, &[], name)
    }

    /// The fingerprint of a registered device, made from its node. It differs from that of every token.
    #[must_use]
    pub fn device(&self, node: &str) -> Fingerprint {
        hash(self.halves(), &[NO_TEXT], node)
    }

    fn halves(&self) -> [u64; 2] {
        [0, 1].map(|half: usize| self.key[half].load(Ordering::Relaxed))
    }
}

fn hash([first, second]: [u64; 2], before: &[u8], text: &str) -> Fingerprint {
    let mut hasher = SipHasher13::new_with_keys(first, second);
    hasher.write(before);
    hasher.write(text.as_bytes());
    let hash = hasher.finish128();
    Fingerprint([hash.h1, hash.h2])
}

fn bytes(halves: [u64; 2]) -> [u8; 16] {
    let [first, second] = halves.map(u64::to_le_bytes);
    std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(key);
    [number as u64, (number >> 64) as u64]
}

impl fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHasher")
    }
}

/// A byte that no text has.
const NO_TEXT: u8 = 0xff;

/// A keyed 128-bit hash of a token, or of a registered device: wide enough that two never meet. `Display` prints the first 32
/// bits, which is how a token appears in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// The key of one class of pushes: each class has its own rate limit.
    #[must_use]
    pub fn with_class(self, class: Class) -> Self {
        let Self([first, second]) = self;
        Self([first, second ^ class as u64])
    }

    /// The same as far as one sender is concerned: what becomes of what it sends there is nobody else's business. `sender` is the
    /// fingerprint of its registrable domain.
    #[must_use]
    pub fn of_sender(self, sender: Self) -> Self {
        let (Self([first, second]), Self([third, fourth])) = (self, sender);
        // Both are hashes under keys that nobody knows, so no two pairs meet.
        Self([first ^ third.rotate_left(1), second ^ fourth.rotate_left(1)])
    }

    /// Its two halves, to be written down.
    #[must_use]
    pub fn to_parts(self) -> [u64; 2] {
        self.0
    }

    /// The fingerprint of these halves.
    #[must_use]
    pub fn from_parts(parts: [u64; 2]) -> Self {
        Self(parts)
    }

    /// The part of the hash that a hash table wants.
    #[must_use]
    pub fn table_hash(self) -> u64 {
        self.0[0]
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0[0] >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_token_key_and_class() {
        let hasher = TokenHasher::new().unwrap();
        let one = hasher.fingerprint("a");
        assert_eq!(one, hasher.fingerprint("a"));
        assert_ne!(one, hasher.fingerprint("b"));
        assert_ne!(one, hasher.device("a"));
        assert_ne!(hasher.device("a"), hasher.device("b"));
        assert_ne!(one, TokenHasher::new().unwrap().fingerprint("a"));
        assert_ne!(one.with_class(Class::High), one.with_class(Class::Low));
    }

    #[test]
    fn what_is_one_senders_business_is_no_others() {
        let hasher = TokenHasher::new().unwrap();
        let [one, two] = ["a", "b"].map(|token| hasher.fingerprint(token));
        let [this, that] = ["a.example", "b.example"].map(|domain| hasher.domain(domain));
        let all = [
            one,
            one.of_sender(this),
            one.of_sender(that),
            two.of_sender(this),
            two.of_sender(that),
            this.of_sender(one),
        ];
        for (place, fingerprint) in all.iter().enumerate() {
            assert!(!all[..place].contains(fingerprint), "{place}");
        }
        assert_eq!(one.of_sender(this), hasher.fingerprint("a").of_sender(this));
    }

    #[test]
    fn an_endpoint_is_one_receiver_with_whichever_keys() {
        let hasher = TokenHasher::new().unwrap();
        let one = hasher.fingerprint("webpush:https://up.example/a|key|auth");
        assert_eq!(one, hasher.fingerprint("webpush:https://up.example/a|key|other"));
        assert_ne!(one, hasher.fingerprint("webpush:https://up.example/b|key|auth"));
    }

    #[test]
    fn another_key_is_that_of_all_clones_and_keeps_nothing_of_the_first() {
        let key = std::array::from_fn(|at| at as u8);
        let (hasher, other) = (TokenHasher::new().unwrap(), TokenHasher::with_key(key));
        let clone = hasher.clone();
        assert_ne!(clone.fingerprint("a"), other.fingerprint("a"));
        hasher.set_key(key);
        assert_eq!(clone.fingerprint("a"), other.fingerprint("a"));
        assert_eq!(clone.key(), key);
        assert_ne!(clone.domain("a"), other.domain("a"), "that of domains stays");
        let again = TokenHasher::with_keys(clone.key(), clone.domain_key());
        assert_eq!(clone.domain("a"), again.domain("a"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("c0ffee");
        assert!(!format!("{token:?}").contains("c0ffee"));
        assert_eq!(
            TokenHasher::new()
                .unwrap()
                .fingerprint("c0ffee")
                .to_string()
                .len(),
            8
        );
    }
}

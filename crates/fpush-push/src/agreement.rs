//! What several instances have to use alike, and only one of them may renew: the provider token of an APNs key.

use std::{pin::Pin, time::Duration};

/// Where instances agree on texts. These are secrets.
///
/// Each call ends within a moment. `None` is not an answer: this instance decides alone.
pub trait Agreement: Send + Sync {
    /// Says which text all use under this name, if there is one; an offer is taken if there is none, or one that is old enough.
    fn agree<'a>(&'a self, name: &'a str, offer: Option<Offer<'a>>) -> Agreeing<'a>;

    /// Takes note that this text is in use where it has to be known: an early offer does not replace it any more.
    fn confirm<'a>(&'a self, name: &'a str, text: &'a str) -> Confirming<'a>;
}

/// A text that could be the one that all use.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The text.
    pub text: &'a str,
    /// How old it is.
    pub age: Duration,
    /// It replaces only what is as old as this.
    pub replaces: Duration,
    /// Whether it also replaces what nobody has confirmed, however young that is.
    pub early: bool,
}

/// The text that all use.
#[derive(Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The text.
    pub text: String,
    /// How old it is.
    pub age: Duration,
}

/// An answer under way: that there is none, or which.
pub type Agreeing<'a> = Pin<Box<dyn Future<Output = Option<Option<Agreed>>> + Send + 'a>>;

/// A note under way.
pub type Confirming<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

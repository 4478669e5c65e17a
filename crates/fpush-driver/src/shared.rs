//! What several instances of fpush share, as far as this crate needs it.

use std::{pin::Pin, sync::Arc};

use fpush_policy::{Change, Claim, Claimed, HeldNews, News, OwnDeaths, SharedPush};
use tokio::sync::oneshot;

/// What all instances share.
pub trait Cluster: Send + Sync {
    /// What they share of the module with this name, under these settings that the provider's words depend on. `before` is what
    /// the same module shared until now: what it has told of held pushes is told anew.
    fn lane(&self, module: &str, digest: u128, before: Option<&dyn SharedLane>) -> Arc<dyn SharedLane>;
}

/// What all instances share of one module.
///
/// Nothing here may hold up a push: what cannot be had within a moment is not had, and this instance decides alone.
pub trait SharedLane: Send + Sync {
    /// Whether it can be asked now.
    fn is_up(&self) -> bool;

    /// Asks what all instances say to a push. `None` if they cannot be asked now.
    fn claim(&self, claim: Claim) -> Claiming<'_>;

    /// Asks whether one more token may be taken for dead, which is counted in these. `None` if they cannot be asked now.
    fn claim_death(&self, deaths: OwnDeaths) -> ClaimingDeath<'_>;

    /// Tells the others, later. What cannot be told now is told, with the time that is left, when they can be reached again.
    fn tell(&self, changes: Vec<Change>);

    /// What the others have told, so much of it at most.
    fn news(&self, most: usize) -> Vec<News>;

    /// Whether others are to be told all that is known: since the last call it has become possible, or was forgotten there.
    fn wants_all(&self) -> bool;

    /// Tells a part of that, when there is room.
    fn tell_all(&self, changes: Vec<Change>) -> Telling<'_>;

    /// Under which names this instance holds pushes there: the present one, and former ones that it has not cleared away yet.
    fn holders(&self) -> Vec<u64>;

    /// Tells of held pushes, later, in the order of the calls. While nobody can be told, only what the provider has accepted
    /// is kept to be told.
    fn tell_held(&self, news: Vec<HeldNews>);

    /// Whether all that is held is to be told: since the last call it has become possible, or was forgotten there.
    fn wants_held(&self) -> bool;

    /// Tells a part of all that is held. Hears the numbers of those that others have taken over; nothing if it was not told.
    fn tell_held_again(&self, part: Vec<HeldNews>) -> oneshot::Receiver<Vec<u64>>;

    /// Says that this instance is there, and takes over so many pushes at most that one held which is gone. With `told`, all that
    /// is held here has been told: what is left under former names is cleared away. `None` if nobody answers.
    fn take_held(&self, most: usize, told: bool) -> Taking<'_>;

    /// This instance ends: others may have what it has told of what it holds. Returns whether they were told all of it.
    fn hand_over(&self) -> HandingOver<'_>;
}

/// What was taken over.
#[derive(Debug, Default)]
pub struct TakenPart {
    /// From instances that were stopped in order.
    pub handed_over: Vec<SharedPush>,
    /// From instances that said nothing any more.
    pub taken_over: Vec<SharedPush>,
    /// There may be more.
    pub more: bool,
    /// So many of ours have gone out that others have taken over, since the last call.
    pub sent_twice: u64,
}

/// Taking over, under way.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Option<TakenPart>> + Send + 'a>>;

/// A hand-over under way.
pub type HandingOver<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// A part of all that is known, on its way.
pub type Telling<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A claim of a death under way.
pub type ClaimingDeath<'a> = Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>>;

/// A claim under way.
pub type Claiming<'a> = Pin<Box<dyn Future<Output = Option<Claimed>> + Send + 'a>>;

//! What several instances of fpush share, as far as this crate needs it.

use std::{pin::Pin, sync::Arc};

use fpush_policy::{Change, Claim, Claimed, News, OwnDeaths};

/// What all instances share.
pub trait Cluster: Send + Sync {
    /// What they share of the module with this name, under these settings that the provider's words depend on.
    fn lane(&self, module: &str, digest: u128) -> Arc<dyn SharedLane>;
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
}

/// A part of all that is known, on its way.
pub type Telling<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A claim of a death under way.
pub type ClaimingDeath<'a> = Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>>;

/// A claim under way.
pub type Claiming<'a> = Pin<Box<dyn Future<Output = Option<Claimed>> + Send + 'a>>;

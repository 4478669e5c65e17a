//! The hot pieces one by one. For the benches, and for nobody else: nothing here is part of the interface.

use tokio::time::Instant;

use crate::{
    Class, Fingerprint, RatelimitSettings,
    limiter::{Admission, Limiter, Target},
};

/// The rate limit by itself.
pub struct RateLimit(Limiter);

impl RateLimit {
    /// One that knows no token.
    #[must_use]
    pub fn new(settings: RatelimitSettings, now: Instant) -> Self {
        Self(Limiter::new(settings, now))
    }

    /// Whether a push for this token goes out at once.
    pub fn admit(&mut self, token: Fingerprint, now: Instant) -> bool {
        let spacing = self.0.spacing();
        let target = Target {
            key: token,
            token,
            class: Class::High,
        };
        let admission = self.0.admit(target, spacing, true, now);
        matches!(admission, Admission::Go(_))
    }
}

//! The end of the daemon, as everybody who works for it sees it.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shutdown in two steps: from [`begin`](Self::begin) on nothing new is accepted and everything held is sent
/// now; at [`expire`](Self::expire) whatever is still under way gives up. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    expired: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Ends the acceptance of new work.
    pub fn begin(&self) {
        self.begun.cancel();
        self.tasks.close();
    }

    /// Whether new work must be refused.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits for [`begin`](Self::begin).
    pub async fn until_begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits for [`begin`](Self::begin), and not longer than this.
    pub(crate) async fn until_begun_or(&self, pause: Duration) {
        // Either is a reason to go on.
        drop(timeout(pause, self.until_begun()).await);
    }

    /// Ends all patience.
    pub fn expire(&self) {
        self.expired.cancel();
    }

    /// Runs the work until it is done (`Some`) or all patience ends (`None`).
    pub async fn run<F: Future>(&self, work: F) -> Option<F::Output> {
        self.expired.run_until_cancelled(work).await
    }

    /// Spawns work that the shutdown has to wait for.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(work);
    }

    /// Waits until everything spawned has ended. Resolves only after [`begin`](Self::begin).
    pub async fn until_idle(&self) {
        self.tasks.wait().await;
    }
}

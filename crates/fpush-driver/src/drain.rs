//! The end of the daemon, as everybody who works for it sees it.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shutdown in two steps: from [`begin`](Self::begin) on nothing new is accepted and everything held is sent
/// now; at [`expire`](Self::expire) all that is still under way gives up. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    expired: CancellationToken,
    tasks: TaskTracker,
    /// Those who wait for our tasks, too.
    ancestors: Vec<TaskTracker>,
}

impl Drain {
    /// For a part that may end before the rest: both steps of this one reach it, but its own steps reach nobody else.
    /// What is spawned on it is waited for here, too.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(self.tasks.clone());
        Self {
            begun: self.begun.child_token(),
            expired: self.expired.child_token(),
            tasks: TaskTracker::new(),
            ancestors,
        }
    }

    /// Ends the acceptance of new work.
    pub fn begin(&self) {
        self.begun.cancel();
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

    /// Ends all patience.
    pub fn expire(&self) {
        self.expired.cancel();
    }

    /// Runs the work until it is done (`Some`) or all patience ends (`None`).
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = Option<F::Output>> {
        self.expired.run_until_cancelled(work)
    }

    /// Spawns work that the shutdown has to wait for.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.ancestors.is_empty() {
            self.tasks.spawn(work);
        } else {
            let known: Vec<_> = self.ancestors.iter().map(TaskTracker::token).collect();
            // In a box, without which the compiler makes room for it twice.
            let work = Box::pin(work);
            self.tasks.spawn(async move {
                work.await;
                drop(known);
            });
        }
    }

    /// Waits until everything spawned has ended. Resolves only after [`begin`](Self::begin).
    pub async fn until_idle(&self) {
        // A child begins with its parent, who does not know it.
        self.until_begun().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether something has come about already, or does so at once.
    async fn at_once(work: impl Future<Output = ()>) -> bool {
        timeout(Duration::from_millis(1), work).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_ends_alone_or_with_its_parent() {
        let parent = Drain::default();
        let (first, second) = (parent.child(), parent.child().child());
        first.begin();
        first.expire();
        assert!(first.has_begun() && first.run(pending::<()>()).await.is_none());
        assert!(!parent.has_begun() && !second.has_begun());
        assert!(at_once(first.until_idle()).await);
        assert!(!at_once(second.until_idle()).await);
        parent.begin();
        assert!(second.has_begun() && parent.child().has_begun());
        assert!(at_once(second.until_idle()).await);
        parent.expire();
        assert!(second.run(pending::<()>()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_child_spawned_is_waited_for_by_its_parents_and_not_by_its_siblings() {
        let parent = Drain::default();
        let (child, sibling) = (parent.child(), parent.child());
        let end = CancellationToken::new();
        child.child().spawn(end.clone().cancelled_owned());
        parent.begin();
        assert!(at_once(sibling.until_idle()).await);
        assert!(!at_once(child.until_idle()).await && !at_once(parent.until_idle()).await);
        end.cancel();
        assert!(at_once(parent.until_idle()).await && at_once(child.until_idle()).await);
    }
}

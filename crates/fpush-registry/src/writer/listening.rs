//! How the writer hears at once that another process has changed devices. It looks every few seconds all the same: what is
//! not heard is late, and not lost.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use fpush_push::Backoff;
use tokio::time::sleep;
use tracing::debug;

use crate::{
    shared::Shared,
    store::{Listener, describe},
};

/// Tells the writer with this source whenever others may have changed devices. Never ends.
pub(super) async fn listen(shared: Arc<Shared>, source: String) -> Infallible {
    let mut failures = 0;
    loop {
        let problem = match shared.store.listen(&source, QUIET).await {
            Ok(Some(listener)) => {
                failures = 0;
                pass_on(&shared, listener).await
            }
            Ok(None) => return pending().await,
            Err(problem) => problem,
        };
        // Usually the writer says it too, who needs the database.
        debug!(
            problem = describe(&problem),
            "changes of other instances are not heard of at once; trying again"
        );
        sleep(BACKOFF.pause(failures, 0.0)).await;
        failures += 1;
    }
}

/// Until the connection is lost.
async fn pass_on(shared: &Shared, mut listener: Listener) -> sqlx::Error {
    loop {
        // At the beginning, too: what was changed before anybody listened is read as well.
        shared.news.notify_one();
        if let Err(problem) = listener.hear().await {
            return problem;
        }
    }
}

/// Routers forget connections that say nothing for minutes.
const QUIET: Duration = Duration::from_secs(30);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(3_200));

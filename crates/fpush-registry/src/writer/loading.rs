//! How all devices come into memory: in parts, between which registrations are written. Look-ups ask the database until then.

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Follows, Writer};
use crate::{store::State, unreadable::Unreadable};

/// Devices that are coming into memory, in the order of their nodes.
pub(super) struct Loading {
    /// The last change of devices when it began: what others change meanwhile is read again afterwards.
    state: State,
    began: Instant,
    /// The last node that is there.
    after: String,
    unreadable: usize,
}

impl Loading {
    /// Whether nobody notices how long it takes.
    pub(super) fn is_short(&self) -> bool {
        self.state.is_small()
    }
}

impl Writer {
    /// Begins to bring all devices into memory, anew if that is under way; a few devices are there when it returns.
    pub(super) async fn load(&mut self) -> Result<(), sqlx::Error> {
        let Some(cache) = &self.shared.cache else {
            return Ok(());
        };
        let store = &self.shared.store;
        (self.follows, self.loading) = (None, None);
        let state = store.last_state().await?;
        self.seen = store.last_change().await?;
        cache.clear();
        let loading = Loading {
            state,
            began: Instant::now(),
            after: String::new(),
            unreadable: 0,
        };
        let is_short = loading.is_short();
        if !is_short {
            info!(
                devices = loading.state.devices,
                "registered devices are being loaded into memory; the database is asked for each until then"
            );
        }
        self.loading = Some(loading);
        while is_short && self.loading.is_some() {
            self.load_some().await?;
        }
        Ok(())
    }

    /// Brings some more devices into memory. What we ourselves write is in memory when this is called, and stays as it is:
    /// the database has it, too.
    pub(super) async fn load_some(&mut self) -> Result<(), sqlx::Error> {
        let (Some(cache), Some(loading)) = (&self.shared.cache, &mut self.loading) else {
            return Ok(());
        };
        let page = self.shared.store.page(&loading.after, LOADED_AT_ONCE).await?;
        cache.put_all(&page.devices);
        loading.unreadable += page.unreadable;
        if let Some(next) = page.next {
            loading.after = next;
            return Ok(());
        }
        cache.complete();
        let is_short = loading.is_short();
        let seconds = loading.began.elapsed().as_secs_f32();
        if let Some(unreadable) = Unreadable::of(loading.unreadable) {
            warn!("{unreadable}");
        }
        let devices = cache.len();
        if is_short {
            debug!(devices, seconds, "registered devices are in memory");
        } else {
            info!(devices, seconds, "all registered devices are in memory");
        }
        self.follows = self.loading.take().map(|loading| Follows {
            state: loading.state,
            doubted: self.shared.doubt().is_some(),
        });
        Ok(())
    }
}

/// Devices that are read at once: pushes wait for as long as it takes to put them into memory.
const LOADED_AT_ONCE: usize = 500;

//! The open connections of a listener, and which of them ends when there is no room for another.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use fpush_push::{client_network, sync::lock};
use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};

use crate::limits::Limits;

/// Connections that are served.
#[derive(Default)]
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, Open>,
}

struct Open {
    address: IpAddr,
    activity: Activity,
    task: AbortHandle,
}

impl Connections {
    /// How many there are. One that is being ended does not count.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Serves one.
    pub(crate) fn spawn(
        &mut self,
        peer: IpAddr,
        activity: Activity,
        serving: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(serving);
        let address = client_network(peer);
        let id = task.id();
        let open = Open {
            address,
            activity,
            task,
        };
        self.open.insert(id, open);
    }

    /// Waits until one has ended; `false` if there is none.
    pub(crate) async fn join_next(&mut self) -> bool {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => drop(self.open.remove(&id)),
            Some(Err(e)) => drop(self.open.remove(&e.id())),
            None => return false,
        }
        true
    }

    /// Ends a connection that has no request under way, if there is one: of the address that has most of them the one
    /// that has been so for longest. Returns whether there is one.
    pub(crate) fn make_room(&mut self) -> bool {
        let mut by_address: HashMap<IpAddr, (usize, Instant, Id)> = HashMap::new();
        for (id, open) in &self.open {
            if let Some(since) = open.activity.idle_since() {
                let (count, first, which) = by_address.entry(open.address).or_insert((0, since, *id));
                *count += 1;
                if since < *first {
                    (*first, *which) = (since, *id);
                }
            }
        }
        let most = by_address
            .into_values()
            .max_by(|(a, a_since, _), (b, b_since, _)| a.cmp(b).then(b_since.cmp(a_since)));
        let idle = most.and_then(|(_, _, id)| self.open.remove(&id));
        idle.inspect(|open| open.task.abort()).is_some()
    }
}

/// Whether a connection has requests under way, and since when it has none.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

struct State {
    under_way: usize,
    any_yet: bool,
    since: Instant,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            under_way: 0,
            any_yet: false,
            since: Instant::now(),
        })))
    }

    /// The connection can be spoken on: from now on it has time for its first request.
    pub(crate) fn begin(&self) {
        lock(&self.0).since = Instant::now();
    }

    /// Until when the connection may stay without a request; `None` if there is one.
    pub(crate) fn idle_until(&self, limits: Limits) -> Option<Instant> {
        let state = lock(&self.0);
        let patience = if state.any_yet {
            limits.idle
        } else {
            limits.first_request
        };
        (state.under_way == 0).then(|| state.since + patience)
    }

    /// Whether no request has come yet.
    pub(crate) fn is_new(&self) -> bool {
        !lock(&self.0).any_yet
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.0);
        (state.under_way == 0).then_some(state.since)
    }
}

/// A request under way.
pub(crate) struct Busy(Activity);

impl Busy {
    pub(crate) fn new(activity: &Activity) -> Self {
        let mut state = lock(&activity.0);
        state.under_way += 1;
        state.any_yet = true;
        drop(state);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        state.under_way -= 1;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_is_made_where_most_connections_do_nothing() {
        let mut connections = Connections::default();
        let [flood, other]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let open = |address, connections: &mut Connections| {
            let activity = Activity::new();
            connections.spawn(address, activity.clone(), pending());
            activity
        };
        open(other, &mut connections);
        advance(Duration::from_secs(1)).await;
        let busy: Vec<_> = (0..2)
            .map(|_| Busy::new(&open(flood, &mut connections)))
            .collect();
        for _ in 0..3 {
            open(flood, &mut connections);
        }
        let left = |connections: &Connections, address| {
            let open = connections.open.values();
            open.filter(|open| open.address == address).count()
        };
        for (expected_flood, expected_other) in [(4, 1), (3, 1)] {
            assert!(connections.make_room());
            assert_eq!(left(&connections, flood), expected_flood);
            assert_eq!(left(&connections, other), expected_other);
        }
        // Each has one now that does nothing, and the other one's has done so for longer.
        assert!(connections.make_room());
        assert_eq!((left(&connections, flood), left(&connections, other)), (3, 0));
        assert!(connections.make_room());
        assert!(!connections.make_room(), "requests under way are not ended");
        assert_eq!(connections.len(), 2);
        drop(busy);
        assert!(connections.make_room());
    }
}

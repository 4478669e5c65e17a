//! The thread that writes the file of held pushes.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use fpush_driver::Read;
use fpush_policy::HeldChange;
use fpush_push::{metrics::WordCounters, sync::lock};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tracing::{error, info};

use super::{
    orders::{Order, Shared},
    table::{SpoolModule, add_module, apply, expire, read_one, read_part, try_to_write},
};

/// The thread that writes.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// The modules that are in the file.
    pub(super) known: HashSet<i64>,
    /// What is to be changed in the file, and could not be: all but what is new.
    pub(super) owed: Vec<(i64, HeldChange)>,
    pub(super) shared: Arc<Shared>,
    pub(super) writes: Arc<WordCounters>,
}

impl Writer {
    /// Carries out orders as long as somebody may give one.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            let first = if self.owed.is_empty() && !self.has_trouble() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(AGAIN)
            };
            let mut group = match first {
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while group.len() < LARGEST_GROUP
                && let Ok(order) = orders.try_recv()
            {
                group.push(order);
            }
            self.carry_out(group);
        }
    }

    fn carry_out(&mut self, group: Vec<Order>) {
        lock(&self.shared.state).since = Some(Instant::now());
        let written = self.write(&group);
        let result = written.as_ref().map(|_| ());
        self.note(result);
        let is_written = result.is_ok();
        let (expired, known) = written.unwrap_or_default();
        self.known.extend(known);
        let mut expired = expired.into_iter();
        if is_written {
            self.owed.clear();
        }
        for order in group {
            match order {
                Order::Write(module, changes, acknowledge) => {
                    let mut puts = 0;
                    for change in changes {
                        match change {
                            HeldChange::Put(..) => puts += 1,
                            HeldChange::Gone(_) | HeldChange::Jumped(_) if !is_written => {
                                self.owed.push((module.id, change));
                            }
                            // There is one for each publish that goes out with a held push: too many to be owed.
                            HeldChange::Extended(..) | HeldChange::Gone(_) | HeldChange::Jumped(_) => {}
                        }
                    }
                    self.shared.unwritten.fetch_sub(puts, Ordering::Relaxed);
                    // Who does not wait any more has answered already.
                    acknowledge.map(|acknowledge| acknowledge.send(is_written));
                }
                Order::Read(module, numbers, sender) => {
                    drop(sender.send(self.read(&module, &numbers)));
                }
                Order::ReadPart(module, from, most, sender) => {
                    match read_part(&self.connection, module.id, from, most) {
                        Ok(part) => drop(sender.send(part)),
                        Err(e) => self.cannot_read(&e),
                    }
                }
                Order::Expire(modules, _, done) => {
                    for (module, count) in modules.into_iter().zip(expired.by_ref()) {
                        drop(done.send((module, count)));
                    }
                }
                Order::Flush(tell) => tell(is_written),
            }
        }
    }

    /// Writes a group, and returns how many pushes have expired for each module that was asked for, and which modules are
    /// new.
    fn write(&mut self, group: &[Order]) -> rusqlite::Result<(Vec<usize>, Vec<i64>)> {
        let is_write =
            |order: &Order| !matches!(order, Order::Read(..) | Order::ReadPart(..) | Order::Flush(_));
        let has_trouble = self.has_trouble();
        if self.owed.is_empty() && !has_trouble && !group.iter().any(is_write) {
            return Ok(Default::default());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut expired, mut known) = (Vec::new(), Vec::new());
        if has_trouble {
            // Whether anything can be written at all.
            try_to_write(&transaction)?;
        }
        for (module, change) in &self.owed {
            apply(&transaction, *module, change)?;
        }
        for order in group {
            match order {
                Order::Write(module, changes, _) => {
                    if !self.known.contains(&module.id) && !known.contains(&module.id) && !changes.is_empty()
                    {
                        add_module(&transaction, module)?;
                        known.push(module.id);
                    }
                    for change in changes {
                        apply(&transaction, module.id, change)?;
                    }
                }
                Order::Expire(modules, before, _) => {
                    for module in modules {
                        expired.push(expire(&transaction, module.id, *before)?);
                    }
                }
                Order::Read(..) | Order::ReadPart(..) | Order::Flush(_) => {}
            }
        }
        transaction.commit()?;
        Ok((expired, known))
    }

    fn has_trouble(&self) -> bool {
        lock(&self.shared.state).trouble.is_some()
    }

    /// Takes note of how it went.
    fn note(&self, result: Result<(), &rusqlite::Error>) {
        let mut state = lock(&self.shared.state);
        state.since = None;
        match result {
            Ok(()) => {
                if state.trouble.take().is_some() {
                    self.writes.increment("ok");
                    info!("stateDirectory: held pushes can be written down again");
                }
            }
            Err(e) => {
                self.writes.increment("failed");
                let path = self.path.display();
                let trouble = format!("cannot write to {path}: {e}; {}", remedy(e));
                if state.trouble.is_none() {
                    error!("{trouble}");
                }
                state.trouble = Some(trouble);
            }
        }
    }

    /// Reads these, or as many of them as can be read now.
    fn read(&self, module: &SpoolModule, numbers: &[u64]) -> Read {
        let mut unreadable = None;
        let read = |number: &u64| match read_one(&self.connection, module.id, *number) {
            Ok(record) => Some((*number, record)),
            Err(e) => {
                unreadable = Some(e);
                None
            }
        };
        let records = numbers.iter().filter_map(read).collect();
        match unreadable {
            Some(e) => self.cannot_read(&e),
            None => lock(&self.shared.state).unreadable = None,
        }
        records
    }

    fn cannot_read(&self, e: &rusqlite::Error) {
        let path = self.path.display();
        let trouble = format!("cannot read some of what is held in {path}: {e}; it waits meanwhile");
        let mut state = lock(&self.shared.state);
        if state.unreadable.is_none() {
            error!("{trouble}");
        }
        state.unreadable = Some(trouble);
    }
}

/// What becomes of pushes while nothing can be written, and what to do.
fn remedy(e: &rusqlite::Error) -> &'static str {
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "pushes that would be held are refused meanwhile: stop fpush, move the file away, and look at the disk"
        }
        _ => {
            "pushes that would be held are refused meanwhile: is the disk full, does the file belong to fpush's user?"
        }
    }
}

/// In one sync.
const LARGEST_GROUP: usize = 2_000;
/// Between two attempts to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

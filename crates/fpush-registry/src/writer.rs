//! The one task that writes: what waits is written together, and memory follows what was committed.

mod ahead;
mod importing;
mod listening;
mod loading;
#[cfg(test)]
mod tests;
mod transaction;
mod upkeep;

use std::{future::ready, sync::Arc, time::Duration};

use fpush_push::{Backoff, Unavailable};
use tokio::{
    select,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tracing::{error, info, warn};

use self::{
    loading::Loading,
    transaction::{Committed, Effect, Transaction},
};
use crate::{
    change::{Done, Job},
    error::RegisterError,
    expiry::Expiry,
    past::{Known, Look},
    shared::Shared,
    store::{AT_ONCE, FORGOTTEN_AT_ONCE, MigrateError, State, is_outage},
    text::random_hex,
    time::Time,
};

/// Whose writer it is.
pub(crate) enum Role {
    /// The daemon's. It judges the database by what is known of it, and keeps house.
    Daemon {
        /// The last change that is known from elsewhere.
        before: Option<Known>,
    },
    /// A command's of the operator. It writes what the command asks for and nothing else: it does not know what the daemon
    /// knows of the database.
    Command,
}

/// The task.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Whether it is the daemon's.
    is_daemon: bool,
    /// What could not be written yet.
    unwritten: Vec<Job>,
    /// Marks the changes that are ours.
    source: String,
    /// Whether the tables are there, and the daemon has judged the database.
    ready: bool,
    /// What comes into memory; `None` if all devices are there, or none are to be.
    loading: Option<Loading>,
    /// The last change of others that memory knows.
    seen: i64,
    /// What memory follows; `None` if it does not hold all devices.
    follows: Option<Follows>,
    /// Changes that others were told of since it was last seen to that there are not too many.
    told: usize,
    /// The same, since it was last seen to that there are not too many tombstones: each change may have left one.
    may_have_ended: usize,
    /// Since when nothing could be written, and how often that was tried.
    outage: Option<Outage>,
    /// The last change that was known while the database was not doubted.
    before: Option<Known>,
    /// What the database said when the doubt in it began, as long as it has that in its past.
    doubted: Option<Look>,
    /// When the log last said that the database can be used again.
    good_news: Option<Instant>,
    /// When the log last said that there is no room for a device.
    told_of_no_room: Option<Instant>,
    /// Whether it is unknown what became of a transaction of ours.
    is_unsure: bool,
    /// Whether devices may expire; unknown until the database was opened.
    expiry: Option<Expiry>,
}

/// The database as it was when memory last read it.
struct Follows {
    /// The last change of devices then.
    state: State,
    /// Whether it was doubted.
    doubted: bool,
}

#[derive(Clone, Copy)]
struct Outage {
    attempts: u32,
    began: Instant,
    again: Instant,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, role: Role) -> Result<Self, getrandom::Error> {
        let (is_daemon, before) = match role {
            Role::Daemon { before } => (true, before),
            Role::Command => (false, None),
        };
        Ok(Self {
            shared,
            is_daemon,
            unwritten: Vec::new(),
            source: random_hex()?[..16].to_owned(),
            ready: false,
            loading: None,
            seen: 0,
            follows: None,
            told: 0,
            may_have_ended: 0,
            outage: None,
            before,
            doubted: None,
            good_news: None,
            told_of_no_room: None,
            is_unsure: false,
            expiry: None,
        })
    }

    /// Makes the tables if they are missing, and begins. In a large database that is left to [`run`](Self::run): to count
    /// the devices takes a while, and nobody has to wait for it who asks for one of them.
    pub(crate) async fn prepare(&mut self) -> Result<(), MigrateError> {
        self.make_tables().await?;
        if !self.is_daemon || self.shared.store.last_state().await?.is_small() {
            self.begin().await?;
        }
        Ok(())
    }

    async fn make_tables(&mut self) -> Result<(), MigrateError> {
        let key = self.shared.store.migrate().await?;
        self.shared.set_key(&key);
        Ok(self.learn_foreign().await?)
    }

    /// Nothing is written before: what was used last, and whether the database is the one that it was, must be known first.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        if self.is_daemon {
            self.begin_to_keep_house().await?;
        }
        self.ready = true;
        Ok(())
    }

    async fn begin_to_keep_house(&mut self) -> Result<(), sqlx::Error> {
        self.look_at_past(true).await?;
        if self.before.as_ref().is_some_and(Known::is_new) && self.shared.doubt().is_none() {
            info!(
                "no device has registered yet; if some should be in the database, correct registration.store: meanwhile \
                 devices that it does not know are answered wait, and none is unregistered"
            );
        }
        let store = &self.shared.store;
        let (used, doubted) = (store.last_use().await?, store.doubted_clock().await?);
        let (now, wall) = (Instant::now(), Time::now());
        self.expiry = Some(Expiry::begin(used, doubted, now, wall, self.shared.expire_after));
        self.doubt_clock().await?;
        self.load().await?;
        Ok(())
    }

    /// Writes until the registry is closed.
    pub(crate) async fn run(self) {
        // Also with nothing in memory: by the last change that is known a copy of the database that lacks it is noticed.
        let is_daemon = self.is_daemon;
        let listening = listening::listen(Arc::clone(&self.shared), self.source.clone());
        select! {
            () = self.work() => {}
            never = listening, if is_daemon => match never {},
        }
    }

    async fn work(mut self) {
        if !self.ready
            && self.outage.is_none()
            && let Err(problem) = self.begin().await
        {
            self.fail(&self.shared.store.explain(&problem).await);
        }
        let mut news = every(NEWS, NEWS);
        let mut times = every(TIMES, TIMES);
        let mut cleaning = every(Duration::from_secs(60), CLEANING);
        let shared = Arc::clone(&self.shared);
        loop {
            let again = self.outage.map(|outage| outage.again);
            select! {
                () = shared.end.notified() => return self.finish().await,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.recover().await;
                    // What could not be written is written again before anything else.
                    if self.is_well() && !self.unwritten.is_empty() {
                        self.write().await;
                    }
                }
                () = shared.jobs.until_any(), if self.is_well() => {
                    self.write().await;
                }
                () = ready(()), if self.is_well() && self.loading.is_some() => {
                    if let Err(problem) = self.load_some().await {
                        self.fail(&self.shared.store.explain(&problem).await);
                    }
                }
                () = shared.news.notified(), if self.keeps_house() && self.loading.is_none() => {
                    self.look_and_read().await;
                }
                _ = news.tick(), if self.keeps_house() && self.loading.is_none() => {
                    self.look_and_read().await;
                }
                _ = times.tick(), if self.keeps_house() => {
                    if self.write_times().await {
                        times.reset_immediately();
                    }
                }
                _ = cleaning.tick(), if self.keeps_house() => {
                    if let Some(pause) = self.clean().await {
                        cleaning.reset_after(pause);
                    }
                }
            }
        }
    }

    fn is_well(&self) -> bool {
        self.ready && self.outage.is_none()
    }

    fn keeps_house(&self) -> bool {
        self.is_daemon && self.is_well()
    }

    /// Writes what is left, as far as that is possible.
    async fn finish(mut self) {
        if self.ready {
            while self.write().await {}
            while self.write_times().await {}
        }
        self.shared.store.close().await;
        self.shared.ended.notify_one();
    }

    /// Notes that the database cannot be used, and when to try again.
    pub(crate) fn fail(&mut self, problem: &str) {
        let now = Instant::now();
        match self.shared.outage() {
            None => error!(
                problem,
                "the database of registered devices cannot be used; trying again, and meanwhile devices that are not in \
                 memory are answered wait, and none can register"
            ),
            // What is wrong may have changed: the server is back, and refuses the password.
            Some(before) if before != problem => {
                warn!(problem, "the database of registered devices still cannot be used");
            }
            Some(_) => {}
        }
        let (attempts, began) = self
            .outage
            .map_or((1, now), |outage| (outage.attempts + 1, outage.began));
        self.outage = Some(Outage {
            attempts,
            began,
            again: now + BACKOFF.pause(attempts - 1, 0.0),
        });
        self.shared.set_outage(Some(problem.to_owned()));
    }

    /// Tries to reach the database.
    async fn recover(&mut self) {
        let tried = if self.ready {
            self.try_again().await.map_err(MigrateError::from)
        } else {
            self.make_tables_and_begin().await
        };
        match tried {
            Ok(()) => {
                let now = Instant::now();
                let was_long = self
                    .outage
                    .take()
                    .is_some_and(|outage| now - outage.began > LONG_OUTAGE);
                self.shared.set_outage(None);
                // One that comes and goes does not fill the log.
                if was_long || is_due(self.good_news, now) {
                    self.good_news = Some(now);
                    info!("the database of registered devices can be used again");
                }
            }
            Err(MigrateError::Newer { found, known }) => {
                error!(
                    found,
                    known, "the tables in the database were made by a newer version of this program"
                );
                self.fail("tables of a newer version");
            }
            Err(MigrateError::Database(problem)) => self.fail(&self.shared.store.explain(&problem).await),
            Err(problem @ MigrateError::Randomness(_)) => self.fail(&problem.to_string()),
        }
    }

    async fn make_tables_and_begin(&mut self) -> Result<(), MigrateError> {
        self.make_tables().await?;
        Ok(self.begin().await?)
    }

    async fn try_again(&mut self) -> Result<(), sqlx::Error> {
        self.shared.store.try_to_write().await?;
        if !self.is_daemon {
            return Ok(());
        }
        // It may have been away because a backup was restored.
        self.look_at_past(true).await?;
        // What was to be committed when it went may have been.
        while self.try_to_read_news().await? {}
        Ok(())
    }

    /// Writes some of what waits, and answers. Returns whether there may be more.
    async fn write(&mut self) -> bool {
        let mut jobs = std::mem::take(&mut self.unwritten);
        jobs.retain(Job::is_awaited);
        if jobs.is_empty() && self.shared.jobs.is_empty() {
            return false;
        }
        match self.transact(&mut jobs, Some(BATCH_TIME)).await {
            Ok(results) => {
                let any = !jobs.is_empty();
                answer(jobs, results);
                any
            }
            Err(problem) if is_outage(&problem) => {
                self.put_off(jobs, &problem).await;
                false
            }
            // One of them is to blame: each on its own, so that the others are not refused for it.
            Err(_) => self.write_singly(jobs).await,
        }
    }

    async fn write_singly(&mut self, jobs: Vec<Job>) -> bool {
        let mut rest = jobs.into_iter();
        while let Some(job) = rest.next() {
            let mut job = vec![job];
            match self.transact(&mut job, None).await {
                Ok(results) => answer(job, results),
                Err(problem) if is_outage(&problem) => {
                    self.put_off(job.into_iter().chain(rest).collect(), &problem)
                        .await;
                    return false;
                }
                Err(problem) => {
                    let problem = self.shared.store.describe(&problem);
                    error!(problem, "the database refuses a registration");
                    answer(job, vec![Err(Unavailable.into())]);
                }
            }
        }
        true
    }

    /// Jobs that have to wait until the database is back. It is not known what became of them.
    async fn put_off(&mut self, jobs: Vec<Job>, problem: &sqlx::Error) {
        self.unwritten = jobs;
        self.is_unsure = true;
        self.fail(&self.shared.store.explain(problem).await);
    }

    /// Writes jobs in one transaction, and takes up those that wait for so long: a job that comes meanwhile waits for no more
    /// than that, and in the longest queue many share one transaction.
    async fn transact(
        &mut self,
        jobs: &mut Vec<Job>,
        time: Option<Duration>,
    ) -> Result<Vec<Result<Done, RegisterError>>, sqlx::Error> {
        let mut transaction = self.transaction().await?;
        // Only now: to begin takes a while if others write, or the database is far.
        let began = Instant::now();
        let mut results = Vec::with_capacity(jobs.len());
        loop {
            let done = results.len();
            if done == jobs.len()
                && time.is_some_and(|time| done == 0 || done < BATCH && began.elapsed() < time)
            {
                jobs.extend(std::iter::from_fn(|| self.shared.jobs.next()).take(AT_ONCE));
            }
            let next = &jobs[done..jobs.len().min(done + AT_ONCE)];
            if next.is_empty() {
                break;
            }
            transaction.look_ahead(next.iter().map(|job| &job.change)).await?;
            for job in next {
                results.push(transaction.make(&job.change).await?);
            }
        }
        // Others may tell as much: more goes than comes.
        let limits = self.told >= BATCH;
        if limits {
            transaction.limit_changes().await?;
        }
        // To find the oldest ones takes a while.
        let limits_tombstones = self.may_have_ended >= FORGOTTEN_AT_ONCE as usize;
        if limits_tombstones {
            transaction.limit_tombstones().await?;
        }
        let committed = transaction.commit().await?;
        if limits {
            self.told = 0;
        }
        if limits_tombstones {
            self.may_have_ended = 0;
        }
        self.settle(committed);
        Ok(results)
    }

    async fn transaction(&self) -> Result<Transaction<'_>, sqlx::Error> {
        Transaction::begin(&self.shared, &self.source, self.before.as_ref()).await
    }

    /// Brings memory up to what was committed.
    fn settle(&mut self, committed: Committed) {
        self.told += committed.told;
        self.may_have_ended += committed.told;
        if let Some(known) = committed.known {
            self.believe(known);
        }
        if let Some(no_room) = committed.no_room {
            self.tell_of_no_room(&no_room);
        }
        for effect in committed.effects {
            match (effect, &self.shared.cache) {
                (Effect::Put(device), Some(cache)) => cache.put(&device),
                (Effect::Put(_), None) => {}
                (Effect::Remove(node, ended, share), cache) => {
                    self.shared.ended_registrations.count(&share, ended.name());
                    if let Some(cache) = cache {
                        cache.remove(&node);
                    }
                }
            }
        }
    }
}

fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= NEWS_PAUSE)
}

fn answer(jobs: Vec<Job>, results: Vec<Result<Done, RegisterError>>) {
    for (job, result) in jobs.into_iter().zip(results) {
        job.answer(result);
    }
}

fn every(first: Duration, period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Jobs, or devices, of one transaction.
const BATCH: usize = 1_000;
/// For so long jobs are taken up into one transaction.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// Between two looks for what others changed.
const NEWS: Duration = Duration::from_secs(5);
/// Between two writings of the times of pushes.
const TIMES: Duration = Duration::from_secs(10);
/// Between two removals of what nobody uses.
const CLEANING: Duration = Duration::from_secs(6 * 3_600);
/// Before the next attempt to reach the database.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(3_200));
/// An outage that is never passed over in silence when it ends.
const LONG_OUTAGE: Duration = Duration::from_secs(5);
/// Between two lines of the same kind in the log.
const NEWS_PAUSE: Duration = Duration::from_secs(60);

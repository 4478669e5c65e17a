//! The one task that writes: what waits is written together, and memory follows what was committed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tracing::{debug, error, info, warn};

use crate::{
    device::{Device, Time, random_hex},
    error::RegisterError,
    expiry::Expiry,
    past::{Ended, Known, Standing, compare},
    registry::Shared,
    rules::{self, Claim},
    store::{MigrateError, Writing, describe, is_outage},
    times::Noted,
};

/// Something to be written, and who waits for it.
pub(crate) struct Job {
    pub(crate) change: Change,
    pub(crate) reply: Option<oneshot::Sender<Result<Done, RegisterError>>>,
}

/// Something to be written.
pub(crate) enum Change {
    /// A device registers.
    Register {
        claim: Claim,
        call_token: Option<String>,
    },
    /// A device is to be forgotten, if whoever says so may.
    Unregister { claim: Claim },
    /// The provider says that a token was dead before then.
    Dead {
        node: String,
        token: String,
        before: Time,
    },
    /// Devices from elsewhere.
    Import { devices: Vec<Device> },
    /// A device is to be forgotten, whoever owns it.
    Remove { node: String },
    /// The operator says that this is the right database.
    Accept,
    /// Everything is to be written, because the end has come.
    Close,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Devices that were not there.
    pub added: usize,
    /// Devices in whose place a later registration came.
    pub changed: usize,
    /// Devices that were there already, as they are or later ones.
    pub unchanged: usize,
}

/// What was written.
pub(crate) enum Done {
    /// The device that was registered or removed, and whether it is a new one.
    Device {
        device: Box<Device>,
        is_new: bool,
    },
    Imported(Imported),
    /// Whether there was something to remove.
    Removed(bool),
    /// How many devices are in the database that was accepted.
    Accepted(u64),
}

/// What a transaction does to memory once it is committed.
enum Effect {
    /// A device is there; there was none before if it is new.
    Put { device: Box<Device>, is_new: bool },
    /// A device is not there any more, and why.
    Remove(String, Ended),
}

/// What became of the jobs of a transaction.
type Written = (Vec<Result<Done, RegisterError>>, Vec<Effect>, Option<Known>);

/// The task.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    /// Marks the changes that are ours.
    source: String,
    /// Whether the tables are there, and memory holds them if it is to.
    ready: bool,
    /// The last change of others that memory knows.
    seen: i64,
    /// When memory was last known to be as the database is.
    fresh: Instant,
    /// Since when nothing could be written, and how often that was tried.
    trouble: Option<Trouble>,
    /// The last change that was known while the database was not doubted.
    before: Option<Known>,
    /// When the log last said that the database can be reached.
    good_news: Option<Instant>,
    /// Whether it is unknown what became of a transaction of ours.
    is_unsure: bool,
    /// Whether devices may expire; unknown until the database was opened.
    expiry: Option<Expiry>,
}

#[derive(Clone, Copy)]
struct Trouble {
    attempts: u32,
    again: Instant,
}

impl Writer {
    /// `before` is the last change that is known from elsewhere.
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Job>,
        before: Option<Known>,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            shared,
            queue,
            source: random_hex()?[..16].to_owned(),
            ready: false,
            seen: 0,
            fresh: Instant::now(),
            trouble: None,
            before,
            good_news: None,
            is_unsure: false,
            expiry: None,
        })
    }

    /// Makes the tables if they are missing, and loads all devices if memory is to hold them.
    pub(crate) async fn prepare(&mut self) -> Result<(), MigrateError> {
        let key = self.shared.store.migrate().await?;
        self.shared.set_key(&key);
        self.look_at_past(true).await?;
        if self.before.as_ref().is_some_and(Known::is_new) && self.shared.doubt().is_none() {
            info!(
                "no device has registered yet; if some should be in the database, correct registration.store: meanwhile \
                 devices that it does not know are answered wait, and none is unregistered"
            );
        }
        let used = self.shared.store.last_use().await?;
        let expiry = Expiry::begin(used, Instant::now(), Time::now(), self.shared.expire_after);
        self.expiry = Some(expiry);
        self.load().await?;
        self.ready = true;
        Ok(())
    }

    async fn load(&mut self) -> Result<(), sqlx::Error> {
        let Some(cache) = &self.shared.cache else {
            return Ok(());
        };
        let (store, began) = (&self.shared.store, Instant::now());
        // What changes meanwhile is read again afterwards.
        self.seen = store.last_change().await?;
        cache.clear();
        let mut after = String::new();
        loop {
            let devices = store.page(&after, PAGE).await?;
            cache.put_all(&devices);
            match devices.into_iter().last() {
                Some(last) => after = last.node,
                None => break,
            }
        }
        cache.complete();
        self.fresh = began;
        let seconds = began.elapsed().as_secs_f32();
        debug!(devices = cache.len(), seconds, "registered devices loaded");
        Ok(())
    }

    /// Writes until the registry is closed.
    pub(crate) async fn run(mut self) {
        let mut jobs = Vec::new();
        let mut news = every(NEWS, NEWS);
        let mut times = every(TIMES, TIMES);
        let mut cleaning = every(Duration::from_secs(60), CLEANING);
        loop {
            let again = self.trouble.map(|trouble| trouble.again);
            let room = BATCH.saturating_sub(jobs.len());
            select! {
                // There is always a sender: ours.
                _ = self.queue.recv_many(&mut jobs, room), if room > 0 => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.recover().await;
                }
                _ = news.tick(), if self.is_well() => {
                    if let Err(problem) = self.look_at_past(false).await {
                        self.fail(&describe(&problem));
                    } else if self.read_news().await {
                        news.reset_immediately();
                    }
                }
                _ = times.tick(), if self.is_well() => {
                    if self.write_times().await {
                        times.reset_immediately();
                    }
                }
                _ = cleaning.tick(), if self.is_well() => {
                    if self.clean().await {
                        cleaning.reset_after(Duration::from_secs(1));
                    }
                }
            }
            if let Some(end) = jobs.iter().position(|job| matches!(job.change, Change::Close)) {
                let close = jobs.remove(end);
                self.finish(jobs).await;
                answer(close, Ok(Done::Removed(true)));
                return;
            }
            if self.is_well() {
                jobs = self.write(jobs).await;
            }
            // Whoever no longer waits was told that it failed.
            jobs.retain(|job| job.reply.as_ref().is_none_or(|reply| !reply.is_closed()));
        }
    }

    fn is_well(&self) -> bool {
        self.ready && self.trouble.is_none()
    }

    /// Writes what is left, as far as that is possible.
    async fn finish(mut self, jobs: Vec<Job>) {
        if self.ready {
            drop(self.write(jobs).await);
            while self.write_times().await {}
        }
        self.shared.store.close().await;
    }

    /// Notes that the database is away, and when to try again.
    pub(crate) fn fail(&mut self, problem: &str) {
        let attempts = self.trouble.map_or(0, |trouble| trouble.attempts) + 1;
        let pause = FIRST_PAUSE * 2_u32.pow(attempts.min(5) - 1);
        self.trouble = Some(Trouble {
            attempts,
            again: Instant::now() + pause,
        });
        warn!(
            problem,
            "the database of registered devices is out of reach; trying again"
        );
    }

    /// Tries to reach the database.
    async fn recover(&mut self) {
        let tried = if self.ready {
            self.try_again().await.map_err(MigrateError::from)
        } else {
            self.prepare().await
        };
        match tried {
            Ok(()) => {
                self.trouble = None;
                let now = Instant::now();
                // One that comes and goes does not fill the log.
                if self
                    .good_news
                    .is_none_or(|last| now.duration_since(last) >= NEWS_PAUSE)
                {
                    self.good_news = Some(now);
                    info!("the database of registered devices can be reached");
                }
            }
            Err(MigrateError::Newer { found, known }) => {
                error!(
                    found,
                    known, "the tables in the database were made by a newer version of this program"
                );
                self.fail("tables of a newer version");
            }
            Err(problem @ (MigrateError::Database(_) | MigrateError::Randomness(_))) => {
                self.fail(&problem.to_string());
            }
        }
    }

    async fn try_again(&mut self) -> Result<(), sqlx::Error> {
        self.shared.store.try_to_write().await?;
        // It may have been away because a backup was restored.
        self.look_at_past(true).await?;
        // What was to be committed when it went may have been.
        while self.try_to_read_news().await? {}
        Ok(())
    }

    /// Writes jobs and answers them. Returns those that have to wait.
    async fn write(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        jobs.retain(|job| job.reply.as_ref().is_none_or(|reply| !reply.is_closed()));
        if jobs.is_empty() {
            return jobs;
        }
        match self.transact(&jobs).await {
            Ok(written) => self.settle(jobs, written),
            Err(problem) if is_outage(&problem) => {
                self.is_unsure = true;
                self.fail(&describe(&problem));
                return jobs;
            }
            // One of them is to blame: each on its own, so that the others are not refused for it.
            Err(_) => {
                let mut rest = jobs.into_iter();
                while let Some(job) = rest.next() {
                    let job = vec![job];
                    match self.transact(&job).await {
                        Ok(written) => self.settle(job, written),
                        Err(problem) if is_outage(&problem) => {
                            self.is_unsure = true;
                            self.fail(&describe(&problem));
                            return job.into_iter().chain(rest).collect();
                        }
                        Err(problem) => {
                            let problem = describe(&problem);
                            error!(problem, "the database refuses a registration");
                            for job in job {
                                answer(job, Err(fpush_push::Unavailable.into()));
                            }
                        }
                    }
                }
            }
        }
        Vec::new()
    }

    /// Brings memory up to what was committed, and answers.
    fn settle(&mut self, jobs: Vec<Job>, (results, effects, known): Written) {
        if let Some(known) = known {
            self.believe(known);
        }
        self.take_effect(effects);
        for (job, result) in jobs.into_iter().zip(results) {
            answer(job, result);
        }
    }

    fn take_effect(&self, effects: Vec<Effect>) {
        let Some(cache) = &self.shared.cache else { return };
        for effect in effects {
            match effect {
                Effect::Put { device, is_new: _ } => cache.put(&device),
                Effect::Remove(node, _) => cache.remove(&node),
            }
        }
    }

    async fn transact(&self, jobs: &[Job]) -> Result<Written, sqlx::Error> {
        let mut writing = self.shared.store.begin().await?;
        let mut results = Vec::with_capacity(jobs.len());
        let mut effects = Vec::new();
        for job in jobs {
            results.push(self.step(&mut writing, &job.change, &mut effects).await?);
        }
        let known = self.conclude(&mut writing, &effects).await?;
        writing.commit().await?;
        Ok((results, effects, known))
    }

    /// Writes what belongs to every change of devices: tombstones, the new state, and what other processes are told. Of
    /// several effects on a node only the last one counts there. Returns what is known of the database once that is
    /// committed, unless it is doubted.
    async fn conclude(
        &self,
        writing: &mut Writing,
        effects: &[Effect],
    ) -> Result<Option<Known>, sqlx::Error> {
        if effects.is_empty() {
            return Ok(None);
        }
        let (now, mut told, mut more) = (Time::now(), HashSet::new(), 0);
        for effect in effects.iter().rev() {
            more += match effect {
                Effect::Put { is_new, .. } => i64::from(*is_new),
                Effect::Remove(..) => -1,
            };
            let node = effect.node();
            if !told.insert(node) {
                continue;
            }
            let hash = self.shared.tombstone(node).ok_or(sqlx::Error::PoolClosed)?;
            match effect {
                Effect::Put { .. } => writing.unbury(&hash).await?,
                Effect::Remove(_, ended) => writing.bury(&hash, *ended, now).await?,
            }
            writing.tell(node, now, &self.source).await?;
        }
        let before = self.before.as_ref().filter(|_| self.shared.doubt().is_none());
        writing.advance(more, now, before).await
    }

    /// One job of a transaction. What it is refused for is a result; an error is the database's.
    async fn step(
        &self,
        writing: &mut Writing,
        change: &Change,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<Done, RegisterError>, sqlx::Error> {
        let rules = self.shared.rules;
        Ok(match change {
            Change::Register { claim, call_token } => {
                let (existing, owned) = find(writing, claim).await?;
                let is_new = existing.is_none();
                let secret = random_hex().map_err(|e| sqlx::Error::Io(e.into()))?;
                let device = rules::register(claim, call_token.clone(), existing, owned, secret, rules);
                match device {
                    Ok(device) => {
                        writing.put(&device).await?;
                        let device = Box::new(device);
                        effects.push(Effect::Put {
                            device: device.clone(),
                            is_new,
                        });
                        Ok(Done::Device { device, is_new })
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Change::Unregister { claim } => {
                let (existing, _) = find(writing, claim).await?;
                match rules::unregister(claim, existing, rules) {
                    Ok(device) => {
                        writing.remove(&device.node).await?;
                        effects.push(Effect::Remove(device.node.clone(), Ended::Unregistered));
                        Ok(Done::Device {
                            device: Box::new(device),
                            is_new: false,
                        })
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            // The registration that the word is about may be an older one than the device has.
            Change::Dead { .. } if self.shared.doubt().is_some() => Err(fpush_push::Unavailable.into()),
            Change::Dead { node, token, before } => {
                let removed = writing.remove_dead(node, token, *before).await?;
                if removed {
                    effects.push(Effect::Remove(node.clone(), Ended::Dead));
                }
                Ok(Done::Removed(removed))
            }
            Change::Import { devices } => {
                let mut imported = Imported::default();
                for device in devices {
                    let existing = writing.find(&device.node).await?;
                    let is_new = existing.is_none();
                    match existing {
                        Some(existing) if !rules::is_later(device, &existing) => {
                            imported.unchanged += 1;
                            continue;
                        }
                        Some(_) => imported.changed += 1,
                        None => imported.added += 1,
                    }
                    writing.put(device).await?;
                    effects.push(Effect::Put {
                        device: Box::new(device.clone()),
                        is_new,
                    });
                }
                Ok(Done::Imported(imported))
            }
            Change::Remove { node } => {
                let removed = writing.remove(node).await?;
                if removed {
                    effects.push(Effect::Remove(node.clone(), Ended::Removed));
                }
                Ok(Done::Removed(removed))
            }
            Change::Accept => {
                let devices = writing.accept(Time::now()).await?;
                Ok(Done::Accepted(u64::try_from(devices).unwrap_or(0)))
            }
            Change::Close => Ok(Done::Removed(false)),
        })
    }

    /// Looks whether the database is the one that it was; `thoroughly` counts the devices, too. While it is doubted, it
    /// is compared with what was known before, and an operator may accept it.
    async fn look_at_past(&mut self, thoroughly: bool) -> Result<(), sqlx::Error> {
        let store = &self.shared.store;
        let doubted = self.shared.doubt();
        let present = store.look().await?;
        let mark = match &self.before {
            Some(before) => store.mark(before.change).await?,
            None => None,
        };
        let counted = if thoroughly || doubted.is_some() {
            Some(store.count().await?)
        } else {
            None
        };
        match compare(self.before.as_ref(), &present, mark.as_deref(), counted) {
            None => {
                if doubted.is_some() {
                    info!(
                        "the database of registered devices is believed again: it is the one that it was, or was accepted"
                    );
                }
                self.believe(present.known);
            }
            Some(doubt) => {
                if doubted.is_none() {
                    error!("{doubt}");
                }
                self.shared.set_standing(Standing::Doubted(doubt));
            }
        }
        Ok(())
    }

    fn believe(&mut self, known: Known) {
        self.before = Some(known.clone());
        self.shared.set_standing(Standing::Good(known));
    }

    /// Reads some of what other processes changed. Returns whether there may be more.
    async fn read_news(&mut self) -> bool {
        match self.try_to_read_news().await {
            Ok(more) => more,
            Err(problem) => {
                self.fail(&describe(&problem));
                false
            }
        }
    }

    async fn try_to_read_news(&mut self) -> Result<bool, sqlx::Error> {
        let Some(cache) = &self.shared.cache else {
            return Ok(false);
        };
        if self.fresh.elapsed() > KEEP_CHANGES / 2 {
            // Some changes may be forgotten already.
            self.load().await?;
            return Ok(false);
        }
        let (store, began) = (&self.shared.store, Instant::now());
        let last = store.last_change().await?;
        // Usually memory knows our own.
        let not_from = if self.is_unsure { "" } else { &self.source };
        let changes = store.changes(self.seen, not_from, PAGE).await?;
        let nodes: HashSet<_> = changes.iter().map(|change| change.node.as_str()).collect();
        for node in nodes {
            match store.find(node).await? {
                Some(device) => cache.put(&device),
                None => cache.remove(node),
            }
        }
        let more = changes.len() as i64 == PAGE;
        self.seen = match changes.last() {
            Some(change) if more => change.id,
            Some(_) | None => self.seen.max(last),
        };
        self.is_unsure &= more;
        self.fresh = began;
        Ok(more)
    }

    /// Writes some of the times of pushes. Returns whether there may be more.
    async fn write_times(&mut self) -> bool {
        let taken = self.shared.times.take(BATCH);
        if taken.is_empty() {
            return false;
        }
        match self.try_to_write_times(&taken).await {
            Ok(()) => taken.len() == BATCH,
            Err(problem) => {
                self.shared.times.put_back(taken);
                self.fail(&describe(&problem));
                false
            }
        }
    }

    async fn try_to_write_times(&self, taken: &[(Box<str>, Noted)]) -> Result<(), sqlx::Error> {
        let mut writing = self.shared.store.begin().await?;
        for (node, noted) in taken {
            writing.note_pushes(node, noted.delivered, noted.failed).await?;
        }
        writing.commit().await
    }

    /// Removes some of the devices that nobody uses, and old changes. Returns whether there may be more.
    async fn clean(&mut self) -> bool {
        match self.try_to_clean().await {
            Ok(more) => more,
            Err(problem) => {
                self.fail(&describe(&problem));
                false
            }
        }
    }

    async fn try_to_clean(&mut self) -> Result<bool, sqlx::Error> {
        if self.shared.doubt().is_some() {
            // What looks unused may have been used, and that is lost.
            return Ok(false);
        }
        let now = Time::now();
        let mut writing = self.shared.store.begin().await?;
        let unused = if self
            .expiry
            .is_some_and(|expiry| expiry.is_believed(Instant::now(), now))
        {
            writing
                .remove_unused(now.before(self.shared.expire_after), BATCH as i64)
                .await?
        } else {
            Vec::new()
        };
        let unused: Vec<_> = unused
            .into_iter()
            .map(|node| Effect::Remove(node, Ended::Expired))
            .collect();
        let known = self.conclude(&mut writing, &unused).await?;
        writing.forget_changes(now.before(KEEP_CHANGES)).await?;
        writing.forget(now.before(KEEP_TOMBSTONES)).await?;
        writing.commit().await?;
        if let Some(known) = known {
            self.believe(known);
        }
        let more = unused.len() == BATCH;
        if !unused.is_empty() {
            info!(
                devices = unused.len(),
                "registrations that nobody used were removed"
            );
        }
        self.take_effect(unused);
        Ok(more)
    }
}

impl Effect {
    fn node(&self) -> &str {
        match self {
            Self::Put { device, .. } => &device.node,
            Self::Remove(node, _) => node,
        }
    }
}

/// The registration that is meant, and how many its owner has.
async fn find(writing: &mut Writing, claim: &Claim) -> Result<(Option<Device>, usize), sqlx::Error> {
    let owned = match claim.owner() {
        Some(owner) => writing.owned_by(owner).await?,
        None => Vec::new(),
    };
    let number = owned.len();
    let existing = match owned.into_iter().find(|device| claim.means(device)) {
        Some(device) => Some(device),
        None => writing.find(&claim.node).await?,
    };
    Ok((existing, number))
}

fn answer(job: Job, result: Result<Done, RegisterError>) {
    if let Some(reply) = job.reply {
        // Whoever no longer waits was told that it failed.
        drop(reply.send(result));
    }
}

fn every(first: Duration, period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Jobs, or devices, of one transaction.
const BATCH: usize = 1_000;
/// Devices that are read at once.
const PAGE: i64 = 5_000;
/// Between two looks for what others changed.
const NEWS: Duration = Duration::from_secs(5);
/// Between two writings of the times of pushes.
const TIMES: Duration = Duration::from_secs(10);
/// Between two removals of what nobody uses.
const CLEANING: Duration = Duration::from_secs(6 * 3_600);
/// How long others have to learn of a change.
const KEEP_CHANGES: Duration = Duration::from_secs(86_400);
/// How long a node that has ended is known as such.
const KEEP_TOMBSTONES: Duration = Duration::from_secs(365 * 86_400);
/// Before the second attempt to reach the database; it doubles with each, up to 3.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Between two lines of good news.
const NEWS_PAUSE: Duration = Duration::from_secs(60);

//! Held pushes: what one instance holds another one sends when it is gone.
//!
//! # What is where
//!
//! Each instance writes down what it holds by itself (`spool.db`), and acknowledges a publish when that is done. That is the
//! truth until somebody else has taken the push. A copy goes to the engine at once, in groups, and nobody waits for it. The engine
//! has for each module, all in one slot of a cluster:
//!
//! | key | is |
//! |---|---|
//! | `held` | a hash: the place of a push (its holder and its number there) -> when it came, when it is due, its id, its key, its record |
//! | `held-keys` | a hash: key and class -> the place of the newest push that is acknowledged and held for it |
//! | `held-holders` | a sorted set of places by holder |
//! | `leases` | a sorted set of holders by the end of their lease; 0 for one that was stopped in order |
//! | `taken` | a sorted set of ids, by the time at which another instance took the push, or made it superfluous |
//! | `held-watch` | when anybody was last there, and until when nobody is gone |
//! | `held-delivered` | a sorted set of keys and classes by the time at which the provider accepted a push that was held for them |
//! | `held-unread` | a sorted set of places by the number under which they were set aside, because who found the push could not read it |
//!
//! A *holder* is a random number, under which an instance holds pushes of one module. Each instance says once a second that it is
//! there, which makes its lease last [`LEASE`] from then. Numbers in the engine are its own time; what goes there and comes back are lengths.
//!
//! # Who sends
//!
//! - An instance sends what it holds. Before each push it asks as for any other (`claim.lua`), and is told if the id is among
//!   those that were taken: then it drops its own.
//! - When a lease has run out, the next instance that looks finds what is there (`find.lua`) and takes it (`take.lua`): the push
//!   gets another id and a place of the taker's, and the former id is taken, all in one step. The taker holds it like a push of its own. If it ends before it
//!   has written it down, its own lease runs out, and the next one takes it.
//!   Where another one is held for the same key, the newer one stays: the instance was gone before it had told that its push is acknowledged.
//!   The taker does the same with what it holds itself: an older one may have been ended for what it takes, before it was told.
//! - What the taker cannot read, because another version has written it, is set aside under its id and place: who held it goes on with it
//!   when it is there again, and each instance looks once at all that is set aside, and takes what it can read. It goes when it is given
//!   up, when a push is accepted for its key, or when [`MOST_UNREAD`] later ones are set aside.
//! - When an instance stops in order, it ends its lease, after it has told all.
//! - A push that is accepted for a key makes superfluous what others hold for it, as far as it was there when the push was claimed:
//!   its id is taken (`tell.lua`).
//! - A newer push for a key, at any instance, takes the place of the older one, whose id is taken, when it is acknowledged and not
//!   before: it may still be refused, or not be written down (`hold.lua`).
//!
//! So a push is sent twice only where its holder does not ask (the engine is away), had asked before its lease ran out, or ended after it
//! had sent and before it had said so. The first two are counted, when the holder says what it has sent.
//!
//! # When the engine comes back, or an instance
//!
//! All that an instance holds is told anew, under another holder, part by part ([`SharedLane::tell_held_again`]). The answer to a part says
//! what others have taken meanwhile, which is dropped. What is then left under the former holder has been sent, and is cleared
//! away. Of two pushes for a key that wait for the provider, which two instances were given while they could not ask each other, the
//! older one goes (`hold.lua`), and so does one that came before another one for its key was delivered: an instance that was killed may
//! hold a newer push than it had told, whose older one was taken over. Until all is told nothing from before the start goes out, or for 15 s. What changes in between is told in its
//! order: there is one queue a module, and what was read from disk before it changed is not told.
//!
//! While the engine was away nobody could say that he is there. So if nobody was there for [`SILENCE`], nobody is taken for gone for
//! [`QUIET`], which is longer than the longest pause between two attempts to reach the engine.
//!
//! # What it costs
//!
//! A push that is held costs a line in one group more, and some 600 bytes in the engine. What an instance lets in is bounded for each
//! domain and in all; the engine keeps [`MOST_HELD`] pushes of a module, of at most [`LONGEST_RECORD`] bytes each. What is beyond
//! is held as before, by its instance alone.
//!
//! [`SharedLane::tell_held_again`]: fpush_driver::SharedLane::tell_held_again

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fpush_driver::TakenPart;
use fpush_policy::{HeldNews, SharedPush};
use fpush_push::sync::lock;
use redis::{Cmd, FromRedisValue as _};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::{
    connection::{Connection, PATIENCE},
    script::Scripts,
    trouble::Trouble,
    wire::{Found, LONGEST, bytes, millis, read_found},
};

/// What there is to say of what one module holds.
pub(crate) struct Holding {
    /// The names under which pushes are held: the present one is the last.
    holders: Mutex<Vec<u64>>,
    queue: Mutex<Queue>,
    /// All that is held is to be told.
    wants_all: AtomicBool,
    sent_twice: AtomicU64,
    /// Up to which number this instance has seen what was set aside, and how many are.
    seen: AtomicU64,
    unread: AtomicU64,
}

#[derive(Default)]
struct Queue {
    groups: VecDeque<Group>,
    /// In all groups.
    news: usize,
}

/// What is told together.
struct Group {
    news: Vec<HeldNews>,
    at: Instant,
    /// Who waits for the numbers of those that others have taken, of what is told again.
    again: Option<oneshot::Sender<Vec<u64>>>,
}

impl Holding {
    /// Goes on where another one ends, which held under these names.
    pub(crate) fn new(mut holders: Vec<u64>) -> Self {
        holders.push(new_holder());
        Self {
            holders: Mutex::new(holders),
            queue: Mutex::default(),
            wants_all: AtomicBool::new(true),
            sent_twice: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        }
    }

    pub(crate) fn holders(&self) -> Vec<u64> {
        lock(&self.holders).clone()
    }

    /// All names, as the scripts want them.
    pub(crate) fn names(&self) -> String {
        let holders = lock(&self.holders);
        let names: Vec<_> = holders.iter().map(u64::to_string).collect();
        names.join(" ")
    }

    /// All is to be told anew, under another name. What the provider has accepted stays to be told.
    pub(crate) fn begin_anew(&self) {
        let mut queue = lock(&self.queue);
        queue.keep_delivered();
        // The engine may have begun to count anew.
        self.seen.store(0, Ordering::Relaxed);
        let mut holders = lock(&self.holders);
        // Of one under which nothing was told yet nothing is left.
        if !self.wants_all.swap(true, Ordering::Relaxed) || holders.is_empty() {
            holders.push(new_holder());
        }
    }

    pub(crate) fn wants_all(&self) -> bool {
        self.wants_all.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, news: Vec<HeldNews>, again: Option<oneshot::Sender<Vec<u64>>>) {
        let mut queue = lock(&self.queue);
        queue.news += news.len();
        queue.groups.push_back(Group {
            news,
            at: Instant::now(),
            again,
        });
        let is_too_long = queue.news > MOST_TO_TELL;
        drop(queue);
        if is_too_long {
            self.begin_anew();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.queue).groups.is_empty()
    }

    /// Tells what waits, in its order.
    ///
    /// # Errors
    ///
    /// What could not be told waits on.
    pub(crate) async fn tell(
        &self,
        connection: &mut Connection,
        scripts: &Scripts,
        keys: &[&[u8]],
    ) -> Result<(), Trouble> {
        while let Some(group) = self.next() {
            let telling = self.tell_group(connection, scripts, keys, &group);
            let told = match timeout(PATIENCE, telling).await {
                Ok(told) => told.map_err(|e| Trouble::of(&e)),
                Err(_) => Err(Trouble::Slow),
            };
            match told {
                Ok(taken) => {
                    // Nobody may wait for it any more.
                    group.again.map(|again| again.send(taken));
                }
                Err(trouble) => {
                    self.put_back(group);
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    /// As much as goes at a time.
    fn next(&self) -> Option<Group> {
        let mut queue = lock(&self.queue);
        let mut group = queue.groups.pop_front()?;
        queue.news -= group.news.len();
        while group.again.is_none()
            && group.news.len() < TOLD_AT_A_TIME
            && let Some(more) = queue.groups.pop_front_if(|more| more.again.is_none())
        {
            queue.news -= more.news.len();
            group.news.extend(more.news);
        }
        Some(group)
    }

    fn put_back(&self, group: Group) {
        let mut queue = lock(&self.queue);
        queue.news += group.news.len();
        queue.groups.push_front(group);
    }

    async fn tell_group(
        &self,
        connection: &mut Connection,
        scripts: &Scripts,
        keys: &[&[u8]],
        group: &Group,
    ) -> redis::RedisResult<Vec<u64>> {
        let (mut all_taken, teller) = (Vec::new(), self.teller());
        let (is_again, waited) = (group.again.is_some(), group.at.elapsed());
        for part in group.news.chunks(TOLD_AT_A_TIME) {
            let arguments = |command: &mut Cmd| {
                teller.write(command);
                command.arg(millis(LEASE)).arg(MOST_HELD).arg(MOST_WOKEN);
                for news in part {
                    write(command, news, is_again, waited);
                }
            };
            let answer = scripts.hold.run(connection, keys, arguments).await?;
            let (twice, taken) = <(u64, Vec<u64>)>::from_redis_value(answer)?;
            self.sent_twice.fetch_add(twice, Ordering::Relaxed);
            all_taken.extend(taken);
        }
        Ok(all_taken)
    }

    /// Says that this instance is there, and takes what others held that are gone.
    pub(crate) async fn take(
        &self,
        connection: &mut Connection,
        scripts: &Scripts,
        keys: &[&[u8]],
        most: usize,
        told: bool,
    ) -> redis::RedisResult<TakenPart> {
        let told = told && !self.wants_all.load(Ordering::Relaxed);
        let teller = self.teller();
        let seen_before = self.seen.load(Ordering::Relaxed);
        let arguments = |command: &mut Cmd| {
            teller.write(command);
            command.arg(millis(LEASE)).arg(millis(SILENCE));
            command.arg(millis(QUIET)).arg(millis(KEPT));
            command.arg(u8::from(told)).arg(CLEARED_AT_A_TIME);
            command.arg(if told { most } else { 0 }).arg(seen_before);
        };
        let answer = scripts.find.run(connection, keys, arguments).await?;
        let (cleared, more, found, seen, unread, mut given_up) =
            <(Vec<u64>, bool, Vec<Found>, u64, u64, u64)>::from_redis_value(answer)?;
        if !cleared.is_empty() {
            let cleared: HashSet<_> = cleared.into_iter().collect();
            lock(&self.holders).retain(|holder| !cleared.contains(holder));
        }
        let mut part = TakenPart {
            more,
            sent_twice: self.sent_twice.swap(0, Ordering::Relaxed),
            ..TakenPart::default()
        };
        if !found.is_empty() {
            let pushes: Vec<_> = found.iter().map(|found| (found, read_found(found))).collect();
            let arguments = |command: &mut Cmd| {
                teller.write(command);
                command.arg(MOST_UNREAD);
                for (found, push) in &pushes {
                    let id = push.as_ref().map(|push| push.id.simple().to_string());
                    command.arg(&found.0).arg(id.unwrap_or_default());
                }
            };
            let answer = scripts.take.run(connection, keys, arguments).await?;
            let (taken, more_given_up) = <(HashSet<String>, u64)>::from_redis_value(answer)?;
            given_up += more_given_up;
            for (found, push) in pushes {
                let is_stopped = found.2;
                match push.filter(|push| taken.contains(&push.id.simple().to_string())) {
                    Some(push) if is_stopped => part.handed_over.push(push),
                    Some(push) => part.taken_over.push(push),
                    None => {}
                }
            }
        }
        // Unless it has begun anew meanwhile.
        let _ = self
            .seen
            .compare_exchange(seen_before, seen, Ordering::Relaxed, Ordering::Relaxed);
        self.unread.store(unread, Ordering::Relaxed);
        if given_up > 0 {
            tracing::error!(
                pushes = given_up,
                "the cluster's engine had held pushes that no instance could read while they were worth something; they are lost"
            );
        }
        Ok(part)
    }

    /// How many pushes are set aside in the engine, because no instance so far could read them.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Ends the leases of this instance.
    pub(crate) async fn end_lease(
        &self,
        connection: &mut Connection,
        leases: &[u8],
    ) -> redis::RedisResult<()> {
        let mut command = redis::cmd("ZADD");
        command.arg(leases);
        for holder in self.holders() {
            command.arg(0).arg(holder);
        }
        connection.ask(&command).await.map(drop)
    }

    fn teller(&self) -> Teller {
        let holder = lock(&self.holders).last().copied().unwrap_or_default();
        let names = self.names();
        Teller { holder, names }
    }
}

/// What the scripts about held pushes are told first.
struct Teller {
    holder: u64,
    names: String,
}

impl Teller {
    fn write(&self, command: &mut Cmd) {
        command.arg(self.holder).arg(&self.names);
        command.arg(MOST_TAKEN).arg(millis(TAKEN_KEPT));
    }
}

impl Queue {
    /// All that is held will be told. What has gone out is not known later, so that stays.
    fn keep_delivered(&mut self) {
        for group in &mut self.groups {
            group.news.retain(|news| matches!(news, HeldNews::Delivered(..)));
            group.again = None;
        }
        self.groups.retain(|group| !group.news.is_empty());
        self.news = self.groups.iter().map(|group| group.news.len()).sum();
        while self.news > MOST_DELIVERED
            && let Some(oldest) = self.groups.pop_front()
        {
            self.news -= oldest.news.len();
        }
    }
}

/// What the script reads for one change, which waited for so long: what, number, key, id, until due, until given up, age, record.
fn write(command: &mut Cmd, news: &HeldNews, is_again: bool, waited: Duration) {
    let id_of = |id: &Uuid| id.simple().to_string();
    let nothing = |command: &mut Cmd| {
        command.arg(-1).arg(-1).arg(millis(waited)).arg("");
    };
    match news {
        HeldNews::Put(number, push) => {
            let SharedPush {
                key,
                id,
                due,
                give_up,
                age,
                record,
            } = push;
            let record = serde_json::to_vec(record).unwrap_or_default();
            // One that is too long is held here alone: what was told of an older one goes.
            let what = match is_again {
                _ if record.len() > LONGEST_RECORD => "g",
                false => "p",
                true => "r",
            };
            // One of which it was not written down is older than all others.
            let age = age.map_or(LONGEST, |age| age + waited);
            let left = |time: Option<Duration>| time.map_or(-1, |time| millis(time).cast_signed());
            command.arg(what).arg(*number).arg(&bytes(*key)).arg(id_of(id));
            command.arg(left(*due)).arg(left(*give_up));
            command.arg(millis(age)).arg(record);
        }
        HeldNews::Acknowledged(number) => {
            command.arg("a").arg(*number).arg("").arg("");
            nothing(command);
        }
        HeldNews::Gone(number) => {
            command.arg("g").arg(*number).arg("").arg("");
            nothing(command);
        }
        HeldNews::Delivered(key, id) => {
            command.arg("d").arg(0).arg(&bytes(*key)).arg(id_of(id));
            nothing(command);
        }
        HeldNews::Dismissed(id) => {
            command.arg("t").arg(0).arg("").arg(id_of(id));
            nothing(command);
        }
    }
}

/// A number that a floating point number can hold, as the scores of sorted sets are.
fn new_holder() -> u64 {
    (Uuid::new_v4().as_u128() as u64 >> 12) | 1
}

/// For so long an instance is not taken for gone after it has said that it is there.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// Nobody was there for so long: the engine was away.
const SILENCE: Duration = Duration::from_secs(5);
/// All will have reached the engine by then.
const QUIET: Duration = Duration::from_secs(45);
/// Of a module.
const MOST_HELD: usize = 2_000_000;
/// Bytes. Pushes of real devices have 200 to 600.
const LONGEST_RECORD: usize = 1_024;
/// Pushes that no instance could read so far.
const MOST_UNREAD: usize = 100_000;
/// Ids of pushes that others have taken.
const MOST_TAKEN: usize = 2_000_000;
/// Keys whose device was woken by a push that was held. An instance that was killed is there again soon, or finds the newest ones.
const MOST_WOKEN: usize = 200_000;
/// Longer than anything is held.
const TAKEN_KEPT: Duration = Duration::from_secs(29 * 86_400);
/// What nobody looks at.
const KEPT: Duration = Duration::from_secs(40 * 86_400);
/// News that wait to be told, some 400 bytes each. Where there are more, all is told anew.
const MOST_TO_TELL: usize = 20_000;
/// Those of them that are kept when all is told anew.
const MOST_DELIVERED: usize = 10_000;
/// That one script takes: for less than a millisecond nobody else is served.
const TOLD_AT_A_TIME: usize = 100;
const CLEARED_AT_A_TIME: usize = 100;

#[cfg(test)]
mod tests;

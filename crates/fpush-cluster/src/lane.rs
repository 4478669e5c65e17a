//! What instances share of one module.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fpush_driver::{Claiming, ClaimingDeath, HandingOver, SharedLane, Taking, Telling};
use fpush_policy::{Change, Claim, DeadBlock, HeldNews, News, OwnDeaths, Wish};
use fpush_push::sync::lock;
use redis::{Cmd, FromRedisValue as _, Value};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use crate::{
    connection::{Connection, PATIENCE},
    held::Holding,
    link::{GONE, Link},
    names::Names,
    outbox::{AT_A_TIME, Outbox},
    script::Scripts,
    trouble::Trouble,
    wire::{bytes, fingerprint, millis, pairs, read_claimed, read_news, unpack, write},
};

/// What instances share of one module, under one digest.
pub(crate) struct Lane {
    /// For the outbox.
    this: Weak<Self>,
    names: Names,
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    outbox: Arc<Outbox<Self>>,
    news: Mutex<VecDeque<News>>,
    read: Mutex<Read>,
    /// All is to be told.
    wants_all: AtomicBool,
    /// What there is to say of what is held, and that there is something.
    holding: Holding,
    held: Arc<Notify>,
    /// Held by who says something of that.
    telling: tokio::sync::Mutex<()>,
    instance: Instance,
}

/// Who we are.
#[derive(Clone)]
pub(crate) struct Instance {
    /// Of this process alone.
    pub(crate) id: String,
    /// A number below 1,024, for where there is no room for more. Two may have the same: then what one of them holds counts for
    /// the other one as not held, or as held when it is gone.
    number: u64,
}

/// What was read of what others have told.
#[derive(Default)]
struct Read {
    /// In this session of the link, and since the engine's memory began so.
    session: u64,
    beginning: String,
    /// The last news.
    last: String,
    /// The second of the last look, by the engine's clock.
    second: u64,
    /// The place of the words that are read next, until all are.
    words: Option<usize>,
}

/// Whether the engine still had what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Kept,
    Lost,
}

impl Instance {
    pub(crate) fn new() -> Self {
        let id = uuid::Uuid::new_v4();
        Self {
            id: id.simple().to_string(),
            number: (id.as_u128() % 1_024) as u64,
        }
    }
}

impl Lane {
    pub(crate) fn new(
        names: Names,
        link: Arc<Link>,
        scripts: Arc<Scripts>,
        outbox: Arc<Outbox<Self>>,
        held: Arc<Notify>,
        holders: Vec<u64>,
        instance: Instance,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            names,
            link,
            scripts,
            outbox,
            news: Mutex::default(),
            read: Mutex::default(),
            wants_all: AtomicBool::new(true),
            holding: Holding::new(holders.clone()),
            held: Arc::clone(&held),
            telling: tokio::sync::Mutex::default(),
            instance: instance.clone(),
        })
    }

    /// Whether what has the module answers: in a cluster each module is at one node, and another one may be gone.
    pub(crate) async fn reach(&self, mut connection: Connection) -> redis::RedisResult<()> {
        let mut command = redis::cmd("ZCARD");
        command.arg(&self.names.alive);
        connection.ask(&command).await.map(drop)
    }

    async fn ask(&self, connection: &mut Connection, claim: &Claim) -> redis::RedisResult<Value> {
        let (slot, token) = (bytes(claim.slot_key()), bytes(claim.target.token));
        let (wish, hold) = match claim.wish {
            Wish::Send => ("0", Duration::ZERO),
            Wish::Hold(time) => ("1", time),
            Wish::SendHeld => ("2", Duration::ZERO),
        };
        let dead = match claim.dead {
            DeadBlock::Holds => "0",
            DeadBlock::Void => "1",
            DeadBlock::AskedAgain => "2",
        };
        let call = if claim.is_call() { "1" } else { "0" };
        let arguments = |command: &mut Cmd| {
            command
                .arg(&slot)
                .arg(&token)
                .arg(millis(claim.window))
                .arg(wish)
                .arg(millis(hold))
                .arg(dead)
                .arg(call)
                .arg(GRACE)
                .arg(MOST_KEYS)
                .arg(self.instance.number)
                .arg(GONE)
                .arg(self.holding.names())
                .arg(claim.id.simple().to_string());
        };
        self.scripts
            .claim
            .run(connection, &self.names.of_claim(), arguments)
            .await
    }

    /// Tells the engine.
    pub(crate) async fn send(
        &self,
        connection: &mut Connection,
        changes: &[Change],
    ) -> redis::RedisResult<()> {
        for part in changes.chunks(AT_A_TIME) {
            let arguments = |command: &mut Cmd| {
                command.arg(&self.instance.id).arg(self.instance.number);
                command
                    .arg(GONE)
                    .arg(GRACE)
                    .arg(MOST_KEYS)
                    .arg(MOST_BLOCKS)
                    .arg(MOST_WORDS)
                    .arg(MOST_NEWS);
                part.iter().for_each(|change| write(command, change));
            };
            self.scripts
                .tell
                .run(connection, &self.names.of_tell(), arguments)
                .await?;
        }
        Ok(())
    }

    /// Looks what the others have told, and whether the engine has forgotten what it was told.
    pub(crate) async fn look(&self, mut connection: Connection, session: u64) -> redis::RedisResult<Memory> {
        let (last, before) = {
            let read = lock(&self.read);
            if read.session == session {
                (read.last.clone(), read.beginning.clone())
            } else {
                (String::new(), String::new())
            }
        };
        let arguments = |command: &mut Cmd| {
            command.arg(&last).arg(NEWS_AT_A_TIME).arg(KEPT);
            command
                .arg(self.instance.number)
                .arg(uuid::Uuid::new_v4().simple().to_string());
        };
        let answer = self
            .scripts
            .look
            .run(&mut connection, &self.names.all(), arguments)
            .await?;
        let (now, left, last_now, told, beginning) =
            <(u64, u64, String, Vec<(String, Vec<Vec<u8>>)>, String)>::from_redis_value(answer)?;
        let second = now / 1_000;
        let is_lost = !before.is_empty() && before != beginning;
        {
            let mut read = lock(&self.read);
            if last.is_empty() || is_lost {
                read.words = Some(0);
            }
            read.session = session;
            read.beginning = beginning;
            read.last = last_now;
            read.second = second;
        }
        let pause = (left > 0).then(|| Duration::from_millis(left));
        let others = told
            .iter()
            .filter_map(|(_, fields)| read_news(fields, &self.instance.id, second));
        self.add_news([News::Pause(pause)].into_iter().chain(others));
        if is_lost {
            self.tell_all_again();
            return Ok(Memory::Lost);
        }
        Ok(Memory::Kept)
    }

    fn add_news(&self, news: impl Iterator<Item = News>) {
        let mut waiting = lock(&self.news);
        // Nobody takes them: the module has ended.
        if waiting.len() < MOST_UNREAD {
            waiting.extend(news);
        }
    }

    /// Reads on where the words end that were read: all that was said against tokens and is not believed. Returns whether
    /// there may be more.
    pub(crate) async fn read_words(&self, mut connection: Connection) -> redis::RedisResult<bool> {
        let (from, session, second) = {
            let read = lock(&self.read);
            let Some(from) = read.words else {
                return Ok(false);
            };
            (from, read.session, read.second)
        };
        if lock(&self.news).len() >= SOME_UNREAD {
            return Ok(true);
        }
        let mut command = redis::cmd("ZRANGE");
        command
            .arg(&self.names.words)
            .arg(from)
            .arg(from + WORDS_AT_A_TIME - 1);
        command.arg("WITHSCORES");
        let part = pairs(connection.ask(&command).await?)?;
        let to = from + part.len();
        let more = part.len() == WORDS_AT_A_TIME && to < MOST_WORDS;
        let word =
            |(token, score): (Vec<u8>, u64)| Some(News::Word(fingerprint(&token)?, unpack(score, second)));
        self.add_news(part.into_iter().filter_map(word));
        let mut read = lock(&self.read);
        // Unless it is to begin again.
        if read.session == session && read.words == Some(from) {
            read.words = more.then_some(to);
        }
        Ok(read.words.is_some())
    }

    /// What the engine was told may be lost.
    pub(crate) fn tell_all_again(&self) {
        self.wants_all.store(true, Ordering::Relaxed);
        self.holding.begin_anew();
    }

    /// How many held pushes wait in the engine for a version that can read them.
    pub(crate) fn unread(&self) -> u64 {
        self.holding.unread()
    }

    /// Says what there is to say of what is held.
    pub(crate) async fn send_held(&self, mut connection: Connection) -> Result<(), Trouble> {
        let _telling = self.telling.lock().await;
        self.holding
            .tell(&mut connection, &self.scripts, &self.names.of_held())
            .await
    }

    async fn ask_for_death(
        &self,
        connection: &mut Connection,
        deaths: OwnDeaths,
    ) -> redis::RedisResult<bool> {
        let arguments = |command: &mut Cmd| {
            command.arg(&self.instance.id).arg(self.instance.number);
            command.arg(deaths.version).arg(deaths.count);
            command.arg(OwnDeaths::MOST).arg(KEPT).arg(deaths.lane);
        };
        let keys: [&[u8]; 1] = [&self.names.deaths];
        let answer = self.scripts.die.run(connection, &keys, arguments).await?;
        bool::from_redis_value(answer).map_err(Into::into)
    }
}

impl SharedLane for Lane {
    fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn claim(&self, claim: Claim) -> Claiming<'_> {
        Box::pin(async move {
            let ask = async |connection: &mut Connection| {
                let answer = self.ask(connection, &claim).await?;
                let answer = Vec::<u64>::from_redis_value(answer)?;
                Ok(read_claimed(&answer))
            };
            let claimed = self.link.ask(ask).await?;
            if claimed.is_none() {
                self.link.requests.increment("unknown");
            }
            claimed
        })
    }

    fn tell(&self, changes: Vec<Change>) {
        if let Some(this) = self.this.upgrade() {
            self.outbox.add(this, changes);
        }
    }

    fn claim_death(&self, deaths: OwnDeaths) -> ClaimingDeath<'_> {
        Box::pin(async move {
            let mut connection = self.link.connection()?;
            // Longer than other pushes wait: it is rare.
            match timeout(DEATH_PATIENCE, self.ask_for_death(&mut connection, deaths)).await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(e)) => {
                    self.link.fail(&e);
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn news(&self, most: usize) -> Vec<News> {
        let mut news = lock(&self.news);
        let most = most.min(news.len());
        news.drain(..most).collect()
    }

    fn wants_all(&self) -> bool {
        self.link.is_up() && self.wants_all.swap(false, Ordering::Relaxed)
    }

    fn tell_all(&self, changes: Vec<Change>) -> Telling<'_> {
        Box::pin(async move {
            self.outbox.room().await;
            self.tell(changes);
        })
    }

    fn holders(&self) -> Vec<u64> {
        self.holding.holders()
    }

    fn tell_held(&self, news: Vec<HeldNews>) {
        self.holding.add(news, None);
        self.held.notify_one();
    }

    fn wants_held(&self) -> bool {
        self.link.is_up() && self.holding.wants_all()
    }

    fn tell_held_again(&self, part: Vec<HeldNews>) -> oneshot::Receiver<Vec<u64>> {
        let (again, asking) = oneshot::channel();
        self.holding.add(part, Some(again));
        self.held.notify_one();
        asking
    }

    fn take_held(&self, most: usize, told: bool) -> Taking<'_> {
        Box::pin(async move {
            let mut connection = self.link.connection()?;
            let keys = self.names.of_held();
            let taking = self
                .holding
                .take(&mut connection, &self.scripts, &keys, most, told);
            let trouble = match timeout(PATIENCE, taking).await {
                Ok(Ok(part)) => return Some(part),
                Ok(Err(e)) => Trouble::of(&e),
                Err(_) => Trouble::Slow,
            };
            self.link.fail_as(trouble);
            // What may have been taken is found under the name that it was taken with.
            self.holding.begin_anew();
            None
        })
    }

    fn hand_over(&self) -> HandingOver<'_> {
        Box::pin(async {
            let handing = async {
                let mut connection = self.link.connection()?;
                self.send_held(connection.clone()).await.ok()?;
                self.holding
                    .end_lease(&mut connection, self.names.leases())
                    .await
                    .ok()
            };
            timeout(HAND_OVER, handing).await.is_ok_and(|done| done.is_some())
        })
    }
}

/// Milliseconds after its time in which a queued push still counts as queued: it may wait for its permit.
const GRACE: u64 = 10_000;
/// Windows, queued pushes and silences of a module that the engine remembers, each.
const MOST_KEYS: usize = 4_000_000;
const MOST_BLOCKS: usize = 1_000_000;
const MOST_WORDS: usize = 200_000;
/// As long as news may take to be read by all.
const MOST_NEWS: usize = 10_000;
const NEWS_AT_A_TIME: usize = 2_000;
const WORDS_AT_A_TIME: usize = 2_000;
/// News that a module has not taken yet.
const MOST_UNREAD: usize = 2 * MOST_WORDS;
/// Milliseconds for which the engine keeps what nobody looks at: a word counts for 30 days.
const KEPT: u64 = 40 * 86_400_000;
/// So few of them that words may be added.
const SOME_UNREAD: usize = 20_000;
/// A push whose token was called dead waits for so long.
const DEATH_PATIENCE: Duration = Duration::from_millis(500);
/// An end waits for so long.
const HAND_OVER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

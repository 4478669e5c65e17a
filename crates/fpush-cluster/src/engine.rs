//! The engine: who keeps a connection to it, who tells it what is new, and who asks what others have told.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use fpush_driver::{Cluster, SharedLane};
use fpush_push::{Agreement, jitter, sync::lock};
use redis::{Cmd, FromRedisValue as _};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    agreement::Agreements,
    connection::{Connection, PATIENCE},
    lane::{Instance, Lane, Memory},
    link::{GONE, Link},
    names::{Names, common, trial},
    outbox::Outbox,
    report::Report,
    script::Scripts,
    settings::ClusterSettings,
    trouble::{Missing, Trouble},
};

/// What all instances share, in one engine: Valkey or Redis. Everything ends when this is dropped.
pub struct Engine {
    inner: Arc<Inner>,
    tasks: [JoinHandle<()>; 4],
}

struct Inner {
    settings: ClusterSettings,
    link: Arc<Link>,
    scripts: Arc<Scripts>,
    outbox: Arc<Outbox<Lane>>,
    lanes: Mutex<Vec<Weak<Lane>>>,
    instance: Instance,
    fingerprints: Box<dyn Fingerprints>,
    seen: Mutex<Seen>,
    /// The first attempt to connect has ended.
    tried: Notify,
    /// Held by who tells something.
    telling: tokio::sync::Mutex<()>,
    /// The lanes were looked at: there may be words to read.
    looked: Notify,
    /// There is something to say of what is held.
    held: Arc<Notify>,
}

/// The key under which tokens are hashed: all instances need the same.
pub trait Fingerprints: Send + Sync {
    /// The one in use.
    fn key(&self) -> [u8; 16];

    /// Goes on under another one, at once, with all that is known of fingerprints.
    fn set_key(&self, key: [u8; 16]);
}

/// What was last seen of the engine.
#[derive(Clone, Debug, Default)]
struct Seen {
    instances: u64,
    /// What is wrong with how it is set up.
    concerns: Vec<String>,
}

/// What there is to say of the engine.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// Where it is.
    pub engine: String,
    /// Since when it is as it is.
    pub since: Instant,
    /// Why it cannot be used, with what to do; `None` if it can.
    pub trouble: Option<Trouble>,
    /// Whether it can be used. It may be neither, before the first attempt has ended.
    pub up: bool,
    /// How many instances use it, this one included.
    pub instances: u64,
    /// What is wrong with how it is set up, or with what it has, with what to do.
    pub concerns: Vec<String>,
    /// Held pushes that wait there for an instance of the version that wrote them.
    pub unread: u64,
    /// Requests of pushes by what became of them.
    pub requests: Vec<(&'static str, u64)>,
}

impl Engine {
    /// Begins to use an engine. To be called within a runtime.
    pub fn start(settings: ClusterSettings, fingerprints: Box<dyn Fingerprints>) -> Self {
        let inner = Arc::new(Inner {
            link: Arc::new(Link::new(settings.timeout)),
            settings,
            scripts: Arc::new(Scripts::new()),
            outbox: Arc::default(),
            lanes: Mutex::default(),
            instance: Instance::new(),
            fingerprints,
            seen: Mutex::default(),
            tried: Notify::new(),
            telling: tokio::sync::Mutex::default(),
            looked: Notify::new(),
            held: Arc::default(),
        });
        let tasks = [
            tokio::spawn(Arc::clone(&inner).keep()),
            tokio::spawn(Arc::clone(&inner).tell()),
            tokio::spawn(Arc::clone(&inner).read_words()),
            tokio::spawn(Arc::clone(&inner).tell_held()),
        ];
        Self { inner, tasks }
    }

    /// Waits until the first attempt to connect has ended, or for so long.
    pub async fn tried(&self, patience: Duration) {
        let _in_time = timeout(patience, self.inner.tried.notified()).await;
    }

    /// Waits until all has been told that is to be told, or for so long.
    pub async fn flush(&self, patience: Duration) {
        let flushing = async {
            while self.inner.link.is_up()
                && !(self.inner.outbox.is_empty() && self.inner.telling.try_lock().is_ok())
            {
                sleep(MOMENT).await;
            }
        };
        let _in_time = timeout(patience, flushing).await;
    }

    /// Where instances agree on what all have to use alike.
    #[must_use]
    pub fn agreement(&self) -> Arc<dyn Agreement> {
        let Inner {
            settings,
            link,
            scripts,
            ..
        } = &*self.inner;
        Arc::new(Agreements {
            prefix: settings.prefix.clone(),
            link: Arc::clone(link),
            scripts: Arc::clone(scripts),
        })
    }

    /// What there is to say of it.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let Inner { link, settings, .. } = &*self.inner;
        let (since, trouble) = link.condition();
        let Seen {
            instances,
            mut concerns,
        } = lock(&self.inner.seen).clone();
        let unread: u64 = self.inner.lanes().iter().map(|lane| lane.unread()).sum();
        if unread > 0 {
            concerns.push(format!(
                "{unread} held pushes in it were written by another version of fpush, and cannot be read by this one; they wait \
                 there: start an instance of that version until they are out"
            ));
        }
        EngineStatus {
            engine: settings.address.to_string(),
            since,
            trouble,
            up: link.is_up(),
            instances,
            concerns,
            unread,
            requests: link.requests.get(),
        }
    }
}

/// Connects once, and sees whether the engine is one that can be used, by us and under our prefix. Returns what is wrong with how it is set up.
///
/// # Errors
///
/// Why it cannot be used.
pub async fn probe(settings: &ClusterSettings) -> Result<Vec<String>, Trouble> {
    let (mut connection, concerns) = open(settings, &Scripts::new()).await?;
    in_time(connection.ask_any(redis::cmd("PING"))).await?;
    Ok(concerns)
}

impl Cluster for Engine {
    fn lane(&self, module: &str, digest: u128, before: Option<&dyn SharedLane>) -> Arc<dyn SharedLane> {
        let Inner {
            settings,
            link,
            scripts,
            outbox,
            lanes,
            held,
            instance,
            ..
        } = &*self.inner;
        let lane = Lane::new(
            Names::new(&settings.prefix, module, digest),
            Arc::clone(link),
            Arc::clone(scripts),
            Arc::clone(outbox),
            Arc::clone(held),
            before.map(SharedLane::holders).unwrap_or_default(),
            instance.clone(),
        );
        let mut lanes = lock(lanes);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(&lane));
        lane
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Inner {
    /// Keeps a connection, and looks over it once a second.
    async fn keep(self: Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    let began = Instant::now();
                    self.come_up(connection);
                    self.tried.notify_one();
                    self.look_after().await;
                    self.say_down();
                    if began.elapsed() >= STEADY {
                        pause = SHORTEST_PAUSE;
                    }
                }
                Err(trouble) => {
                    if self.link.go_down(trouble) {
                        self.say_down();
                    }
                    self.tried.notify_one();
                }
            }
            sleep(pause.mul_f64(1.0 - jitter() / 10.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and sees whether the engine is one that can be used, and soon enough.
    async fn connect(&self) -> Result<Connection, Trouble> {
        let (mut connection, concerns) = open(&self.settings, &self.scripts).await?;
        lock(&self.seen).concerns = concerns;
        in_time(self.greet(&mut connection)).await?;
        // Where a node of a cluster is gone, and no replica has taken over yet, the others answer all the same.
        self.of_each_lane(&connection, |lane, connection| async move {
            lane.reach(connection).await
        })
        .await?;
        let answer = timeout(self.settings.timeout, connection.ask_any(redis::cmd("PING"))).await;
        match answer {
            Ok(Ok(_)) => Ok(connection),
            Ok(Err(e)) => Err(Trouble::of(&e)),
            Err(_) => Err(Trouble::Slow),
        }
    }

    fn come_up(&self, connection: Connection) {
        let engine = self.settings.address.to_string();
        let has_lost = self.outbox.take_has_lost();
        let is_new = self.link.was_away() || has_lost;
        if is_new {
            // All that is known is told with it.
            self.outbox.keep_what_lifts();
            self.lanes().iter().for_each(|lane| lane.tell_all_again());
        }
        let trouble = self.link.come_up(connection, is_new);
        self.outbox.filled.notify_one();
        self.held.notify_one();
        if trouble.is_some() {
            info!(
                engine,
                "the cluster's engine can be used again; what was decided alone is shared now"
            );
        } else {
            info!(engine, "the cluster's engine can be used");
        }
        for concern in &lock(&self.seen).concerns {
            warn!(engine, "the cluster's engine: {concern}");
        }
    }

    fn say_down(&self) {
        if let (_, Some(trouble)) = self.link.condition() {
            let engine = self.settings.address.to_string();
            error!(
                engine,
                "the cluster's engine cannot be used; this instance decides alone meanwhile: {trouble}"
            );
        }
    }

    /// Looks once a second what there is to hear, until the connection is not used any more.
    async fn look_after(&self) {
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_report = REPORT_EVERY;
        loop {
            tokio::select! {
                biased;
                () = self.link.broken.notified() => if !self.link.is_up() {
                    return;
                },
                _ = seconds.tick() => {
                    let Some(mut connection) = self.link.connection() else {
                        return;
                    };
                    until_report -= 1;
                    let mut looked = self.look(&connection).await;
                    if looked.is_ok() && until_report == 0 {
                        until_report = REPORT_EVERY;
                        let report = in_time(Report::of(&mut connection)).await;
                        looked = report.and_then(Report::usable).map(|concerns| {
                            lock(&self.seen).concerns = concerns;
                        });
                    }
                    if let Err(trouble) = looked {
                        self.link.go_down(trouble);
                        return;
                    }
                }
            }
        }
    }

    /// Looks what there is to hear.
    async fn look(&self, connection: &Connection) -> Result<(), Trouble> {
        in_time(self.greet(&mut connection.clone())).await?;
        let session = self.link.session();
        let looked = self
            .of_each_lane(connection, move |lane, connection| async move {
                lane.look(connection, session).await
            })
            .await?;
        let has_lost = looked.contains(&Memory::Lost);
        if has_lost {
            warn!("the cluster's engine has lost what it knew; it is told again");
        }
        self.looked.notify_one();
        Ok(())
    }

    /// Asks something of each lane. Each has its time, so that many have it as well.
    async fn of_each_lane<T, F>(
        &self,
        connection: &Connection,
        ask: impl Fn(Arc<Lane>, Connection) -> F,
    ) -> Result<Vec<T>, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = redis::RedisResult<T>> + Send + 'static,
    {
        let lanes = self.lanes();
        let mut answers = Vec::with_capacity(lanes.len());
        for lanes in lanes.chunks(LANES_AT_A_TIME) {
            let mut asked = JoinSet::new();
            for lane in lanes {
                asked.spawn(in_time(ask(Arc::clone(lane), connection.clone())));
            }
            while let Some(answer) = asked.join_next().await {
                answers.push(answer.unwrap_or(Err(Trouble::Slow))?);
            }
        }
        Ok(answers)
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        lock(&self.lanes).iter().filter_map(Weak::upgrade).collect()
    }

    /// Reads the words that others have told, on and on where the engine was away.
    async fn read_words(self: Arc<Self>) {
        loop {
            self.looked.notified().await;
            for lane in self.lanes() {
                while let Some(connection) = self.link.connection() {
                    match in_time(lane.read_words(connection)).await {
                        Ok(true) => sleep(MOMENT).await,
                        Ok(false) => break,
                        Err(trouble) => self.link.fail_as(trouble),
                    }
                }
            }
        }
    }

    /// Tells the engine what is held, each module's in turn.
    async fn tell_held(self: Arc<Self>) {
        loop {
            self.held.notified().await;
            for lane in self.lanes() {
                if let Some(connection) = self.link.connection()
                    && let Err(trouble) = lane.send_held(connection).await
                {
                    self.link.fail_as(trouble);
                }
            }
        }
    }

    /// Says that we are there, and takes the key of fingerprints.
    async fn greet(&self, connection: &mut Connection) -> redis::RedisResult<()> {
        let [key, instances] = common(&self.settings.prefix);
        let ours = self.fingerprints.key();
        let arguments = |command: &mut Cmd| {
            command.arg(&ours).arg(&self.instance.id).arg(GONE);
        };
        let greet = &self.scripts.greet;
        let answer = greet.run(connection, &[&key, &instances], arguments).await?;
        let (key, instances) = <(Vec<u8>, u64)>::from_redis_value(answer)?;
        if let Ok(key) = <[u8; 16]>::try_from(key)
            && key != ours
        {
            info!(
                "taking the other instances' key of fingerprints; what is known under our own is forgotten"
            );
            self.fingerprints.set_key(key);
        }
        lock(&self.seen).instances = instances;
        Ok(())
    }

    /// Tells the engine what is new.
    async fn tell(self: Arc<Self>) {
        loop {
            self.outbox.filled.notified().await;
            let _telling = self.telling.lock().await;
            while let Some(mut connection) = self.link.connection()
                && let Some((lane, changes)) = self.outbox.next()
            {
                if let Err(trouble) = in_time(lane.send(&mut connection, &changes)).await {
                    self.outbox.put_back(lane, changes);
                    self.link.fail_as(trouble);
                }
            }
        }
    }
}

/// A connection to an engine that can be used, and what is wrong with how that is set up.
async fn open(settings: &ClusterSettings, scripts: &Scripts) -> Result<(Connection, Vec<String>), Trouble> {
    let mut connection = Connection::open(settings).await?;
    let concerns = in_time(Report::of(&mut connection)).await?.usable()?;
    let keys = trial(&settings.prefix);
    let keys = keys.each_ref().map(Vec::as_slice);
    let refused = in_time(scripts.trial.run(&mut connection, &keys, |_| {})).await?;
    match Vec::<String>::from_redis_value(refused) {
        Ok(refused) if refused.is_empty() => Ok((connection, concerns)),
        Ok(refused) => Err(Trouble::Permission(Missing::Commands(refused))),
        Err(_) => Err(Trouble::Permission(Missing::Unknown)),
    }
}

/// What no push waits for.
async fn in_time<T>(asking: impl Future<Output = redis::RedisResult<T>>) -> Result<T, Trouble> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|e| Trouble::of(&e)),
        Err(_) => Err(Trouble::Slow),
    }
}

const MOMENT: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);
/// Seconds between two looks at how the engine is set up.
const REPORT_EVERY: u32 = 60;
/// After the engine could not be used it is left alone for so long, twice as long each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What has worked for so long is well again.
const STEADY: Duration = Duration::from_secs(60);
/// Modules that are looked at at once.
const LANES_AT_A_TIME: usize = 64;

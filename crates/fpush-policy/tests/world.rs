//! A random world around one module, in virtual time: servers that publish, a provider that accepts, hangs, rejects,
//! throttles and has incidents, restarts, reloads and a clock that jumps. After each step nothing that was acknowledged is
//! missing, no permit is lost, and an incident has cost ten devices at most.
//!
//! The same seed is the same run. `FPUSH_SEEDS=100000` runs so many; `FPUSH_SEED=7` runs one and prints its steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_policy::{
    Busy, Clocks, Decision, Elsewhere, Ended, Failed, Grant, HeldChange, HeldEnd, HeldRecord, HoldUntil,
    LastAccepted, ModuleSettings, Next, Policy, Publish, PushJob, RateSlot, Recipient, Remembered,
    SenderDomain, Ticket, Tries, Turn, VerdictPlace,
};
use fpush_push::{
    Choice, Class, Failure, Fingerprint, Form, LaneId, Outcome, Push, PushError, Token, TokenHasher,
    settings::{Report, Section},
};
use uuid::Uuid;

/// Steele, Lea and Flood's `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// Everything of which there are parts.
fn all<T, P>(start: P, part: impl Fn(P) -> (Vec<T>, Option<P>)) -> Vec<T> {
    let (mut all, mut from) = (Vec::new(), Some(start));
    while let Some(place) = from {
        let (records, next) = part(place);
        all.extend(records);
        from = next;
    }
    all
}

/// How the provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fine,
    /// It calls living tokens dead.
    Gone,
    /// It calls living tokens wrong.
    Wrong,
    Away,
    Odd,
}

/// A push at the provider.
struct Flight {
    job: Box<PushJob>,
    slot: RateSlot,
    tries: Tries,
    generation: u64,
    /// Its number, if it is a held one.
    held: Option<u64>,
}

/// A push that waits for its permit.
struct Waiting {
    job: Box<PushJob>,
    slot: RateSlot,
    ticket: Ticket<Fingerprint>,
    /// How often it was tried, if it comes from the other lane, and its number, if it is a held one.
    moved: Option<(Tries, Option<u64>)>,
}

struct World {
    random: Random,
    policy: Policy<u64>,
    /// What is held, as it is written down.
    disk: BTreeMap<u64, HeldRecord>,
    /// Held pushes that are to be read.
    wanted: Vec<u64>,
    /// Those that could not be read.
    unreadable: Vec<u64>,
    base: Clocks,
    millis: u64,
    /// By how many milliseconds the wall clock is wrong.
    jumped: i64,
    /// How many milliseconds of that were steps so small that nobody takes them for jumps: times that were written down before
    /// are off by as much.
    unnoticed: u64,
    flights: Vec<Flight>,
    waiting: BTreeMap<u64, Waiting>,
    next_waiter: u64,
    weather: Weather,
    tokens: u64,
    /// Tokens whose devices have gone, and when, in milliseconds since 1970.
    gone: BTreeMap<u64, u64>,
    answers: Answers,
    /// When what was acknowledged was published, by token and class.
    published: BTreeMap<(u64, u8), Vec<u64>>,
    /// Until when it is tried for as long as its provider needs, however late it was acknowledged.
    once_more: BTreeMap<(u64, u8), u64>,
    /// When it was started.
    started: u64,
    /// When something was last said against a token for which it may be left alone for a while.
    doubted: BTreeMap<u64, u64>,
    /// Until when tokens get no push, because their provider called them too busy.
    silences: BTreeMap<u64, u64>,
    /// In which lane each push is held that was not tried yet.
    held_in: BTreeMap<u64, LaneId>,
    /// Until when each lane's provider may want nothing.
    pauses: BTreeMap<LaneId, u64>,
    /// Whether the provider has been well ever since.
    always_fine: bool,
    acknowledged: u64,
    ended: u64,
    lost: u64,
    living_deaths: u64,
    gone_deaths: u64,
    /// Whether its tokens are of several lanes.
    has_lanes: bool,
    /// Whether each of its tokens is at home in one of two lanes, and nobody sees in which, and how the second one is.
    second: Option<Weather>,
    told: bool,
}

/// What the provider has answered of late.
#[derive(Default)]
struct Answers {
    /// When tokens were last accepted, since the last start and the last jump of the clock.
    accepted: BTreeMap<u64, u64>,
    /// When tokens were last called dead or wrong.
    rejected: BTreeMap<u64, u64>,
}

impl Answers {
    /// Whether the lane is calm, however they are counted: of the last hundred answers, none older than ten minutes, at
    /// least ten accepted a push, and fewer than one in ten, with one more, called a token dead or wrong.
    fn are_calm(&self, now: u64) -> bool {
        let recent = |at: &&u64| **at + 590_000 > now;
        let [accepted, rejected] =
            [&self.accepted, &self.rejected].map(|answers| answers.values().filter(recent).count());
        accepted >= 20 && (rejected + 1) * 12 <= accepted.min(75)
    }
}

const PERMITS: usize = 4;
/// So many tokens are taken for dead without doubt, at least: of those that were alive in a day, and of all until a lane that is so young
/// has shown that they were not an incident.
const AT_LEAST: u64 = 10;
/// `holdFor`, as it is where nobody has set it, in milliseconds.
const HOLD_FOR: u64 = 4 * HOUR;
/// After a restart, in milliseconds.
const ONCE_MORE: u64 = 600_000;
/// After a token was too busy, in milliseconds.
const SILENCE: u64 = 600_000;
/// The longest block of what may live, in milliseconds.
const LONGEST_BLOCK: u64 = 1_200_000;
/// Tokens from this one on are a stranger's, and from the second one on another one's.
const STRANGERS: u64 = 60_000;
const OTHERS: u64 = 90_000;
/// So much is held of a domain of which no push was accepted.
const MOST_OF_STRANGER: u64 = 1_000;
/// A step of the clock by more is a jump, in milliseconds.
const JUMP: u64 = 60_000;
/// No time is kept more exactly than that, in milliseconds.
const TICK: u64 = 50;
/// What all starts and jumps of the clock together may take from a time, in milliseconds: each rounds it.
const ROUNDED: u64 = 20 * TICK;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// In milliseconds since 1970.
const WORLD_BEGINS: u64 = 20_000 * DAY;

fn settings() -> ModuleSettings {
    let (report, empty) = (Report::default(), serde_json::Map::new());
    ModuleSettings {
        max_in_flight: PERMITS,
        ..ModuleSettings::read(&mut Section::root(&empty, &report))
    }
}

fn hasher() -> TokenHasher {
    TokenHasher::with_key([7; 16])
}

fn sender(token: u64) -> Arc<SenderDomain> {
    if token >= STRANGERS {
        let domain = if token < OTHERS { "evil.org" } else { "other.org" };
        return Arc::new(SenderDomain::new(domain, &hasher()));
    }
    let domain = match token % 5 {
        0 => "one.org",
        1 => "chat.one.org",
        2 => "two.org",
        3 => "three.co.uk",
        _ => "four.de",
    };
    Arc::new(SenderDomain::new(domain, &hasher()).accepted(LastAccepted::Lately))
}

impl World {
    fn new(seed: u64, tokens: u64, told: bool) -> Self {
        let base = Clocks {
            now: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(WORLD_BEGINS),
        };
        let mut random = Random(seed);
        let long_ago = WORLD_BEGINS - 3 * DAY;
        let gone = (0..tokens)
            .filter(|_| random.one_in(40))
            .map(|token| (token, long_ago))
            .collect();
        let mut policy = Policy::new(settings(), 1, base);
        policy.begin_noting(0);
        Self {
            random,
            policy,
            disk: BTreeMap::new(),
            wanted: Vec::new(),
            unreadable: Vec::new(),
            base,
            millis: 0,
            jumped: 0,
            unnoticed: 0,
            flights: Vec::new(),
            waiting: BTreeMap::new(),
            next_waiter: 0,
            weather: Weather::Fine,
            tokens,
            gone,
            answers: Answers::default(),
            published: BTreeMap::new(),
            once_more: BTreeMap::new(),
            started: 0,
            doubted: BTreeMap::new(),
            silences: BTreeMap::new(),
            held_in: BTreeMap::new(),
            pauses: BTreeMap::new(),
            always_fine: true,
            acknowledged: 0,
            ended: 0,
            lost: 0,
            living_deaths: 0,
            gone_deaths: 0,
            has_lanes: false,
            second: None,
            told,
        }
    }

    #[expect(clippy::disallowed_macros, reason = "a person has asked for it")]
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!(
                "{:>9}.{:03} s: {}",
                self.millis / 1_000,
                self.millis % 1_000,
                what()
            );
        }
    }

    fn clocks(&self) -> Clocks {
        let passed = Duration::from_millis(self.millis);
        Clocks {
            now: self.base.now + passed,
            wall: (self.base.wall + passed)
                .checked_add(Duration::from_millis(self.jumped.max(0).unsigned_abs()))
                .and_then(|wall| wall.checked_sub(Duration::from_millis(self.jumped.min(0).unsigned_abs())))
                .expect("it is not so far away"),
        }
    }

    fn now(&self) -> Instant {
        self.clocks().now
    }

    /// Where a token is tried first, and where else it may be at home.
    fn first(&self, token: u64) -> (LaneId, Elsewhere) {
        match self.second {
            Some(_) => {
                let fingerprint = hasher().fingerprint(&format!("token {token}"));
                (self.policy.home(fingerprint), Elsewhere::Unasked)
            }
            None => (self.lane(token), Elsewhere::Nowhere),
        }
    }

    /// Where a token of one of two lanes is at home, in truth.
    fn true_home(token: u64) -> LaneId {
        if token.is_multiple_of(3) {
            LaneId::Second
        } else {
            LaneId::Main
        }
    }

    /// The lane of a token: with several, the main one, two vendors, and three strangers' servers.
    fn lane(&self, token: u64) -> LaneId {
        match token % 6 {
            _ if !self.has_lanes => LaneId::Main,
            0 => LaneId::Main,
            1 | 2 => LaneId::Vendor((token % 6) as u8),
            server => LaneId::Origin(hasher().fingerprint(&server.to_string())),
        }
    }

    fn recipient(&self, record: &HeldRecord) -> Recipient {
        let token = Token::new(record.token());
        let (lane, elsewhere) = self.first(number_of(token.as_str()));
        Recipient {
            lane,
            elsewhere,
            token,
            sender: Arc::new(SenderDomain::new(record.domain(), &hasher())),
            time_to_live: Duration::MAX,
        }
    }

    fn job(&self, token: u64, class: Class) -> Box<PushJob> {
        let name = format!("token {token}");
        let fingerprint = hasher().fingerprint(&name);
        let (lane, elsewhere) = self.first(token);
        Box::new(PushJob {
            push: Push {
                token: Token::new(&name),
                class,
                form: Form::Full,
                extra: None,
                notification: None,
                count: None,
                id: Uuid::from_u128(u128::from(token)),
                deadline: self.now() + Duration::from_secs(25),
            },
            token: fingerprint,
            lane,
            elsewhere,
            vendor: None,
            key: fingerprint,
            node: None,
            choice: Choice::Named,
            sender: sender(token),
            spacing: Duration::from_secs(20),
            arrived: self.now(),
            worth_until: None,
            record: None,
        })
    }

    fn publish(&mut self) {
        let token = self.random.below(self.tokens);
        let class = match self.random.below(8) {
            0 => Class::Low,
            1 => Class::Voip,
            _ => Class::High,
        };
        self.publish_for(token, class);
    }

    /// A stranger publishes as much as is taken, and somebody whom nobody knows either.
    fn flood(&mut self) {
        for number in 0..MOST_OF_STRANGER + 10 {
            self.publish_for(STRANGERS + 6 * number, Class::High);
        }
        self.carry_out();
        self.publish_for(OTHERS, Class::High);
    }

    /// How many pushes of a domain are held.
    fn held_of(&self, sender: &SenderDomain) -> u64 {
        let records = self.disk.values();
        let of_domain =
            records.filter(|record| SenderDomain::new(record.domain(), &hasher()).share == sender.share);
        of_domain.count() as u64
    }

    fn publish_for(&mut self, token: u64, class: Class) {
        let (mut job, now) = (self.job(token, class), self.now());
        let publish = Publish {
            target: job.target(),
            lane: job.lane,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &job.sender,
        };
        match self.policy.publish(&publish, now) {
            Decision::Answer(outcome) => {
                self.tell(|| format!("publish for {token}: {outcome:?}"));
                assert!(
                    !matches!(outcome, Outcome::Queued | Outcome::Accepted),
                    "nothing was done for that"
                );
                if outcome == Outcome::Overloaded {
                    self.carry_out();
                    assert!(
                        self.held_of(&job.sender) >= MOST_OF_STRANGER,
                        "{} has no room, because others have it",
                        job.sender.name
                    );
                }
                assert!(
                    outcome != Outcome::TokenBlocked || self.is_doubted(token),
                    "token {token} is blocked for longer than any block of what may live"
                );
                let is_alone = matches!(job.lane, LaneId::Vendor(_) | LaneId::Second);
                assert!(
                    outcome != Outcome::ProviderUnavailable || !is_alone || self.may_pause(job.lane),
                    "{:?} pauses, and its provider has not asked for that",
                    job.lane
                );
            }
            Decision::Hold {
                until, worth_until, ..
            } => {
                self.tell(|| format!("publish for {token} is held: {until:?}"));
                self.acknowledged += 1;
                self.has_acknowledged(&job);
                job.worth_until = worth_until;
                let lane = job.lane;
                let held = self.policy.hold(job, until);
                match until {
                    HoldUntil::Due(_) => drop(self.held_in.insert(held.number, lane)),
                    // It may be in the place of an older one, which waits for its turn in another lane.
                    HoldUntil::Back => drop(self.held_in.remove(&held.number)),
                }
            }
            Decision::Send {
                slot, worth_until, ..
            } => {
                job.worth_until = worth_until;
                self.take_turn(job, slot, None);
            }
        }
    }

    /// Whether a token may be left alone because of what was said against it. After a restart the block lasts as long again where
    /// the clock was set meanwhile.
    fn is_doubted(&self, token: u64) -> bool {
        let doubted = self.doubted.get(&token);
        doubted.is_some_and(|at| self.millis <= (*at).max(self.started) + LONGEST_BLOCK + TICK)
    }

    /// Whether the provider of a lane has asked for a pause that lasts.
    fn may_pause(&self, lane: LaneId) -> bool {
        self.pauses.get(&lane).is_some_and(|until| self.millis < *until)
    }

    fn has_acknowledged(&mut self, job: &PushJob) {
        let arrived = job.arrived.saturating_duration_since(self.base.now).as_millis() as u64;
        let key = (number_of(job.push.token.as_str()), job.push.class as u8);
        let all = self.published.entry(key).or_default();
        all.push(arrived);
        // A silence, and after that some time for attempts.
        self.once_more.insert(key, self.millis + 2 * ONCE_MORE);
        all.sort_unstable();
    }

    /// Until when what was last published for a token is worth an attempt. After a restart it is worth one more for a while,
    /// however long nobody ran.
    fn worth_until(&self, token: u64, class: Class) -> u64 {
        let key = (token, class as u8);
        let published = self.published.get(&key).and_then(|all| all.last());
        let once_more = self.once_more.get(&key).copied().unwrap_or(0);
        let worth = published.map_or(0, |at| at + HOLD_FOR).max(once_more);
        if self.started > 0 {
            worth.max(self.started + ONCE_MORE)
        } else {
            worth
        }
    }

    /// A push goes on in the lane that it is in now, where it needs a permit.
    fn go_on_elsewhere(&mut self, flight: Flight) {
        let Flight {
            job,
            slot,
            tries,
            generation: _,
            held,
        } = flight;
        if let Some(number) = held {
            self.held_in.remove(&number);
            self.policy.held_moved(number, &job, self.now());
        }
        self.take_turn(job, slot, Some((tries, held)));
    }

    /// A push wants a permit of its lane.
    fn take_turn(&mut self, job: Box<PushJob>, slot: RateSlot, moved: Option<(Tries, Option<u64>)>) {
        let number = self.next_waiter;
        self.next_waiter += 1;
        match self.policy.take_turn(job.lane, &job.sender, || number) {
            Turn::Now => self.moved(job, slot, moved),
            Turn::Waiting(ticket, displaced) => {
                let waiting = Waiting {
                    job,
                    slot,
                    ticket,
                    moved,
                };
                self.waiting.insert(number, waiting);
                self.displace(displaced);
            }
            Turn::Full => self.without_permit(job, slot, moved),
        }
    }

    /// A push that waited has its permit.
    fn moved(&mut self, job: Box<PushJob>, slot: RateSlot, moved: Option<(Tries, Option<u64>)>) {
        let Some((tries, held)) = moved else {
            return self.fly(job, slot, None, 0);
        };
        self.tell(|| format!("{} goes on in {:?}", job.push.token.as_str(), job.lane));
        self.flights.push(Flight {
            job,
            slot,
            tries,
            generation: self.policy.generation(),
            held,
        });
    }

    /// A push got no permit in time.
    fn without_permit(&mut self, job: Box<PushJob>, slot: RateSlot, moved: Option<(Tries, Option<u64>)>) {
        let Some((mut tries, held)) = moved else {
            return self.policy.give_back(slot);
        };
        let now = self.now();
        let resume = tries.no_permit(now, 0.5);
        match held {
            Some(number) => {
                let end = self
                    .policy
                    .held_ended(number, slot, &Ended::Failed { resume }, now);
                if let Some(end) = end {
                    self.held_ended(end);
                }
            }
            None => self.failed(job, slot, resume),
        }
    }

    /// Another one has taken the place of one that waited.
    fn displace(&mut self, displaced: Option<u64>) {
        if let Some(displaced) = displaced {
            let waiting = self.waiting.remove(&displaced).expect("it waited");
            self.without_permit(waiting.job, waiting.slot, waiting.moved);
        }
    }

    fn fly(&mut self, job: Box<PushJob>, slot: RateSlot, held: Option<u64>, attempts: u32) {
        self.tell(|| {
            format!(
                "{} goes out in {:?}, held: {held:?}",
                job.push.token.as_str(),
                job.lane
            )
        });
        let token = number_of(job.push.token.as_str());
        if held.is_some() {
            let silence = self.silences.get(&token);
            assert!(
                silence.is_none_or(|until| *until <= self.millis + TICK),
                "token {token} gets a push, and its provider wants silence"
            );
        }
        // What was never tried is tried once, however late its turn comes.
        if attempts > 0 && matches!(job.lane, LaneId::Main | LaneId::Second) {
            let worth_until = self.worth_until(token, job.push.class);
            assert!(
                self.millis < worth_until + TICK,
                "token {token} gets a push that was worth something until {worth_until} ms"
            );
        }
        let patience = if held.is_some() {
            self.now()
        } else {
            job.push.deadline
        };
        self.flights.push(Flight {
            job,
            slot,
            tries: Tries::new(patience, attempts),
            generation: self.policy.generation(),
            held,
        });
    }

    fn grant(&mut self) {
        let now = self.now();
        while let Some(grant) = self.policy.grant(now) {
            match grant {
                Grant::Waiter(number) => {
                    let waiting = self.waiting.remove(&number).expect("it waited");
                    self.moved(waiting.job, waiting.slot, waiting.moved);
                }
                Grant::Down(number) => {
                    let waiting = self.waiting.remove(&number).expect("it waited");
                    match waiting.moved {
                        Some(_) => self.without_permit(waiting.job, waiting.slot, waiting.moved),
                        None => self.failed(waiting.job, waiting.slot, now),
                    }
                }
                Grant::Held(attempt) => {
                    self.fly(attempt.job, attempt.slot, Some(attempt.number), attempt.attempts);
                }
                Grant::Ended(_, end) => self.held_ended(end),
            }
        }
    }

    /// A push whose attempts have ended without an answer.
    fn failed(&mut self, job: Box<PushJob>, slot: RateSlot, resume: Instant) {
        let (now, lane, failed) = (self.now(), job.lane, job.clone());
        match self.policy.failed(job, slot, resume, now) {
            Failed::Held(number) => {
                self.has_acknowledged(&failed);
                self.acknowledged += 1;
                self.held_in.insert(number, lane);
            }
            Failed::Covered => {
                self.has_acknowledged(&failed);
                self.acknowledged += 1;
                self.ended += 1;
            }
            Failed::Refused(outcome) => self.tell(|| format!("refused: {outcome:?}")),
        }
    }

    /// Everything that a driver does after each call.
    fn carry_out(&mut self) {
        let (now, clocks) = (self.now(), self.clocks());
        let mut wanted = mem::take(&mut self.wanted);
        wanted.extend(self.policy.take_wanted());
        for number in wanted {
            match self.random.below(4) {
                0 => self.unreadable.push(number),
                1 => self.wanted.push(number),
                _ => {
                    let job = self.disk.get(&number).map(|record| {
                        Policy::<u64>::job_of(record.clone(), self.recipient(record), &hasher(), clocks)
                    });
                    self.policy.loaded(number, job, now);
                    self.grant();
                }
            }
        }
        for change in self.policy.take_changes() {
            if let HeldChange::Put(number, _) = change {
                self.policy.written(number);
            }
            change.apply(&mut self.disk);
        }
        for (token, end) in self.policy.take_ended() {
            assert!(
                !matches!(end, HeldEnd::Lost(_)) || self.is_worth_nothing(token),
                "a push is given up before its time"
            );
            self.held_ended(end);
        }
    }

    /// Whether something that was acknowledged for a token is worth nothing any more.
    fn is_worth_nothing(&self, token: Fingerprint) -> bool {
        let is_over = |all: &Vec<u64>| {
            all.first()
                .is_some_and(|at| at + HOLD_FOR <= self.millis + ROUNDED + self.unnoticed)
        };
        let mut published = self.published.iter();
        published.any(|((number, _), all)| {
            is_over(all) && hasher().fingerprint(&format!("token {number}")) == token
        })
    }

    fn held_ended(&mut self, end: HeldEnd) {
        self.tell(|| format!("an acknowledged push ended: {end:?}"));
        self.ended += 1;
        self.lost += u64::from(matches!(end, HeldEnd::Lost(_)));
    }

    /// The right time, in milliseconds since 1970.
    fn true_wall(&self) -> u64 {
        WORLD_BEGINS + self.millis
    }

    fn answer_of_provider(&mut self, token: u64, lane: LaneId) -> Result<(), PushError> {
        let weather = match (self.second, lane) {
            (Some(second), LaneId::Second) => second,
            (Some(_) | None, _) => self.weather,
        };
        let is_home = self.second.is_none() || lane == Self::true_home(token);
        let failed = match weather {
            Weather::Fine | Weather::Odd if !is_home => PushError::TokenDoubted,
            Weather::Fine => match self.gone.get(&token) {
                None => return Ok(()),
                Some(gone) => PushError::TokenGone {
                    since: self.random.one_in(2).then_some(*gone),
                },
            },
            Weather::Gone => PushError::TokenGone { since: None },
            Weather::Wrong => PushError::TokenDoubted,
            Weather::Away => PushError::Later { after: None },
            Weather::Odd => match self.random.below(10) {
                9 => PushError::TooMany {
                    pause: Duration::from_secs(60),
                },
                8 => PushError::TokenUnserved,
                0 => PushError::TokenBusy,
                1 => PushError::Reconnected,
                2 => PushError::Renewed,
                3 => PushError::TooLarge,
                4 => PushError::Unexplained,
                5 => PushError::Misconfigured,
                6 => PushError::Pause {
                    length: Duration::from_secs(60),
                    alarm: true,
                },
                _ => return Ok(()),
            },
        };
        Err(failed)
    }

    /// The provider answers one of the pushes that are there.
    fn answer(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.random.below(self.flights.len() as u64) as usize;
        let mut flight = self.flights.swap_remove(at);
        let token = number_of(flight.job.push.token.as_str());
        let alive = !self.gone.contains_key(&token);
        let lane = flight.job.lane;
        let answer = self.answer_of_provider(token, lane);
        self.tell(|| format!("{} in {lane:?}: {answer:?}", flight.job.push.token.as_str()));
        let failure = answer
            .err()
            .map(|error| Failure::new(error, "reason", "answer", ""));
        let (now, generation) = (self.now(), flight.generation);
        let is_current = generation == self.policy.generation();
        let goes = is_current && self.goes_at_once(token, answer.as_ref().err());
        let result = failure.as_ref().map_or(Ok(()), Err);
        let answered = self
            .policy
            .answered(&mut flight.job, &mut flight.tries, result, generation, now, 0.5);
        // It may have been dead before, and asked for once more.
        let stays_dead = answered.next == Next::Ended(Ended::Settled(Outcome::TokenDead));
        assert!(
            !goes || stays_dead || matches!(answered.next, Next::Dead { .. }),
            "token {token} is dead, its lane is calm, and it is kept"
        );
        assert!(
            is_current || result.is_ok() || answered.next == Next::Again,
            "what was said to other settings counts"
        );
        if let (true, Err(PushError::Pause { length, .. } | PushError::TooMany { pause: length })) =
            (is_current, &answer)
        {
            let until = self.millis + length.as_millis() as u64;
            self.pauses.insert(lane, until);
        }
        if let Err(
            PushError::TokenGone { .. }
            | PushError::TokenDoubted
            | PushError::TokenUnserved
            | PushError::Unexplained,
        ) = &answer
        {
            self.doubted.insert(token, self.millis);
        }
        if is_current {
            let is_word =
                |error: &PushError| matches!(error, PushError::TokenGone { .. } | PushError::TokenDoubted);
            match &answer {
                Ok(()) => drop(self.answers.accepted.insert(token, self.millis)),
                Err(error) if is_word(error) => drop(self.answers.rejected.insert(token, self.millis)),
                Err(_) => {}
            }
        }
        let ended = match answered.next {
            Next::Elsewhere => {
                assert!(self.second.is_some(), "there is no other lane");
                self.policy.give_back_permit(lane);
                self.go_on_elsewhere(flight);
                return self.grant();
            }
            Next::Again | Next::After { .. } => {
                flight.generation = self.policy.generation();
                self.flights.push(flight);
                return;
            }
            Next::Dead { .. } => {
                let queued = self.queued_for(token, flight.held);
                let (outcome, dropped) = self.policy.registry_said(&flight.job, Ok(true), now);
                assert!(
                    outcome != Outcome::TokenDead || dropped >= queued,
                    "token {token} is dead, and of {queued} queued pushes {dropped} go"
                );
                (0..dropped).for_each(|_| self.held_ended(HeldEnd::Dropped));
                let deaths = if alive {
                    &mut self.living_deaths
                } else {
                    &mut self.gone_deaths
                };
                *deaths += u64::from(outcome == Outcome::TokenDead);
                Ended::Settled(outcome)
            }
            Next::Ended(ended) => ended,
        };
        if ended == Ended::Busy {
            self.silences.insert(token, self.millis + SILENCE);
        }
        match flight.held {
            Some(number) => {
                // A newer one may have its number now.
                self.held_in.remove(&number);
                let end = self.policy.held_ended(number, flight.slot, &ended, now);
                if let Some(end) = end {
                    self.held_ended(end);
                }
            }
            None => match ended {
                Ended::Settled(Outcome::Accepted) => {}
                Ended::Settled(_) => self.policy.give_back(flight.slot),
                Ended::Failed { resume } => self.failed(flight.job, flight.slot, resume),
                Ended::Busy => match self.policy.busy(flight.job.clone(), flight.slot, now) {
                    Busy::Held(number) => {
                        self.has_acknowledged(&flight.job);
                        self.acknowledged += 1;
                        self.held_in.insert(number, lane);
                    }
                    Busy::Covered => {
                        self.acknowledged += 1;
                        self.ended += 1;
                    }
                    Busy::Refused => {}
                },
            },
        }
        self.policy.give_back_permit(lane);
        self.grant();
    }

    /// How many pushes wait for their time since the last start that are for a token, beside this one.
    fn queued_for(&self, token: u64, beside: Option<u64>) -> usize {
        let waiting = self
            .waiting
            .values()
            .filter_map(|waiting| waiting.moved.as_ref()?.1);
        let flights = self.flights.iter().filter_map(|flight| flight.held);
        let under_way: BTreeSet<_> = waiting.chain(flights).chain(beside).collect();
        let records = self.disk.iter().filter(|(number, record)| {
            let waits = self.held_in.contains_key(number) && !under_way.contains(number);
            record.due > 0 && waits && number_of(record.token()) == token
        });
        records.count()
    }

    /// Whether there is no doubt that a token is dead of which the provider says so now. Ten go without doubt; more only where the lane
    /// usually rejects few, too, which a young one cannot show.
    fn goes_at_once(&self, token: u64, error: Option<&PushError>) -> bool {
        let is_past = |since: Option<u64>| {
            let wall = self.true_wall().saturating_add_signed(self.jumped);
            since.is_none_or(|since| since <= wall)
        };
        !self.has_lanes
            && self.second.is_none()
            && self.always_fine
            && self.gone.contains_key(&token)
            && self.answers.are_calm(self.millis)
            && self.gone_deaths < AT_LEAST
            && matches!(error, Some(PushError::TokenGone { since }) if is_past(*since))
    }

    /// One that waits has waited too long.
    fn give_up_waiting(&mut self) {
        if let Some((_, waiting)) = self.waiting.pop_first() {
            self.policy.leave(waiting.job.lane, &waiting.ticket);
            self.without_permit(waiting.job, waiting.slot, waiting.moved);
        }
    }

    /// What is written down is all that the next one knows.
    fn restart(&mut self) {
        self.tell(|| "restart".to_owned());
        self.answers.accepted.clear();
        self.started = self.millis;
        let clocks = self.clocks();
        let blocks = all(0, |from| self.policy.blocks(from, clocks));
        let held = self.disk.clone();
        let verdicts = all(VerdictPlace::default(), |from| {
            self.policy.verdicts(from, clocks.now)
        });
        let homes = all(0, |from| self.policy.homes(from));
        assert_eq!(held.len(), self.policy.held());
        self.policy = Policy::new(settings(), 1, clocks);
        self.policy.remember_homes(homes);
        self.policy.remember(blocks, verdicts, clocks);
        self.policy.begin_noting(0);
        self.wanted.clear();
        self.unreadable.clear();
        self.held_in.clear();
        self.silences.clear();
        for (number, record) in held {
            let recipient = self.recipient(&record);
            match self
                .policy
                .remember_held(number, record, recipient, &hasher(), clocks)
            {
                Remembered::Held => {}
                Remembered::Full | Remembered::Expired => {
                    self.disk.remove(&number);
                    self.held_ended(HeldEnd::Lost(Outcome::ProviderUnavailable));
                }
            }
        }
        self.carry_out();
        self.flights.clear();
        self.waiting.clear();
    }

    /// Time passes. The policy is asked when it wants to be, and not otherwise, as a driver does.
    fn pass(&mut self, millis: u64) {
        let until = self.millis + millis;
        for number in mem::take(&mut self.unreadable) {
            self.policy.not_loaded(number);
        }
        let mut stands = 0;
        loop {
            let timer = self.policy.next_timer(self.now());
            let due = timer.map(|timer| {
                let nanos = timer.saturating_duration_since(self.base.now).as_nanos();
                u64::try_from(nanos.div_ceil(1_000_000)).expect("not that far away")
            });
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            self.millis = due.max(self.millis);
            let (now, held) = (self.now(), self.policy.held());
            while self.policy.make_due(now) {}
            self.carry_out();
            self.grant();
            self.carry_out();
            let next = self.policy.next_timer(now);
            // What has expired is given up a part at a time, and what is held is read one after the other.
            stands = if next.is_none_or(|next| next > now) {
                0
            } else {
                stands + 1
            };
            assert!(stands <= held, "the timer does not move");
        }
        self.millis = until;
        let clocks = self.clocks();
        self.policy.follow_clock(clocks);
        self.check_second();
    }

    /// What is held for the second lane goes out when it is due, however the main lane is.
    fn check_second(&self) {
        let in_flight = |flight: &&Flight| flight.job.lane == LaneId::Second;
        if self.flights.iter().filter(in_flight).count() >= PERMITS || self.may_pause(LaneId::Second) {
            return;
        }
        let waits = |number: &u64| self.flights.iter().all(|flight| flight.held != Some(*number));
        let of_second = self.held_in.iter().filter(|(_, lane)| **lane == LaneId::Second);
        for number in of_second.map(|(number, _)| number).filter(|number| waits(number)) {
            let due = self.disk.get(number).map_or(0, |record| record.due);
            let due = due
                .saturating_add_signed(-self.jumped)
                .saturating_sub(WORLD_BEGINS);
            assert!(
                due == 0 || self.millis <= due + 1_000 + self.unnoticed,
                "push {number} was due {} ms ago, and nothing is in its way",
                self.millis - due
            );
        }
    }

    /// Time passes until a held push is worth nothing any more, more or less.
    fn pass_to_an_end(&mut self) {
        let at = self.random.below(self.disk.len().max(1) as u64) as usize;
        let Some(end) = self.disk.values().nth(at).and_then(|record| record.give_up) else {
            return;
        };
        let end = end
            .saturating_add_signed(-self.jumped)
            .saturating_sub(WORLD_BEGINS);
        let Some(left) = end.checked_sub(self.millis).filter(|left| *left <= HOLD_FOR) else {
            return;
        };
        let early = self.random.below(120_000);
        self.pass(left.saturating_sub(early));
        for _ in 0..self.random.below(12) {
            self.answer();
            self.check();
        }
        let late = [1, 100, 40_000][self.random.below(3) as usize];
        let late = self.random.below(late);
        self.pass((end + late).saturating_sub(self.millis));
    }

    fn reload(&mut self) {
        self.tell(|| "reload".to_owned());
        let now = self.now();
        self.policy.configure(settings(), 1, now);
        self.grant();
    }

    /// Somebody sets the wall clock, or sets it right.
    fn jump(&mut self) {
        let furthest = [7_200_000, 2 * DAY][self.random.below(2) as usize];
        let before = self.jumped;
        self.jumped = if self.random.one_in(2) {
            0
        } else {
            self.random.below(2 * furthest).cast_signed() - furthest.cast_signed()
        };
        let step = self.jumped.abs_diff(before);
        self.unnoticed += if step <= JUMP { step } else { 0 };
        self.tell(|| format!("the clock is wrong by {} ms", self.jumped));
        self.answers.accepted.clear();
        let clocks = self.clocks();
        self.policy.follow_clock(clocks);
    }

    fn step(&mut self) {
        match self.random.below(1_000) {
            0..400 => self.publish(),
            400..780 => self.answer(),
            780..786 => self.pass_to_an_end(),
            786 if self.second.is_none() => self.flood(),
            786..960 => {
                let longest = [10, 1_000, 30_000, 900_000][self.random.below(4) as usize];
                let millis = 1 + self.random.below(longest);
                self.pass(millis);
            }
            960..980 => self.give_up_waiting(),
            980..984 => self.restart(),
            984..986 => self.reload(),
            986..988 => self.jump(),
            _ => {
                let is_second = self.second.is_some() && self.random.one_in(2);
                let all = [Weather::Gone, Weather::Wrong, Weather::Away, Weather::Odd];
                let next = all[self.random.below(4) as usize];
                let weather = match &mut self.second {
                    Some(second) if is_second => second,
                    Some(_) | None => &mut self.weather,
                };
                *weather = if *weather == Weather::Fine {
                    next
                } else {
                    Weather::Fine
                };
                self.always_fine = false;
                self.tell(|| format!("{:?}, second: {:?}", self.weather, self.second));
            }
        }
    }

    fn check(&mut self) {
        self.carry_out();
        assert_eq!(
            self.disk.len(),
            self.policy.held(),
            "what is held is written down"
        );
        assert_eq!(
            self.acknowledged,
            self.ended + self.policy.held() as u64,
            "nothing vanishes"
        );
        assert_eq!(self.policy.lengths(), (self.flights.len(), self.waiting.len()));
        let mut out = BTreeMap::new();
        for flight in &self.flights {
            // Strangers' servers have some permits together.
            let lane = match flight.job.lane {
                LaneId::Origin(_) => None,
                lane => Some(lane),
            };
            *out.entry(lane).or_insert(0) += 1;
        }
        assert!(out.values().all(|out| *out <= PERMITS), "{out:?}");
    }

    /// The provider is well, and everything that is held goes out.
    fn end_well(&mut self) {
        self.weather = Weather::Fine;
        self.second = self.second.map(|_| Weather::Fine);
        for _ in 0..100_000 {
            if self.policy.held() == 0 && self.flights.is_empty() && self.waiting.is_empty() {
                return;
            }
            if self.flights.is_empty() {
                self.pass(10_000);
            } else {
                self.answer();
            }
            self.check();
        }
        panic!("{} are held for ever", self.policy.held());
    }
}

fn number_of(token: &str) -> u64 {
    token.trim_start_matches("token ").parse().expect("a number")
}

fn run(seed: u64, told: bool) -> World {
    // With few of them, pushes for one meet each other.
    let tokens = if seed.is_multiple_of(2) { 300 } else { 20 };
    let mut world = World::new(seed, tokens, told);
    match seed % 6 {
        2 | 3 => world.has_lanes = true,
        4 | 5 => world.second = Some(Weather::Fine),
        _ => {}
    }
    for _ in 0..3_000 {
        world.step();
        world.check();
    }
    world.end_well();
    world
}

/// A provider that is well, devices that die, restarts, reloads and a clock that jumps.
fn run_fine(seed: u64, told: bool) -> World {
    let mut world = World::new(seed, 200, told);
    for _ in 0..3_000 {
        match world.random.below(1_000) {
            0..450 => world.publish(),
            450..880 => world.answer(),
            880..970 => {
                let longest = [10, 1_000, 60_000][world.random.below(3) as usize];
                let millis = 1 + world.random.below(longest);
                world.pass(millis);
            }
            970..980 => world.restart(),
            980..990 => world.jump(),
            990..993 => world.reload(),
            _ => {
                let (token, now) = (world.random.below(world.tokens), world.true_wall());
                world.gone.entry(token).or_insert(now);
                world.tell(|| format!("the device of token {token} dies"));
            }
        }
        world.check();
    }
    assert_eq!(world.living_deaths, 0);
    world.end_well();
    world
}

/// Runs the one seed that is asked for with all that happens, or usually so many. Of more seeds one in `one_in` is run, because
/// some worlds are longer than others.
fn for_seeds(usual: u64, one_in: u64, run: fn(u64, bool) -> World, mut then: impl FnMut(World)) {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("FPUSH_SEED") {
        return then(run(seed, true));
    }
    let first = number("FPUSH_FIRST_SEED").unwrap_or(0);
    for seed in first..first + number("FPUSH_SEEDS").map_or(usual, |seeds| seeds.div_ceil(one_in)) {
        match std::panic::catch_unwind(|| run(seed, false)) {
            Ok(world) => then(world),
            Err(_) => panic!("seed {seed}: FPUSH_SEED={seed} shows the way there"),
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_vanishes_and_no_permit_is_lost() {
    let (mut lost, mut acknowledged) = (0, 0);
    for_seeds(100, 1, run, |world| {
        lost += world.lost;
        acknowledged += world.acknowledged;
    });
    assert!(
        acknowledged > 0 && lost < acknowledged,
        "{lost} of {acknowledged}"
    );
}

#[test]
fn a_dead_device_goes_at_once_while_its_lane_is_calm() {
    let (mut worlds, mut deaths) = (0, 0);
    for_seeds(100, 1, run_fine, |world| {
        worlds += 1;
        deaths += world.gone_deaths;
    });
    assert!(deaths >= worlds, "{deaths} in {worlds} worlds");
}

/// So many random steps in this weather.
fn phase(world: &mut World, weather: Weather, second: Option<Weather>, steps: u32, longest_pause: u64) {
    (world.weather, world.second) = (weather, second);
    world.always_fine &= weather == Weather::Fine;
    for _ in 0..steps {
        match world.random.below(10) {
            0..4 => world.publish(),
            4..9 => world.answer(),
            _ => {
                let millis = world.random.below(longest_pause);
                world.pass(millis);
            }
        }
        world.check();
    }
}

/// A fine lane, one incident of up to ten days, and fine again. With two lanes it is in one of them, or in both. Living
/// devices die only where a provider calls them dead, which is beyond doubt: ten of each lane that does. That they are wrong
/// is believed of none.
fn run_incident(seed: u64, told: bool) -> World {
    use Weather::{Fine, Gone, Wrong};
    let mut world = World::new(seed, 300, told);
    let fine = (seed % 4 >= 2).then_some(Fine);
    phase(&mut world, Fine, fine, 5_000, 200_000);
    assert_eq!(world.living_deaths, 0, "before the incident");
    assert!(world.gone.is_empty() || world.gone_deaths > 0);
    let incident = if seed.is_multiple_of(2) { Gone } else { Wrong };
    let (main, second) = match (fine, seed % 3) {
        (None, _) => (incident, None),
        (Some(_), 0) => (incident, fine),
        (Some(_), 1) => (Fine, Some(incident)),
        (Some(_), _) => (incident, Some(incident)),
    };
    phase(&mut world, main, second, 20_000, 900_000);
    phase(&mut world, Fine, fine, 2_000, 200_000);
    let lanes = [Some(main), second].into_iter().flatten();
    let most = 10 * lanes.filter(|weather| *weather == Gone).count() as u64;
    assert!(
        world.living_deaths <= most,
        "{} living devices die",
        world.living_deaths
    );
    world
}

#[test]
fn an_incident_costs_ten_devices_at_most_and_gone_devices_go() {
    for_seeds(72, 10, run_incident, |_| {});
}

/// Of two lanes neither alone is believed, whatever it says and for however long.
fn run_one_lane(seed: u64, told: bool) -> World {
    use Weather::{Away, Fine, Gone, Wrong};
    let mut world = World::new(seed, 300, told);
    phase(&mut world, Fine, Some(Fine), 5_000, 200_000);
    assert_eq!(world.living_deaths, 0, "before the incident");
    let word = if seed.is_multiple_of(2) { Gone } else { Wrong };
    // What is under way has been answered by both already, as far as it was asked.
    while !world.flights.is_empty() {
        world.answer();
    }
    let before = (world.living_deaths, world.gone_deaths);
    if seed % 4 >= 2 {
        phase(&mut world, word, Some(Away), 20_000, 900_000);
    } else {
        phase(&mut world, Away, Some(word), 20_000, 900_000);
    }
    assert_eq!((world.living_deaths, world.gone_deaths), before);
    phase(&mut world, Fine, Some(Fine), 2_000, 200_000);
    // What one lane said at the end is weighed when the other one has answered.
    let most = if word == Gone { 10 } else { 0 };
    assert!(
        world.living_deaths <= most,
        "{} living devices die",
        world.living_deaths
    );
    world.end_well();
    world
}

#[test]
fn while_one_lane_is_away_the_other_ends_nobody() {
    for_seeds(16, 10, run_one_lane, |_| {});
}

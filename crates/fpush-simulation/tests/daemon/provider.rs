//! The providers: what they answer, and what they see.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use fpush_push::{
    BackendStatus, Class, Failure, Fingerprint, LaneId, Push, PushError, PushTrait, Receiver, Sending,
    TokenHasher, Urgency, Verifying,
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{
    books::{Books, HOUR, Millis, SECOND, Shared},
    daemon::ModuleValue,
    device::Kind,
    notifications::number_of,
    random::Random,
    stanzas::clients_of,
};

/// How a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// It calls living tokens dead.
    Gone,
    /// It calls living tokens wrong.
    Wrong,
    /// It calls every third one wrong, as if an app named the wrong module.
    WrongForSome,
    /// It is unwell.
    Away,
    /// It says nothing.
    Silent,
    /// It ends connections.
    Resets,
    /// It gives all the answers that there are.
    Odd,
    /// It refuses the module.
    Refuses,
}

/// An app at its provider.
pub(crate) struct App {
    pub(crate) kind: Kind,
    /// Whether its tokens are of several lanes, as those of Web Push are.
    pub(crate) has_lanes: bool,
    pub(crate) weather: Weather,
    /// Since when it is as it is.
    pub(crate) since: Millis,
    /// Since when it could have been as a device needs it for an ordinary push.
    pub(crate) fine_since: Millis,
    /// How long it takes to answer, at most.
    pub(crate) slowness: Millis,
    pub(crate) tokens: Vec<TokenTruth>,
    by_text: BTreeMap<String, usize>,
    /// Living devices that were answered as dead, since its last incident began, and by whose words.
    pub(crate) deaths: Vec<(usize, Words)>,
    /// Whether it ever called living tokens dead.
    pub(crate) had_incident: bool,
    under_way: BTreeMap<String, usize>,
    most_under_way: BTreeMap<String, usize>,
    instances: BTreeMap<String, u64>,
    /// What was said against tokens that are nobody's.
    strangers: BTreeMap<String, Heard>,
    /// When a notification was last accepted, by lane, and by domain where each has its own.
    notified: BTreeMap<(LaneId, String), Millis>,
}

/// What its words are weighed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Everything that is said in the lane.
    OfAll,
    /// Where strangers choose servers, what is said of notifications, for which their senders sign themselves.
    OfNotifications,
}

/// A word of a provider that one of our modules has heard. Another module of the same app knows nothing of it.
#[derive(Clone, Copy)]
pub(crate) struct Heard {
    by: &'static str,
    at: Millis,
}

pub(crate) struct TokenTruth {
    pub(crate) text: String,
    /// Since when its device is gone.
    pub(crate) gone: Option<Millis>,
    /// The last word against it that should keep pushes from it for a while.
    pub(crate) blocked: Option<Heard>,
    /// When it was called wrong, since its last accepted push.
    pub(crate) wrong: Vec<Millis>,
    /// When its provider last called it too busy.
    pub(crate) busy: Option<Millis>,
    /// The last word against it that may keep pushes from it for a while.
    pub(crate) doubted: Option<Millis>,
}

/// A push that was seen at the provider.
pub(crate) struct Seen {
    id: Uuid,
    first: Millis,
    /// Whether fpush has heard that it failed, or cannot know of it any more.
    pub(crate) is_over: bool,
}

impl App {
    pub(crate) fn new(kind: Kind, tokens: usize, random: &mut Random) -> Self {
        let mut app = Self {
            kind,
            has_lanes: false,
            weather: Weather::Fine,
            since: 0,
            fine_since: 0,
            slowness: 1 + random.below(300),
            tokens: Vec::new(),
            by_text: BTreeMap::new(),
            deaths: Vec::new(),
            had_incident: false,
            under_way: BTreeMap::new(),
            most_under_way: BTreeMap::new(),
            instances: BTreeMap::new(),
            strangers: BTreeMap::new(),
            notified: BTreeMap::new(),
        };
        for number in 0..tokens {
            let text = kind.token(random);
            app.by_text.insert(text.clone(), number);
            app.tokens.push(TokenTruth {
                text,
                gone: None,
                blocked: None,
                wrong: Vec::new(),
                busy: None,
                doubted: None,
            });
        }
        app
    }

    pub(crate) fn set_weather(&mut self, weather: Weather, now: Millis) {
        if weather == Weather::Gone && self.weather != Weather::Gone {
            self.deaths.clear();
            self.had_incident = true;
        }
        (self.weather, self.since) = (weather, now);
        self.fine_since = now;
    }

    /// The lane of a token: two vendors, and four servers that strangers have chosen.
    pub(crate) fn lane(&self, token: &str) -> LaneId {
        let sum = token.bytes().map(u64::from).sum::<u64>();
        match sum % 8 {
            _ if !self.has_lanes => LaneId::Main,
            0 | 1 => LaneId::Vendor(0),
            2 | 3 => LaneId::Vendor(1),
            server => LaneId::Origin(Fingerprint::from_parts([server, server])),
        }
    }

    /// Whether the server of a token is one that a stranger has chosen.
    pub(crate) fn is_strangers(&self, token: usize) -> bool {
        self.lane(&self.tokens[token].text).is_strangers()
    }

    /// Living devices of a token's lane that were answered as dead, since the last incident began.
    pub(crate) fn deaths_beside(
        &self,
        token: usize,
        words: Words,
        token_of: impl Fn(usize) -> usize,
    ) -> usize {
        let lane = |token: usize| self.lane(&self.tokens[token].text);
        let deaths = self.deaths.iter();
        deaths
            .filter(|(device, of)| *of == words && lane(token_of(*device)) == lane(token))
            .count()
    }

    /// What counts against tokens, if something is said of a notification, or else of a publish.
    pub(crate) fn words_of(&self, is_notification: bool) -> Words {
        if is_notification && self.has_lanes {
            Words::OfNotifications
        } else {
            Words::OfAll
        }
    }

    /// A notification that a domain sent to a token was accepted.
    pub(crate) fn accepted_notification(&mut self, token: usize, domain: String, now: Millis) {
        let way = self.way(token, domain);
        self.notified.insert(way, now);
    }

    /// Whether one was accepted where one for this token goes, before another one arrived, and since the provider is well.
    pub(crate) fn has_accepted_notification(&self, token: usize, domain: &str, arrived: Millis) -> bool {
        let way = self.way(token, domain.to_owned());
        let at = self.notified.get(&way);
        at.is_some_and(|at| self.fine_since <= *at && *at < arrived)
    }

    fn way(&self, token: usize, domain: String) -> (LaneId, String) {
        match self.lane(&self.tokens[token].text) {
            LaneId::Main => (LaneId::Main, String::new()),
            lane => (lane, domain),
        }
    }

    fn is_current(&self, backend: &Backend) -> bool {
        self.instances.get(backend.module) == Some(&backend.instance)
    }

    /// The daemon has started again. Where the clock was set meanwhile, a block that ran lasts as long again.
    pub(crate) fn keep_doubts(&mut self, now: Millis) {
        for token in &mut self.tokens {
            if token.is_doubted(now) {
                token.doubted = Some(now);
            }
        }
    }

    /// The daemon has started again, or gone on with what it did not know: blocks that were not written down are forgotten.
    pub(crate) fn forget_blocks(&mut self, since: Millis) {
        for token in &mut self.tokens {
            token.blocked = token.blocked.filter(|heard| heard.at < since);
        }
        self.strangers.retain(|_, heard| heard.at < since);
    }
}

impl TokenTruth {
    /// Whether the provider said something against it for which it may be left alone yet.
    pub(crate) fn is_doubted(&self, now: Millis) -> bool {
        self.doubted.is_some_and(|at| now < at + LONGEST_BLOCK)
    }
}

/// The backend of a module.
pub(crate) struct Backend {
    pub(crate) books: Shared,
    pub(crate) module: &'static str,
    pub(crate) app: usize,
    pub(crate) kind: Kind,
    pub(crate) credential: u128,
    /// Which one of the run it is: what one says that was replaced meanwhile is not heard.
    pub(crate) instance: u64,
}

/// An attempt under way; one that is dropped is over.
struct Attempt<'a> {
    backend: &'a Backend,
    device: Option<usize>,
    push: &'a Push,
    /// The number of its request, if it is a notification.
    number: Option<u64>,
    /// When its publish arrived, or when it was let out of the hold queue.
    arrived: Millis,
}

impl<'a> Attempt<'a> {
    fn begin(backend: &'a Backend, push: &'a Push) -> Self {
        let mut books = backend.books.lock();
        books.counts.attempts += 1;
        let started = books.now();
        let token = push.token.as_str();
        let app = &mut books.apps[backend.app];
        let under_way = app.under_way.entry(backend.module.to_owned()).or_default();
        *under_way += 1;
        let number = number_of(push);
        let (under_way, most) = (*under_way, app.most_under_way.get(backend.module).copied());
        let place = app.by_text.get(token).copied();
        let shares_blocks = number.is_none() || !app.has_lanes;
        let blocked = match place {
            _ if !shares_blocks => None,
            Some(place) => app.tokens[place].blocked,
            None => app.strangers.get(token).copied(),
        };
        let account = push.extra.as_ref().and_then(|extra| extra.account.as_deref());
        if let Some(number) = number {
            books.notification_goes_out(number, backend.app, place);
        }
        let device = place.filter(|_| number.is_none()).and_then(|token| {
            let mut devices = books.with_token(backend.app, token).into_iter();
            devices.find(|device| books.devices[*device].account() == account)
        });
        let who = device.map_or_else(
            || match number {
                Some(number) => format!("r{number}"),
                None => "a stranger's token".to_owned(),
            },
            |device| format!("device {device}"),
        );
        books.tell(&format!(
            "{}: attempt {} for {who}, {:?}, {:?}",
            backend.module, push.id, push.class, push.form
        ));
        if most.is_some_and(|most| under_way > most) {
            books.fail(format!(
                "{}: {under_way} at the provider, {most:?} are allowed",
                backend.module
            ));
        }
        let left = push.deadline.saturating_duration_since(Instant::now().into_std());
        let left = left.as_millis() as Millis;
        // What finds out whether a provider is back has less time, from when it is let out.
        if left == PROBE {
            books.ledger.probes.insert(push.id);
        }
        let is_probe = left <= PROBE && books.ledger.probes.contains(&push.id);
        let due_in = if is_probe { PROBE } else { REPLY_DUE };
        let arrived = (started + left).saturating_sub(due_in);
        let of_ours = blocked
            .filter(|heard| heard.by == backend.module)
            .map(|heard| heard.at);
        // Each start and each jump of the clock rounds its end.
        if let Some(blocked) = of_ours.filter(|at| *at < arrived && arrived + SECOND < at + BLOCK) {
            books.fail(format!(
                "{}: a push goes to {who} {} ms after its provider called it wrong",
                backend.module,
                arrived - blocked
            ));
        }
        if left == 0 {
            books.fail(format!(
                "{}: attempt {} begins when its time is over",
                backend.module, push.id
            ));
        }
        let is_first = books.ledger.seen_ids.insert(push.id);
        if let Some(device) = device.filter(|_| is_first) {
            books.spacing(device, push, started);
        }
        drop(books);
        Self {
            backend,
            device,
            push,
            number,
            arrived,
        }
    }

    /// How long the answer takes; `None` if there is none.
    fn latency(&self) -> Option<Duration> {
        let mut books = self.backend.books.lock();
        let Books { random, apps, .. } = &mut *books;
        let app = &apps[self.backend.app];
        let latency = match app.weather {
            Weather::Silent => return None,
            Weather::Odd if random.one_in(8) => return None,
            Weather::Odd => random.below(30 * SECOND),
            Weather::Away => random.below(2 * SECOND),
            Weather::Fine
            | Weather::Gone
            | Weather::Wrong
            | Weather::WrongForSome
            | Weather::Resets
            | Weather::Refuses => random.below(app.slowness),
        };
        Some(Duration::from_millis(latency))
    }

    fn answer(&self) -> Result<(), PushError> {
        let mut books = self.backend.books.lock();
        let now = books.now();
        let (place, wall) = (self.place(&books), books.registrations.true_wall(now));
        let Books { random, apps, .. } = &mut *books;
        let app = &apps[self.backend.app];
        let Some(place) = place else {
            if self.push.token.as_str().ends_with(ACCEPTED) && app.weather == Weather::Fine {
                return Ok(());
            }
            // It is nobody's, or another app's.
            return Err(PushError::TokenDoubted);
        };
        if let Some(gone) = app.tokens[place].gone {
            let since = random.one_in(2).then(|| wall - (now - gone));
            return Err(PushError::TokenGone { since });
        }
        let hiccup = |random: &mut Random| match random.below(14) {
            10 => Err(PushError::TooMany {
                pause: Duration::from_secs(60),
            }),
            9 => Err(PushError::TokenUnserved),
            0 => Err(PushError::TokenBusy),
            1 => Err(PushError::Reconnected),
            2 => Err(PushError::Renewed),
            3 => Err(PushError::TooLarge),
            4 => Err(PushError::Unexplained),
            5 => Err(PushError::Misconfigured),
            6 => Err(PushError::Pause {
                length: Duration::from_secs(60),
                alarm: random.one_in(2),
            }),
            7 => Err(PushError::Later {
                after: Some(Duration::from_secs(random.between(1, 90))),
            }),
            8 => Err(PushError::Later { after: None }),
            _ => Ok(()),
        };
        // What a stranger's own server says of its receivers is believed after an hour, whether it is true or not: here they
        // say of none that it is gone.
        let is_honest = app.lane(self.push.token.as_str()).is_strangers();
        match app.weather {
            Weather::Gone | Weather::Wrong | Weather::WrongForSome if is_honest => Ok(()),
            Weather::Fine if random.one_in(300) => Err(PushError::Reconnected),
            Weather::Fine => Ok(()),
            Weather::Gone => Err(PushError::TokenGone {
                since: match random.below(4) {
                    0 => Some(wall.saturating_sub(random.below(HOUR))),
                    1 => Some(wall + random.below(HOUR) + SECOND),
                    _ => None,
                },
            }),
            Weather::WrongForSome if place % 3 > 0 => Ok(()),
            Weather::Wrong | Weather::WrongForSome => Err(PushError::TokenDoubted),
            Weather::Away | Weather::Silent => Err(PushError::Later { after: None }),
            Weather::Resets => Err(PushError::Reconnected),
            Weather::Odd => hiccup(random),
            Weather::Refuses => Err(PushError::Pause {
                length: Duration::from_secs(60),
                alarm: true,
            }),
        }
    }

    fn place(&self, books: &Books) -> Option<usize> {
        books.apps[self.backend.app]
            .by_text
            .get(self.push.token.as_str())
            .copied()
    }

    /// Writes down what fpush hears.
    fn end(self, result: Result<(), PushError>) -> Result<(), Failure> {
        let mut books = self.backend.books.lock();
        let now = books.now();
        let place = self.place(&books);
        books.tell(&format!(
            "{}: {result:?} for {}",
            self.backend.module, self.push.id
        ));
        let registered = place.is_some_and(|place| books.is_registered(self.backend.app, place));
        let app = &books.apps[self.backend.app];
        let is_current = app.is_current(self.backend);
        // Where strangers choose servers, what is said of a notification says nothing of publishes.
        let speaks_for_all = self.number.is_none() || !app.has_lanes;
        // The token of one that came before its module had another app is known by what the former one made of it.
        let is_of_app = self.number.is_none() || books.replaced_at.is_none_or(|at| at < self.arrived);
        let heard = is_of_app.then_some(Heard {
            by: self.backend.module,
            at: now,
        });
        let known = place.filter(|_| speaks_for_all);
        let mut truth = known.map(|place| &mut books.apps[self.backend.app].tokens[place]);
        if let Some(truth) = &mut truth {
            let is_word = matches!(
                result,
                Err(PushError::TokenGone { .. }
                    | PushError::TokenDoubted
                    | PushError::TokenUnserved
                    | PushError::Unexplained)
            );
            if is_current && is_word {
                truth.doubted = Some(now);
            }
            match result {
                Ok(()) => (truth.blocked, truth.wrong) = (None, Vec::new()),
                Err(_) if !is_current => {}
                // A dead token blocks no registered device, and its registry may not know.
                Err(PushError::TokenGone { .. }) if registered => {}
                Err(PushError::TokenGone { .. } | PushError::Unexplained | PushError::TokenUnserved) => {
                    truth.blocked = heard.or(truth.blocked);
                }
                Err(PushError::TokenDoubted) => {
                    truth.blocked = heard.or(truth.blocked);
                    truth.wrong.push(now);
                }
                Err(PushError::TokenBusy | PushError::TooMany { .. }) => truth.busy = Some(now),
                Err(_) => {}
            }
        } else if let Some(heard) = heard
            && is_current
            && speaks_for_all
            && place.is_none()
            && matches!(result, Err(PushError::TokenDoubted))
        {
            let token = self.push.token.as_str().to_owned();
            books.apps[self.backend.app].strangers.insert(token, heard);
        }
        if result.is_ok() {
            // Other apps called it wrong, as another credential's.
            for app in &mut books.apps {
                app.strangers.remove(self.push.token.as_str());
            }
            books.counts.accepted += 1;
        }
        match (self.number, &result) {
            (Some(number), result) => books.notification_ended(number, result),
            (None, Err(PushError::TokenGone { .. } | PushError::TokenDoubted)) => {
                let token = self.push.token.as_str().to_owned();
                books.rejected.insert(token);
            }
            (None, _) => {}
        }
        if let Some(device) = self.device {
            books.answered(device, self.push, self.arrived, result.is_ok());
        }
        drop(books);
        result.map_err(|error| Failure::new(error, "reason", "an answer", "what it means"))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut books = self.backend.books.lock();
        let under_way = &mut books.apps[self.backend.app].under_way;
        if let Some(under_way) = under_way.get_mut(self.backend.module) {
            *under_way -= 1;
        }
    }
}

impl Books {
    /// A module has another backend.
    pub(crate) fn replaced(&mut self, value: &ModuleValue, instance: u64) {
        self.replaced_at = Some(self.now());
        // Those under way keep their permits, also those of lanes that another app has. The main lane has as many, each of two vendors,
        // and all others together.
        let has_lanes = self.apps.iter().any(|app| app.has_lanes);
        let lanes = if has_lanes { 4 } else { 1 };
        for app in &mut self.apps {
            app.instances.insert(value.name.to_owned(), instance);
            let most = app.most_under_way.entry(value.name.to_owned()).or_default();
            *most = (lanes * value.max_in_flight).max(*most);
            // What was said to another credential may be forgotten.
            app.forget_blocks(0);
        }
    }

    fn is_registered(&self, app: usize, token: usize) -> bool {
        let mut devices = self.with_token(app, token).into_iter();
        devices.any(|device| self.devices[device].account().is_some())
    }

    /// Between two pushes of a class to a device there is the time of its module, but for the wait of the first one for its
    /// permit, unless the first one failed.
    fn spacing(&mut self, device: usize, push: &Push, now: Millis) {
        let key = (device, push.class as u8);
        let least = self.ledger.spacing.saturating_sub(LONGEST_WAIT);
        match self.ledger.seen.get(&key) {
            Some(seen) if !seen.is_over && !self.ledger.is_stopping && now < seen.first + least => {
                let apart = now - seen.first;
                self.fail(format!("two pushes to device {device} go out within {apart} ms"));
            }
            Some(_) | None => {}
        }
        let seen = Seen {
            id: push.id,
            first: now,
            is_over: false,
        };
        self.ledger.seen.insert(key, seen);
    }

    fn answered(&mut self, device: usize, push: &Push, arrived: Millis, accepted: bool) {
        let key = (device, push.class as u8);
        if accepted {
            self.delivered(device, push.class, arrived);
        } else if let Some(seen) = self.ledger.seen.get_mut(&key).filter(|seen| seen.id == push.id) {
            seen.is_over = true;
        }
    }
}

impl PushTrait for Backend {
    fn canonical<'a>(&self, token: &'a str) -> Option<Cow<'a, str>> {
        self.kind.canonical(token).map(Cow::Owned)
    }

    fn receiver(&self, client: &str, _call: bool) -> Option<Receiver> {
        let token = client.strip_prefix(&clients_of(self.app))?;
        Some(Receiver {
            token: self.kind.canonical(token)?,
            call: false,
        })
    }

    fn lane(&self, token: &str, _hasher: &TokenHasher) -> LaneId {
        self.books.lock().apps[self.app].lane(token)
    }

    fn class(&self, urgency: Urgency) -> Class {
        self.kind.class(urgency)
    }

    fn send<'a>(&'a self, push: &'a Push) -> Sending<'a> {
        Box::pin(async move {
            let attempt = Attempt::begin(self, push);
            let deadline = Instant::from_std(push.deadline);
            let answers = attempt.latency().map(|latency| Instant::now() + latency);
            let result = match answers.filter(|at| *at < deadline) {
                Some(at) => {
                    sleep_until(at).await;
                    attempt.answer()
                }
                None => {
                    sleep_until(deadline).await;
                    Err(PushError::Later { after: None })
                }
            };
            attempt.end(result)
        })
    }

    fn verify(&self, _deadline: std::time::Instant) -> Verifying<'_> {
        Box::pin(async { Ok("it accepts them".into()) })
    }

    fn status(&self) -> BackendStatus {
        BackendStatus::default()
    }

    fn digest(&self) -> u128 {
        self.credential
    }
}

/// Tokens of strangers that end so are good.
pub(crate) const ACCEPTED: &str = "ffffff";
/// What was called wrong is left alone for this long.
const BLOCK: Millis = 600 * SECOND;
/// The longest block of what lives.
pub(crate) const LONGEST_BLOCK: Millis = 1_200 * SECOND;
/// So long after its publish a reply is due at the latest.
pub(crate) const REPLY_DUE: Millis = 25 * SECOND;
const PROBE: Millis = 10 * SECOND;
/// What a publish waits for a permit at most.
const LONGEST_WAIT: Millis = 5 * SECOND + 100;

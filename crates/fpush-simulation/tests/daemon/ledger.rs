//! What was published, answered and promised.

use std::collections::{BTreeMap, BTreeSet};

use fpush_push::{Class, Urgency};
use uuid::Uuid;

use crate::{
    books::{Books, Millis, SECOND},
    device::Device,
    provider::{LONGEST_BLOCK, REPLY_DUE, Seen, Weather},
    stanzas::Answer,
};

/// A device and a class of pushes: what one queued push stands for.
pub(crate) type Key = (usize, u8);

#[derive(Default)]
pub(crate) struct Ledger {
    /// The last push of each key that came to a provider.
    pub(crate) seen: BTreeMap<Key, Seen>,
    pub(crate) seen_ids: BTreeSet<Uuid>,
    /// Those that were let out to find out whether their provider is back.
    pub(crate) probes: BTreeSet<Uuid>,
    /// Between two pushes to a device; the shortest of late.
    pub(crate) spacing: Millis,
    /// Whether what is held goes out without regard to that.
    pub(crate) is_stopping: bool,
    /// By number, and so in the order in which they arrived.
    requests: BTreeMap<u64, Request>,
    /// Those that must have an answer yet.
    unanswered: BTreeSet<u64>,
    next: u64,
    /// What was acknowledged and has not reached the device yet.
    owed: BTreeMap<Key, Owed>,
    /// Until when something was owed, or may have been.
    owed_until: BTreeMap<Key, Millis>,
    /// When it was last counted that an acknowledged push could not be delivered.
    counted: BTreeMap<Key, Millis>,
    /// When the publish of the last accepted push arrived.
    accepted: BTreeMap<Key, Millis>,
    /// When publishes arrived of late.
    recent: BTreeMap<Key, Vec<Millis>>,
    /// By how much the wall clock was set in steps that are too small to be noticed.
    pub(crate) unnoticed: Millis,
}

/// A stanza that wants an answer.
struct Request {
    what: What,
    arrived: Millis,
    link: u64,
    /// It may have been lost with its link, and its answer may come twice.
    is_unsure: bool,
    is_answered: bool,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Publish {
        device: usize,
        urgency: Urgency,
    },
    /// A notification of Push 2.0, to which there is an answer only if it is an error.
    Notification {
        device: usize,
    },
    /// Of a stranger.
    Strange,
    /// A device that registers.
    Registration,
    /// A ping, or a command.
    Other,
}

struct Owed {
    /// When its publish arrived.
    acknowledged: Millis,
    /// When its server read that.
    answered: Millis,
    /// Since when nothing has kept the push from going out.
    free_since: Millis,
}

impl Ledger {
    /// Takes note of a stanza that is sent, to which there must be an answer. Returns its number.
    pub(crate) fn expect(&mut self, what: What, link: u64, now: Millis) -> u64 {
        let number = self.may_answer(what, link, now);
        self.unanswered.insert(number);
        number
    }

    /// The same of one to which there may be an answer.
    pub(crate) fn may_answer(&mut self, what: What, link: u64, now: Millis) -> u64 {
        let number = self.next;
        self.next += 1;
        self.requests.insert(
            number,
            Request {
                what,
                arrived: now,
                link,
                is_unsure: false,
                is_answered: false,
            },
        );
        number
    }

    /// The link with this number is lost.
    pub(crate) fn link_lost(&mut self, link: u64, now: Millis, kind_of: impl Fn(usize, Urgency) -> Class) {
        let Self {
            requests,
            unanswered,
            owed_until,
            owed,
            ..
        } = self;
        let of_link = |request: &&mut Request| request.link == link && !request.is_answered;
        for request in requests.values_mut().filter(of_link) {
            request.is_unsure = true;
        }
        unanswered.retain(|number| {
            let Some(request) = requests.get(number) else {
                return false;
            };
            if request.link != link {
                return true;
            }
            if let What::Publish { device, urgency } = request.what {
                // It may be queued, and nobody was told.
                let key = (device, kind_of(device, urgency) as u8);
                owed_until.insert(key, now + UNSURE);
                if let Some(owed) = owed.get_mut(&key) {
                    owed.free_since = owed.free_since.max(request.arrived);
                }
            }
            false
        });
    }

    /// The daemon is gone, and with it whatever it had not answered.
    pub(crate) fn forget_requests(&mut self) {
        self.requests.clear();
        self.unanswered.clear();
    }

    /// How many requests have no answer yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Something kept pushes from going out until now.
    pub(crate) fn was_held_up(&mut self, now: Millis) {
        for owed in self.owed.values_mut() {
            owed.free_since = now;
        }
    }

    /// A module is new, and knows of no push before.
    pub(crate) fn forget_windows(&mut self) {
        for seen in self.seen.values_mut() {
            seen.is_over = true;
        }
    }

    pub(crate) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Requests that must have an answer yet.
    pub(crate) fn waiting(&self) -> usize {
        self.unanswered.len()
    }
}

impl Books {
    /// Takes note of a publish for a device that is sent. Returns its number.
    pub(crate) fn publish(&mut self, device: usize, urgency: Urgency, link: u64) -> u64 {
        let (key, now) = (self.key(device, urgency), self.now());
        self.ledger.recent.entry(key).or_default().push(now);
        self.ledger.expect(What::Publish { device, urgency }, link, now)
    }

    fn key(&self, device: usize, urgency: Urgency) -> Key {
        let kind = self.apps[self.devices[device].app].kind;
        (device, kind.class(urgency) as u8)
    }

    pub(crate) fn link_lost(&mut self, link: u64) {
        let now = self.now();
        let Self {
            ledger,
            apps,
            devices,
            ..
        } = self;
        ledger.link_lost(link, now, |device, urgency| {
            apps[devices[device].app].kind.class(urgency)
        });
        self.notifications.link_lost(link);
    }

    /// The provider has a push for a device, whose publish arrived then, or which was let out of the hold queue then. It
    /// stands for everything that was acknowledged before.
    pub(crate) fn delivered(&mut self, device: usize, class: Class, arrived: Millis) {
        let (key, now) = ((device, class as u8), self.now());
        self.ledger.accepted.insert(key, arrived);
        match self.ledger.owed.get_mut(&key) {
            Some(owed) if owed.acknowledged <= arrived => {
                self.ledger.owed.remove(&key);
                let until = self.ledger.owed_until.entry(key).or_default();
                *until = now.max(*until);
            }
            // Another one was queued meanwhile.
            Some(owed) => owed.free_since = owed.free_since.max(owed.acknowledged),
            None => {}
        }
    }

    /// It was counted and logged that an acknowledged push to this token could not be delivered.
    pub(crate) fn counted_as_lost(&mut self, app: usize, token: usize) {
        let now = self.now();
        for device in self.with_token(app, token) {
            for class in [Class::High, Class::Low, Class::Voip] {
                let key = (device, class as u8);
                self.ledger.counted.insert(key, now);
                if self.ledger.owed.remove(&key).is_some() {
                    self.ledger.owed_until.insert(key, now);
                }
            }
        }
    }

    /// The same for a token by its text.
    pub(crate) fn counted_as_lost_of(&mut self, token: &str) {
        for app in 0..self.apps.len() {
            let mut tokens = self.apps[app].tokens.iter();
            if let Some(place) = tokens.position(|known| known.text == token) {
                self.counted_as_lost(app, place);
            }
        }
    }

    /// The server has read a reply.
    pub(crate) fn replied(&mut self, id: &str, answer: &Answer) {
        self.counts.replies += 1;
        let now = self.now();
        let Some(number) = id.strip_prefix('r').and_then(|id| id.parse::<u64>().ok()) else {
            return;
        };
        self.tell(&format!("{id}: {answer:?}"));
        let Some(request) = self.ledger.requests.get_mut(&number) else {
            return self.fail(format!(
                "{id} is answered, which was never asked, or before a crash"
            ));
        };
        if request.is_answered && !request.is_unsure {
            return self.fail(format!("{id} is answered twice"));
        }
        self.ledger.unanswered.remove(&number);
        request.is_answered = true;
        let (what, arrived, is_unsure) = (request.what, request.arrived, request.is_unsure);
        if now > arrived + REPLY_DUE + SLACK {
            self.fail(format!("{id} is answered after {} ms", now - arrived));
        }
        match what {
            What::Publish { device, urgency } => self.published(device, urgency, arrived, answer, is_unsure),
            What::Registration => {
                if *answer != Answer::Result && !is_unsure && self.is_registry_calm(arrived) {
                    self.fail("a registration is turned away, and nothing is wrong".to_owned());
                }
            }
            What::Notification { device } => self.notification_refused(number, device, answer),
            What::Strange | What::Other => {}
        }
    }

    fn published(
        &mut self,
        device: usize,
        urgency: Urgency,
        arrived: Millis,
        answer: &Answer,
        is_unsure: bool,
    ) {
        let (key, now) = (self.key(device, urgency), self.now());
        let is_call = key.1 == Class::Voip as u8;
        if *answer == Answer::Result {
            // The answer may come later than what became of the push: the link was down.
            let has_ended = [&self.ledger.accepted, &self.ledger.counted]
                .into_iter()
                .any(|ends| ends.get(&key).is_some_and(|at| *at >= arrived));
            if has_ended {
                return;
            }
            if is_call {
                return self.fail(format!(
                    "a call for device {device} is acknowledged, and did not ring"
                ));
            }
            let owed = self.ledger.owed.entry(key).or_insert(Owed {
                acknowledged: arrived,
                answered: now,
                free_since: arrived,
            });
            (owed.acknowledged, owed.answered) = (arrived, now);
            return;
        }
        if answer.is("service-unavailable") && !is_call && !is_unsure {
            // Of two others one may be queued, and one before it: in which order they were decided is not known.
            let recent = self.ledger.recent.get(&key).map_or(0, |recent| {
                let is_recent = |at: &&Millis| **at + LONGEST_HELD > arrived;
                recent.iter().filter(is_recent).count()
            });
            let is_owed = recent > 2
                || self.ledger.owed.contains_key(&key)
                || self.is_asked(key)
                || self
                    .ledger
                    .owed_until
                    .get(&key)
                    .is_some_and(|until| *until >= arrived);
            if !is_owed {
                self.fail(format!(
                    "a publish for device {device} is refused, and none is queued"
                ));
            }
        }
        if answer.is("internal-server-error") && !is_unsure && self.is_calm(device, arrived) {
            self.fail(format!(
                "a publish for device {device} is turned away, and nothing is wrong"
            ));
        }
        if answer.is("remote-server-timeout") && !is_unsure && self.is_trusted(device, arrived) {
            self.fail(format!(
                "a publish for device {device} does not come to its provider, which has nothing against it"
            ));
        }
        if !answer.keeps_device() && self.is_alive(device) {
            self.died(device, false, now);
        }
    }

    /// Whether another publish of this key has no answer yet: it may be queued, and not be on disk.
    fn is_asked(&self, key: Key) -> bool {
        self.ledger
            .unanswered
            .iter()
            .filter_map(|number| self.ledger.requests.get(number))
            .any(|request| match request.what {
                What::Publish { device, urgency } => self.key(device, urgency) == key,
                What::Notification { .. } | What::Strange | What::Registration | What::Other => false,
            })
    }

    /// Whether nothing has been wrong of late that a publish for a device needs, and its own servers send little. What
    /// strangers send is not an excuse.
    pub(crate) fn is_calm(&self, device: usize, arrived: Millis) -> bool {
        let number = self.devices[device].app;
        let app = &self.apps[number];
        let is_there = self.devices[device]
            .node()
            .is_none_or(|node| self.registrations.is_there(node));
        let of_app = |device: usize| self.devices[device].app == number;
        let recent = self.ledger.recent.iter().filter(|(key, _)| of_app(key.0));
        let near = recent
            .flat_map(|(_, arrivals)| arrivals)
            .filter(|at| at.abs_diff(arrived) < 10 * SECOND);
        self.is_alive(device)
            && is_there
            && app.weather == Weather::Fine
            && after(app.fine_since, 60 * SECOND) <= arrived
            && self.are_settings_right(arrived)
            && self.is_registry_calm(arrived)
            && self.permits
                >= if app.is_strangers(self.devices[device].token) {
                    MANY_PERMITS
                } else {
                    FEW_PERMITS
                }
            && near.count() + self.notifications.near(arrived, 10 * SECOND, of_app) <= FEW_PUBLISHES
    }

    /// Whether a registry that is asked has no reason to turn anybody away.
    fn is_registry_calm(&self, arrived: Millis) -> bool {
        let well_since = self.registrations.well_since.unwrap_or(NEVER);
        !self.ledger.is_stopping
            && after(well_since, 60 * SECOND) <= arrived
            && after(self.began_at(), 5 * SECOND) <= arrived
    }

    pub(crate) fn are_settings_right(&self, arrived: Millis) -> bool {
        after(self.right_since.unwrap_or(NEVER), 60 * SECOND) <= arrived
    }

    /// Whether its provider has been well for longer than a pause lasts, and has said nothing against a living device to
    /// the settings of now.
    pub(crate) fn is_trusted(&self, device: usize, arrived: Millis) -> bool {
        let Device { app, token, .. } = self.devices[device];
        let app = &self.apps[app];
        // A stranger's server is left alone for longer than a provider wants a pause.
        let is_strangers = app.is_strangers(token);
        let pause = if is_strangers { 460 } else { 70 } * SECOND;
        self.is_alive(device)
            && !self.ledger.is_stopping
            && app.weather == Weather::Fine
            && after(app.fine_since, pause) <= arrived
            && self.are_settings_right(arrived)
            && !app.tokens[token].is_doubted(arrived)
    }

    /// A living device was answered as if it were gone. An incident may cost ten of them.
    pub(crate) fn died(&mut self, device: usize, is_notification: bool, now: Millis) {
        let (app, token) = (self.devices[device].app, self.devices[device].token);
        let app = &mut self.apps[app];
        let wrong = &app.tokens[token].wrong;
        let is_wrong_for_a_day = wrong
            .first()
            .zip(wrong.last())
            .is_some_and(|(first, last)| last - first >= DAY - SECOND);
        let words = app.words_of(is_notification);
        if app.had_incident && !app.deaths.contains(&(device, words)) {
            app.deaths.push((device, words));
        }
        let deaths = app.deaths_beside(token, words, |device| self.devices[device].token);
        if (!app.had_incident || deaths > MOST_DEATHS) && !is_wrong_for_a_day {
            self.fail(format!(
                "device {device} lives and is unregistered at {now}; deaths of the incident: {deaths}"
            ));
        }
    }

    /// What must hold whenever time has passed.
    pub(crate) fn check(&mut self) {
        let now = self.now();
        self.check_notifications();
        let first = self.ledger.unanswered.first();
        let first = first.and_then(|number| self.ledger.requests.get_key_value(number));
        let late = first.filter(|(_, request)| now > request.arrived + REPLY_DUE + SLACK);
        if let Some((number, request)) = late {
            let what = request.what;
            return self.fail(format!("r{number} is not answered: {what:?}"));
        }
        while let Some(oldest) = self.ledger.requests.first_entry() {
            if oldest.get().arrived + 120 * SECOND >= now {
                break;
            }
            oldest.remove();
        }
        let long = self.ledger.owed.iter().find_map(|(key, owed)| {
            let (app, token) = (self.devices[key.0].app, self.devices[key.0].token);
            let app = &self.apps[app];
            let busy = app.tokens[token].busy.map_or(0, |at| at + 600 * SECOND);
            // What is held for hours outlasts a block of minutes.
            let blocked = app.tokens[token].doubted.map_or(0, |at| at + LONGEST_BLOCK);
            // Pauses last for a while after their cause.
            let fine_since = app.fine_since.max(self.right_since.unwrap_or(NEVER));
            let free = after(fine_since, 660 * SECOND).max(busy).max(blocked);
            let crowd = if self.permits >= FEW_PERMITS { 8 } else { 70 } * SECOND;
            // What is written down has times of the wall clock.
            let longest = self.ledger.spacing + crowd + self.ledger.unnoticed;
            let soon =
                app.weather == Weather::Fine && owed.free_since >= free && now > owed.free_since + longest;
            // What goes out for several is worth something for as long as the last one.
            let latest = owed.free_since.max(owed.acknowledged) + LONGEST_HELD + self.ledger.unnoticed;
            (soon || now > latest).then_some((*key, now - owed.free_since))
        });
        if let Some(((device, class), since)) = long {
            self.fail(format!(
                "an acknowledged push of class {class} to device {device} is neither delivered nor counted after {since} ms"
            ));
        }
    }
}

/// When what was in the way until then is over; what was so from the beginning has left nothing behind.
fn after(since: Millis, while_longer: Millis) -> Millis {
    if since == 0 { 0 } else { since + while_longer }
}

const NEVER: Millis = Millis::MAX / 2;
/// Between what happens and what a server has read of it.
pub(crate) const SLACK: Millis = 100 + LONGEST_WRITE;
/// What a disk takes for what is held.
pub(crate) const LONGEST_WRITE: Millis = 80;
/// After a link was lost it is not known for this long what is queued.
const UNSURE: Millis = 1_800 * SECOND;
/// However the provider is: a silence, ten minutes of attempts, and the last one.
const LONGEST_HELD: Millis = 1_800 * SECOND;
pub(crate) const DAY: Millis = 86_400 * SECOND;
const MOST_DEATHS: usize = 10;
/// With fewer than these, a crowd of one's own keeps others waiting.
const FEW_PERMITS: usize = 5;
/// Of fewer than these, servers that strangers have chosen have too few for one that has not answered yet.
pub(crate) const MANY_PERMITS: usize = 100;
const FEW_PUBLISHES: usize = 6;

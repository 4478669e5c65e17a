//! Notifications of Push 2.0: what was sent, and what must become of it. Each is delivered once or answered with one error,
//! nobody else's costs it its way, and none ends what publishes need.

use std::collections::BTreeMap;

use fpush_push::{Push, PushError, registrable};

use crate::{
    books::{Books, HOUR, Millis, SECOND},
    device::Device,
    ledger::{DAY, MANY_PERMITS, SLACK, What},
    provider::{LONGEST_BLOCK, REPLY_DUE},
    stanzas::Answer,
};

#[derive(Default)]
pub(crate) struct Notifications {
    /// By the number of the request.
    sent: BTreeMap<u64, Sent>,
    /// By token, as app and place, and registrable domain of the sender.
    ways: BTreeMap<(usize, usize, String), Way>,
}

/// One that was sent for a device.
struct Sent {
    device: usize,
    domain: String,
    arrived: Millis,
    link: u64,
    /// It may have been lost with its link, or its error.
    is_unsure: bool,
    fate: Fate,
    /// Whether its provider said something against the token.
    is_rejected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Accepted,
    Refused,
}

/// What is known of a token, as far as one domain sends to it.
#[derive(Default)]
struct Way {
    /// Answers in a row that say that it cannot be reached, and the last one.
    failures: u32,
    failed: Option<Millis>,
    /// When its provider last called it too busy.
    busy: Option<Millis>,
    /// When its provider called it wrong, since it last accepted one.
    wrong: Vec<Millis>,
}

impl Way {
    /// Until when that may be the answer without another attempt.
    fn refused_until(&self) -> Millis {
        let Some(failed) = self.failed else {
            return 0;
        };
        let doublings = (self.failures - 1).min(6);
        let pause = (60 * SECOND * 2_u64.pow(doublings)).min(HOUR);
        failed + pause.max(LONGEST_BLOCK)
    }
}

impl Notifications {
    /// The link with this number is lost.
    pub(crate) fn link_lost(&mut self, link: u64) {
        for sent in self.sent.values_mut().filter(|sent| sent.link == link) {
            sent.is_unsure = true;
        }
    }

    /// The daemon has started again. Nothing was held.
    pub(crate) fn forget_requests(&mut self, now: Millis) {
        self.sent.clear();
        for way in self.ways.values_mut().filter(|way| now < way.refused_until()) {
            way.failed = Some(now);
        }
    }

    /// How many were sent within a time before another one.
    pub(crate) fn near(&self, arrived: Millis, within: Millis, is: impl Fn(usize) -> bool) -> usize {
        let near = |sent: &&Sent| sent.arrived.abs_diff(arrived) < within && is(sent.device);
        self.sent.values().filter(near).count()
    }
}

/// The number of the request that a push is for, if it is a notification.
pub(crate) fn number_of(push: &Push) -> Option<u64> {
    let payload = push.notification.as_ref()?.payload.as_deref()?;
    std::str::from_utf8(payload).ok()?.parse().ok()
}

impl Books {
    /// Takes note of a notification for a device that is sent. Returns its number.
    pub(crate) fn notify(&mut self, device: usize, link: u64) -> u64 {
        let now = self.now();
        let number = self.ledger.may_answer(What::Notification { device }, link, now);
        let sent = Sent {
            device,
            domain: domain_of(&self.devices[device].from),
            arrived: now,
            link,
            is_unsure: false,
            fate: Fate::Open,
            is_rejected: false,
        };
        self.notifications.sent.insert(number, sent);
        number
    }

    /// A push goes to its provider for a notification, to this token of an app.
    pub(crate) fn notification_goes_out(&mut self, number: u64, app: usize, token: Option<usize>) {
        // A stranger's, or one of before a crash.
        let Some(sent) = self.notifications.sent.get(&number) else {
            return;
        };
        let Device {
            app: right,
            token: own,
            ..
        } = self.devices[sent.device];
        let fate = sent.fate;
        // Where an operator has exchanged modules meanwhile, or exchanges them back, one that is held goes as the other app's.
        let is_exchanged = app != right && self.right_since.is_none_or(|since| since > sent.arrived);
        if !is_exchanged && (app, token) != (right, Some(own)) {
            self.fail(format!("r{number} goes to another device"));
        }
        if fate != Fate::Open {
            self.fail(format!("r{number} goes out, and was {fate:?} before"));
        }
    }

    /// The provider has answered it.
    pub(crate) fn notification_ended(&mut self, number: u64, result: &Result<(), PushError>) {
        let now = self.now();
        let Some(sent) = self.notifications.sent.get_mut(&number) else {
            return;
        };
        let Device { app, token, .. } = self.devices[sent.device];
        let way = (app, token, sent.domain.clone());
        let way = self.notifications.ways.entry(way).or_default();
        match result {
            Ok(()) => {
                *way = Way {
                    busy: way.busy,
                    ..Way::default()
                };
                sent.fate = Fate::Accepted;
                let domain = sent.domain.clone();
                self.apps[app].accepted_notification(token, domain, now);
            }
            Err(PushError::TokenDoubted) => {
                way.wrong.push(now);
                sent.is_rejected = true;
            }
            Err(PushError::TokenGone { .. } | PushError::TokenUnserved | PushError::Unexplained) => {
                sent.is_rejected = true;
            }
            Err(PushError::TokenBusy | PushError::TooMany { .. }) => way.busy = Some(now),
            // That says nothing of the token.
            Err(_) => {}
        }
    }

    /// The server has read an error.
    pub(crate) fn notification_refused(&mut self, number: u64, device: usize, answer: &Answer) {
        let now = self.now();
        let Some(sent) = self.notifications.sent.get_mut(&number) else {
            return;
        };
        let (fate, arrived, is_unsure) = (sent.fate, sent.arrived, sent.is_unsure);
        let is_rejected = sent.is_rejected;
        sent.fate = Fate::Refused;
        let domain = sent.domain.clone();
        if fate != Fate::Open && !is_unsure {
            self.fail(format!("r{number} is answered with an error, and was {fate:?}"));
        }
        let Answer::Error(kind, condition) = answer else {
            return self.fail(format!("r{number} is answered with a result"));
        };
        let Device { app, token, .. } = self.devices[device];
        let is_back = self.apps[app].has_accepted_notification(token, &domain, arrived);
        let recent = self.notifications.near(arrived, HOUR, |other| {
            domain_of(&self.devices[other].from) == domain
        });
        let way = self.notifications.ways.entry((app, token, domain)).or_default();
        let refused_until = way.refused_until();
        let busy = way.busy.max(self.apps[app].tokens[token].busy);
        let is_wrong_for_a_day = way
            .wrong
            .first()
            .zip(way.wrong.last())
            .is_some_and(|(first, last)| last - first >= DAY - SECOND);
        let is_doubted = self.apps[app].tokens[token].is_doubted(arrived);
        // That nothing is sent there because of what it is.
        let is_fault = is_rejected
            || condition == "item-not-found"
            || is_doubted && condition == "remote-server-timeout"
            || condition == "policy-violation";
        if is_fault {
            way.failures += 1;
            way.failed = Some(now);
        }
        if is_unsure {
            return;
        }
        match &**condition {
            "item-not-found" if kind == "cancel" => {
                if self.is_token_alive(device) && !is_wrong_for_a_day {
                    self.died(device, true, now);
                }
            }
            // The one that finds out whether the provider is back is sent first.
            "remote-server-timeout" => {
                if arrived >= refused_until && is_back && self.is_trusted(device, arrived) {
                    self.fail(format!(
                        "r{number} for device {device} does not come to its provider, which has nothing against it"
                    ));
                }
            }
            "resource-constraint" => {
                let is_silenced = busy.is_some_and(|busy| arrived < busy + 600 * SECOND);
                let is_calm = self.is_calm(device, arrived)
                    && (!self.apps[app].has_lanes || self.permits >= MANY_PERMITS)
                    && self.are_others_few(app, arrived);
                if recent <= FEW && !is_silenced && is_calm {
                    self.fail(format!(
                        "r{number} for device {device} is turned away, and nothing is wrong"
                    ));
                }
            }
            "policy-violation" => {
                if self.are_settings_right(arrived) && arrived >= refused_until {
                    self.fail(format!("r{number} for device {device} is not allowed, and it is"));
                }
            }
            _ => self.fail(format!("r{number} is answered {kind}, {condition}")),
        }
    }

    /// What must hold whenever time has passed.
    pub(crate) fn check_notifications(&mut self) {
        let now = self.now();
        let sent = &mut self.notifications.sent;
        let is_late = |sent: &Sent| {
            sent.fate == Fate::Open && !sent.is_unsure && now > sent.arrived + REPLY_DUE + SLACK
        };
        let late = sent.iter().find(|(_, sent)| is_late(sent));
        if let Some((number, device)) = late.map(|(number, sent)| (*number, sent.device)) {
            return self.fail(format!(
                "r{number} for device {device} is neither delivered nor answered"
            ));
        }
        sent.retain(|_, sent| now <= sent.arrived + HOUR);
    }

    /// Whether the phone is there, whatever became of its registration for publishes.
    fn is_token_alive(&self, device: usize) -> bool {
        let Device { app, token, .. } = self.devices[device];
        self.apps[app].tokens[token].gone.is_none()
    }

    fn are_others_few(&self, app: usize, arrived: Millis) -> bool {
        let of_app = |other: usize| self.devices[other].app == app;
        self.notifications.near(arrived, 10 * SECOND, of_app) <= FEW_AT_ONCE
    }
}

/// The registrable domain of a sender.
fn domain_of(from: &str) -> String {
    let domain = from.rsplit('@').next().unwrap_or_default();
    registrable(domain).into_owned()
}

/// So many in an hour are never too many of a domain, even if each has failed, or for a receiver.
const FEW: usize = 25;
const FEW_AT_ONCE: usize = 6;

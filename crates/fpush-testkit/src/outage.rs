//! Outages of a provider, played to the real program: messages for many devices come in all the time, it is stopped and
//! killed meanwhile, and in the end the provider is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Answer, Daemon, FakeFcm, FakeXmpp, FcmSend, LONG, Link, NewConnections, TestCa,
    fake_fcm::{fcm_error, quota_failure},
    publish::ejabberd_publish,
};

/// How the provider is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It ends connections.
    Refused,
    /// It takes requests and says nothing.
    Silent,
    /// It answers 503.
    Unavailable,
    /// It says that there were too many, and when to come again.
    Quota,
    /// Nobody gets an access token.
    TokenEndpoint,
}

/// A daemon with Google's module `m`, and what was said to it.
pub struct World {
    /// The provider.
    pub fcm: FakeFcm,
    /// The program.
    pub daemon: Daemon,
    xmpp: FakeXmpp,
    link: Link,
    devices: usize,
    go_on: fn() -> bool,
    /// When there was a message for which device.
    published: Vec<(Instant, usize)>,
    answers: BTreeMap<String, usize>,
}

/// What came of an outage.
#[derive(Debug)]
pub struct Outcome {
    /// How often publishes were answered in which way.
    pub answers: BTreeMap<String, usize>,
    /// How long an answer took when the outage was known.
    pub answered_in: Duration,
    /// Requests that were made while it lasted.
    pub in_vain: usize,
    /// How many of them got no answer, by token. What became of those nobody knows.
    pub unanswered: BTreeMap<String, usize>,
    /// When there was a message for which token, before the end of it.
    pub messages: Vec<(Duration, String)>,
    /// Pushes since its end: when, and to which token.
    pub sends: Vec<(Duration, String)>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Silent,
        Self::Unavailable,
        Self::Quota,
        Self::TokenEndpoint,
    ];

    /// What the provider does, in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "ends connections",
            Self::Silent => "says nothing",
            Self::Unavailable => "answers 503",
            Self::Quota => "wants a pause",
            Self::TokenEndpoint => "gives no access token",
        }
    }

    fn begin(self, fcm: &FakeFcm) {
        match self {
            Self::Refused => {
                fcm.new_connections(NewConnections::Reset);
                fcm.reset_existing_connections();
            }
            Self::Silent => fcm.answer_with(|_| Answer::Silence),
            Self::Unavailable => {
                fcm.answer_with(|_| fcm_error(503, "UNAVAILABLE", Some("UNAVAILABLE"), &[]));
            }
            Self::Quota => fcm.answer_with(|_| {
                let details = [quota_failure("project:project-1", "")];
                fcm_error(429, "RESOURCE_EXHAUSTED", Some("QUOTA_EXCEEDED"), &details)
                    .header("retry-after", "10")
            }),
            Self::TokenEndpoint => {
                fcm.answer_tokens_with(|_| Answer::status(503));
                fcm.revoke_tokens();
            }
        }
    }

    /// Those of the requests in an outage that got no answer.
    fn unanswered(self, requests: &[&FcmSend]) -> BTreeMap<String, usize> {
        let mut unanswered = BTreeMap::new();
        let without_answer = match self {
            Self::Refused | Self::Silent => requests,
            Self::Unavailable | Self::Quota | Self::TokenEndpoint => &[],
        };
        for request in without_answer {
            *unanswered.entry(request.token().to_owned()).or_default() += 1;
        }
        unanswered
    }

    fn end(self, fcm: &FakeFcm) {
        match self {
            Self::Refused => fcm.new_connections(NewConnections::Serve),
            Self::Silent | Self::Unavailable | Self::Quota => fcm.answer_normally(),
            Self::TokenEndpoint => fcm.answer_tokens_with(|_| Answer::Normal),
        }
    }
}

impl World {
    /// One with so many devices. As soon as `go_on` says no, what takes long is left undone.
    pub fn start(
        program: impl Into<PathBuf>,
        devices: usize,
        hold_for: Option<&str>,
        go_on: fn() -> bool,
    ) -> Self {
        let ca = TestCa::new();
        let fcm = FakeFcm::start(&ca);
        let xmpp = FakeXmpp::start("push.localhost", "secret");
        let builder = Daemon::builder(program)
            .file("ca.pem", ca.pem())
            .file("fcm.json", fcm.service_account("project-1"));
        let mut module = json!({
            "type": "google",
            "ratelimit": { "enabled": false },
            "fcm": { "fcmSecretPath": "fcm.json", "endpoint": fcm.url(), "caFilePath": "ca.pem" },
        });
        if let Some(hold_for) = hold_for {
            module["holdFor"] = hold_for.into();
        }
        let settings = json!({
            "component": {
                "componentHostname": "push.localhost", "componentKey": "secret",
                "serverHostname": "127.0.0.1", "serverPort": xmpp.port(),
            },
            "pushModules": { "m": module },
            "stateDirectory": builder.dir().join("state"),
            "timeout": { "xmppconnectionError": "100ms" },
        });
        let daemon = builder.settings(&settings).start();
        let link = accept(&xmpp, &daemon);
        Self {
            fcm,
            daemon,
            xmpp,
            link,
            devices,
            go_on,
            published: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Publishes for a device, and says what the answer is.
    pub fn push(&mut self, device: usize) -> String {
        let id = self.publish(device);
        self.link.reply_to(&id, LONG).verdict()
    }

    /// An outage of so long, with a restart after half of it and a crash after three quarters. Returns when all devices
    /// have got a push, or the time for that is over; `None` if it was left undone.
    pub fn outage(&mut self, kind: Kind, time: Duration) -> Option<Outcome> {
        let before = self.fcm.count();
        kind.begin(&self.fcm);
        self.publish_for(time / 2)?;
        self.restart();
        self.publish_for(time / 4)?;
        self.crash();
        self.publish_for(time / 4)?;
        let start = Instant::now();
        let verdict = self.push(0);
        *self.answers.entry(verdict).or_default() += 1;
        let answered_in = start.elapsed();
        let back = Instant::now();
        kind.end(&self.fcm);
        let requests = &self.fcm.sends()[before..];
        let requests: Vec<_> = requests.iter().filter(|request| request.at < back).collect();
        let end = back + self.longest_drain();
        while self.woken_since(back).len() < self.devices && Instant::now() < end {
            if !(self.go_on)() {
                return None;
            }
            thread::sleep(SECOND / 5);
        }
        // A device that is woken twice is woken soon.
        thread::sleep(2 * SECOND);
        Some(Outcome {
            answers: std::mem::take(&mut self.answers),
            answered_in,
            in_vain: requests.len(),
            unanswered: kind.unanswered(&requests),
            messages: self.messages_before(back),
            sends: self.sends_since(back),
        })
    }

    /// Probes are fifteen seconds apart, a pause takes ten, and the rate doubles every six seconds; twice that for machines
    /// that stand still.
    fn longest_drain(&self) -> Duration {
        let doublings = (self.devices as f64 / 8.0 + 1.0).log2().ceil();
        2 * (25 * SECOND + (6 * SECOND).mul_f64(doublings))
    }

    fn publish(&mut self, device: usize) -> String {
        self.published.push((Instant::now(), device));
        let id = format!("id-{}", self.published.len());
        let publish = ejabberd_publish(&id, &token(device), Some("m"), true);
        self.link.send(publish);
        id
    }

    /// Publishes to one device after the other, for so long.
    fn publish_for(&mut self, time: Duration) -> Option<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let part = end.min(Instant::now() + 10 * SECOND);
            let mut ids = Vec::new();
            while Instant::now() < part {
                if !(self.go_on)() {
                    return None;
                }
                let device = self.published.len() % self.devices;
                ids.push(self.publish(device));
                thread::sleep(SECOND / PER_SECOND);
            }
            for id in ids {
                let verdict = self.link.reply_to(&id, LONG).verdict();
                *self.answers.entry(verdict).or_default() += 1;
            }
        }
        Some(())
    }

    fn start_again(&mut self) {
        self.daemon.start_again();
        self.link = accept(&self.xmpp, &self.daemon);
    }

    fn crash(&mut self) {
        self.daemon.kill();
        self.start_again();
    }

    fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon.wait_for_log("SIGTERM: finishing", LONG);
        self.link.close();
        assert!(self.daemon.wait(LONG).success(), "{}", self.daemon.log());
        self.start_again();
    }

    fn messages_before(&self, end: Instant) -> Vec<(Duration, String)> {
        let messages = self.published.iter();
        messages
            .map(|(at, device)| (end.saturating_duration_since(*at), token(*device)))
            .collect()
    }

    fn sends_since(&self, since: Instant) -> Vec<(Duration, String)> {
        let sends = self.fcm.sends();
        let late = sends.iter().filter(|send| send.at >= since);
        late.map(|send| (send.at - since, send.token().to_owned()))
            .collect()
    }

    fn woken_since(&self, since: Instant) -> BTreeSet<String> {
        self.sends_since(since)
            .into_iter()
            .map(|(_, token)| token)
            .collect()
    }
}

impl Outcome {
    /// When each device got its first push.
    fn wakings(&self) -> BTreeMap<&str, Duration> {
        let mut wakings = BTreeMap::new();
        for (at, token) in &self.sends {
            let first = wakings.entry(token.as_str()).or_insert(*at);
            *first = (*at).min(*first);
        }
        wakings
    }

    /// How many devices got a push.
    pub fn woken(&self) -> usize {
        self.wakings().len()
    }

    /// Pushes to devices that had got one.
    pub fn twice(&self) -> usize {
        self.sends.len() - self.woken()
    }

    /// Second pushes that nothing explains, each as the times of all messages and pushes of its device. Two things do: a request
    /// that had got no answer, and, for the device of the one probe that was under way when the provider came back, a message
    /// that came before its answer: the probe may have woken the device before that message was there.
    pub fn unexplained(&self) -> Vec<String> {
        let mut pushes = BTreeMap::<&str, Vec<Duration>>::new();
        for (at, token) in &self.sends {
            pushes.entry(token).or_default().push(*at);
        }
        let probed = self.sends.iter().min().map(|(_, token)| token.as_str());
        let is_recent = |(before, token): &(Duration, String)| *before < PROBE && Some(&**token) == probed;
        let probes = usize::from(self.messages.iter().any(is_recent));
        let allowed = |token: &str| {
            let unanswered = self.unanswered.get(token).copied().unwrap_or_default();
            1 + unanswered + if Some(token) == probed { probes } else { 0 }
        };
        pushes.retain(|token, pushes| pushes.len() > allowed(token));
        let story = |(token, pushes): (&str, Vec<Duration>)| {
            let messages = self.messages.iter().filter(|(_, other)| other == token);
            let messages: Vec<_> = messages.map(|(before, _)| *before).collect();
            format!("messages {messages:?} before the provider was back, pushes {pushes:?} after that")
        };
        pushes.into_iter().map(story).collect()
    }

    /// When the first device got its push, and when the last one did.
    pub fn span(&self) -> Option<(Duration, Duration)> {
        let wakings = self.wakings();
        let (first, last) = (wakings.values().min()?, wakings.values().max()?);
        Some((*first, *last))
    }

    /// How many pushes there were in each second since the first one.
    pub fn by_second(&self) -> Vec<usize> {
        let first = self.sends.iter().map(|(at, _)| *at).min().unwrap_or_default();
        let mut seconds = Vec::new();
        for (at, _) in &self.sends {
            let second = (*at - first).as_secs() as usize;
            if seconds.len() <= second {
                seconds.resize(second + 1, 0);
            }
            seconds[second] += 1;
        }
        seconds
    }

    /// In how many of these seconds there were more than the rate allows, which doubles every six seconds: by its end more than
    /// the rate comes to, or in it far more than the rate. A busy machine only makes some of them late.
    pub fn spikes(&self) -> usize {
        let mut all = 0;
        let counts = self.by_second().into_iter().enumerate();
        let is_spike = |(second, count): &(usize, usize)| {
            all += count;
            let rate = 2_f64.powf((second + 1) as f64 / 6.0);
            let total = (rate - 1.0) * 6.0 / std::f64::consts::LN_2;
            all as f64 > total + 3.0 || *count as f64 > rate * 3.0 + 4.0
        };
        counts.filter(is_spike).count()
    }
}

fn accept(xmpp: &FakeXmpp, daemon: &Daemon) -> Link {
    match xmpp.try_accept(LONG) {
        Ok(link) => link,
        Err(e) => panic!("no link: {e}; the log:\n{}", daemon.log()),
    }
}

fn token(number: usize) -> String {
    format!("device{number:06}:APA91b{}", "x".repeat(120))
}

const SECOND: Duration = Duration::from_secs(1);
/// A message that came longer before the provider was back came before the last probe began, which gets its answer within 25 s.
const PROBE: Duration = Duration::from_secs(40);
/// Messages that come in.
const PER_SECOND: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_an_outage_is_counted() {
        let send = |tenths: u64, token: &str| (Duration::from_millis(100 * tenths), token.to_owned());
        let mut outcome = Outcome {
            answers: BTreeMap::new(),
            answered_in: Duration::ZERO,
            in_vain: 1,
            unanswered: BTreeMap::from([("b".to_owned(), 1)]),
            messages: vec![(Duration::from_secs(1), "b".to_owned())],
            sends: vec![send(50, "a"), send(52, "b"), send(71, "b"), send(75, "c")],
        };
        assert_eq!((outcome.woken(), outcome.twice(), outcome.spikes()), (3, 1, 0));
        assert_eq!(outcome.by_second(), [2, 0, 2]);
        assert_eq!(
            outcome.span(),
            Some((Duration::from_secs(5), Duration::from_millis(7_500)))
        );
        assert_eq!(outcome.unexplained(), Vec::<String>::new());
        outcome.unanswered.clear();
        assert_eq!(
            outcome.unexplained(),
            ["messages [1s] before the provider was back, pushes [5.2s, 7.1s] after that"]
        );
        // As if it had been the probe.
        outcome.sends[0].0 = Duration::from_secs(6);
        assert_eq!(outcome.unexplained(), Vec::<String>::new());
        outcome.sends[0].0 = Duration::from_secs(5);
        outcome
            .sends
            .extend((0..4).map(|device| send(70, &device.to_string())));
        assert_eq!(outcome.spikes(), 1);
    }
}

//! What a web push costs, beside a push to Apple in the same process, and what ten thousand servers take that strangers have chosen.
//!
//! All push services are one stand-in behind a proxy, which is in the stand-in's process. It accepts everything and reads nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use fpush_testkit::{Subscriber, Subscription, push2::encrypt};
use serde_json::{Value, json};

use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::paced::Pace;
use super::plan::{LOADS, Plan};
use super::providers::{Backend, STRANGERS, VENDOR};
use super::rig::Rig;
use super::stats::{Spread, median, millis};
use super::template::{NUMBER, Server, Template};
use super::throughput::per_push;
use crate::table::Table;

pub(super) struct WebPush {
    rounds: Vec<Round>,
    /// Of a key and an agreement for each push, and the rest of RFC 8291.
    crypto_us: f64,
    /// From a publish to its reply at a steady pace.
    web: Spread,
    apple: Spread,
    per_second: u64,
    origins: Origins,
}

/// CPU per push, in microseconds, one right after the other.
struct Round {
    web: f64,
    apple: f64,
}

struct Origins {
    count: u64,
    bytes: u64,
    /// CPU of the first push to each, with a connection and a signature, and of the second one, in microseconds.
    cpu: [f64; 2],
}

pub(super) fn measure(fpush: &Path, plan: &Plan, stand_in: &StandIn) -> Result<WebPush> {
    println!("web push");
    let endpoints = &stand_in.endpoints;
    let modules = json!({ WEB: endpoints.web_module(), APPLE: endpoints.module(Backend::Certificate) });
    let mut rig = Rig::start_behind(fpush, &modules, &endpoints.proxy)?;
    let (subscriber, in_flight) = (Subscriber::new(), LOADS[0].in_flight);
    let vendor = subscriber.subscription(format!("https://{VENDOR}/wpush/v2/{NUMBER}{}", "g".repeat(180)));
    let templates = [
        Template::new(Server::Prosody, WEB, &vendor.token()),
        Template::new(Server::Prosody, APPLE, &Backend::Certificate.token()),
    ];
    let mut cpu = |template: &Template, amount| {
        let one = std::slice::from_ref(template);
        let (done, cpu) = rig.run(one, in_flight, amount, Kind::Result)?;
        anyhow::Ok(per_push(cpu, done.pushes))
    };
    for template in &templates {
        cpu(template, Amount::Time(plan.warm_up))?;
    }
    let mut rounds = Vec::new();
    for _ in 0..plan.main.count {
        let [web, apple] =
            [&templates[0], &templates[1]].map(|template| cpu(template, Amount::Time(plan.main.time)));
        rounds.push(Round {
            web: web?,
            apple: apple?,
        });
    }
    let pace = Pace::even(plan.target_rate);
    let mut paced = |template: &Template| {
        let (sent, _) = rig.paced(template, pace, plan.paced)?;
        anyhow::Ok(sent.spread())
    };
    Ok(WebPush {
        rounds,
        crypto_us: crypto(&vendor),
        web: paced(&templates[0])?,
        apple: paced(&templates[1])?,
        per_second: plan.target_rate,
        origins: origins(fpush, plan, stand_in, &subscriber)?,
    })
}

/// Microseconds that it takes to encrypt one push, with the same library, in this process.
fn crypto(subscription: &Subscription) -> f64 {
    let start = Instant::now();
    for _ in 0..ENCRYPTED {
        std::hint::black_box(encrypt(subscription, "{}"));
    }
    per_push(start.elapsed(), ENCRYPTED)
}

/// One push to each, and then another one.
fn origins(fpush: &Path, plan: &Plan, stand_in: &StandIn, subscriber: &Subscriber) -> Result<Origins> {
    let (count, endpoints) = (plan.origins, &stand_in.endpoints);
    println!("web push: {count} origins");
    let mut module = endpoints.web_module();
    // The second push shall go out at once, too.
    module["ratelimit"] = json!({ "enabled": false });
    let mut rig = Rig::start_behind(fpush, &json!({ WEB: module }), &endpoints.proxy)?;
    let subscription = subscriber.subscription(format!("https://{NUMBER}.{STRANGERS}/up?up=1"));
    let template = Template::new(Server::Prosody, WEB, &subscription.token());
    let before = rig.resident()?;
    let mut once = || {
        rig.link.next = 0;
        let amount = Amount::Publishes(count);
        let (done, cpu) = rig.run(std::slice::from_ref(&template), AT_ORIGINS, amount, Kind::Result)?;
        anyhow::Ok(per_push(cpu, done.pushes))
    };
    let cpu = [once()?, once()?];
    Ok(Origins {
        count,
        bytes: rig.resident()?.saturating_sub(before),
        cpu,
    })
}

impl WebPush {
    /// CPU of a web push over that of one to Apple.
    pub(super) fn ratio(&self) -> f64 {
        self.median(|round| round.web / round.apple)
    }

    /// As many a second as one core's time is enough for.
    pub(super) fn capacity(&self) -> f64 {
        1e6 / self.median(|round| round.web)
    }

    /// Milliseconds that the slowest in a hundred take longer than those to Apple.
    pub(super) fn p99(&self) -> f64 {
        millis(self.web.p99.saturating_sub(self.apple.p99))
    }

    /// The memory that one takes.
    pub(super) fn bytes_per_origin(&self) -> f64 {
        self.origins.bytes as f64 / self.origins.count as f64
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(figure)).unwrap_or(f64::INFINITY)
    }

    pub(super) fn table(&self) -> Table {
        let row = |what: String, figure: String| vec![what, figure];
        let micros = |figure: f64| format!("{figure:.1} us");
        let time = |time: Duration| format!("{:.2} ms", millis(time));
        let (rate, count) = (self.per_second, self.origins.count);
        Table {
            title: "Web Push".to_owned(),
            head: &["", "measured"],
            rows: vec![
                row(
                    "CPU per web push to one vendor, 512 in flight".to_owned(),
                    micros(self.median(|round| round.web)),
                ),
                row(
                    "of it for the encryption, measured alone".to_owned(),
                    micros(self.crypto_us),
                ),
                row(
                    "CPU per push to APNs, right after it".to_owned(),
                    micros(self.median(|round| round.apple)),
                ),
                row("ratio".to_owned(), format!("{:.2}", self.ratio())),
                row(format!("p99 from publish to reply, {rate}/s"), time(self.web.p99)),
                row("the same to APNs".to_owned(), time(self.apple.p99)),
                row(
                    format!("memory of an origin in use, of {count}"),
                    format!("{:.0} bytes", self.bytes_per_origin()),
                ),
                row(
                    "CPU of the first push to an origin: connection and signature".to_owned(),
                    micros(self.origins.cpu[0]),
                ),
                row("CPU of the second one".to_owned(), micros(self.origins.cpu[1])),
            ],
            notes: vec![
                "Each push has a key of its own (RFC 8291). Connections are bounded in all: of many origins most have none."
                    .to_owned(),
            ],
        }
    }

    pub(super) fn json(&self) -> Value {
        let rounds = self.rounds.iter();
        json!({
            "rounds": rounds.map(|round| json!({ "web_us": round.web, "apns_us": round.apple })).collect::<Vec<_>>(),
            "ratio": self.ratio(),
            "crypto_us": self.crypto_us,
            "per_second": self.per_second,
            "web": self.web.json(),
            "apns": self.apple.json(),
            "origins": self.origins.count,
            "bytes_per_origin": self.bytes_per_origin(),
            "first_cpu_us": self.origins.cpu[0],
            "second_cpu_us": self.origins.cpu[1],
        })
    }
}

const WEB: &str = "web";
const APPLE: &str = "apple";
const ENCRYPTED: u64 = 1_000;
/// Fewer than a domain may have at origins that have not accepted anything yet.
const AT_ORIGINS: u64 = 64;

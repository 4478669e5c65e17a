//! What a web push costs, beside a push to Apple in the same process, and what ten thousand servers take that strangers have chosen.
//!
//! All push services are one stand-in behind a proxy, which is in the stand-in's process. It accepts everything and reads nothing.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use fpush_testkit::{Subscriber, Subscription, push2::encrypt};
use serde_json::json;

use super::group::Subject;
use super::helper::StandIn;
use super::load::{Amount, Kind};
use super::paced::Pace;
use super::plan::{LOADS, Plan};
use super::providers::{Backend, STRANGERS, VENDOR};
use super::rig::Rig;
use super::stats::{median, millis};
use super::target::Target;
use super::template::{NUMBER, Server, Template};
use super::throughput::per_push;

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

pub(super) fn measure(subject: &Subject<'_>) -> Result<Vec<Target>> {
    let Subject {
        fpush,
        plan,
        stand_in,
        ..
    } = *subject;
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
    let [web, apple] = [paced(&templates[0])?, paced(&templates[1])?].map(|spread| millis(spread.p99));
    let origins = origins(fpush, plan, stand_in, &subscriber)?;
    let cpu = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure)).unwrap_or(f64::INFINITY);
    let (rate, count) = (plan.target_rate, origins.count);
    Ok(vec![
        Target::none(
            "CPU per web push to one vendor, 512 in flight",
            cpu(|round| round.web),
            " us",
        ),
        Target::none("of it for the encryption, measured alone", crypto(&vendor), " us"),
        Target::none(
            "CPU per push to APNs, right after it",
            cpu(|round| round.apple),
            " us",
        ),
        Target::at_most("ratio", cpu(|round| round.web / round.apple), 2.5, ""),
        Target::at_least(
            "1 / CPU per web push",
            1e6 / cpu(|round| round.web),
            5_000.0,
            "/s",
        ),
        Target::none(format!("p99 from publish to reply, {rate}/s"), web, " ms"),
        Target::none("the same to APNs", apple, " ms"),
        Target::at_most("what a web push takes longer", (web - apple).max(0.0), 5.0, " ms"),
        Target::at_most(
            format!("memory of an origin in use, of {count}"),
            origins.bytes as f64 / count as f64,
            20_000.0,
            " bytes",
        ),
        Target::none(
            "CPU of the first push to an origin: connection and signature",
            origins.cpu[0],
            " us",
        ),
        Target::none("CPU of the second one", origins.cpu[1], " us"),
    ])
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

const WEB: &str = "web";
const APPLE: &str = "apple";
const ENCRYPTED: u64 = 1_000;
/// Fewer than a domain may have at origins that have not accepted anything yet.
const AT_ORIGINS: u64 = 64;

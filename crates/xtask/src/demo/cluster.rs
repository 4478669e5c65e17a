//! `cargo xtask demo --cluster`: two instances are one service. What one has sent the other one knows, and what one held when
//! it died the other one sends.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::{Answer, Redis};
use serde_json::json;

use super::instance::{Apple, Instance, MODULE, PATIENCE, summary};
use super::{build, heading};
use crate::install::{self, Package};
use crate::interrupt;

/// Runs the demo. Whatever it started ends when this returns.
pub(crate) fn run() -> Result<()> {
    println!("{INTRODUCTION}");

    heading("1. Packages");
    install::ensure(&[Package::Redis])?;

    heading("2. Build fpush");
    let program = build()?;

    heading("3. Start everything");
    let (apple, engine) = (Apple::start(), Redis::start_new());
    let settings = json!({
        // A machine that is busy is not a slow engine.
        "cluster": { "url": engine.url(), "timeout": "1s" },
        "pushModules": { MODULE: { "ratelimit": { "ratelimitTime": format!("{WINDOW}s") } } },
    });
    let [a, b] = [0, 1].map(|_| Instance::start(&program, &apple, settings.clone()));
    println!("stand-in for APNs   {}", apple.apns.url());
    println!("engine              a Redis with an append-only file");
    for (name, instance) in [("A", &a), ("B", &b)] {
        println!(
            "fpush {name}             on the engine, with a stand-in for an XMPP server of its own, 127.0.0.1:{}",
            instance.xmpp_port()
        );
    }
    let mut stage = Stage {
        a: Some(a),
        b,
        apple,
        engine,
        start: Instant::now(),
    };

    heading("4. One limit, one outage, one death");
    stage.play()?;
    println!("\nEverything is stopped, and nothing is left behind but the build.");
    Ok(())
}

/// Everything that runs. The fields end in this order.
struct Stage {
    /// Until it is killed.
    a: Option<Instance>,
    b: Instance,
    apple: Apple,
    engine: Redis,
    start: Instant,
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        println!("{HEAD}");
        self.say("a message for phone 0 comes to A: a push");
        self.publish_at_a(0);
        self.watch(1)?;
        self.say(&format!(
            "two more for it come to B: the limit is {WINDOW} s, so one waits and the other one is refused"
        ));
        for _ in 0..2 {
            self.b.publish(0);
        }
        self.watch(1)?;
        ensure!(
            self.apple.apns.count() == 1,
            "B did not know what A has sent:\n{}",
            self.b.daemon.log()
        );
        self.watch(WINDOW)?;
        let limited = self.apple.apns.count();

        self.say(
            "Apple's servers answer 503 from now on; messages for twelve phones come to A, which holds and acknowledges \
             them when that is clear",
        );
        self.apple
            .apns
            .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
        for phone in 0..DEVICES {
            self.publish_at_a(phone);
        }
        let end = Instant::now() + PATIENCE;
        while self.answered_by_a().len() <= DEVICES && Instant::now() < end {
            self.watch(1)?;
        }
        let answers = self.answered_by_a().to_owned();
        self.say("kill -9: A is gone. When it has said nothing for ten seconds, B takes over what it held");
        drop(self.a.take());
        let end = Instant::now() + PATIENCE;
        while self.held_by_b() < DEVICES && Instant::now() < end {
            self.watch(1)?;
        }
        self.say("Apple is back; B sends what A had acknowledged, at a rate that grows");
        let failed = self.apple.apns.count();
        self.apple.apns.answer_normally();
        let end = Instant::now() + PATIENCE;
        while self.apple.woken(failed).len() < DEVICES && Instant::now() < end {
            self.watch(1)?;
        }
        self.watch(1)?;
        self.conclude(&answers, limited, failed)
    }

    /// A line a second, for so many seconds.
    fn watch(&mut self, seconds: u32) -> Result<()> {
        for _ in 0..seconds {
            interrupt::check()?;
            thread::sleep(Duration::from_secs(1));
            let mut a = "gone".to_owned();
            if let Some(instance) = &mut self.a {
                instance.hear();
                a = held(instance).to_string();
            }
            self.b.hear();
            println!(
                "{:>5.1} s {:>11} {:>11} {:>14} {:>11}",
                self.start.elapsed().as_secs_f64(),
                a,
                held(&self.b),
                self.engine.ask(&["HLEN", &format!("fpush:{{{MODULE}}}:held")]),
                self.apple.apns.count()
            );
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:>5.1} s  -- {what}", self.start.elapsed().as_secs_f64());
    }

    fn publish_at_a(&mut self, phone: usize) {
        if let Some(a) = &mut self.a {
            a.publish(phone);
        }
    }

    fn answered_by_a(&self) -> &[String] {
        self.a.as_ref().map_or(&[], |a| &a.answers)
    }

    fn held_by_b(&self) -> usize {
        held(&self.b)
    }

    fn conclude(&self, a: &[String], limited: usize, failed: usize) -> Result<()> {
        let (woken, pushes) = (self.apple.woken(failed).len(), self.apple.apns.count() - failed);
        println!(
            "\nA answered its publishes {}; B answered {}. Three messages for one phone were {limited} pushes. Of the {DEVICES} \
             phones whose pushes A held when it died {woken} got one from B, by {pushes} requests.",
            summary(a),
            summary(&self.b.answers),
        );
        ensure!(
            woken == DEVICES,
            "some phones got no push; the log of B:\n{}",
            self.b.daemon.log()
        );
        Ok(())
    }
}

/// How many pushes an instance holds.
fn held(instance: &Instance) -> usize {
    let held = instance.scrape().value("fpush_pushes_queued", &[]);
    held.unwrap_or_default() as usize
}

const INTRODUCTION: &str = "\
fpush demo: two instances are one service. A phone that got a push by one of them gets none too early by the other one,
and what one held when it died the other one sends.

It builds fpush, installs Redis if it is missing, and starts on 127.0.0.1 a Redis, stand-ins for two XMPP servers and for
Apple's push service, and two fpush. Nothing leaves this machine; tokens, keys and passwords are made up. It takes half
a minute once fpush is built.";

const HEAD: &str = "   time   held by A   held by B  in the engine   requests";

/// Seconds between two pushes to a phone.
const WINDOW: u32 = 4;

const DEVICES: usize = 12;

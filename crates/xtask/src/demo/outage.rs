//! `cargo xtask demo --outage`: a provider is away, fpush is killed meanwhile, and every phone gets its push in the end.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fpush_testkit::Answer;
use serde_json::json;

use super::instance::{Apple, Instance, MODULE, PATIENCE, summary};
use super::{build, heading};
use crate::interrupt;

/// Runs the demo. Whatever it started ends when this returns.
pub(crate) fn run() -> Result<()> {
    println!("{INTRODUCTION}");

    heading("1. Build fpush");
    let program = build()?;

    heading("2. Start everything");
    let apple = Apple::start();
    let unlimited = json!({ "pushModules": { MODULE: { "ratelimit": { "enabled": false } } } });
    let fpush = Instance::start(&program, &apple, unlimited);
    println!("stand-in for an XMPP server 127.0.0.1:{}", fpush.xmpp_port());
    println!("stand-in for APNs           {}", apple.apns.url());
    println!("fpush                       with a state directory, and a push for each device at any time");
    let mut stage = Stage {
        fpush,
        apple,
        start: Instant::now(),
    };

    heading("3. An outage of the provider, and its end");
    stage.play()?;
    println!("\nEverything is stopped, and nothing is left behind but the build.");
    Ok(())
}

/// Everything that runs. The fields end in this order.
struct Stage {
    fpush: Instance,
    apple: Apple,
    start: Instant,
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        println!("{HEAD}");
        self.publish();
        self.watch(2, Publishes::None)?;
        self.say("Apple's servers answer 503 from now on; messages for twelve phones come in");
        let before = self.apple.apns.count();
        self.apple
            .apns
            .answer_with(|_| Answer::reason(503, "ServiceUnavailable"));
        self.watch(8, Publishes::Two)?;
        self.say("kill -9: fpush ends without a word, and is started again");
        self.fpush.kill();
        self.fpush.start_again();
        self.watch(3, Publishes::Two)?;
        self.say("Apple is back; fpush finds out by one push, and sends the others at a rate that grows");
        let failed = self.apple.apns.count();
        self.apple.apns.answer_normally();
        let end = Instant::now() + PATIENCE;
        while self.apple.woken(failed).len() < DEVICES && Instant::now() < end {
            self.watch(1, Publishes::None)?;
        }
        self.watch(1, Publishes::None)?;
        self.conclude(before, failed)
    }

    /// A line a second, for so many seconds.
    fn watch(&mut self, seconds: u32, publishes: Publishes) -> Result<()> {
        for _ in 0..seconds {
            interrupt::check()?;
            for _ in 0..publishes as usize {
                self.publish();
            }
            thread::sleep(Duration::from_secs(1));
            self.fpush.hear();
            let metrics = self.fpush.scrape();
            let phase = metrics.find("fpush_module_outage", &[]).next();
            println!(
                "{:>5.1} s {:>11} {:>11} {:>11} {:>11}  {}",
                self.start.elapsed().as_secs_f64(),
                self.fpush.published,
                self.fpush.answers.len(),
                metrics.value("fpush_pushes_spooled", &[]).unwrap_or_default(),
                self.apple.apns.count(),
                phase.and_then(|sample| sample.label("phase")).unwrap_or_default()
            );
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:>5.1} s  -- {what}", self.start.elapsed().as_secs_f64());
    }

    /// A message for the next phone.
    fn publish(&mut self) {
        self.fpush.publish(self.fpush.published % DEVICES);
    }

    fn conclude(&self, before: usize, failed: usize) -> Result<()> {
        let woken = self.apple.woken(failed).len();
        let pushes = self.apple.apns.count() - failed;
        let answers = &self.fpush.answers;
        println!(
            "\n{} publishes were answered: {}; {} were not, because fpush was killed at that moment. Of {DEVICES} phones {woken} \
             got a push after the outage, by {pushes} requests; {} were made in vain before.",
            answers.len(),
            summary(answers),
            self.fpush.published - answers.len(),
            failed - before
        );
        ensure!(
            woken == DEVICES,
            "some phones got no push; the log of fpush:\n{}",
            self.fpush.daemon.log()
        );
        Ok(())
    }
}

/// How many messages come in a second.
#[derive(Clone, Copy)]
enum Publishes {
    None = 0,
    Two = 2,
}

const INTRODUCTION: &str = "\
fpush demo: a provider is away, fpush is killed meanwhile, and every phone gets its push in the end.

It builds fpush, and starts on 127.0.0.1 stand-ins for an XMPP server and for Apple's push service, and fpush. Nothing
leaves this machine; tokens, keys and passwords are made up. It takes half a minute once fpush is built.";

const HEAD: &str = "   time   published    answered        held  requests   the provider is";

const DEVICES: usize = 12;

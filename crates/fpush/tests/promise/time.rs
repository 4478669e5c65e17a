//! Time that passes for a daemon, and for the engine by which it shares if the whole table is to hold with that as well.

use std::{
    env,
    time::{Duration, Instant},
};

use fpush_testkit::{Clock, Daemon, Link, Monitoring, Moves, Redis, daemon, until};
use serde_json::{Value, json};

use super::rig::LONG;

/// With this in the environment the daemon of every row shares what it knows over an engine.
const WITH_CLUSTER: &str = "FPUSH_TEST_WITH_CLUSTER";
const SECOND: Duration = Duration::from_secs(1);

/// The clocks of one daemon, and the engine that is under them, too.
pub(crate) struct Time {
    clock: Clock,
    engine: Option<Redis>,
}

impl Time {
    /// For the daemon of this builder, which has these settings.
    pub(crate) fn of(builder: &daemon::Builder, moves: Moves, settings: &mut Value) -> Self {
        let clock = Clock::new(builder.dir(), moves);
        settings["monitoring"] = json!({ "listen": "127.0.0.1:0" });
        let engine = env::var_os(WITH_CLUSTER).map(|_| Redis::under(&clock));
        if let Some(engine) = &engine {
            // A busy machine is no slow engine.
            settings["cluster"] = json!({ "url": engine.url(), "timeout": "1s" });
        }
        Self { clock, engine }
    }

    /// Starts the daemon.
    pub(crate) fn run(&self, builder: daemon::Builder) -> Daemon {
        self.clock.run(builder)
    }

    /// The clock is wrong from the daemon's next start on.
    pub(crate) fn set_ahead(&mut self, time: Duration) {
        self.clock.advance(time);
    }

    /// So much time passes.
    #[track_caller]
    pub(crate) fn pass(&mut self, time: Duration, daemon: &Daemon, link: &mut Link) {
        let Some(engine) = &self.engine else {
            self.clock.advance(time);
            expect_answers(link);
            return;
        };
        wait_until_nothing_is_shared(engine, daemon, link);
        self.clock.advance(time);
        expect_answers(link);
        // Whatever waited for that long has ended now, and the status of a second later knows it.
        self.clock.advance(SECOND);
        expect_answers(link);
        let monitoring = Monitoring::of(daemon, LONG);
        until(LONG, "the engine is used", || {
            let status = monitoring.status();
            status["age"] == 0 && status["cluster"]["up"] == true
        });
        wait_until_nothing_is_shared(engine, daemon, link);
    }
}

/// Waits until nothing is under way between the daemon and the engine. If the clocks are moved meanwhile, the daemon has waited too
/// long for an answer, and the end of what it tells is later by as much.
#[track_caller]
fn wait_until_nothing_is_shared(engine: &Redis, daemon: &Daemon, link: &mut Link) {
    let end = Instant::now() + LONG;
    loop {
        let asked = asked_of(engine);
        expect_answers(link);
        // One more, which asks this.
        if asked_of(engine) == asked + 1 {
            return;
        }
        assert!(Instant::now() < end, "{}", daemon.log());
    }
}

/// How many commands an engine has run.
fn asked_of(engine: &Redis) -> u64 {
    let said = engine.ask(&["INFO", "stats"]);
    let count = said
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    count.unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap()
}

/// The daemon has been through its loop, so that what was due is done.
#[track_caller]
pub(crate) fn expect_answers(link: &mut Link) {
    for number in 0..3 {
        let id = format!("loop-{number}");
        link.send(format!(
            "<iq type='get' from='a.example' to='push.localhost' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        assert!(link.reply_to(&id, LONG).is_result());
    }
}

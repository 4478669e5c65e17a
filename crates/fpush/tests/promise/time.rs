//! Time that passes for a daemon, and for the engine by which it shares if the whole table is to hold with that as well.

use std::{
    env, fs,
    thread::sleep,
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
            // A busy machine is not a slow engine.
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
        let engine = self.engine.iter().map(Redis::pid);
        wait_until_nothing_is_done(&engine.chain([daemon.pid()]).collect::<Vec<_>>(), daemon);
        self.clock.advance(time);
        expect_answers(link);
        if self.engine.is_none() {
            return;
        }
        // Whatever waited for that long has ended now, and the status of a second later knows it.
        self.clock.advance(SECOND);
        expect_answers(link);
        let monitoring = Monitoring::of(daemon, LONG);
        until(LONG, "the engine is used", || {
            let status = monitoring.status();
            status["age"] == 0 && status["cluster"]["up"] == true
        });
    }
}

/// Waits until neither the daemon nor the engine does anything, nor waits for the disk. What is under way while the clocks are moved has
/// taken too long for who waits for it, and where it tells how much time is left of something, that ends later by as much.
#[track_caller]
fn wait_until_nothing_is_done(processes: &[u32], daemon: &Daemon) {
    let (end, mut seen) = (Instant::now() + LONG, 0);
    // One thread may wake another one while they are looked at.
    while seen < 3 {
        seen = if processes.iter().copied().all(is_asleep) {
            seen + 1
        } else {
            0
        };
        assert!(Instant::now() < end, "{}", daemon.log());
        sleep(Duration::from_millis(1));
    }
}

/// Whether all threads of a process wait for something to happen.
fn is_asleep(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name, which may hold anything, is in parentheses.
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('S'))
    })
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

//! An open loop: publishes leave when their time has come, whatever became of those before.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::load::{Kind, Link, Replies};
use super::template::Template;
use crate::interrupt;

/// So many publishes a second, at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) per_second: u64,
}

impl Pace {
    /// When the publish with this number, from 0, is due.
    fn due(self, number: u64) -> Duration {
        Duration::from_nanos(number * NANOS / self.per_second)
    }

    /// How many publishes are due after so long.
    fn due_after(self, elapsed: Duration) -> u64 {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        nanos.saturating_mul(self.per_second) / NANOS + 1
    }

    /// How many publishes such a time holds.
    pub(super) fn publishes_in(self, time: Duration) -> u64 {
        self.due_after(time) - 1
    }
}

const NANOS: u64 = 1_000_000_000;

/// What became of paced publishes.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The number of each publish that was answered with `result`, and the time from its sending to its reply.
    pub(super) accepted: Vec<(u64, Duration)>,
    /// How many got another answer.
    pub(super) refused: u64,
    /// How late each publish was sent.
    pub(super) late: Vec<Duration>,
    /// Until the last reply.
    pub(super) elapsed: Duration,
}

impl Sent {
    pub(super) fn pushes(&self) -> u64 {
        self.accepted.len() as u64 + self.refused
    }

    /// Adds what came of the publishes that went on at the same pace.
    pub(super) fn add(&mut self, more: Self) {
        self.accepted.extend(more.accepted);
        self.refused += more.refused;
        self.late.extend(more.late);
        self.elapsed += more.elapsed;
    }
}

impl Link {
    /// Sends publishes at that pace and waits for the last reply.
    ///
    /// A thread of its own sends: it sleeps until the next publish is due, and then writes all that are due. The
    /// time of a publish begins right before it is written, not when it was due: a thread that wakes up late is
    /// the load's fault, not fpush's. How late it was is noted, so that nobody has to believe that it kept pace.
    pub(super) fn paced(&mut self, template: &Template, pace: Pace, time: Duration) -> Result<Sent> {
        let (first, total) = (self.next, pace.publishes_in(time));
        self.next += total;
        let run = Run {
            socket: &self.socket,
            template,
            pace,
            first,
            start: Instant::now(),
            left: (0..total).map(|_| AtomicU64::new(NOT_YET)).collect(),
            given_up: AtomicBool::new(false),
        };
        let replies = &mut self.replies;
        thread::scope(|scope| {
            let late = scope.spawn(|| run.write());
            let mut sent = Sent::default();
            let read = run.read(replies, &mut sent);
            if read.is_err() {
                run.given_up.store(true, Ordering::Relaxed);
            }
            let late = late.join().map_err(|_| anyhow!("the sending thread panicked"))?;
            read?;
            sent.late = late?;
            Ok(sent)
        })
    }
}

/// What the thread that writes and the one that reads share.
struct Run<'a> {
    socket: &'a TcpStream,
    template: &'a Template,
    pace: Pace,
    first: u64,
    start: Instant,
    /// When each publish left, in nanoseconds since the start.
    left: Vec<AtomicU64>,
    given_up: AtomicBool,
}

impl Run<'_> {
    /// Returns how late each publish was.
    fn write(&self) -> Result<Vec<Duration>> {
        let mut socket = self.socket;
        let (mut next, total) = (0, self.left.len() as u64);
        let mut late = Vec::with_capacity(self.left.len());
        let mut out = Vec::new();
        while next < total && !self.given_up.load(Ordering::Relaxed) {
            let now = self.start.elapsed();
            let early = self.pace.due(next).saturating_sub(now);
            if !early.is_zero() {
                thread::sleep(early);
                continue;
            }
            let due = self.pace.due_after(now).min(total);
            out.clear();
            for number in next..due {
                self.template.write(self.first + number, &mut out);
                late.push(now - self.pace.due(number));
            }
            let now = nanos(self.start.elapsed());
            for left in &self.left[usize::try_from(next)?..usize::try_from(due)?] {
                left.store(now, Ordering::Release);
            }
            socket.write_all(&out).context("fpush takes nothing any more")?;
            next = due;
        }
        Ok(late)
    }

    fn read(&self, replies: &mut Replies, sent: &mut Sent) -> Result<()> {
        sent.accepted.reserve(self.left.len());
        while sent.pushes() < self.left.len() as u64 {
            replies.read(self.socket, |reply| {
                let left = reply
                    .index_from(self.first)
                    .and_then(|index| self.left.get(index))
                    .with_context(|| format!("there is no publish {} to reply to", reply.number))?
                    .swap(NOT_YET, Ordering::Acquire);
                ensure!(left != NOT_YET, "publish {} is not open", reply.number);
                let taken = reply.at.duration_since(self.start) - Duration::from_nanos(left);
                match reply.kind {
                    Kind::Result => sent.accepted.push((reply.number, taken)),
                    Kind::Gone | Kind::Refused => sent.refused += 1,
                }
                Ok(())
            })?;
            interrupt::check()?;
        }
        sent.elapsed = self.start.elapsed();
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NOT_YET)
}

/// Marks a publish that has not left yet, or that has its reply.
const NOT_YET: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_are_due_at_equal_distances() {
        let pace = Pace { per_second: 5_000 };
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(1), Duration::from_micros(200));
        assert_eq!(pace.due(600_000), Duration::from_secs(120));
        assert_eq!(pace.publishes_in(Duration::from_secs(120)), 600_000);
    }

    #[test]
    fn what_is_due_is_neither_early_nor_forgotten() {
        for per_second in [1, 3, 7, 1_000, 20_000, 33_333] {
            let pace = Pace { per_second };
            for number in [0, 1, 2, 1_000, 1_000_003] {
                let due = pace.due(number);
                // A nanosecond more, because `due` is rounded down.
                let count = pace.due_after(due + Duration::from_nanos(1));
                assert_eq!(count, number + 1, "{per_second} a second");
            }
        }
        let pace = Pace { per_second: 1_000 };
        assert_eq!(pace.due_after(Duration::from_micros(2_999)), 3);
        assert_eq!(pace.due_after(Duration::from_micros(3_000)), 4);
    }
}

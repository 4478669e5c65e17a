//! An open loop: publishes leave when their time has come, whatever became of those before.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use fpush_testkit::Dice;

use super::load::{Kind, Link, Replies};
use super::stats::Spread;
use super::template::Template;
use crate::interrupt;

/// So many publishes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) per_second: u64,
    shape: Shape,
}

/// How they are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// At equal distances.
    Even,
    /// As those of many senders who know nothing of each other.
    Poisson,
}

impl Pace {
    /// At equal distances.
    pub(super) const fn even(per_second: u64) -> Self {
        Self {
            per_second,
            shape: Shape::Even,
        }
    }

    /// As those of many senders who know nothing of each other; at the same times in each run.
    pub(super) const fn poisson(per_second: u64) -> Self {
        Self {
            per_second,
            shape: Shape::Poisson,
        }
    }

    /// When each publish of such a time is due.
    pub(super) fn departures(self, time: Duration) -> Vec<Duration> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let count = nanos.saturating_mul(self.per_second) / NANOS;
        let (mut dice, mut at) = (Dice::new(SEED), Duration::ZERO);
        let mut due = |number| match self.shape {
            Shape::Even => Duration::from_nanos(number * NANOS / self.per_second),
            Shape::Poisson => {
                let chance = (dice.below(FINE) + 1) as f64 / FINE as f64;
                at += Duration::from_secs_f64(-chance.ln() / self.per_second as f64);
                at
            }
        };
        (0..count).map(&mut due).collect()
    }
}

/// The seed of all times that are drawn.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// How many chances there are.
const FINE: usize = 1 << 40;

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

    /// How long the replies with `result` took.
    pub(super) fn spread(&self) -> Spread {
        Spread::of(self.accepted.iter().map(|(_, taken)| *taken).collect())
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
    pub(super) fn paced(&mut self, templates: &[Template], pace: Pace, time: Duration) -> Result<Sent> {
        let (first, due) = (self.next, pace.departures(time));
        self.next += due.len() as u64;
        let run = Run {
            socket: &self.socket,
            templates,
            first,
            left: due.iter().map(|_| AtomicU64::new(NOT_YET)).collect(),
            due,
            start: Instant::now(),
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
    /// In turn.
    templates: &'a [Template],
    first: u64,
    /// When each publish is due.
    due: Vec<Duration>,
    start: Instant,
    /// When each publish left, in nanoseconds since the start.
    left: Vec<AtomicU64>,
    given_up: AtomicBool,
}

impl Run<'_> {
    /// Returns how late each publish was.
    fn write(&self) -> Result<Vec<Duration>> {
        let mut socket = self.socket;
        let mut late = Vec::with_capacity(self.due.len());
        let mut out = Vec::new();
        let mut numbered = (self.first..).zip(self.templates.iter().cycle());
        while let Some(next) = self.due.get(late.len())
            && !self.given_up.load(Ordering::Relaxed)
        {
            let (now, first) = (self.start.elapsed(), late.len());
            let early = next.saturating_sub(now);
            if !early.is_zero() {
                thread::sleep(early);
                continue;
            }
            out.clear();
            late.extend(self.due[first..].iter().map_while(|due| now.checked_sub(*due)));
            for (number, template) in numbered.by_ref().take(late.len() - first) {
                template.write(number, &mut out);
            }
            let now = nanos(self.start.elapsed());
            for left in &self.left[first..late.len()] {
                left.store(now, Ordering::Release);
            }
            socket.write_all(&out).context("fpush takes nothing any more")?;
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
        let due = Pace::even(5_000).departures(Duration::from_secs(120));
        assert_eq!(due.len(), 600_000);
        assert_eq!((due[0], due[1]), (Duration::ZERO, Duration::from_micros(200)));
        assert_eq!(due[599_999], Duration::from_micros(119_999_800));
    }

    #[test]
    fn publishes_of_many_come_by_chance_and_as_often() {
        let due = Pace::poisson(5_000).departures(Duration::from_secs(20));
        assert_eq!(due.len(), 100_000);
        assert!(due.is_sorted());
        let end = due[99_999].as_secs_f64();
        assert!((19.8..20.2).contains(&end), "{end}");
        // Gaps shorter than the mean are 63 of 100.
        let short = due
            .windows(2)
            .filter(|pair| pair[1] - pair[0] < Duration::from_micros(200));
        let share = short.count() as f64 / 1e5;
        assert!((0.62..0.645).contains(&share), "{share}");
    }
}

//! What decisions cost while thousands of names wait, in blocks of code that are run: no more than a few times what
//! they cost while nobody does. Virtual time does not see that, and real time depends on the machine.
//!
//! Only `cargo xtask simulate` compiles it so that blocks are counted.

#![cfg(target_os = "linux")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_policy::{
    Clocks, Decision, Elsewhere, Ended, Entered, Gate, Grant, LastAccepted, ModuleSettings, Next, Passed,
    Policy, Publish, PushJob, RateSlot, Sender, SenderDomain, Standing, Ticket, Tries, Turn,
};
use fpush_push::{
    Choice, Class, Failure, Fingerprint, Form, LaneId, Outcome, Push, PushError, Token, TokenHasher,
    settings::{Report, Section},
};
use fpush_simulation::{operations, split_mix};
use uuid::Uuid;

/// What is counted: how often each was done, and how many blocks that took.
#[derive(Default)]
struct Costs(BTreeMap<&'static str, (u64, u64)>);

impl Costs {
    fn of<R>(&mut self, what: &'static str, work: impl FnOnce() -> R) -> R {
        self.add(what, 1, work)
    }

    /// Counts it as so many.
    fn add<R>(&mut self, what: &'static str, as_many: u64, work: impl FnOnce() -> R) -> R {
        let before = operations();
        let result = work();
        let (times, blocks) = self.0.entry(what).or_default();
        *times += as_many;
        *blocks += operations() - before;
        result
    }

    /// In a crowd each costs no more than a few times what it costs without.
    fn check(&self, calm: &Self) {
        assert!(
            operations() > 0,
            "nothing is counted: `cargo xtask simulate` does it"
        );
        for (what, (times, blocks)) in &self.0 {
            let (calm_times, calm_blocks) = calm.0.get(what).copied().unwrap_or_default();
            assert!(
                *times >= 200 && calm_times >= 200,
                "{what}: {times}, {calm_times}"
            );
            let (crowd, calm) = (blocks / times, calm_blocks / calm_times);
            assert!(
                crowd <= 4 * calm + MORE,
                "{what}: {crowd} blocks in a crowd, {calm} without"
            );
        }
    }
}

/// A push at the provider.
struct Flight {
    job: Box<PushJob>,
    slot: RateSlot,
    held: Option<u64>,
}

struct World {
    random: u64,
    hasher: TokenHasher,
    policy: Policy<u64>,
    clocks: Clocks,
    millis: u64,
    flights: VecDeque<Flight>,
    waiting: BTreeMap<u64, (Box<PushJob>, RateSlot, Ticket<Fingerprint>)>,
    next: u64,
    /// How many names send.
    names: u64,
    costs: Costs,
}

impl World {
    fn new(seed: u64, names: u64) -> Self {
        let (report, empty) = (Report::default(), serde_json::Map::new());
        let settings = ModuleSettings {
            max_in_flight: (names / 50).max(2) as usize,
            ..ModuleSettings::read(&mut Section::root(&empty, &report))
        };
        let clocks = Clocks {
            now: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400),
        };
        Self {
            random: seed,
            hasher: TokenHasher::with_key([7; 16]),
            policy: Policy::new(settings, 1, clocks),
            clocks,
            millis: 0,
            flights: VecDeque::new(),
            waiting: BTreeMap::new(),
            next: 0,
            names,
            costs: Costs::default(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        split_mix(&mut self.random) % bound
    }

    fn now(&self) -> Instant {
        self.clocks.now + Duration::from_millis(self.millis)
    }

    /// Some own a domain with many names below it, others many domains.
    fn sender(&mut self) -> Arc<SenderDomain> {
        let number = self.below(self.names);
        let name = if number.is_multiple_of(2) {
            format!("d{number}.evil.org")
        } else {
            format!("evil-{number}.org")
        };
        let last_accepted = if number.is_multiple_of(3) {
            LastAccepted::Lately
        } else {
            LastAccepted::Never
        };
        Arc::new(SenderDomain::new(&name, &self.hasher).accepted(last_accepted))
    }

    /// Every second push is for a token that has had one lately.
    fn publish(&mut self, is_new: bool) {
        let sender = self.sender();
        let number = if is_new || self.below(2) == 0 {
            self.next
        } else {
            self.next - self.below(self.next.min(200) + 1)
        };
        let name = format!("token {number}");
        let token = self.hasher.fingerprint(&name);
        let job = Box::new(PushJob {
            push: Push {
                token: Token::new(&name),
                class: Class::High,
                form: Form::Full,
                extra: None,
                notification: None,
                count: None,
                id: Uuid::from_u128(u128::from(self.next)),
                deadline: self.now() + Duration::from_secs(25),
            },
            token,
            lane: LaneId::Main,
            elsewhere: Elsewhere::Nowhere,
            vendor: None,
            key: token,
            node: None,
            choice: Choice::Named,
            sender: Arc::clone(&sender),
            spacing: Duration::from_secs(20),
            arrived: self.now(),
            worth_until: None,
            record: None,
        });
        let (now, number) = (self.now(), self.next);
        self.next += 1;
        let publish = Publish {
            target: job.target(),
            lane: LaneId::Main,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &sender,
        };
        let policy = &mut self.policy;
        match self.costs.of("publish", || policy.publish(&publish, now)) {
            Decision::Answer(_) => {}
            Decision::Hold { until, .. } => {
                self.costs.of("hold", || policy.hold(job, until));
            }
            Decision::Send { slot, .. } => {
                let turn = self.costs.of("take a turn", || {
                    policy.take_turn(LaneId::Main, &sender, || number)
                });
                match turn {
                    Turn::Now => self.flights.push_back(Flight {
                        job,
                        slot,
                        held: None,
                    }),
                    Turn::Waiting(ticket, displaced) => {
                        self.waiting.insert(number, (job, slot, ticket));
                        if let Some((_, slot, _)) = displaced.and_then(|number| self.waiting.remove(&number))
                        {
                            self.policy.give_back(slot);
                        }
                    }
                    Turn::Full => self.policy.give_back(slot),
                }
            }
        }
    }

    /// The provider answers.
    fn answer(&mut self) {
        let Some(mut flight) = self.flights.pop_front() else {
            return;
        };
        let (now, answer) = (self.now(), self.below(12));
        let error = match answer {
            0 => Some(PushError::TokenGone { since: None }),
            1 => Some(PushError::TokenDoubted),
            2 => Some(PushError::Later { after: None }),
            _ => None,
        };
        let failure = error.map(|error| Failure::new(error, "reason", "answer", ""));
        let result = failure.as_ref().map_or(Ok(()), Err);
        let (policy, mut tries) = (&mut self.policy, Tries::new(now, 0));
        let answered = self.costs.of("answer", || {
            policy.answered(&mut flight.job, &mut tries, result, 0, now, 0.5)
        });
        let ended = match answered.next {
            // What it costs does not depend on whether it was believed.
            _ if answer == 0 => {
                self.costs
                    .of("registry", || policy.registry_said(&flight.job, Ok(true), now));
                Ended::Settled(Outcome::TokenDead)
            }
            Next::Ended(ended) => ended,
            Next::Dead { .. } => Ended::Settled(Outcome::TokenDead),
            Next::Again | Next::Elsewhere | Next::After { .. } => Ended::Failed { resume: now },
        };
        if let Some(number) = flight.held {
            self.costs.of("held ended", || {
                policy.held_ended(number, flight.slot, &ended, now)
            });
        } else if ended != Ended::Settled(Outcome::Accepted) {
            self.costs.of("give back", || policy.give_back(flight.slot));
        }
        self.policy.give_back_permit(LaneId::Main);
        self.grant();
    }

    fn grant(&mut self) {
        let now = self.now();
        loop {
            let policy = &mut self.policy;
            match self.costs.of("grant", || policy.grant(now)) {
                None => return,
                Some(Grant::Ended(..)) => {}
                Some(Grant::Down(number)) => {
                    if let Some((_, slot, _)) = self.waiting.remove(&number) {
                        self.policy.give_back(slot);
                    }
                }
                Some(Grant::Waiter(number)) => {
                    if let Some((job, slot, _)) = self.waiting.remove(&number) {
                        self.flights.push_back(Flight {
                            job,
                            slot,
                            held: None,
                        });
                    }
                }
                Some(Grant::Held(attempt)) => self.flights.push_back(Flight {
                    job: attempt.job,
                    slot: attempt.slot,
                    held: Some(attempt.number),
                }),
            }
        }
    }

    /// One that waits gives up.
    fn leave(&mut self) {
        let at = self.below(self.next);
        let number = self.waiting.range(at..).next().map(|(number, _)| *number);
        if let Some((_, slot, ticket)) = number.and_then(|number| self.waiting.remove(&number)) {
            let policy = &mut self.policy;
            self.costs.of("leave", || policy.leave(LaneId::Main, &ticket));
            self.policy.give_back(slot);
        }
    }

    fn pass(&mut self) {
        self.millis += 20;
        let (now, policy) = (self.now(), &mut self.policy);
        self.costs.of("timer", || policy.next_timer(now));
        // How many are due is not known, but each is once.
        self.costs.add("hold", 0, || policy.make_due(now));
        self.grant();
    }

    fn live(mut self, steps: u64) -> Costs {
        for _ in 0..self.names {
            self.publish(true);
        }
        self.costs = Costs::default();
        for _ in 0..steps {
            match self.below(10) {
                0..4 => self.publish(false),
                4..7 => self.answer(),
                7 => self.leave(),
                _ => self.pass(),
            }
        }
        self.costs
    }
}

/// Look-ups and commands.
fn gate(seed: u64, names: u64) -> Costs {
    let (mut random, mut costs) = (seed, Costs::default());
    let mut gate: Gate<u64, u64> = Gate::new(32, names.max(64) as usize);
    let mut tickets = BTreeMap::new();
    for number in 0..names + 20_000 {
        // Some own a domain with many names below it, others many domains.
        let name = split_mix(&mut random) % names;
        let sender = Sender {
            share: if name.is_multiple_of(2) { 0 } else { name },
            name,
            standing: if name.is_multiple_of(3) {
                Standing::Known
            } else {
                Standing::Unknown
            },
        };
        let passed = if number < names {
            gate.enter(sender, number)
        } else {
            costs.of("look up", || gate.enter(sender, number))
        };
        match passed {
            Passed::Now(_) | Passed::Entered(Entered::Full(_)) => {}
            Passed::Entered(Entered::Waiting(ticket)) => drop(tickets.insert(number, ticket)),
            Passed::Entered(Entered::Displacing(ticket, displaced)) => {
                tickets.insert(number, ticket);
                tickets.remove(&displaced);
            }
        }
        if number < names {
            continue;
        }
        match split_mix(&mut random) % 3 {
            0 => {
                let next = costs.of("next look-up", || gate.give_back());
                next.and_then(|number| tickets.remove(&number));
            }
            1 => {
                let at = split_mix(&mut random) % number;
                let first = tickets.range(at..).next().map(|(number, _)| *number);
                if let Some(ticket) = first.and_then(|number| tickets.remove(&number)) {
                    costs.of("leave a look-up", || gate.leave(&ticket));
                }
            }
            _ => {}
        }
    }
    costs
}

#[test]
#[ignore = "`cargo xtask simulate` counts what is run"]
fn the_cost_of_a_decision_does_not_grow_with_who_waits() {
    for seed in 0..3 {
        let calm = World::new(seed, FEW).live(20_000);
        World::new(seed, CROWD).live(20_000).check(&calm);
        gate(seed, CROWD).check(&gate(seed, FEW));
    }
}

/// Names that send.
const FEW: u64 = 40;
const CROWD: u64 = 20_000;
/// What trees and tables may cost more that are as deep as a crowd makes them.
const MORE: u64 = 600;

//! Files that the program itself reads: settings, its state, unit files, questions of the command line.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpush_policy::{
    BlockRule, BlocklistSettings, Clocks, Elsewhere, Ended, Grant, HeldRecord, KnownDomains, ModuleSettings,
    Policy, Publish, RatelimitSettings, Recipient, Remembered, SenderDomain, Target, VerdictPlace,
};
use fpush_push::{Class, Delivery, LaneId, Outcome, Token, TokenHasher};

use crate::check_line;

/// The text of the settings. Either the daemon starts with them or there is a word about it, and all words are an operator's.
pub(crate) fn settings(input: &[u8]) {
    let (is_good, problems) = fpush::fuzz::settings(input);
    assert!(is_good || !problems.is_empty(), "without a word");
    for problem in &problems {
        check_line(problem);
    }
    assert!(problems.len() <= input.len() + 1, "{} problems", problems.len());
}

/// A question of the command line.
pub(crate) fn question(input: &[u8]) {
    fpush::fuzz::question(input);
}

/// A unit file of systemd.
pub(crate) fn unit_file(input: &[u8]) {
    fpush::fuzz::unit(&String::from_utf8_lossy(input));
}

/// A file of the state directory. What was read is written and read again as it is, and a module goes on with it, whatever it is.
pub(crate) fn state_files(input: &[u8]) {
    let state = fpush::fuzz::state(input);
    let mut lines = String::new();
    for record in &state.held {
        assert!(record.token().len() <= 4_096 && record.domain().len() <= 1_023);
        lines += &line(record);
    }
    for record in &state.blocks {
        lines += &line(record);
    }
    for record in &state.verdicts {
        lines += &line(record);
    }
    for domain in &state.domains {
        let domain = serde_json::to_string(domain).expect("a record is JSON");
        lines += &format!("{domain}\n");
    }
    let again = |head: &str| fpush::fuzz::state(format!("{head}\n{lines}").as_bytes());
    let plain = again("{\"fpush\":1}");
    assert!(plain.held == state.held && plain.verdicts == state.verdicts && plain.domains == state.domains);
    let hashed = again("{\"fpush\":1,\"key\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}");
    assert!(hashed.blocks == state.blocks);
    go_on(state);
}

fn line(record: &impl serde::Serialize) -> String {
    let record = serde_json::to_string(record).expect("a record is JSON");
    format!("[\"m\",\"t\",{record}]\n")
}

/// A module that goes on with this state: its pushes go out, it takes new ones, and it writes what it knows.
fn go_on(state: fpush::fuzz::State) {
    let hasher = TokenHasher::with_key([0; 16]);
    let mut clocks = Clocks {
        now: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let start = clocks.now;
    let mut policy = Policy::<()>::new(module(), 7, clocks);
    let held = state.held.len();
    policy.remember(state.blocks, state.verdicts, clocks);
    policy.begin_noting(0);
    let mut file = BTreeMap::new();
    for (number, record) in (0..).zip(state.held) {
        let recipient = recipient(&record, &hasher);
        let remembered = policy.remember_held(number, record.clone(), recipient, &hasher, clocks);
        if remembered == Remembered::Held {
            file.insert(number, record);
        }
    }
    assert!(policy.held() <= held);
    let mut domains = KnownDomains::new(clocks);
    domains.remember(state.domains);
    let others = SenderDomain::new("a.example", &hasher);
    let others = others.accepted(domains.last_accepted(others.share));
    for step in 0..STEPS {
        clocks.now = start + STEP * step;
        clocks.wall += STEP;
        policy.follow_clock(clocks);
        while policy.make_due(clocks.now) {}
        write(&mut policy, &mut file);
        for number in policy.take_wanted() {
            let job = file.get(&number).cloned().map(|record| {
                let recipient = recipient(&record, &hasher);
                Policy::<()>::job_of(record, recipient, &hasher, clocks)
            });
            assert!(job.is_some(), "what is held is in the file");
            policy.loaded(number, job, clocks.now);
        }
        while let Some(grant) = policy.grant(clocks.now) {
            match grant {
                Grant::Held(attempt) => {
                    let _ = policy.held_ended(
                        attempt.number,
                        attempt.slot,
                        &Ended::Settled(Outcome::Accepted),
                        clocks.now,
                    );
                    policy.give_back_permit(LaneId::Main);
                }
                Grant::Ended(..) => {}
                Grant::Waiter(()) | Grant::Down(()) => panic!("nobody waits"),
            }
        }
        let token = hasher.fingerprint(&step.to_string());
        let publish = Publish {
            target: Target {
                key: token,
                token,
                class: Class::High,
            },
            lane: LaneId::Main,
            registered: false,
            spacing: None,
            time_to_live: Duration::MAX,
            sender: &others,
        };
        let _ = policy.publish(&publish, clocks.now);
        let _ = policy.view(clocks.now);
        let _ = (
            policy.verdicts(VerdictPlace::default(), clocks.now),
            policy.blocks(0, clocks),
        );
    }
    write(&mut policy, &mut file);
    assert!(file.is_empty(), "nothing is left in the file");
    assert_eq!(
        policy.held(),
        0,
        "nothing is held for longer than it is worth something"
    );
}

/// Writes down what has changed of what is held.
fn write(policy: &mut Policy<()>, file: &mut BTreeMap<u64, HeldRecord>) {
    for change in policy.take_changes() {
        change.apply(file);
    }
}

fn recipient(record: &HeldRecord, hasher: &TokenHasher) -> Recipient {
    Recipient {
        lane: LaneId::Main,
        elsewhere: Elsewhere::Nowhere,
        token: Token::new(record.token()),
        sender: Arc::new(SenderDomain::new(record.domain(), hasher)),
        time_to_live: STEP,
    }
}

fn module() -> ModuleSettings {
    let rule = BlockRule {
        initial: STEP,
        extended: 2 * STEP,
    };
    ModuleSettings {
        max_in_flight: 10,
        hold_for: STEP,
        ratelimit: RatelimitSettings {
            enabled: true,
            spacing: Duration::from_secs(20),
            hard_spacing: Duration::from_secs(600),
            cleanup: Duration::from_secs(300),
            acknowledge_refused: false,
        },
        blocklist: BlocklistSettings {
            dead: rule.clone(),
            unexplained: rule,
            extension: STEP,
        },
        delivery: Delivery::Real,
    }
}

/// Eight times fifty days: more than a year, which is the longest time that a file may name.
const STEPS: u32 = 9;
const STEP: Duration = Duration::from_secs(50 * 86_400);

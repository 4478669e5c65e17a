//! The inputs of `fuzz/corpus`, as they are and spoilt, on every compiler: what libFuzzer does for longer and with more insight.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_macros,
    reason = "in a test a panic is the report, and who runs it for long reads how far it got"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fpush_fuzz::{TARGETS, Target};
use fpush_testkit::Dice;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The names and the contents of a target's inputs.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(target.name);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs a target with an input. If something does not hold, the input is kept in a file, and named.
fn check(target: &Target, input: &[u8], what: &str) {
    let run = target.run;
    let owned = input.to_vec();
    if catch_unwind(move || run(&owned)).is_err() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failed", target.name));
        fs::write(&file, input).unwrap();
        panic!(
            "{} fails with {what}; the input is in {}",
            target.name,
            file.display()
        );
    }
}

/// Spoilt inputs, always the same ones for a seed.
struct Spoilt {
    inputs: Vec<(String, Vec<u8>)>,
    dice: Dice,
}

impl Spoilt {
    fn new(target: &Target, seed: u64) -> Self {
        Self {
            inputs: corpus(target),
            dice: Dice::new(seed),
        }
    }

    fn next(&mut self) -> (&str, Vec<u8>) {
        let [one, other] = [0; 2].map(|_| self.dice.below(self.inputs.len()));
        let (name, content) = &self.inputs[one];
        let mut content = content.clone();
        for _ in 0..=self.dice.below(4) {
            self.dice.spoil(&mut content, &self.inputs[other].1);
        }
        content.truncate(LONGEST);
        (name, content)
    }
}

/// How often a target is run with spoilt inputs; less often where an input costs more.
fn count(target: &Target) -> usize {
    match target.name {
        "pkcs12" => 100,
        "apns_certificate" | "commands" | "listener_certificate" | "service_account" | "trusted_roots" => 300,
        _ => 2_000,
    }
}

#[test]
fn the_corpus_and_what_becomes_of_it_when_it_is_spoilt_is_read() {
    for target in TARGETS {
        for (name, content) in corpus(target) {
            assert!(content.len() <= LONGEST, "{name} is too large to be kept");
            check(target, &content, &name);
        }
        check(target, b"", "nothing");
        let mut spoilt = Spoilt::new(target, SEED);
        for number in 0..count(target) {
            let (name, content) = spoilt.next();
            let what = format!("{name}, spoilt for the time {number}");
            check(target, &content, &what);
        }
    }
}

/// What `cargo xtask fuzz` runs where there is no libFuzzer: so many seconds in all.
#[test]
#[ignore = "takes as long as it is told"]
fn spoilt_for_a_while() {
    let seconds: u32 = env::var("FPUSH_FUZZ_SECONDS").unwrap().parse().unwrap();
    let each = Duration::from_secs(seconds.into()) / u32::try_from(TARGETS.len()).unwrap();
    for target in TARGETS {
        let mut spoilt = Spoilt::new(target, u64::from(seconds) + SEED);
        let (start, mut runs) = (Instant::now(), 0_u64);
        while start.elapsed() < each {
            let (name, content) = spoilt.next();
            let what = format!("{name}, spoilt for the time {runs}");
            check(target, &content, &what);
            runs += 1;
        }
        println!("{}: {runs} runs", target.name);
    }
}

/// `fuzz/` and the list of targets are one.
#[test]
fn each_target_has_a_corpus_and_a_file_for_libfuzzer() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let entries = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz_folder().join(folder)).unwrap();
        let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| name(entry.unwrap())).collect()
    };
    assert_eq!(entries("corpus"), names);
    assert_eq!(entries("fuzz_targets"), names);
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let file = fuzz_folder()
            .join("fuzz_targets")
            .join(&name)
            .with_extension("rs");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", ")), "{name}");
    }
}

/// What is meant to be good is read as such: otherwise the targets would only see what is refused at once.
#[test]
fn good_inputs_are_understood() {
    let input = |path: &str| fs::read(fuzz_folder().join("corpus").join(path)).unwrap();
    let blocks = fpush::fuzz::state(&input("state_files/blocklist.jsonl"));
    let held = fpush::fuzz::state(&input("state_files/held.jsonl"));
    let verdicts = fpush::fuzz::state(&input("state_files/verdicts.jsonl"));
    let domains = fpush::fuzz::state(&input("state_files/domains.jsonl"));
    assert_eq!(domains.domains.len(), 2);
    let registry = fpush::fuzz::state(&input("state_files/registry.jsonl"));
    let counts = (blocks.blocks.len(), held.held.len(), verdicts.verdicts.len());
    assert_eq!((counts, registry.heads[3]), ((2, 2, 4), true));
    let (good, problems) = fpush::fuzz::settings(&input("settings/demo.json"));
    assert!(good && problems.is_empty(), "{problems:?}");
    let lua = input("prosody_file/good");
    let lua = &lua[lua.iter().position(|byte| *byte == b'\n').unwrap()..];
    assert!(fpush_registry::fuzz::prosody_file(lua, None).is_ok());
    assert_eq!(fpush_apns::fuzz::pkcs12(&input("pkcs12/aes.p12"), "test"), None);
    assert_eq!(fpush_apns::fuzz::p8(&input("provider_token_key/good.p8")), None);
    assert!(fpush_fcm::fuzz::account(&input("service_account/good.json")).is_empty());
    for stanza in ["prosody-publish", "encrypted-publish", "prefixes"] {
        let asked = fpush_component::fuzz::read(&input(&format!("stanzas/{stanza}"))).unwrap();
        assert!(asked.kept > 0, "{stanza}");
    }
    let asked = fpush_component::fuzz::read(&input("commands/tigase")).unwrap();
    assert_eq!(asked.command.unwrap().fields.len(), 3);
}

const SEED: u64 = 0x5eed;
/// Bytes of an input: as many as libFuzzer's longest usually have.
const LONGEST: usize = 10 * 1_024;

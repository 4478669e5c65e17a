//! What must hold for whatever others write: a function for each reader of foreign bytes.
//!
//! A function takes any bytes, and panics if something does not hold: that reading ends, that what was read has a bound, that it
//! is read again as it was written, that words about it hold no secret. `fuzz/` gives libFuzzer's inputs to them, and the tests of
//! this crate the inputs of `fuzz/corpus`, as they are and spoilt. Which input means what is said beside each function.

mod answers;
mod cluster;
mod files;
mod state;
mod stream;
mod web;

/// A reader with what must hold for it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its folder in `fuzz/corpus`, and of its file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident::$name:ident,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$name },)*
        ];
    };
}

targets! {
    answers::apns_answer,
    answers::fcm_answer,
    answers::proxy_answer,
    answers::token_answer,
    answers::webpush_answer,
    cluster::engine_answer,
    files::apns_certificate,
    files::json_lines,
    files::listener_certificate,
    files::p2_table,
    files::pkcs12,
    files::prosody_file,
    files::provider_token_key,
    files::service_account,
    files::trusted_roots,
    state::question,
    state::settings,
    state::state_files,
    state::unit_file,
    stream::addresses,
    stream::commands,
    stream::notifications,
    stream::stanzas,
    web::http_form,
    web::http_headers,
    web::webpush_token,
}

/// Runs the target of this name.
///
/// # Panics
///
/// There is none, or something does not hold.
pub fn run(name: &str, input: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(input),
        None => panic!("there is no target {name}"),
    }
}

/// What stands for everything secret in the inputs: words about them do not hold it.
pub const SECRET: &str = "Sw0rdfish";

/// What is said about an input is short, is one line, and says nothing that is secret.
#[track_caller]
fn check_words(words: &str) {
    assert!(!words.contains(SECRET), "a secret is said: {words}");
    check_line(words);
}

/// The same where the input may hold the secret in the place of a name.
#[track_caller]
fn check_line(words: &str) {
    assert!(
        words.len() <= LONGEST_WORDS,
        "{} bytes: {words:.200}",
        words.len()
    );
    assert!(!words.chars().any(char::is_control), "{words:?}");
}

/// The first line, and what is behind it.
fn split_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, b""),
    }
}

/// A path of 4,095 bytes may be among them.
const LONGEST_WORDS: usize = 6_000;

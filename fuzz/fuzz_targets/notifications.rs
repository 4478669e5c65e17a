//! See `crates/fpush-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fpush_fuzz::run("notifications", input));

//! What the commands say of themselves.

use fpush_testkit::{TempDir, run_to_end};

use crate::rig::{PROGRAM, Said};

#[track_caller]
fn said(args: &[&str]) -> String {
    let dir = TempDir::new();
    let said = Said::of(run_to_end(PROGRAM, args.iter().copied(), dir.path()));
    said.expect(0, &[]);
    // Lines are as wide as the terminal.
    said.out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_help_says_what_happens_and_what_the_exit_statuses_mean() {
    let send = said(&["send", "--help"]);
    for part in [
        "Usage: fpush send [OPTIONS] --module <MODULE> --token <TOKEN> [SETTINGS]",
        "whatever rate limit and block list say",
        "0 only if the provider accepted the push, 1 if it did not, 78 if the settings are wrong, and 71 if",
        "- reads it from standard input",
        "[default: high]",
    ] {
        assert!(send.contains(part), "no {part:?} in {send}");
    }
    let check = said(&["check", "--help"]);
    for part in [
        "The exit status is 0, or 78 if something is wrong",
        "--connect Log in to the XMPP server and to every provider, too",
        "Nothing is sent to any device.",
        "The exit status is 1 if somebody does not let us in, and 71 if",
    ] {
        assert!(check.contains(part), "no {part:?} in {check}");
    }
}

#[test]
fn shells_complete_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = said(&["completions", shell]);
        for part in ["send", "check", "connect", "token", "priority", "call"] {
            // Of some shells the values have to be typed.
            if part == "call" && ["elvish", "powershell"].contains(&shell) {
                continue;
            }
            assert!(script.contains(part), "{shell} knows no {part}");
        }
    }
}

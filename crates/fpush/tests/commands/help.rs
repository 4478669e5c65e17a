//! What the commands say of themselves.

use fpush_testkit::{TempDir, run_to_end};

use crate::rig::{CONFIG, PROGRAM, Said};

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
        "0 the provider accepted the push 1 it did not",
        "71 the running fpush cannot be asked",
        "78 the settings are wrong",
        "- reads it from standard input",
        "[default: high]",
    ] {
        assert!(send.contains(part), "no {part:?} in {send}");
    }
    let check = said(&["check", "--help"]);
    for part in [
        "0 the settings are good",
        "78 the settings are wrong",
        "--connect Log in to the XMPP server and to every provider, too",
        "Nothing is sent to any device.",
        "1 with --connect: the server or a provider refuses the login",
        "71 the running fpush cannot be asked",
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

/// A folder, and the program in it.
fn in_folder(dir: &TempDir, args: &[&str]) -> Said {
    Said::of(run_to_end(PROGRAM, args.iter().copied(), dir.path()))
}

#[test]
fn a_mistyped_command_is_told_so() {
    let dir = TempDir::new();
    for (args, hint) in [
        (&["chek"][..], "did you mean: fpush check"),
        (&["chek", "settings.json"], "did you mean: fpush check"),
        (&["device", "list"], "did you mean: fpush devices"),
        (&["device", "list", "--json"], "did you mean: fpush devices"),
        (&["relaod"], "did you mean: fpush reload"),
        (&["frobnicate"], "the commands are: check, "),
    ] {
        let said = in_folder(&dir, args);
        assert_eq!((said.status, said.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(
            said.err.starts_with("error: there is no command \""),
            "{}",
            said.err
        );
        assert!(said.err.contains(hint), "{args:?}: {}", said.err);
    }
    let said = in_folder(&dir, &["devices", "lst"]);
    assert_eq!(said.status, Some(2));
    assert!(said.err.contains("'list'"), "{}", said.err);
}

/// A file may have any name, as long as it is there or looks like a path.
#[test]
fn a_settings_file_is_not_a_mistyped_command() {
    let dir = TempDir::new();
    dir.write("chek", "{}");
    for (args, words) in [
        (&["chek"][..], "component"),
        (&["./chek"], "component"),
        (&["other.json"], "cannot read the settings file other.json"),
        (&["a/b"], "cannot read the settings file a/b"),
    ] {
        let said = in_folder(&dir, args);
        assert_eq!(said.status, Some(CONFIG), "{}", said.err);
        assert!(said.err.contains(words), "{args:?}: {}", said.err);
    }
}

#[test]
fn the_settings_file_is_named_in_four_ways() {
    let dir = TempDir::new();
    dir.write("settings.json", "[]");
    dir.write("other.json", "[]");
    let run = |args: &[&str], variable: &str| {
        let script = format!("{variable} exec \"$0\" \"$@\"");
        let args = ["-c", &script, PROGRAM].into_iter().chain(args.iter().copied());
        Said::of(run_to_end("/bin/sh", args, dir.path())).err
    };
    let expected = |file: &str| format!("error: expected an object in {file}: {{ \"component\": … }}\n");
    for (args, variable, file) in [
        (&["check", "other.json"][..], "", "other.json"),
        (&["check", "-c", "other.json"], "", "other.json"),
        (&["check", "--config", "other.json"], "", "other.json"),
        (
            &["check", "-c", "other.json"],
            "FPUSH_SETTINGS=settings.json",
            "other.json",
        ),
        (&["check"], "FPUSH_SETTINGS=other.json", "other.json"),
    ] {
        assert_eq!(run(args, variable), expected(file), "{args:?} {variable}");
    }
    // What nobody has named is said.
    for variable in ["", "FPUSH_SETTINGS="] {
        assert_eq!(
            run(&["check"], variable),
            format!(
                "note: no settings file is named; using ./settings.json\n{}",
                expected("./settings.json")
            ),
        );
    }
    let log = run(&["-c", "other.json"], "");
    assert!(log.contains("expected an object in other.json"), "{log}");
}

#[test]
fn every_command_has_examples_and_exit_statuses() {
    for command in [
        "",
        "check",
        "send",
        "token",
        "reload",
        "import",
        "export",
        "devices",
        "vapid",
        "completions",
    ] {
        let help = said(
            &[command, "--help"]
                .into_iter()
                .filter(|arg| !arg.is_empty())
                .collect::<Vec<_>>(),
        );
        for part in ["Example", "Exit statuses:", &format!("fpush {command}")] {
            assert!(
                help.contains(part),
                "no {part:?} in the help of {command:?}: {help}"
            );
        }
    }
    let help = said(&["--help"]);
    for part in ["FPUSH_SETTINGS", "RUST_LOG", "NO_COLOR", "HTTPS_PROXY"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
}

/// A build of a developer's names no commit; see build.rs.
#[test]
fn the_version_is_more_than_a_number() {
    let version = said(&["--version"]);
    let words: Vec<_> = version.splitn(3, ' ').collect();
    assert_eq!(words[..2], ["fpush", env!("CARGO_PKG_VERSION")]);
    assert!(!version.contains("unknown"), "{version}");
    if cfg!(debug_assertions) {
        assert_eq!(words[2], "(development build)");
    }
}

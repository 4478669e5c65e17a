//! What a person or CI runs: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench` and others.

#![expect(
    clippy::disallowed_macros,
    reason = "who runs it at a terminal reads it to the end"
)]

mod bench;
mod book;
mod demo;
mod elf;
mod fuzz;
mod image;
mod install;
mod interrupt;
mod machine;
mod package;
mod place;
mod process;
mod release;
mod simulate;
mod soak;
mod suite;
mod table;
mod tally;
mod test;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

fn main() -> ExitCode {
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    if let Some(status) = simulate::compile(&arguments) {
        return status;
    }
    let outcome = match arguments.as_slice() {
        ["demo"] => run(demo::run),
        ["demo", "--cluster"] => run(demo::run_cluster),
        ["demo", "--outage"] => run(demo::run_outage),
        ["demo", "--web"] => run(demo::web::run),
        ["test"] => run(|| test::run(test::Extent::Full)),
        ["test", "--quick"] => run(|| test::run(test::Extent::Quick)),
        ["test", "--long"] => run(|| test::run(test::Extent::Long)),
        ["bench", options @ ..] => {
            bench::Options::read(options).and_then(|options| run(|| bench::run(&options)))
        }
        // The parts of the bench that are programs of their own, so that their CPU can be told apart.
        [bench::MEASURE, fpush, options @ ..] => {
            bench::Options::read(options).and_then(|options| run(|| bench::measure(fpush.as_ref(), &options)))
        }
        [bench::STAND_IN, folder] => run(|| bench::stand_in(folder.as_ref())),
        [bench::FLOOR, file] => run(|| bench::floor(file.as_ref())),
        ["simulate", options @ ..] => {
            simulate::Worlds::read(options).and_then(|worlds| run(|| simulate::run(&worlds)))
        }
        ["fuzz", seconds] => fuzz::read(seconds).and_then(|time| run(|| fuzz::run(time))),
        ["book"] => run(book::run),
        ["reference"] => run(book::reference),
        ["soak"] => run(|| soak::run(soak::USUAL)),
        ["soak", "--seconds", seconds] => fuzz::read(seconds).and_then(|time| run(|| soak::run(time))),
        ["package", "--test"] => run(|| package::run_test(None)),
        ["package", "--test", file] => run(|| package::run_test(Some(file))),
        ["package", "--systemd"] => run(|| package::run_systemd(None)),
        ["package", "--systemd", file] => run(|| package::run_systemd(Some(file))),
        ["package", options @ ..] => {
            release::Build::read(options).and_then(|build| run(|| package::run(build)))
        }
        // The parts of its test that run in namespaces of their own.
        [package::PROBE, place] => run(|| package::probe(place.as_ref())),
        ["image", "--test"] => run(|| image::run_test(None)),
        ["image", "--test", file] => run(|| image::run_test(Some(file))),
        ["image", options @ ..] => release::Build::read(options).and_then(|build| run(|| image::run(build))),
        [machine::CHECK, leader, root, file] => run(|| machine::check(leader, root.as_ref(), file.as_ref())),
        [image::PROBE, place] => run(|| image::probe(place.as_ref())),
        [image::CHECK, place, file] => run(|| image::check(place.as_ref(), file.as_ref())),
        [package::CHECK, place, file] => run(|| package::check(place.as_ref(), file.as_ref())),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        words => {
            eprintln!("error: {}\n\n{USAGE}", wrong(words));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::happened() => {
            eprintln!("\nInterrupted; everything that was started is stopped.");
            ExitCode::from(130)
        }
        Err(error) if test::is_reported(&error) => ExitCode::FAILURE,
        Err(error) => {
            show(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: impl FnOnce() -> Result<()>) -> Result<()> {
    // Before anything is built.
    process::this_program()?;
    let root = root()?;
    env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))?;
    interrupt::watch()?;
    task()
}

/// What is wrong with words that say nothing that can be done.
fn wrong(words: &[&str]) -> String {
    let lines = USAGE.lines().filter_map(|line| line.strip_prefix("cargo xtask "));
    let mut commands: Vec<_> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    commands.dedup();
    match words {
        [] => format!("say what to do: {}", commands.join(", ")),
        [command, ..] if !commands.contains(command) => {
            format!("there is no command {command}; there are {}", commands.join(", "))
        }
        [command] => format!("{command} needs more"),
        [command, rest @ ..] => format!("{command} does not take {}", rest.join(" ")),
    }
}

/// Prints an error with its causes, and without the backtrace that the environment may ask for.
fn show(error: &anyhow::Error) {
    eprintln!("\nerror: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// The top of the workspace.
fn root() -> Result<PathBuf> {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = manifest.ancestors().nth(2).context("the workspace has no top")?;
    Ok(root.to_owned())
}

const USAGE: &str = "\
cargo xtask demo            a push from a real Prosody through fpush to stand-ins for Apple and Google
cargo xtask demo --outage   a provider is away, fpush is killed meanwhile, and every phone gets its push in the end
cargo xtask demo --cluster  two instances are one service: what one has sent the other one knows, and what one held when it died
                            the other one sends
cargo xtask demo --web      a web page that gets pushes by fpush, in your browser
cargo xtask test            everything that must hold before a change is merged
cargo xtask test --quick    the same without the runs for each Cargo feature alone
cargo xtask test --long     the same with the tests that take minutes
cargo xtask bench           what a push costs in time and memory, beside a bare HTTP/2 client; takes forty minutes
cargo xtask bench NAME …    some figures alone: pushes, memory, flood, held, cluster, webpush, domains, growth, scrape, reload,
                            snapshot, devices, pacing, servers (the same as --servers: real Prosody and ejabberd in front)
cargo xtask bench [NAME …] --against PROGRAM
                            those, or all of them, of this fpush and another one, in turns
cargo xtask bench --short   whether the bench works, in a few seconds and without optimisation
                            (each of them with --markdown FILE, the first and the last with --json FILE: the figures also in
                            files)
cargo xtask simulate --seeds N [--from S]
                            random worlds around the policy, the daemon and the registry: the promises hold in each;
                            and what decisions cost in a crowd
cargo xtask simulate --seed S --trace
                            the worlds of one seed, step by step
cargo xtask fuzz SECONDS    so many seconds of generated inputs, for every reader of foreign bytes
cargo xtask book            the documents as web pages, in target/book
cargo xtask reference       writes the generated parts of the reference, and the manual pages
cargo xtask soak [--seconds N]
                            each kind of outage of a provider for five minutes, or so many seconds, with a restart and kill -9 in
                            it: every device gets its push
cargo xtask package         the Debian package, in target/debian, for Debian 11 and later; with --this-glibc for
                            machines like this one, which needs no zig
cargo xtask package --test [FILE]
                            whether a package (without FILE one of the debug build) can be installed, started,
                            upgraded and removed; this machine stays as it is
cargo xtask package --systemd [FILE]
                            the same in a small Debian with a real systemd, which root can boot in a folder;
                            and the Ansible role
cargo xtask image           a container image, in target/image; --this-glibc as above
cargo xtask image --test [FILE]
                            whether an image (without FILE one of the debug build) runs as it should";

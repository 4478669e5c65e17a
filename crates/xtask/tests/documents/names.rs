//! What the documents name of the program: commands and their options, tasks, exit statuses, metrics and targets of the log. What
//! there is stands in the pages of the reference, which tests of the program compare with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{blocks, documents, read, root};

/// Pieces of code in the text and lines of blocks, each with its place.
fn code() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in documents() {
        let mut fenced = false;
        for (at, line) in read(&page).lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.map(|span| (format!("{}:{}", page.display(), at + 1), span.to_owned())));
            }
        }
    }
    for block in blocks::all() {
        let of_shell = matches!(block.language.as_str(), "sh" | "console");
        // An order may go on in the next line.
        let text = block.text.replace("\\\n", " ");
        let lines = text.lines().filter(|_| of_shell);
        found.extend(lines.map(|line| (block.place.clone(), line.to_owned())));
    }
    found
}

/// The commands, and the options of each.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let page = read(&root().join("docs/reference/command-line.md"));
    let mut commands: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut command = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("### fpush") {
            command = name.trim().to_owned();
            commands.insert(command.clone(), BTreeSet::new());
        } else if let Some(option) = line.strip_prefix("| `--")
            && let Some(options) = commands.get_mut(&command)
        {
            let name = option.split(['`', ' ']).next().unwrap_or_default();
            options.insert(format!("--{name}"));
        }
    }
    commands
}

/// Options of all commands.
const ALWAYS: [&str; 4] = ["--help", "--version", "--config", "--json"];

/// What is wrong with a call, whose words follow `fpush`.
fn wrong_call(call: &str, commands: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let end = call
        .find(['|', ';', '>', '<', ')', '&', '#', ',', '"', '\''])
        .unwrap_or(call.len());
    let words: Vec<_> = call[..end].split_whitespace().collect();
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let mut name = String::new();
    if let Some(first) = words.first().filter(|word| is_word(word)) {
        if *first == "help" {
            return None;
        }
        name = (*first).to_owned();
        let longer = words.get(1).map(|second| format!("{name} {second}"));
        if let Some(longer) = longer.filter(|longer| commands.contains_key(longer)) {
            name = longer;
        }
    }
    let Some(options) = commands.get(&name) else {
        return Some(format!("there is no fpush {name}"));
    };
    // Options of a group are those of what is in it.
    let below = commands
        .iter()
        .filter(|(other, _)| other.starts_with(&format!("{name} ")));
    let options: BTreeSet<_> = below.fold(options.clone(), |all, (_, more)| &all | more);
    words.iter().find_map(|word| {
        let option = word
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split('=')
            .next()?;
        let known = !option.starts_with("--") || options.contains(option) || ALWAYS.contains(&option);
        (!known).then(|| format!("fpush {name} has no {option}"))
    })
}

#[test]
fn every_command_and_option_exists() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, code) in code() {
        let code = code.split(" # ").next().unwrap_or_default();
        let calls = code.match_indices("fpush ").filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            before.is_none_or(|c| matches!(c, ' ' | '(' | '/'))
        });
        let mut calls: Vec<_> = calls.map(|(at, name)| &code[at + name.len()..]).collect();
        // `-u fpush` of another program, the name in a message, or the package.
        calls.retain(|_| {
            ![
                "ACL ",
                "journalctl",
                "systemctl",
                "cargo ",
                "apt",
                "adduser",
                "install ",
                // Of an engine's and a database's settings.
                "user ",
                "create ",
            ]
            .iter()
            .any(|other| code.starts_with(other))
        });
        if calls.is_empty()
            && code.contains(" --")
            && commands
                .keys()
                .any(|name| !name.is_empty() && code.starts_with(&format!("{name} ")))
        {
            calls.push(code);
        }
        for call in calls {
            count += 1;
            wrong.extend(wrong_call(call, &commands).map(|wrong| format!("{place}: {code:?}: {wrong}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "{count}");
}

#[test]
fn every_task_exists() {
    let usage = read(&root().join("crates/xtask/src/main.rs"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, code) in code() {
        for (at, task) in code.match_indices("cargo xtask ") {
            let words: Vec<_> = code[at + task.len()..].split_whitespace().collect();
            let Some(name) = words.first() else { continue };
            let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            count += 1;
            let options = words
                .iter()
                .take_while(|word| **word != "#")
                .filter(|word| word.starts_with("--"));
            let unknown = options.filter(|option| !usage.contains(**option));
            wrong.extend(unknown.map(|option| format!("{place}: cargo xtask {name} has no {option}")));
            if !usage.contains(&format!("\ncargo xtask {name} ")) && name != "TASK" {
                wrong.push(format!("{place}: there is no cargo xtask {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 20, "{count}");
}

#[test]
fn every_exit_status_exists() {
    let page = read(&root().join("docs/reference/command-line.md"));
    let known: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next()?.parse::<u8>().ok())
        .collect();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [0, 1, 2, 71, 78, 141]);
    let known = ["0", "1", "2", "71", "78", "141"];
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in documents() {
        // A line may end between the words.
        let text = read(&page).split_whitespace().collect::<Vec<_>>().join(" ");
        for after in text.split("exit status ").skip(1) {
            let after = after.strip_prefix("is ").unwrap_or(after);
            let number: String = after.chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() {
                count += 1;
                if !known.contains(&number.as_str()) {
                    wrong.push(format!("{}: exit status {number}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 2, "{count}");
}

#[test]
fn every_metric_and_every_target_of_the_log_exists() {
    let page = read(&root().join("docs/reference/metrics.md"));
    let metrics: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(metrics.len() > 40, "{metrics:?}");
    let crates: BTreeSet<_> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().replace('-', "_"))
        .collect();
    // Variables of the Ansible role begin with the same word.
    let role = read(&root().join("contrib/ansible/roles/fpush/meta/argument_specs.yml"));
    let variables: BTreeSet<_> = role
        .split_whitespace()
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in documents() {
        let text = read(&page);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| {
            word.starts_with("fpush_") && !word.contains(|c: char| c.is_ascii_uppercase() || c == '0')
        }) {
            count += 1;
            let series = ["_bucket", "_sum", "_count"];
            let metric = series
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .unwrap_or(word);
            // The beginning of several, as in `fpush_module_…`.
            let begins = word.ends_with('_') && metrics.iter().any(|metric| metric.starts_with(word));
            if !metrics.contains(metric) && !crates.contains(word) && !variables.contains(word) && !begins {
                wrong.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "{count}");
}

#[test]
fn wrong_calls_are_found() {
    let options = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let commands = BTreeMap::from([
        (String::new(), BTreeSet::new()),
        ("check".to_owned(), options(&["--connect"])),
        ("devices".to_owned(), BTreeSet::new()),
        ("devices list".to_owned(), options(&["--long"])),
    ]);
    for right in [
        "",
        "SETTINGS",
        "/etc/x.json",
        "check --connect x.json",
        "check [--connect]",
        "devices list --long > y --no",
        "help z",
        "check | jq --raw",
    ] {
        assert_eq!(wrong_call(right, &commands), None, "{right}");
    }
    for wrong in ["chek", "check --conect", "devices list --short", "--long", "x"] {
        assert!(wrong_call(wrong, &commands).is_some(), "{wrong}");
    }
}

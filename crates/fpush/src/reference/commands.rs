//! `docs/reference/command-line.md`: what `fpush help` says.

use clap::{Arg, Command, CommandFactory as _};

use super::{compare, head, row};
use crate::cli::Cli;

#[test]
fn the_page_of_the_command_line_is_what_help_says() {
    compare(
        "command-line.md",
        &["commands", "environment", "exit statuses"],
        |part| {
            let mut cli = Cli::command();
            cli.build();
            match part {
                "commands" => commands(&cli),
                "environment" => table("variable", "effect", below(&cli, "Environment")),
                "exit statuses" => table("exit status", "meaning", below(&cli, "Exit statuses")),
                _ => panic!("there is no {part}"),
            }
        },
    );
}

/// All commands that do something, each with its heading.
fn commands(cli: &Command) -> String {
    let mut text = command(cli);
    for below in cli.get_subcommands().filter(|below| below.get_name() != "help") {
        text += &command(below);
        let further = below.get_subcommands().filter(|below| below.get_name() != "help");
        text.extend(further.map(command));
    }
    text
}

fn command(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let mut text = format!("### {name}\n\n");
    for paragraph in about.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        text += paragraph.trim_end_matches('.');
        text += ".\n\n";
    }
    let is_group = command.has_subcommands() && name != "fpush";
    if !is_group {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim_end();
        let lines = usage.lines().map(|line| format!("{}\n", line.trim()));
        text += &format!("```text\n{}```\n\n", lines.collect::<String>());
    }
    let options: Vec<_> = command.get_arguments().filter(is_particular).collect();
    if !options.is_empty() && !is_group {
        text += &head(&["argument, option", "meaning"]);
        text.extend(options.into_iter().map(option));
        text.push('\n');
    }
    for (title, lines) in parts(command) {
        match title {
            // They have tables of their own.
            "Environment" => {}
            "Exit statuses" if name == "fpush" => {}
            "Exit statuses" => text += &(table("exit status", "meaning", entries(&lines)) + "\n"),
            _ => {
                let lines = lines
                    .iter()
                    .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)));
                text += &format!("{title}:\n\n```text\n{}```\n\n", lines.collect::<String>());
            }
        }
    }
    text
}

/// Those that the page explains once for all commands are not.
fn is_particular(arg: &&Arg) -> bool {
    !matches!(arg.get_id().as_str(), "settings" | "config" | "help" | "version")
}

fn option(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|names| names.join(" "));
    let value = value.filter(|_| arg.get_action().takes_values());
    let name = match (arg.get_long(), value) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, value) => value.unwrap_or_else(|| arg.get_id().to_string()),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut meaning = help.replace("\n\n", ". ");
    let values: Vec<_> = arg
        .get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !values.is_empty() && arg.get_action().takes_values() {
        meaning += &format!(". One of: {}", values.join(", "));
    }
    if let [default] = arg.get_default_values()
        && arg.get_action().takes_values()
    {
        meaning += &format!(". Default: `{}`", default.to_string_lossy());
    }
    row(&[&format!("`{name}`"), meaning.trim_end_matches('.')])
}

/// The parts of what stands below the options: title and lines.
fn parts(command: &Command) -> Vec<(&'static str, Vec<String>)> {
    let help = command
        .get_after_long_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let parts = help.split("\n\n").filter_map(|part| {
        let (title, lines) = part.split_once(":\n")?;
        let title = TITLES.iter().find(|known| **known == title);
        let title = title.unwrap_or_else(|| panic!("{part:?} begins with none of {TITLES:?}"));
        Some((*title, lines.lines().map(str::to_owned).collect()))
    });
    parts.collect()
}

const TITLES: [&str; 5] = ["Example", "Examples", "Environment", "Exit statuses", "The file"];

fn below(command: &Command, title: &str) -> Vec<(String, String)> {
    let parts = parts(command);
    let part = parts.iter().find(|(of, _)| *of == title);
    let (_, lines) = part.unwrap_or_else(|| panic!("{} has no {title}", command.get_name()));
    entries(lines)
}

/// What lines say of something: it stands at their beginning, and they go on with more blanks.
fn entries(lines: &[String]) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in lines {
        let text = line.strip_prefix("  ").unwrap_or(line);
        match entries.last_mut() {
            Some((_, meaning)) if text.starts_with(' ') => {
                let space = if meaning.is_empty() { "" } else { " " };
                meaning.extend([space, text.trim()]);
            }
            _ => {
                let (name, meaning) = text.split_once("  ").unwrap_or((text, ""));
                entries.push((name.to_owned(), meaning.trim().to_owned()));
            }
        }
    }
    entries
}

fn table(first: &str, second: &str, entries: Vec<(String, String)>) -> String {
    let rows = entries.iter().map(|(name, meaning)| {
        let names: Vec<_> = name.split(", ").map(|name| format!("`{name}`")).collect();
        row(&[&names.join(", "), meaning])
    });
    head(&[first, second]) + &rows.collect::<String>()
}

#[test]
fn entries_of_help_are_read() {
    let lines = [
        "  0    all",
        "  1    one, and",
        "       more",
        "  A, B",
        "         text",
    ];
    let found = entries(&lines.map(str::to_owned));
    let expected = [("0", "all"), ("1", "one, and more"), ("A, B", "text")];
    assert_eq!(
        found,
        expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
}

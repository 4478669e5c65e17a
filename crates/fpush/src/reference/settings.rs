//! `docs/reference/settings.md`: a table for each section, of the table of settings.

use super::{compare, head, row};
use crate::settings::table::{Key, Kind, ROOT, Without};

/// The sections that have a heading and a table of their own. All others are rows in the table of the one around them.
const SECTIONS: [&str; 13] = [
    "settings",
    "settings.component",
    "settings.pushModules.NAME",
    "settings.pushModules.NAME.ratelimit",
    "settings.pushModules.NAME.blacklist",
    "settings.pushModules.NAME.apns",
    "settings.pushModules.NAME.fcm",
    "settings.pushModules.NAME.webpush",
    "settings.registration",
    "settings.monitoring",
    "settings.logging",
    "settings.cluster",
    "settings.timeout",
];

#[test]
fn the_page_of_settings_is_what_is_read() {
    compare("settings.md", &SECTIONS, |path| {
        let keys = find(&ROOT, path.split('.').skip(1)).unwrap_or_else(|| panic!("there is no {path}"));
        let mut table = head(&["key", "type, range", "default", "meaning"]);
        rows(keys, path, "", &mut table);
        table
    });
}

/// The keys of a section.
fn find<'a>(keys: &'static [Key], mut path: impl Iterator<Item = &'a str>) -> Option<&'static [Key]> {
    let Some(name) = path.next() else {
        return Some(keys);
    };
    let key = keys.iter().find(|key| key.name == name)?;
    if let Kind::Named(keys) = key.kind {
        // The operator's name.
        path.next()?;
        return find(keys, path);
    }
    find(below(key)?, path)
}

/// The keys of a section, or of what may be one.
fn below(key: &Key) -> Option<&'static [Key]> {
    match key.kind {
        Kind::Section(keys) | Kind::Sections(keys) | Kind::FlagOrSection(keys) => Some(keys),
        // Its keys are those of the section around it.
        Kind::Overrides(_) => None,
        Kind::Named(_)
        | Kind::Text(_)
        | Kind::Path
        | Kind::Flag
        | Kind::Whole(..)
        | Kind::Number(..)
        | Kind::Span(_)
        | Kind::SpanOrSeconds
        | Kind::Word(_)
        | Kind::WordOrWhole(_)
        | Kind::Texts(_)
        | Kind::Wholes(..)
        | Kind::Pairs
        | Kind::Anything => None,
    }
}

/// The rows of a section, whose keys have `prefix` before their names.
fn rows(keys: &'static [Key], path: &str, prefix: &str, table: &mut String) {
    for key in keys {
        let path = format!("{path}.{}", key.name);
        let name = format!("{prefix}{}", key.name);
        let own = SECTIONS
            .iter()
            .find(|section| **section == path || section.strip_suffix(".NAME") == Some(&path));
        let mut meaning = key.meaning.to_owned();
        if let Some(own) = own {
            let heading = own.trim_start_matches("settings.").trim_end_matches(".NAME");
            let anchor = heading.replace('.', "").to_lowercase();
            meaning += &format!(". See [{heading}](#{anchor})");
        }
        let default = match key.without {
            Without::Required => "required".to_owned(),
            Without::Default("{}" | "[]") => "none".to_owned(),
            Without::Default(json) => format!("`{json}`"),
            Without::Words(words) => words.to_owned(),
        };
        *table += &row(&[&format!("`{name}`"), &kind(&key.kind), &default, &meaning]);
        if let (None, Some(keys)) = (own, below(key)) {
            rows(keys, &path, &format!("{name}."), table);
        }
    }
}

fn kind(kind: &Kind) -> String {
    let words = |words: &[&str]| {
        let quoted = words.iter().map(|word| format!("`\"{word}\"`"));
        quoted.collect::<Vec<_>>().join(", ")
    };
    match kind {
        Kind::Text(which) => (*which).to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Flag => "true, false".to_owned(),
        Kind::Whole(least, most) => format!("{least} to {most}"),
        Kind::Number(least, most) => format!("{least} to {most}"),
        Kind::Span("") => "time span".to_owned(),
        Kind::Span(limits) => format!("time span ({limits})"),
        Kind::SpanOrSeconds => "seconds or time span, not 0".to_owned(),
        Kind::Word(all) => words(all),
        Kind::WordOrWhole(all) => words(all) + ", whole number",
        Kind::Texts(which) => format!("list of {which}"),
        Kind::Wholes(least, most) => format!("list of numbers from {least} to {most}"),
        Kind::Pairs => "object, text to text".to_owned(),
        Kind::Anything | Kind::Section(_) | Kind::Overrides(_) | Kind::Named(_) => "object".to_owned(),
        Kind::Sections(_) => "object, or a list of them".to_owned(),
        Kind::FlagOrSection(_) => "true, false, or an object".to_owned(),
    }
}

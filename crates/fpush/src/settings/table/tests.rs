use std::collections::{BTreeMap, BTreeSet};

use fpush_push::settings::Report;
use serde_json::{Map, Value, json};

use super::*;
use crate::{backends, settings};

type Sections = BTreeMap<String, BTreeSet<String>>;

/// The sections that are read of these settings, and the keys that each knows.
fn read(settings: &Value) -> Sections {
    let (report, nothing) = (Report::default(), Map::new());
    let settings = settings.as_object().unwrap_or(&nothing);
    settings::read(settings, &backends::table(), None, &report);
    let mut sections = Sections::new();
    for (path, keys) in report.known() {
        let keys = keys.into_iter().map(str::to_owned);
        sections.entry(path).or_default().extend(keys);
    }
    sections
}

/// Those of the table.
fn table(keys: &[Key], path: &str, sections: &mut Sections) {
    let names = keys.iter().map(|key| key.name.to_owned()).collect();
    sections.insert(path.to_owned(), names);
    for key in keys {
        let path = format!("{path}.{}", key.name);
        let path = path.trim_start_matches('.');
        match key.kind {
            Kind::Section(keys)
            | Kind::Overrides(keys)
            | Kind::Sections(keys)
            | Kind::FlagOrSection(keys) => {
                table(keys, path, sections);
            }
            Kind::Named(keys) => table(keys, &format!("{path}.m"), sections),
            _ => {}
        }
    }
}

#[test]
fn the_table_has_what_is_read() {
    let mut found = Sections::new();
    for (module, spelling) in [
        (json!({ "type": "apple", "apns": {} }), "initalBlocking"),
        (json!({ "type": "google", "fcm": {} }), "initialBlocking"),
        (json!({ "type": "webpush", "webpush": {} }), "initalBlocking"),
    ] {
        for store in ["sqlite", "postgres"] {
            let mut module = module.clone();
            module["blacklist"] =
                json!({ "invalidToken": { spelling: "1s" }, "pushError": { spelling: "1s" } });
            let settings = json!({
                "component": { "tls": {}, "push2": {} }, "pushModules": { "m": module }, "monitoring": {}, "logging": {}, "timeout": {}, "cluster": {},
                "registration": { "store": { "type": store }, "http": {} },
            });
            for (path, keys) in read(&settings) {
                found.entry(path).or_default().extend(keys);
            }
        }
    }
    let mut expected = Sections::new();
    table(&ROOT, "", &mut expected);
    assert_eq!(found, expected);
}

#[test]
fn defaults_are_json_of_their_kind() {
    fn check(keys: &[Key], path: &str) {
        for key in keys {
            let path = format!("{path}.{}", key.name);
            if let Kind::Section(keys)
            | Kind::Overrides(keys)
            | Kind::Sections(keys)
            | Kind::FlagOrSection(keys)
            | Kind::Named(keys) = key.kind
            {
                check(keys, &path);
            }
            let Default(default) = key.without else {
                continue;
            };
            let default: Value = serde_json::from_str(default).unwrap_or_else(|e| panic!("{path}: {e}"));
            let fits = match key.kind {
                Kind::Text(_) | Kind::Path | Kind::Span(_) => default.is_string(),
                Kind::Flag | Kind::FlagOrSection(_) => default.is_boolean(),
                Kind::Whole(least, most) => default.as_u64().is_some_and(|it| (least..=most).contains(&it)),
                Kind::Number(..) => default.is_number(),
                Kind::SpanOrSeconds => default.is_string() || default.is_u64(),
                Kind::Word(words) | Kind::WordOrWhole(words) => {
                    default.as_str().is_some_and(|it| words.contains(&it))
                }
                Kind::Texts(_) | Kind::Wholes(..) => default.is_array(),
                Kind::Pairs
                | Kind::Anything
                | Kind::Section(_)
                | Kind::Overrides(_)
                | Kind::Sections(_)
                | Kind::Named(_) => default.is_object(),
            };
            assert!(fits, "{path}: {default}");
        }
    }
    check(&ROOT, "");
}

/// A new setting has to be in both.
#[test]
fn the_documents_name_every_key() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let pages = [
        "docs/reference/settings.md",
        "docs/apps/push2.md",
        "docs/apps/testing.md",
        "docs/operate/apns-environments.md",
    ];
    let (documents, example) = (pages.map(read).concat(), read("settings.example.json"));
    let mut sections = Sections::new();
    table(&ROOT, "", &mut sections);
    let names: BTreeSet<_> = sections.into_values().flatten().collect();
    for name in &names {
        let words = |text: &str| {
            let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            text.split(|c| !is_of_word(c)).any(|word| word == name)
        };
        assert!(words(&documents), "{name} is not in {pages:?}");
        let quoted = example.contains(&format!("\"{name}\""));
        assert!(
            quoted || name == "initialBlocking",
            "{name} is not in settings.example.json"
        );
    }
}

/// The keys of all sections that have this name.
fn named(name: &str, keys: &'static [Key], found: &mut Vec<&'static Key>) {
    for key in keys {
        if key.name == name {
            found.push(key);
        }
        if let Kind::Section(keys)
        | Kind::Overrides(keys)
        | Kind::Sections(keys)
        | Kind::FlagOrSection(keys)
        | Kind::Named(keys) = key.kind
        {
            named(name, keys, found);
        }
    }
}

/// A key that is commented out is shown with its default.
#[test]
fn the_example_shows_the_defaults() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../settings.example.json");
    let example = std::fs::read_to_string(path).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for line in example.lines() {
        let Some((name, value)) = line
            .trim_start()
            .strip_prefix("// \"")
            .and_then(|rest| rest.split_once("\": "))
        else {
            continue;
        };
        let value = value
            .split(" // ")
            .next()
            .unwrap_or_default()
            .trim_end_matches(',');
        let mut keys = Vec::new();
        named(name, &ROOT, &mut keys);
        let defaults: Vec<_> = keys
            .iter()
            .filter_map(|key| match key.without {
                Default("[]" | "{}") | Required | Words(_) => None,
                Default(default) => Some(default),
            })
            .collect();
        // Of keys of that name those without a default are shown with an example.
        if defaults.is_empty() || keys.len() > defaults.len() || value.starts_with('{') {
            continue;
        }
        count += 1;
        if !defaults.contains(&value) {
            wrong.push(format!(
                "{name}: {value}, and the default is {}",
                defaults.join(" or ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 20, "{count}");
}

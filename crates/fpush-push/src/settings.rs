//! Reading settings: every value is checked while it is read, and every mistake of a file is reported in one
//! run, with its place, what was expected and, for a misspelt key, the nearest known one.

mod per_class;
mod report;
mod section;
mod span;
mod spelling;

pub use self::{
    per_class::PerClass,
    report::{NamedFile, NotSeen, Problem, ProvidedFile, Report, Severity, digest},
    section::Section,
    spelling::nearest,
};

/// `maxInFlight` of a module whose settings do not say it.
pub const MAX_IN_FLIGHT: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn read<T>(json: &Value, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Vec<String>) {
        let report = Report::default();
        let mut section = Section::root(json.as_object().unwrap(), &report);
        let result = read(&mut section);
        section.finish();
        (
            result,
            report.into_problems().iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn what_is_said_of_any_name_is_one_short_line() {
        let json = json!({ "a\nb\u{1b}[31m": 1, "x".repeat(100_000): 1 });
        let ((), problems) = read(&json, |_| ());
        assert_eq!(problems[0], "a\\nb\\u{1b}[31m: this key is not known");
        assert!(problems[1].len() < 1_000, "{}", problems[1].len());
        assert!(problems[1].ends_with("x…: this key is not known"));
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let json = json!({ "a": 1, "nested": { "tpoic": "x" }, "word": "hihg", "span": "20", "n": 70_000 });
        let ((), problems) = read(&json, |section| {
            section.string("a");
            let mut nested = section.section("nested").unwrap();
            nested.string("topic");
            nested.finish();
            section.choice("word", &[("high", 1), ("silent", 2)], 1);
            section.duration("span", Duration::ZERO);
            section.integer("n", 1..=65_535, 1);
        });
        assert_eq!(
            problems,
            [
                "a: expected a string, found a number that does not fit",
                "nested.topic: this key is missing; expected a string",
                "nested.tpoic: this key is not known; did you mean \"topic\"?",
                "word: expected \"high\" or \"silent\", found a string that does not fit; did you mean \"high\"?",
                "span: expected a time span such as \"20s\", \"10min\" or \"1h 30min\", found a string that does \
                 not fit",
                "n: expected a whole number from 1 to 65535, found a number that does not fit",
            ]
        );
    }

    #[test]
    fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
        let json = json!({
            "a": { "topic": 1, "apns": {} }, "b": { "apns": { "isDefault": true } },
            "listen": 1, "c": { "listen": 1 }, "d": { "logging": {} },
            "pushModules": { "one": { "sound": 1 }, "other": { "apns": {} } }, "apns": {},
        });
        let ((), problems) = read(&json, |root| {
            for module in ["a", "b"] {
                let mut module = root.section(module).unwrap();
                module.boolean("is_default", false);
                let mut apns = module.section("apns").unwrap();
                apns.value("topic");
                apns.finish();
                module.finish();
            }
            let mut c = root.section("c").unwrap();
            c.value("listen");
            c.finish();
            root.section("d").unwrap().finish();
            let mut modules = root.section("pushModules").unwrap();
            modules.section("one").unwrap().finish();
            let mut other = modules.section("other").unwrap();
            let mut apns = other.section("apns").unwrap();
            apns.value("sound");
            apns.finish();
            other.finish();
            modules.finish();
            root.value("logging");
            root.strange("apns", "it belongs into a module");
        });
        assert_eq!(
            problems,
            [
                "a.topic: this key is not known; it belongs into a.apns",
                "b.apns.isDefault: this key is not known; it belongs into b",
                "d.logging: this key is not known; it belongs into the outermost object",
                "pushModules.one.sound: this key is not known",
                "apns: this key is not known; it belongs into a module",
                "listen: this key is not known; it is in c already",
            ]
        );
    }

    #[test]
    fn time_spans_are_strings_or_seconds() {
        let json = json!({ "a": "10min", "b": 5, "c": "2s", "d": 0 });
        let (spans, problems) = read(&json, |section| {
            let a = section.duration("a", Duration::ZERO);
            let or_seconds =
                ["b", "c", "d"].map(|key| section.duration_or_seconds(key, Duration::from_secs(9)));
            (a, or_seconds)
        });
        assert_eq!(
            spans,
            (Duration::from_secs(600), [5, 2, 9].map(Duration::from_secs))
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn what_serde_reads_has_the_same_errors() {
        #[derive(serde::Deserialize)]
        struct Point {
            x: u8,
        }
        let json = json!({ "right": { "x": 7 }, "wrong": { "x": 700 }, "long": "12years", "text": "soon", "far": 400_000_000 });
        let (point, problems) = read(&json, |section| {
            let point = section.read::<Point>("right", "a point");
            assert!(section.read::<Point>("wrong", "a point").is_none());
            assert!(section.read::<Point>("missing", "a point").is_none());
            section.duration("long", Duration::ZERO);
            section.duration_or_seconds("text", Duration::ZERO);
            section.duration_or_seconds("far", Duration::ZERO);
            point
        });
        assert_eq!(point.unwrap().x, 7);
        assert_eq!(
            problems,
            [
                "wrong: expected a point, found an object",
                "long: expected a time span such as \"20s\", \"10min\" or \"1h 30min\", found a string that does not fit",
                "text: expected a number of seconds or a time span such as \"5s\", not zero, found a string that does not \
                 fit",
                "far: expected a number of seconds or a time span such as \"5s\", not zero, found a number that does not \
                 fit",
            ]
        );
    }

    #[test]
    fn a_value_at_the_wrong_place_is_not_shown() {
        let (_, problems) = read(&json!({ "n": "s3cret" }), |section| {
            section.integer("n", 0..=1, 0)
        });
        assert!(!problems[0].contains("s3cret"));
    }
}

//! What the settings say that pushes carry: the keys of Apple's `aps` that have a key of their own, anything else under `aps`,
//! and what is beside it; for each class of pushes.

use fpush_push::{
    Class,
    settings::{PerClass, Section},
};
use serde_json::{Map, Value, json};

/// What pushes of one class carry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// Apple's dictionary.
    pub(crate) aps: Map<String, Value>,
    /// Whether the number of messages that the publish tells goes into it as `badge`.
    pub(crate) counts: bool,
    /// What is beside it.
    pub(crate) data: Map<String, Value>,
}

/// What the pushes of a module carry.
#[derive(Clone, Debug)]
pub(crate) struct Contents(PerClass<Content>);

/// A key of the settings whose value goes into the `aps` of visible pushes.
struct Key {
    name: &'static str,
    place: Place,
    kind: Kind,
}

/// Where in `aps`.
#[derive(Clone, Copy)]
enum Place {
    Top(&'static str),
    Alert(&'static str),
}

#[derive(Clone, Copy)]
enum Kind {
    /// A text; an empty one leaves the key out.
    Text,
    Texts,
    /// 1, or left out.
    Flag,
    Level,
    Score,
    Badge,
}

/// What a key of the settings wants.
#[derive(Clone)]
enum Wish {
    Put(Value),
    LeaveOut,
    /// The number of messages that the publish tells.
    Count,
}

/// What the settings say of a key, and under which path.
struct Said {
    key: &'static Key,
    path: String,
    wish: Wish,
}

/// An object of the settings, and its path.
struct Own<'a> {
    path: String,
    object: &'a Map<String, Value>,
}

/// What one section says.
#[derive(Default)]
struct Part<'a> {
    said: Vec<Said>,
    aps: Option<Own<'a>>,
    data: Option<&'a Map<String, Value>>,
}

impl Contents {
    /// Reads it. What pushes of the classes in `sends` cannot carry is an error, and what no push will carry a warning.
    pub(crate) fn read(apns: &mut Section<'_>, sends: &[Class]) -> Self {
        let mut all = Part::read(apns, "", true);
        let PerClass {
            visible,
            silent,
            voip,
        } = PerClass::read(apns, sends, "pushPriority", |section, name, class| {
            Part::read(section, &format!("{name}."), class == Class::High)
        });
        all.said
            .retain(|said| !visible.said.iter().any(|own| own.key.name == said.key.name));
        let said: Vec<_> = visible.said.iter().chain(&all.said).collect();
        let data = |part: &Part<'_>| part.data.or(all.data).cloned().unwrap_or_default();
        let (visible_aps, counts) = merge(apns, visible.own(&all), &said);
        Self(PerClass {
            visible: Content {
                aps: visible_aps,
                counts,
                data: data(&visible),
            },
            silent: Content {
                aps: waking(apns, &silent, &all, true),
                counts: false,
                data: data(&silent),
            },
            voip: Content {
                aps: waking(apns, &voip, &all, false),
                counts: false,
                data: data(&voip),
            },
        })
    }

    /// What pushes of this class carry.
    pub(crate) fn of(&self, class: Class) -> &Content {
        self.0.of(class)
    }
}

impl<'a> Part<'a> {
    /// Reads what a section says; `prefix` is its path in `apns`.
    fn read(section: &mut Section<'a>, prefix: &str, visible: bool) -> Self {
        let mut part = Self::default();
        for key in KEYS.iter().filter(|_| visible) {
            part.said.extend(key.read(section).map(|wish| Said {
                key,
                path: format!("{prefix}{}", key.name),
                wish,
            }));
        }
        part.aps = object(
            section,
            "aps",
            "an object of Apple's keys, which is merged into \"aps\"",
        )
        .map(|object| Own {
            path: format!("{prefix}aps"),
            object,
        });
        part.data = object(
            section,
            "additionalData",
            "an object, whose keys are beside \"aps\" in the payload",
        );
        if part.data.is_some_and(|data| data.contains_key("aps")) {
            section.error(
                "additionalData.aps",
                "this key is Apple's; choose another name, or use the key aps beside additionalData",
            );
        }
        part
    }

    /// What this part says of `aps`, or else what is said for all classes.
    fn own<'o>(&'o self, all: &'o Self) -> Option<&'o Own<'a>> {
        self.aps.as_ref().or(all.aps.as_ref())
    }
}

impl Key {
    /// `None` if the key is not there, or wrong.
    fn read(&self, section: &mut Section<'_>) -> Option<Wish> {
        let name = self.name;
        match self.kind {
            Kind::Text => section.optional_string(name).map(|text| match text {
                "" => Wish::LeaveOut,
                text => Wish::Put(text.into()),
            }),
            Kind::Texts => section
                .read::<Vec<String>>(name, "a list of strings")
                .map(|texts| Wish::Put(texts.into())),
            Kind::Flag => section
                .read(name, "true or false")
                .map(|flag| if flag { Wish::Put(1.into()) } else { Wish::LeaveOut }),
            Kind::Level => {
                let level = section.choice(name, &LEVELS, None)?;
                Some(Wish::Put(level.into()))
            }
            Kind::Score => section
                .number(name, 0.0..=1.0)
                .map(|score| Wish::Put(score.into())),
            Kind::Badge => match section.value(name)? {
                Value::String(word) if word == "none" => Some(Wish::LeaveOut),
                Value::String(word) if word == "count" => Some(Wish::Count),
                number
                    if number
                        .as_u64()
                        .is_some_and(|number| u32::try_from(number).is_ok()) =>
                {
                    Some(Wish::Put(number.clone()))
                }
                _ => {
                    section.error(
                        name,
                        "expected \"none\", \"count\" (the number of messages that the publish tells) or a whole number",
                    );
                    None
                }
            },
        }
    }
}

impl Place {
    /// The value at this place, or what is in its way.
    fn find<'v>(&self, aps: &'v Map<String, Value>) -> Option<&'v Value> {
        match self {
            Self::Top(name) => aps.get(*name),
            Self::Alert(name) => match aps.get("alert")? {
                Value::Object(alert) => alert.get(*name),
                whole => Some(whole),
            },
        }
    }

    /// Puts a value there, where nothing is in its way.
    fn put(&self, aps: &mut Map<String, Value>, value: Value) {
        match self {
            Self::Top(name) => {
                aps.insert((*name).to_owned(), value);
            }
            Self::Alert(name) => {
                let alert = aps.entry("alert").or_insert_with(|| Map::new().into());
                if let Value::Object(alert) = alert {
                    alert.insert((*name).to_owned(), value);
                }
            }
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Top(name) => (*name).to_owned(),
            Self::Alert(name) => format!("alert.{name}"),
        }
    }
}

/// `aps` of a visible push: what the keys say, what the object `aps` says, and the defaults where neither does.
fn merge(apns: &Section<'_>, own: Option<&Own<'_>>, said: &[&Said]) -> (Map<String, Value>, bool) {
    let mut aps = own.map_or_else(Map::new, |own| own.object.clone());
    let given = aps.clone();
    let mut counts = false;
    for Said { key, path, wish } in said {
        if matches!(wish, Wish::LeaveOut) {
            continue;
        }
        if let Some(own) = own.filter(|_| key.place.find(&given).is_some()) {
            let place = key.place.path();
            apns.error(
                &format!("{}.{place}", own.path),
                format_args!("the key {path} says this already; remove one of them"),
            );
            continue;
        }
        match wish {
            Wish::Put(value) => key.place.put(&mut aps, value.clone()),
            Wish::Count => counts = true,
            Wish::LeaveOut => {}
        }
    }
    check_texts(apns, said);
    for (name, instead, default) in DEFAULTS {
        let is_said = |name: &str| said.iter().any(|said| said.key.name == name);
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            continue;
        };
        let replaced = instead.is_some_and(|place: Place| place.find(&aps).is_some());
        if !is_said(name) && !replaced && key.place.find(&aps).is_none() {
            let value = match key.kind {
                Kind::Flag => json!(1),
                Kind::Text | Kind::Texts | Kind::Level | Kind::Score | Kind::Badge => default.into(),
            };
            key.place.put(&mut aps, value);
        }
    }
    (aps, counts)
}

/// Apple wants a text or the key of a localized one, and arguments for nothing but a key.
fn check_texts(apns: &Section<'_>, said: &[&Said]) {
    let find = |name: &str| {
        let said = said.iter().find(|said| said.key.name == name)?;
        (!matches!(said.wish, Wish::LeaveOut)).then_some(&said.path)
    };
    for (text, key, arguments) in [
        ("alertTitle", "alertTitleLocKey", "alertTitleLocArgs"),
        ("alertBody", "alertBodyLocKey", "alertBodyLocArgs"),
    ] {
        if let (Some(text), Some(key)) = (find(text), find(key)) {
            apns.error(key, format_args!("expected either {text} or {key}, found both"));
        }
        if let (Some(arguments), None) = (find(arguments), find(key)) {
            apns.error(
                arguments,
                format_args!("these are arguments for {key}, which is missing"),
            );
        }
    }
}

/// `aps` of a push that wakes the app: what is said for its class, or else what is said for all of them, but for what a
/// `silent` one must not have.
fn waking(apns: &Section<'_>, part: &Part<'_>, all: &Part<'_>, silent: bool) -> Map<String, Value> {
    let own = part.own(all);
    let mut aps = own.map_or_else(Map::new, |own| own.object.clone());
    let path = own.map_or("", |own| &own.path);
    // What is said for all classes is wrong once.
    let here = part.aps.is_some() || silent;
    if here && aps.get(WAKES).is_some_and(|value| *value != json!(1)) {
        apns.error(
            &format!("{path}.{WAKES}"),
            "expected 1, which fpush sets in pushes that wake the app; remove it",
        );
    }
    for shown in ["alert", "badge", "sound"].iter().filter(|_| silent) {
        if aps.remove(*shown).is_some() && part.aps.is_some() {
            apns.error(
                &format!("{path}.{shown}"),
                "a silent push must not have this, as Apple says of background notifications; remove it",
            );
        }
    }
    aps.insert(WAKES.to_owned(), 1.into());
    aps
}

fn object<'a>(
    section: &mut Section<'a>,
    name: &'static str,
    expected: &str,
) -> Option<&'a Map<String, Value>> {
    let value = section.value(name)?;
    let object = value.as_object();
    if object.is_none() {
        section.error(name, format_args!("expected {expected}"));
    }
    object
}

/// Tells Apple to wake the app.
const WAKES: &str = "content-available";

const fn key(name: &'static str, place: Place, kind: Kind) -> Key {
    Key { name, place, kind }
}

static KEYS: [Key; 13] = [
    key("alertTitle", Place::Alert("title"), Kind::Text),
    key("alertTitleLocKey", Place::Alert("title-loc-key"), Kind::Text),
    key("alertTitleLocArgs", Place::Alert("title-loc-args"), Kind::Texts),
    key("alertBody", Place::Alert("body"), Kind::Text),
    key("alertBodyLocKey", Place::Alert("loc-key"), Kind::Text),
    key("alertBodyLocArgs", Place::Alert("loc-args"), Kind::Texts),
    key("sound", Place::Top("sound"), Kind::Text),
    key("mutableContent", Place::Top("mutable-content"), Kind::Flag),
    key("category", Place::Top("category"), Kind::Text),
    key("threadId", Place::Top("thread-id"), Kind::Text),
    key("interruptionLevel", Place::Top("interruption-level"), Kind::Level),
    key("relevanceScore", Place::Top("relevance-score"), Kind::Score),
    key("badge", Place::Top("badge"), Kind::Badge),
];

/// What goes into `aps` where nothing is said: the key, what may be there instead, and the text.
static DEFAULTS: [(&str, Option<Place>, &str); 4] = [
    ("alertTitle", Some(Place::Alert("title-loc-key")), "New Message"),
    ("alertBody", Some(Place::Alert("loc-key")), "New Message?"),
    ("sound", None, "default"),
    ("mutableContent", None, ""),
];

const LEVELS: [(&str, Option<&str>); 4] = [
    ("passive", Some("passive")),
    ("active", Some("active")),
    ("time-sensitive", Some("time-sensitive")),
    ("critical", Some("critical")),
];

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;

    use super::*;

    /// What a module that sends pushes of these classes says of `keys`: what visible, silent and voip pushes carry, and
    /// what is wrong.
    fn read(keys: &Value, sends: &[Class]) -> (Contents, Vec<String>) {
        let report = Report::default();
        let mut section = Section::root(keys.as_object().unwrap(), &report);
        let contents = Contents::read(&mut section, sends);
        section.finish();
        let problems = report.into_problems();
        (contents, problems.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn aps(keys: &Value, class: Class) -> Value {
        let (contents, problems) = read(keys, &[Class::High, Class::Low, Class::Voip]);
        assert_eq!(problems, [""; 0], "{keys}");
        contents.of(class).aps.clone().into()
    }

    #[test]
    fn each_key_has_its_place_in_aps() {
        let keys = json!({
            "alertTitleLocKey": "TITLE", "alertTitleLocArgs": ["a", "b"], "alertBodyLocKey": "BODY",
            "alertBodyLocArgs": [], "sound": "ping.caf", "mutableContent": false, "category": "MESSAGE",
            "threadId": "chat", "interruptionLevel": "time-sensitive", "relevanceScore": 0.5, "badge": 3,
            "aps": { "filter-criteria": "x", "alert": { "subtitle": "y" }, "content-available": 1 },
        });
        let alert = json!({ "title-loc-key": "TITLE", "title-loc-args": ["a", "b"], "loc-key": "BODY", "loc-args": [],
            "subtitle": "y" });
        assert_eq!(
            aps(&keys, Class::High),
            json!({ "alert": alert, "sound": "ping.caf", "category": "MESSAGE", "thread-id": "chat",
                "interruption-level": "time-sensitive", "relevance-score": 0.5, "badge": 3, "filter-criteria": "x",
                "content-available": 1 })
        );
    }

    #[test]
    fn each_class_carries_its_own() {
        let keys = json!({
            "category": "ALL", "threadId": "all", "additionalData": { "for": "all" },
            "visible": { "category": "OWN", "aps": { "target-content-id": "v" } },
            "silent": { "additionalData": { "for": "silent" } },
            "voip": { "aps": { "x": 1 }, "additionalData": {} },
        });
        let visible = aps(&keys, Class::High);
        assert_eq!(
            [
                &visible["category"],
                &visible["thread-id"],
                &visible["target-content-id"]
            ],
            ["OWN", "all", "v"]
        );
        assert_eq!(aps(&keys, Class::Low), json!({ "content-available": 1 }));
        assert_eq!(aps(&keys, Class::Voip), json!({ "content-available": 1, "x": 1 }));
        let (contents, _) = read(&keys, &[Class::High, Class::Low, Class::Voip]);
        let data =
            [Class::High, Class::Low, Class::Voip].map(|class| Value::from(contents.of(class).data.clone()));
        assert_eq!(
            data,
            [json!({ "for": "all" }), json!({ "for": "silent" }), json!({})]
        );
    }

    #[test]
    fn what_silent_pushes_must_not_have_is_not_in_them() {
        let keys = json!({ "aps": { "sound": "x", "badge": 1, "alert": "y", "z": 1 } });
        assert_eq!(aps(&keys, Class::Low), json!({ "content-available": 1, "z": 1 }));
    }

    #[test]
    fn what_is_said_of_aps_comes_before_defaults() {
        let keys = json!({ "aps": { "alert": "text", "sound": { "critical": 1 }, "mutable-content": 0 } });
        assert_eq!(aps(&json!({ "visible": keys }), Class::High), keys["aps"]);
        let keys = json!({ "visible": { "aps": { "alert": { "title-loc-key": "T" } } } });
        assert_eq!(
            aps(&keys, Class::High)["alert"],
            json!({ "title-loc-key": "T", "body": "New Message?" })
        );
    }

    #[test]
    fn what_contradicts_itself_is_an_error() {
        let both = "the key badge says this already; remove one of them";
        for (keys, problem) in [
            (json!({ "badge": 1, "aps": { "badge": 2 } }), format!("aps.badge: {both}")),
            (json!({ "badge": "count", "aps": { "badge": 2 } }), format!("aps.badge: {both}")),
            (
                json!({ "alertTitle": "x", "visible": { "aps": { "alert": "y" } } }),
                "visible.aps.alert.title: the key alertTitle says this already; remove one of them".into(),
            ),
            (
                json!({ "visible": { "alertBody": "x" }, "aps": { "alert": { "body": 1 } } }),
                "aps.alert.body: the key visible.alertBody says this already; remove one of them".into(),
            ),
            (
                json!({ "alertTitle": "x", "alertTitleLocKey": "X" }),
                "alertTitleLocKey: expected either alertTitle or alertTitleLocKey, found both".into(),
            ),
            (
                json!({ "alertBodyLocArgs": ["x"] }),
                "alertBodyLocArgs: these are arguments for alertBodyLocKey, which is missing".into(),
            ),
            (
                json!({ "voip": { "aps": { "content-available": 0 } } }),
                "voip.aps.content-available: expected 1, which fpush sets in pushes that wake the app; remove it".into(),
            ),
            (
                json!({ "silent": { "aps": { "sound": "x" } } }),
                "silent.aps.sound: a silent push must not have this, as Apple says of background notifications; remove it"
                    .into(),
            ),
            (
                json!({ "badge": -1 }),
                "badge: expected \"none\", \"count\" (the number of messages that the publish tells) or a whole number"
                    .into(),
            ),
            (
                json!({ "relevanceScore": 1.5 }),
                "relevanceScore: expected a number from 0 to 1, found a number that does not fit".into(),
            ),
            (
                json!({ "silent": { "sound": "x" } }),
                "silent.sound: this key is not known; it belongs into visible or the outermost object".into(),
            ),
            (
                json!({ "aps": [] }),
                "aps: expected an object of Apple's keys, which is merged into \"aps\"".into(),
            ),
        ] {
            assert_eq!(read(&keys, &[Class::High, Class::Low, Class::Voip]).1, [problem], "{keys}");
        }
    }

    #[test]
    fn what_no_push_carries_is_said() {
        let keys = json!({ "aps": { "sound": "x" }, "silent": {} });
        let (_, problems) = read(&keys, &[Class::High, Class::Voip]);
        assert_eq!(
            problems,
            ["silent: this module sends no such pushes: see pushPriority"]
        );
    }
}

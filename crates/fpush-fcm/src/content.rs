//! What the settings say that messages carry, for each class of pushes.

use std::{collections::BTreeMap, time::Duration};

use fpush_push::{
    Class,
    settings::{PerClass, Section},
};
use serde_json::{Map, Value};

use crate::resource::{self, Field};

/// What messages of one class carry.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) ttl: Duration,
    pub(crate) collapse_key: Option<String>,
    pub(crate) direct_boot_ok: Option<bool>,
    pub(crate) restricted_package_name: Option<String>,
    pub(crate) additional_data: BTreeMap<String, String>,
    pub(crate) notification: Map<String, Value>,
    pub(crate) android: Map<String, Value>,
    pub(crate) apns: Map<String, Value>,
    pub(crate) webpush: Map<String, Value>,
    pub(crate) fcm_options: Map<String, Value>,
}

/// What one section says of it.
#[derive(Default)]
struct Part {
    ttl: Option<Duration>,
    collapse_key: Option<String>,
    direct_boot_ok: Option<bool>,
    restricted_package_name: Option<String>,
    additional_data: Option<BTreeMap<String, String>>,
    notification: Option<Map<String, Value>>,
    android: Option<Map<String, Value>>,
    apns: Option<Map<String, Value>>,
    webpush: Option<Map<String, Value>>,
    fcm_options: Option<Map<String, Value>>,
}

/// What the messages of a module carry.
#[derive(Clone, Debug)]
pub(crate) struct Contents(PerClass<Content>);

impl Contents {
    /// Reads it. What no message of the classes in `sends` will carry is a warning.
    pub(crate) fn read(fcm: &mut Section<'_>, sends: &[Class]) -> Self {
        let all = Part::read(fcm);
        Self(PerClass::read(fcm, sends, "priority", |section, _, _| {
            Part::read(section).over(&all)
        }))
    }

    /// What messages of this class carry.
    pub(crate) fn of(&self, class: Class) -> &Content {
        self.0.of(class)
    }
}

impl Content {
    /// The same without what Google passes on in its own words; `None` if there is nothing of that.
    pub(crate) fn without_open_parts(&self) -> Option<Self> {
        let open = [
            &self.notification,
            &self.android,
            &self.apns,
            &self.webpush,
            &self.fcm_options,
        ];
        open.iter().any(|part| !part.is_empty()).then(|| Self {
            notification: Map::new(),
            android: Map::new(),
            apns: Map::new(),
            webpush: Map::new(),
            fcm_options: Map::new(),
            ..self.clone()
        })
    }
}

impl Part {
    fn read(section: &mut Section<'_>) -> Self {
        let ttl = section.has("ttl");
        let span = section.duration("ttl", LONGEST_TTL);
        if span > LONGEST_TTL {
            section.error(
                "ttl",
                "expected at most 28 days, which is as long as Google keeps a push",
            );
        }
        let mut text = |key| {
            let text = section.optional_string(key);
            if text == Some("") {
                section.error(key, "expected a string that is not empty");
            }
            text.map(str::to_owned)
        };
        Self {
            ttl: ttl.then_some(span),
            collapse_key: text("collapseKey"),
            restricted_package_name: text("restrictedPackageName"),
            direct_boot_ok: section.read("directBootOk", "true or false"),
            additional_data: additional_data(section),
            notification: object(section, "notification", &resource::NOTIFICATION),
            android: object(section, "android", &resource::ANDROID),
            apns: object(section, "apns", &resource::APNS),
            webpush: object(section, "webpush", &resource::WEBPUSH),
            fcm_options: object(section, "fcmOptions", &resource::FCM_OPTIONS),
        }
    }

    /// What this part says, or else what is said for all classes.
    fn over(self, all: &Self) -> Content {
        Content {
            ttl: self.ttl.or(all.ttl).unwrap_or(LONGEST_TTL),
            collapse_key: self.collapse_key.or_else(|| all.collapse_key.clone()),
            direct_boot_ok: self.direct_boot_ok.or(all.direct_boot_ok),
            restricted_package_name: self
                .restricted_package_name
                .or_else(|| all.restricted_package_name.clone()),
            additional_data: own_or(self.additional_data, &all.additional_data),
            notification: own_or(self.notification, &all.notification),
            android: own_or(self.android, &all.android),
            apns: own_or(self.apns, &all.apns),
            webpush: own_or(self.webpush, &all.webpush),
            fcm_options: own_or(self.fcm_options, &all.fcm_options),
        }
    }
}

fn own_or<T: Clone + Default>(own: Option<T>, all: &Option<T>) -> T {
    own.or_else(|| all.clone()).unwrap_or_default()
}

/// An object in Google's words.
fn object(
    section: &mut Section<'_>,
    key: &'static str,
    fields: &'static [Field],
) -> Option<Map<String, Value>> {
    match section.value(key)? {
        Value::Object(object) => {
            resource::check(section, key, object, fields);
            Some(object.clone())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            section.error(key, "expected an object in Google's words");
            None
        }
    }
}

/// Google takes strings only, and keeps some keys for itself.
fn additional_data(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    let data = match section.value("additionalData")? {
        Value::Object(data) => data,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            section.error("additionalData", "expected an object with strings");
            return None;
        }
    };
    let mut strings = BTreeMap::new();
    for (key, value) in data {
        let path = format!("additionalData.{key}");
        let reserved = matches!(key.as_str(), "" | "from" | "message_type")
            || ["google", "gcm"].iter().any(|prefix| key.starts_with(prefix));
        if reserved {
            section.error(
                &path,
                "Google keeps this key, as \"from\", \"message_type\" and those that begin with \"google\" or \
                 \"gcm\", for itself; choose another name",
            );
        }
        match value {
            Value::String(value) => {
                strings.insert(key.clone(), value.clone());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                section.error(&path, "expected a string, which is all that Google takes here");
            }
        }
    }
    Some(strings)
}

const LONGEST_TTL: Duration = Duration::from_secs(28 * 86_400);

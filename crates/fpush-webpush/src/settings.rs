//! The settings of a `webpush` module.

use std::{num::NonZeroUsize, time::Duration};

use fpush_client::{Dialer, Guard, PoolSettings, PooledClient, Trust};
use fpush_push::{
    BackendType, Built, Network, ParsedBackend, registrable,
    settings::{self, Section},
};
use http::{HeaderValue, Uri};
use serde_json::{Map, Value};

use crate::{
    backend::{Backend, UrgencySetting},
    endpoint::{Allowed, is_host},
    hosts::Hosts,
    key::VapidKey,
    payload::Payload,
    service::{EVERYBODY, VENDORS},
    vapid::Vapid,
};

/// The type of all `webpush` modules.
#[derive(Debug, Default)]
pub struct WebPush;

impl BackendType for WebPush {
    fn takes_notifications(&self) -> bool {
        true
    }

    fn read(&self, module: &mut Section<'_>) -> Option<ParsedBackend> {
        // The reader of all modules says what is wrong with it.
        let permits = module.value("maxInFlight").and_then(Value::as_u64);
        let permits = permits.unwrap_or(settings::MAX_IN_FLIGHT);
        let mut section = module.section("webpush")?;
        let key = key(&mut section);
        let subject = subject(&mut section);
        let hosts = hosts(&mut section);
        let ports = ports(&mut section);
        let networks = networks(&mut section);
        let ttl = ttl(&mut section);
        let urgency = section.choice("urgency", &URGENCIES, UrgencySetting::Auto);
        let sends_low = section.choice("lowPriority", &[("drop", false), ("send", true)], false);
        let topic = topic(&mut section);
        let payload = payload(&mut section);
        let trust = Trust::read(&mut section);
        let request_timeout = section.duration_or_seconds("requestTimeout", Duration::from_secs(10));
        let dialer = dialer(&section, networks.as_deref(), hosts.as_deref());
        section.finish();

        // Every mistake has been reported by now.
        let (key, subject, ttl) = (key?, subject?, ttl?);
        let (hosts, ports, networks) = (hosts?, ports?, networks?);
        let (topic, payload) = (topic.ok()?, payload?);
        let (trust, dialer) = (trust?, dialer?);
        let shown = |items: Vec<String>| items.join(", ");
        let mut facts = vec![
            ("VAPID public key", key.public().to_owned()),
            ("subject", subject.clone()),
            ("endpoints", shown(hosts.clone())),
            ("ports", shown(ports.iter().map(u16::to_string).collect())),
        ];
        if !networks.is_empty() {
            let written = networks.into_iter().map(|(written, _)| written);
            facts.push(("private networks", shown(written.collect())));
        }
        let digest = settings::digest(key.public().as_bytes());
        let build = move || {
            let client = PoolSettings {
                trust,
                dialer,
                plain_http: false,
                idle_timeout: IDLE_TIMEOUT,
                max_connections: MAX_CONNECTIONS,
                max_idle: MAX_IDLE,
                max_origins: MAX_ORIGINS,
            };
            let backend = Backend {
                client: PooledClient::new(client),
                hosts: Hosts::of(usize::try_from(permits).unwrap_or(usize::MAX)),
                allowed: Allowed { hosts, ports },
                vapid: Vapid::new(key, subject),
                payload,
                ttl,
                topic,
                urgency,
                sends_low,
                request_timeout,
                digest,
            };
            Built {
                backend: Box::new(backend),
                background: Vec::new(),
            }
        };
        Some(ParsedBackend {
            facts,
            build: Box::new(build),
        })
    }
}

/// A mistake that is in the report.
#[derive(Clone, Copy)]
struct Reported;

fn key(section: &mut Section<'_>) -> Option<VapidKey> {
    let content = section.secret_file("vapidKeyFilePath")?;
    VapidKey::read(&content)
        .inspect_err(|e| section.error("vapidKeyFilePath", e))
        .ok()
}

/// Whom a push service may ask. Apple refuses all pushes if it is not as it wants it.
fn subject(section: &mut Section<'_>) -> Option<String> {
    let subject = section.string("subject")?;
    let host = if let Some(address) = subject.strip_prefix("mailto:") {
        address
            .rsplit_once('@')
            .filter(|(user, _)| !user.is_empty())
            .map(|(_, host)| host)
    } else {
        let uri: Option<Uri> = subject
            .starts_with("https://")
            .then(|| subject.parse().ok())
            .flatten();
        uri.and_then(|_| subject.strip_prefix("https://")?.split(['/', '?', ':']).next())
    };
    let is_plain = subject
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\'));
    let is_real = |host: &str| is_host(host) && host.contains('.') && !host.ends_with(".localhost");
    if is_plain && host.is_some_and(is_real) {
        return Some(subject.to_owned());
    }
    section.error(
        "subject",
        "expected how push services reach you: \"mailto:\" and an address with a real domain, such as \
         \"mailto:push@example.org\", or an https URL; Apple refuses all pushes otherwise",
    );
    None
}

fn hosts(section: &mut Section<'_>) -> Option<Vec<String>> {
    let expected = "a list of hosts such as [\"fcm.googleapis.com\", \"*.notify.windows.com\"]";
    let Some(hosts) = section.read::<Vec<String>>("allowedEndpoints", expected) else {
        let vendors = VENDORS.iter().map(|(host, _)| (*host).to_owned());
        return (!section.has("allowedEndpoints")).then(|| vendors.collect());
    };
    let mut is_right = true;
    for (place, host) in hosts.iter().enumerate() {
        let wrong = match host.strip_prefix('*') {
            _ if host == EVERYBODY => {
                section.warning("allowedEndpoints", OPEN);
                None
            }
            Some(domain) => match domain.strip_prefix('.') {
                Some(domain) if !is_host(domain) => Some(NO_HOST),
                Some(domain) if is_public_suffix(domain) => Some(SUFFIX),
                Some(_) => None,
                None => Some(NO_HOST),
            },
            None => (!is_host(host)).then_some(NO_HOST),
        };
        if let Some(wrong) = wrong {
            section.error(&format!("allowedEndpoints[{place}]"), wrong);
            is_right = false;
        }
    }
    if hosts.is_empty() {
        section.error(
            "allowedEndpoints",
            format_args!("expected {expected}, found an empty one"),
        );
        is_right = false;
    }
    let spelled = |host: String| host.trim_end_matches('.').to_ascii_lowercase();
    is_right.then(|| hosts.into_iter().map(spelled).collect())
}

/// Whether anybody can register a name below this domain.
fn is_public_suffix(domain: &str) -> bool {
    let below = format!("x.{}", domain.to_ascii_lowercase());
    registrable(&below) == below
}

fn ports(section: &mut Section<'_>) -> Option<Vec<u16>> {
    let expected = "a list of ports such as [443, 8443]";
    match section.read::<Vec<u16>>("allowedPorts", expected) {
        Some(ports) if ports.is_empty() || ports.contains(&0) => {
            section.error("allowedPorts", format_args!("expected {expected}"));
            None
        }
        None if section.has("allowedPorts") => None,
        ports => Some(ports.unwrap_or_else(|| vec![443])),
    }
}

/// The networks, with the text of each.
fn networks(section: &mut Section<'_>) -> Option<Vec<(String, Network)>> {
    let expected = "a list of addresses and networks, such as [\"192.168.1.0/24\"]";
    let Some(written) = section.read::<Vec<String>>("allowedNetworks", expected) else {
        return (!section.has("allowedNetworks")).then(Vec::new);
    };
    let networks: Option<Vec<_>> = written
        .into_iter()
        .map(|written| {
            let network = Network::parse(&written)?;
            Some((written, network))
        })
        .collect();
    if networks.is_none() {
        section.error("allowedNetworks", format_args!("expected {expected}"));
    }
    networks
}

fn ttl(section: &mut Section<'_>) -> Option<HeaderValue> {
    let ttl = section.duration("ttl", LONGEST_TTL);
    // Without a second to wait a push reaches nobody who is away, and Windows refuses it.
    if ttl > LONGEST_TTL || ttl.as_secs() == 0 {
        section.error("ttl", "expected at least one second, and at most 28 days, which is as long as push services keep a push");
        return None;
    }
    HeaderValue::from_str(&ttl.as_secs().to_string()).ok()
}

fn topic(section: &mut Section<'_>) -> Result<Option<HeaderValue>, Reported> {
    if !section.has("topic") {
        section.value("topic");
        return Ok(None);
    }
    let topic = section.string("topic").ok_or(Reported)?;
    let is_base64url = topic
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_base64url || topic.len() > LONGEST_TOPIC || topic.len() % 4 == 1 {
        section.error(
            "topic",
            "expected up to 32 letters, digits, dashes and underscores, which are decoded as base64url: their number must not \
             be 1, 5, 9, 13, 17, 21, 25 or 29, such as \"xmpp\"",
        );
        return Err(Reported);
    }
    HeaderValue::from_str(topic).map(Some).map_err(|_| Reported)
}

fn payload(section: &mut Section<'_>) -> Option<Payload> {
    let empty = Map::new();
    let (data, declarative) = (object(section, "additionalData"), object(section, "declarative"));
    let lacks = |key: &&str| {
        let notification = declarative.as_ref().ok().copied().flatten();
        notification.is_some_and(|notification| !notification.get(*key).is_some_and(Value::is_string))
    };
    if let Some(key) = ["title", "navigate"].iter().find(|key| lacks(key)) {
        section.error(
            "declarative",
            format_args!("expected a \"{key}\", a string, without which Safari shows nothing"),
        );
        return None;
    }
    let (data, declarative) = (data.ok()?.unwrap_or(&empty), declarative.ok()?);
    Payload::new(data, declarative)
        .inspect_err(|e| section.error("additionalData", e))
        .ok()
}

fn object<'a>(
    section: &mut Section<'a>,
    key: &'static str,
) -> Result<Option<&'a Map<String, Value>>, Reported> {
    match section.value(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => {
            section.error(key, "expected an object");
            Err(Reported)
        }
    }
}

/// A dialer that the guard holds back, and whose proxy is one that can be used.
fn dialer(
    section: &Section<'_>,
    networks: Option<&[(String, Network)]>,
    hosts: Option<&[String]>,
) -> Option<Dialer> {
    let allowed = networks?.iter().map(|(_, network)| *network).collect();
    let (hosts, guard) = (hosts?, Guard { allowed });
    let mut dialer = None;
    // Each may have a proxy of its own.
    for host in hosts {
        let host = host.trim_start_matches("*.").replace('*', ANYBODY);
        let uri: Uri = format!("https://{host}").parse().ok()?;
        let made = Dialer::guarded(guard.clone(), &uri);
        dialer = Some(made.inspect_err(|e| section.error("allowedEndpoints", e)).ok()?);
    }
    let dialer = dialer?;
    let is_open = hosts.iter().any(|host| host == EVERYBODY);
    if is_open && dialer.proxy_host(&Uri::from_static(ANYBODYS)).is_some() {
        section.error("allowedEndpoints", BEHIND_PROXY);
        return None;
    }
    Some(dialer)
}

const URGENCIES: [(&str, UrgencySetting); 5] = [
    ("auto", UrgencySetting::Auto),
    ("high", UrgencySetting::Fixed("high")),
    ("normal", UrgencySetting::Fixed("normal")),
    ("low", UrgencySetting::Fixed("low")),
    ("very-low", UrgencySetting::Fixed("very-low")),
];
const OPEN: &str = "\"*\" lets everybody who can register or publish make this machine send requests to any public host. UnifiedPush \
    needs that; docs/operate/any-push-service.md says what it means and what a firewall should refuse";
const SUFFIX: &str = "anybody can have a name below this domain; name the hosts of the push services, domains such as \
    \"*.example.org\", or \"*\" for any public host";
const BEHIND_PROXY: &str = "\"*\" cannot be used behind a proxy (HTTPS_PROXY): the proxy resolves the names, so that fpush cannot keep \
    strangers from private addresses; name the hosts of the push services, or except all others from the proxy (NO_PROXY)";
const ANYBODY: &str = "push.example";
const ANYBODYS: &str = "https://push.example";
const NO_HOST: &str = "expected hosts such as \"fcm.googleapis.com\", and domains such as \"*.notify.windows.com\", without https:// and port";
const LONGEST_TTL: Duration = Duration::from_secs(28 * 86_400);
const LONGEST_TOPIC: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// To one origin that speaks HTTP/1.1.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(20).expect("it is not zero");
/// Of those, while they are not in use.
const MAX_IDLE: NonZeroUsize = NonZeroUsize::new(2).expect("it is not zero");
/// Origins to which connections are kept.
const MAX_ORIGINS: NonZeroUsize = NonZeroUsize::new(500).expect("it is not zero");

#[cfg(test)]
mod tests {
    use fpush_push::settings::Report;
    use fpush_testkit::TempDir;
    use serde_json::json;

    use super::*;
    use crate::key::new_key;

    type Facts = Vec<(&'static str, String)>;

    /// What is there to see of the settings, and what is wrong with them.
    fn read(more: &Value) -> (Option<Facts>, Vec<String>) {
        let (folder, report) = (TempDir::new(), Report::default());
        let key = folder.write("vapid.key", new_key().unwrap().pem);
        let mut section = json!({ "vapidKeyFilePath": key, "subject": "mailto:push@example.org" });
        let more = more.as_object().unwrap().clone();
        section.as_object_mut().unwrap().extend(more);
        section
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        let all = json!({ "webpush": section });
        let parsed = WebPush.read(&mut Section::root(all.as_object().unwrap(), &report));
        let problems = report.into_problems();
        let problems = problems.iter().map(ToString::to_string);
        // The folder's files are everybody's to read.
        let problems = problems.filter(|problem| !problem.contains("chmod")).collect();
        (parsed.map(|parsed| parsed.facts), problems)
    }

    #[test]
    fn key_and_subject_are_enough() {
        let (facts, problems) = read(&json!({}));
        assert_eq!(problems, [""; 0]);
        let facts = facts.unwrap();
        let fact = |name| {
            let found = facts.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(fact("VAPID public key").unwrap().len(), 87);
        assert_eq!(fact("subject"), Some("mailto:push@example.org"));
        assert_eq!(fact("ports"), Some("443"));
        assert!(fact("endpoints").unwrap().contains("fcm.googleapis.com"));
        assert_eq!(fact("private networks"), None);
    }

    #[test]
    fn all_keys() {
        let (facts, problems) = read(&json!({
            "allowedEndpoints": ["UP.example.org", "*.example.net", "localhost", "127.0.0.1", "[::1]"],
            "allowedPorts": [443, 8443], "allowedNetworks": ["127.0.0.0/8", "::1"], "ttl": "1h", "urgency": "very-low", "lowPriority": "send",
            "topic": "xmpp-wakes", "additionalData": { "a": 1 }, "requestTimeout": 5,
            "declarative": { "title": "News", "navigate": "https://a.example/" },
        }));
        assert_eq!(problems, ["webpush.topic: "; 0]);
        assert!(
            facts
                .unwrap()
                .contains(&("private networks", "127.0.0.0/8, ::1".to_owned()))
        );
    }

    #[test]
    fn a_subject_is_one_that_every_vendor_takes() {
        for right in [
            "mailto:a@b.example",
            "https://b.example",
            "https://b.example/contact?x",
        ] {
            assert_eq!(read(&json!({ "subject": right })).1, [""; 0], "{right}");
        }
        for wrong in [
            "a@b.example",
            "mailto:",
            "mailto:@b.example",
            "mailto:a@localhost",
            "mailto:a@b.localhost",
            "mailto:a@b",
            "mailto:<a@b.example>",
            "mailto: a@b.example",
            "https://localhost/",
            "http://b.example/",
            "https://",
            "xmpp:a@b.example",
        ] {
            let (facts, problems) = read(&json!({ "subject": wrong }));
            assert_eq!((facts, problems.len()), (None, 1), "{wrong}");
            assert!(
                problems[0].starts_with("webpush.subject: expected how push services"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn who_opens_it_for_everybody_is_warned_and_does_it_in_one_way_only() {
        for hosts in [
            json!(["*.com"]),
            json!(["*.co.uk"]),
            json!(["fcm.googleapis.com", "*."]),
            json!(["**"]),
        ] {
            let (facts, problems) = read(&json!({ "allowedEndpoints": hosts }));
            assert_eq!((facts, problems.len()), (None, 1), "{hosts}");
            assert!(
                problems[0].starts_with("webpush.allowedEndpoints["),
                "{problems:?}"
            );
        }
        let (facts, problems) = read(&json!({ "allowedEndpoints": ["localhost", "*"] }));
        let endpoints = ("endpoints", "localhost, *".to_owned());
        assert!(facts.unwrap().contains(&endpoints));
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("any public host") && problems[0].starts_with("webpush.allowedEndpoints: "),
            "{problems:?}"
        );
    }

    #[test]
    fn each_key_with_a_wrong_value_is_reported() {
        for (keys, expected) in [
            (
                json!({ "vapidKeyFilePath": null }),
                "vapidKeyFilePath: this key is missing",
            ),
            (
                json!({ "vapidKeyFilePath": "/nonexistent" }),
                "vapidKeyFilePath: cannot read the file",
            ),
            (json!({ "subject": null }), "subject: this key is missing"),
            (
                json!({ "allowedEndpoints": [] }),
                "allowedEndpoints: expected a list of hosts",
            ),
            (
                json!({ "allowedEndpoints": "x" }),
                "allowedEndpoints: expected a list of hosts",
            ),
            (
                json!({ "allowedEndpoints": ["https://x.example"] }),
                "allowedEndpoints[0]: expected hosts",
            ),
            (
                json!({ "allowedEndpoints": ["x.example:443"] }),
                "allowedEndpoints[0]: expected hosts",
            ),
            (
                json!({ "allowedEndpoints": ["*example.org"] }),
                "allowedEndpoints[0]: expected hosts",
            ),
            (
                json!({ "allowedPorts": [] }),
                "allowedPorts: expected a list of ports",
            ),
            (
                json!({ "allowedPorts": [0] }),
                "allowedPorts: expected a list of ports",
            ),
            (
                json!({ "allowedPorts": [70_000] }),
                "allowedPorts: expected a list of ports",
            ),
            (
                json!({ "allowedNetworks": ["x"] }),
                "allowedNetworks: expected a list of addresses",
            ),
            (json!({ "ttl": "0s" }), "ttl: expected at least one second"),
            (json!({ "ttl": "29days" }), "ttl: expected at least one second"),
            (json!({ "urgency": "hgih" }), "urgency: expected \"auto\" or"),
            (json!({ "topic": "12345" }), "topic: expected up to 32"),
            (json!({ "topic": "x".repeat(33) }), "topic: expected up to 32"),
            (json!({ "topic": "a b" }), "topic: expected up to 32"),
            (
                json!({ "additionalData": [] }),
                "additionalData: expected an object",
            ),
            (
                json!({ "additionalData": { "a": "x".repeat(3_000) } }),
                "additionalData: it makes pushes of",
            ),
            (
                json!({ "declarative": { "title": "x" } }),
                "declarative: expected a \"navigate\"",
            ),
            (
                json!({ "tll": "1h" }),
                "tll: this key is not known; did you mean \"ttl\"?",
            ),
        ] {
            let (_, problems) = read(&keys);
            assert_eq!(problems.len(), 1, "{expected}: {problems:?}");
            let expected = format!("webpush.{expected}");
            assert!(problems[0].starts_with(&expected), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_key_is_said_without_its_content() {
        let folder = TempDir::new();
        let key = folder.write("key", "s3cret");
        let (_, problems) = read(&json!({ "vapidKeyFilePath": key }));
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("fpush vapid new") && !problems[0].contains("s3cret"),
            "{problems:?}"
        );
    }
}

//! What XMPP servers and their users send.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    mem::ManuallyDrop,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use fpush_component::fuzz::{Asked, Cut, cut, read, read_head, read_usual, stream_error};
use fpush_push::{
    COMMAND_FIELDS, Command, Completed, Devices as _, Found, Lookup, Notification, Signature, Value,
    canonical_domain, canonical_jid, registrable,
};
use fpush_registry::{NoModules, Registry, RegistrySettings, StoreSettings};
use quick_xml::{Reader, escape::unescape, events::Event};
use tokio::runtime::{Builder, Runtime};

use crate::check_words;

/// A stream. Its stanzas are the same however the bytes come; each wants one reply at most, which is XML that no peer makes too
/// large; and what is kept of one has a bound.
pub(crate) fn stanzas(input: &[u8]) {
    let whole = cut(LIMIT, [input]);
    for size in [1, 13, 1_000] {
        assert_eq!(cut(LIMIT, input.chunks(size)), whole, "in chunks of {size}");
    }
    for piece in whole {
        match piece {
            Cut::Stanza(stanza) => {
                assert!(stanza.len() <= LIMIT, "{}", stanza.len());
                if let Some((usual, of_all)) = read_usual(&stanza) {
                    assert_eq!(Some(usual), of_all, "both readers agree");
                }
                if let Some(asked) = read(&stanza) {
                    check_asked(&asked, &stanza);
                }
                let condition = stream_error(&stanza);
                assert!(condition.is_none_or(|condition| condition.chars().count() <= 64));
            }
            Cut::Oversized(Some(head)) => {
                if let Some(asked) = read_head(&head) {
                    check_asked(&asked, &head);
                }
            }
            Cut::Oversized(None) | Cut::End => {}
        }
    }
}

#[track_caller]
fn check_asked(asked: &Asked, stanza: &[u8]) {
    if asked.reply.is_empty() {
        // Of a message without an id nobody could say which one it was.
        let request = Start::of(stanza, Extent::StartTag);
        let is_silent =
            |start: Start| start.name.ends_with("message") && !start.attributes.contains_key("id");
        assert!(request.is_none_or(is_silent), "only that has no reply");
        return;
    }
    let reply = Start::of(&asked.reply, Extent::Whole).expect("a reply is XML");
    // What ends behind its start tag is an answer of ours as well as what does not.
    assert!(
        matches!(&*reply.name, "iq" | "message" | "presence"),
        "{}",
        reply.name
    );
    let references = asked
        .reply
        .iter()
        .filter(|byte| b"&<>'\"\t\n\r".contains(byte))
        .count();
    let size = asked.reply.len() + 5 * references;
    assert!(size <= LARGEST_REPLY, "{size} bytes as others write them");
    // Where another reader understands the request the reply is for who sent it.
    if let Some(request) = Start::of(stanza, Extent::StartTag) {
        for (ours, theirs) in [("to", "from"), ("from", "to"), ("id", "id")] {
            assert_eq!(
                reply.attributes.get(ours),
                request.attributes.get(theirs),
                "{ours}"
            );
        }
    }
    assert!(
        asked.kept <= 4 * stanza.len() + 64,
        "{} of {}",
        asked.kept,
        stanza.len()
    );
    assert_eq!(
        canonical_domain(&asked.domain),
        asked.domain,
        "the one spelling is its own"
    );
    if let Some(command) = &asked.command {
        check_command(command);
    }
}

#[track_caller]
fn check_command(command: &Command) {
    let names: BTreeSet<_> = command.fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), command.fields.len(), "each once");
    assert!(names.iter().all(|name| COMMAND_FIELDS.contains(name)));
    assert!(
        command
            .fields
            .iter()
            .all(|(_, value)| (1..=4_096).contains(&value.len()))
    );
    assert_eq!(canonical_jid(&command.sender), command.sender);
}

enum Extent {
    StartTag,
    Whole,
}

/// The first start tag of some XML, read by another reader.
struct Start {
    name: String,
    attributes: BTreeMap<String, String>,
}

impl Start {
    fn of(xml: &[u8], extent: Extent) -> Option<Self> {
        let text = std::str::from_utf8(xml).ok()?;
        let mut reader = Reader::from_str(text);
        let (tag, is_empty) = match reader.read_event().ok()? {
            Event::Start(tag) => (tag, false),
            Event::Empty(tag) => (tag, true),
            _ => return None,
        };
        let name = tag.name().as_ref().to_owned();
        let mut attributes = BTreeMap::new();
        for attribute in tag.attributes() {
            let attribute = attribute.ok()?;
            let key = attribute.key.as_ref().to_owned();
            let value = unescape(&attribute.value).ok()?;
            attributes.insert(key, value.into_owned());
        }
        if let (Extent::Whole, false) = (&extent, is_empty) {
            reader.read_to_end(tag.name()).ok()?;
        }
        if matches!(extent, Extent::Whole) {
            assert!(matches!(reader.read_event(), Ok(Event::Eof)), "one root");
        }
        Some(Self { name, attributes })
    }
}

/// Messages with a notification of Push 2.0. What is passed on of one has a bound, and is nothing that a request cannot hold;
/// whom it is for has one spelling at each provider.
pub(crate) fn notifications(input: &[u8]) {
    for piece in cut(LIMIT, [input]) {
        let Cut::Stanza(stanza) = piece else { continue };
        let Some(asked) = read(&stanza) else { continue };
        check_asked(&asked, &stanza);
        if let Some((client, notification)) = &asked.notification {
            check_notification(client, notification);
        }
    }
}

#[track_caller]
fn check_notification(client: &str, notification: &Notification) {
    assert!((1..=1_000).contains(&client.len()), "{}", client.len());
    let payload = notification.payload.as_deref();
    assert!(payload.is_none_or(|payload| (1..=4_096).contains(&payload.len())));
    if let Some(Signature { jwt, key }) = &notification.signature {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        assert!(jwt.len() <= 2_048 && jwt.bytes().all(is_plain), "{jwt}");
        assert_eq!((jwt.split('.').count(), key[0]), (3, 4));
    }
    check_words(&format!("{notification:?}"));
    if let Some(endpoint) = fpush_webpush::fuzz::receiver(client) {
        assert!(
            endpoint.starts_with("https://") && !endpoint.contains('#'),
            "{endpoint}"
        );
        assert_eq!(fpush_webpush::fuzz::receiver(&endpoint).as_ref(), Some(&endpoint));
    }
    for call in [false, true] {
        if let Some(receiver) = fpush_apns::fuzz::receiver(client, call) {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert!(receiver.token.bytes().all(is_digit) && (call || !receiver.call));
            check_words(&format!("{receiver:?}"));
        }
    }
}

/// Stanzas with commands, which a registry executes. What was registered is found by the node and the secret that the client was
/// told, and has bounds.
pub(crate) fn commands(input: &[u8]) {
    for piece in cut(LIMIT, [input]) {
        let Cut::Stanza(stanza) = piece else { continue };
        if let Some(mut command) = read(&stanza).and_then(|asked| asked.command) {
            check_command(&command);
            let number = NUMBER.replace(NUMBER.get() + 1);
            // Of another user each time: one user has few commands in a minute.
            command.sender = format!("u{number}@{TRUSTED}");
            REGISTRY.with(|registry| registry.get_or_init(Executing::start).execute(command));
        }
    }
}

/// A registry that executes commands one after the other.
struct Executing {
    runtime: ManuallyDrop<Runtime>,
    registry: Arc<Registry>,
    folder: PathBuf,
}

thread_local! {
    static REGISTRY: OnceCell<Executing> = const { OnceCell::new() };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

impl Executing {
    fn start() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let name = format!(
            "fpush-fuzz-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let folder = std::env::temp_dir().join(name);
        let map = |pairs: [(&str, &str); 2]| {
            BTreeMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
        };
        let settings = RegistrySettings {
            store: StoreSettings::Sqlite {
                path: folder.join("devices.db"),
            },
            cache: true,
            types: map([("apns", "ios"), ("fcm", "android")]),
            providers: map([("tigase:messenger:apns:1", "ios"), ("fcm-xmpp-api", "android")]),
            rate_limit: Duration::from_secs(5),
            max_per_owner: 32,
            max_devices: 2_000_000,
            max_devices_per_domain: 1_000_000,
            trusted_domains: BTreeSet::from([TRUSTED.to_owned()]),
            expire_after: Duration::from_secs(400 * 86_400),
        };
        let registry = runtime.block_on(async {
            let (registry, background) = Registry::open(settings, Arc::new(NoModules), None)
                .await
                .expect("a database");
            tokio::spawn(background);
            registry
        });
        let runtime = ManuallyDrop::new(runtime);
        Self {
            runtime,
            registry,
            folder,
        }
    }

    fn execute(&self, command: Command) {
        self.runtime.block_on(async {
            let (sender, token) = (command.sender.clone(), token_of(&command));
            let executed = match self.registry.execute(command) {
                Ok(executing) => executing.await,
                Err(error) => Err(error),
            };
            let completed = match executed {
                Ok(completed) => completed,
                Err(error) => return check_words(&error.to_string()),
            };
            let node = text(&completed, "node").expect("each answer names the node");
            assert!((1..=512).contains(&node.len()), "{}", node.len());
            let secret = text(&completed, "secret");
            let found = match self.registry.find(node, secret, &sender) {
                Lookup::Settled(found) => Ok(found),
                Lookup::Asking(asking) => asking.await,
            };
            match (found.expect("the database is there"), token) {
                (Found::Device(recipient), Some(token)) => assert_eq!(recipient.token.as_str(), token),
                (Found::Device(_), None) => panic!("who registers says a token"),
                (
                    Found::WrongSecret
                    | Found::Ended
                    | Found::Reserved
                    | Found::Unsure
                    | Found::Foreign
                    | Found::Nothing,
                    _,
                ) => {
                    assert!(secret.is_none(), "what was registered a moment ago is there");
                }
            }
        });
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        // The database is not closed: at the end of a thread no runtime can be entered any more. What is left in the folder for temporary files harms nothing.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The token that a command names, by the field that its dialect has for it.
fn token_of(command: &Command) -> Option<String> {
    let field = match command.name.as_str() {
        "register-device" | "unregister-device" => "device-token",
        _ => "token",
    };
    let mut fields = command.fields.iter();
    fields
        .find(|(name, _)| *name == field)
        .map(|(_, value)| value.clone())
}

fn text<'a>(completed: &'a Completed, name: &str) -> Option<&'a str> {
    completed.values.iter().find_map(|(known, value)| match value {
        Value::Text(text) | Value::Address(text) if *known == name => Some(text.as_str()),
        Value::Text(_) | Value::Address(_) | Value::List(_) => None,
    })
}

/// An address, or a domain. The one spelling of an address is its own, and so is the registrable part of a domain.
pub(crate) fn addresses(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let jid = canonical_jid(&text);
    assert_eq!(canonical_jid(&jid), jid);
    let domain = canonical_domain(&text);
    assert_eq!(canonical_domain(&domain), domain);
    let part = registrable(&text);
    assert_eq!(registrable(&part), part);
    // The owner of a domain owns the names below it, in whatever spelling a server passes them on.
    assert_eq!(registrable(&domain), part, "{domain:?}");
    for canonical in [&jid, &domain, &part] {
        assert!(
            canonical.len() <= 8 * text.len() + 8,
            "{} of {}",
            canonical.len(),
            text.len()
        );
    }
}

/// `maxStanzaSize` of the streams.
const LIMIT: usize = 8 * 1_024;
/// The fake server of all tests takes no larger reply.
const LARGEST_REPLY: usize = 64 * 1_024;
/// A domain whose users may send any number of commands.
const TRUSTED: &str = "trusted.example";

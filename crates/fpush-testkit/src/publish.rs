//! Publish IQs as real servers send them.
//!
//! The addresses are `a.example` and `push.localhost` unless [`Publish::from`] and [`Publish::to`] say otherwise.

use std::fmt::{self, Display, Formatter};

/// A publish IQ, to be sent with [`Link::send`](crate::Link::send) or turned into a string.
#[derive(Debug, Clone)]
pub struct Publish {
    from: String,
    to: String,
    id: String,
    payload: String,
}

impl Publish {
    /// A publish with any content of `<publish>` and anything after it: the items and options of a test.
    pub fn new(id: &str, node: &str, items: &str, options: &str) -> Self {
        let payload = format!("<publish node='{}'>{items}</publish>{options}", escape(node));
        Self {
            from: "a.example".to_owned(),
            to: "push.localhost".to_owned(),
            id: id.to_owned(),
            payload,
        }
    }

    /// Changes the sender.
    #[must_use]
    pub fn from(mut self, from: &str) -> Self {
        from.clone_into(&mut self.from);
        self
    }

    /// Changes the receiver.
    #[must_use]
    pub fn to(mut self, to: &str) -> Self {
        to.clone_into(&mut self.to);
        self
    }
}

impl Display for Publish {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            id,
            payload,
        } = self;
        let (from, to, id) = (escape(from), escape(to), escape(id));
        write!(
            f,
            "<iq type='set' from='{from}' to='{to}' id='{id}'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>{payload}</pubsub></iq>"
        )
    }
}

/// Prosody 0.12 and later: the whole form, typed, its unset fields without a value. An important push has a body.
pub fn prosody_publish(id: &str, node: &str, module: Option<&str>, important: bool) -> Publish {
    let form = prosody_form(important);
    let item = format!("<item><notification xmlns='{PUSH}'>{form}</notification></item>");
    Publish::new(id, node, &item, &push_module(module))
}

/// Prosody on Debian 11: the form is beside the notification instead of in it.
pub fn prosody_debian11_publish(id: &str, node: &str, module: Option<&str>, important: bool) -> Publish {
    let form = prosody_form(important);
    let item = format!("<item><notification xmlns='{PUSH}'/>{form}</item>");
    Publish::new(id, node, &item, &push_module(module))
}

/// Prosody with encryption: no form, a priority tag if the push is important, a type if it is a call.
pub fn prosody_encrypted_publish(
    id: &str,
    node: &str,
    module: Option<&str>,
    important: bool,
    voip: bool,
) -> Publish {
    let voip = if voip { " type='voip'" } else { "" };
    let priority = if important {
        "<priority xmlns='tigase:push:priority:0'>high</priority>"
    } else {
        ""
    };
    let item = format!(
        "<item><notification xmlns='{PUSH}'>\
         <encrypted xmlns='tigase:push:encrypt:0' iv='AAAAAAAAAAAAAAAA'{voip}>c2VjcmV0</encrypted>{priority}\
         </notification></item>"
    );
    Publish::new(id, node, &item, &push_module(module))
}

/// ejabberd: an empty notification, or for a message with a body a submitted form of one field beside `FORM_TYPE`.
pub fn ejabberd_publish(id: &str, node: &str, module: Option<&str>, with_body: bool) -> Publish {
    let item = if with_body {
        format!(
            "<item><notification xmlns='{PUSH}'><x xmlns='{DATA}' type='submit'>\
             <field var='FORM_TYPE' type='hidden'><value>{SUMMARY}</value></field>\
             <field var='last-message-body'><value>New message</value></field></x></notification></item>"
        )
    } else {
        format!("<item><notification xmlns='{PUSH}'/></item>")
    };
    Publish::new(id, node, &item, &push_module(module))
}

/// `MongooseIM`: a submitted form with the real count, sender and body; the options are rebuilt with a hidden
/// `FORM_TYPE`.
pub fn mongooseim_publish(id: &str, node: &str, module: Option<&str>) -> Publish {
    let item = format!(
        "<item><notification xmlns='{PUSH}'><x xmlns='{DATA}' type='submit'>\
         <field var='FORM_TYPE' type='hidden'><value>{SUMMARY}</value></field>\
         <field var='message-count'><value>2</value></field>\
         <field var='last-message-sender'><value>romeo@a.example/phone</value></field>\
         <field var='last-message-body'><value>But soft, what light &amp; so on</value></field>\
         </x></notification></item>"
    );
    let options = module.map_or_else(String::new, |module| {
        options(
            "submit",
            &format!("{}{}", hidden_form_type(), field("pushModule", module)),
        )
    });
    Publish::new(id, node, &item, &options)
}

/// Tigase: sent from a resource, a form without types and extensions beside it. A count of 0 means that the messages
/// were read elsewhere; with `high` the client asked for the priority tag.
pub fn tigase_publish(id: &str, node: &str, module: Option<&str>, message_count: u32, high: bool) -> Publish {
    let priority = if high {
        "<priority xmlns='tigase:push:priority:0'>high</priority>"
    } else {
        ""
    };
    let item = format!(
        "<item><notification xmlns='{PUSH}'>{}{priority}</notification></item>",
        untyped_form(message_count)
    );
    Publish::new(id, node, &item, &push_module(module)).from("a.example/push-1")
}

/// Tigase: a call.
pub fn tigase_call_publish(id: &str, node: &str, module: Option<&str>) -> Publish {
    let item = format!(
        "<item><notification xmlns='{PUSH}'>{}\
         <priority xmlns='tigase:push:priority:0'>high</priority>\
         <jingle xmlns='tigase:push:jingle:0' action='propose' sid='s1'><media>audio</media></jingle>\
         </notification></item>",
        untyped_form(1)
    );
    Publish::new(id, node, &item, &push_module(module)).from("a.example/push-1")
}

/// Metronome: a form without types; of all options of the client only the secret is kept.
pub fn metronome_publish(id: &str, node: &str, secret: Option<&str>) -> Publish {
    let item = format!(
        "<item><notification xmlns='{PUSH}'>{}</notification></item>",
        untyped_form(3)
    );
    let options = secret.map_or_else(String::new, |secret| {
        let fields = format!("{}{}", field("FORM_TYPE", OPTIONS), field("secret", secret));
        format!("<publish-options><x xmlns='{DATA}'>{fields}</x></publish-options>")
    });
    Publish::new(id, node, &item, &options)
}

/// The Openfire plugin: a form with an empty sender and the placeholder body.
pub fn openfire_publish(id: &str, node: &str, module: Option<&str>) -> Publish {
    let item = format!(
        "<item><notification xmlns='{PUSH}'><x xmlns='{DATA}' type='form'>\
         <field var='FORM_TYPE' type='hidden'><value>{SUMMARY}</value></field>\
         <field var='message-count'><value>1</value></field>\
         <field var='last-message-sender'/>\
         <field var='last-message-body'><value>New Message</value></field>\
         </x></notification></item>"
    );
    Publish::new(id, node, &item, &push_module(module))
}

/// The options that most clients register: a submitted form with `pushModule`, or none at all.
pub fn push_module(module: Option<&str>) -> String {
    module.map_or_else(String::new, |module| {
        options(
            "submit",
            &format!("{}{}", field("FORM_TYPE", OPTIONS), field("pushModule", module)),
        )
    })
}

/// `<publish-options>` with a form of this type and these fields, which are XML already.
pub fn options(form_type: &str, fields: &str) -> String {
    format!("<publish-options><x xmlns='{DATA}' type='{form_type}'>{fields}</x></publish-options>")
}

/// A form field without a type.
pub fn field(name: &str, value: &str) -> String {
    format!(
        "<field var='{}'><value>{}</value></field>",
        escape(name),
        escape(value)
    )
}

/// Escapes text for an element or an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            char => escaped.push(char),
        }
    }
    escaped
}

fn prosody_form(important: bool) -> String {
    let body = if important {
        "<field var='last-message-body' type='text-single'><value>New Message!</value></field>"
    } else {
        "<field var='last-message-body' type='text-single'/>"
    };
    format!(
        "<x xmlns='{DATA}' type='form'>\
         <field var='FORM_TYPE' type='hidden'><value>{SUMMARY}</value></field>\
         <field var='message-count' type='text-single'><value>1</value></field>\
         <field var='pending-subscription-count' type='text-single'/>\
         <field var='last-message-sender' type='jid-single'/>{body}</x>"
    )
}

fn untyped_form(message_count: u32) -> String {
    let fields = field("FORM_TYPE", SUMMARY) + &field("message-count", &message_count.to_string());
    format!("<x xmlns='{DATA}'>{fields}</x>")
}

fn hidden_form_type() -> String {
    format!("<field var='FORM_TYPE' type='hidden'><value>{OPTIONS}</value></field>")
}

const PUSH: &str = "urn:xmpp:push:0";
const DATA: &str = "jabber:x:data";
const SUMMARY: &str = "urn:xmpp:push:summary";
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

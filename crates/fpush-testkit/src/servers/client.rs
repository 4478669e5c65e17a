//! A user of an XMPP server.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::timed_out;
use crate::LONG;
use crate::cutter::{Cutter, Piece};

/// A client on a plain socket: a few stanzas, written by hand.
pub struct Client {
    stream: TcpStream,
    cutter: Cutter,
    unread: VecDeque<Piece>,
    host: String,
    jid: String,
    requests: u32,
}

impl Client {
    /// Logs in with SASL PLAIN and binds a resource. Sends no presence: see [`Client::send_presence`].
    pub fn login(port: u16, user: &str, password: &str, host: &str) -> io::Result<Self> {
        let mut client = Self::connect(port, host)?;
        client.send_raw(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
            STANDARD.encode(format!("\0{user}\0{password}"))
        ))?;
        let answer = client.answer(|_| true)?;
        if !answer.starts_with("<success") {
            return Err(io::Error::other(format!("{user} cannot log in: {answer}")));
        }
        client.open_stream()?;
        let bound = client.request("set", "", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")?;
        client.jid = between(&bound, "<jid>", "</jid>").unwrap_or_default().to_owned();
        Ok(client)
    }

    /// Makes the account `user@host` by in-band registration, on a stream of its own.
    pub fn register(port: u16, user: &str, password: &str, host: &str) -> io::Result<()> {
        Self::connect(port, host)?
            .request(
                "set",
                "",
                &format!(
                    "<query xmlns='jabber:iq:register'><username>{}</username><password>{}</password></query>",
                    escape(user),
                    escape(password)
                ),
            )
            .map(drop)
    }

    /// The stream of a client that is logged in, for who reads and writes it without this. What has been read of it is lost.
    pub fn into_socket(self) -> TcpStream {
        self.stream
    }

    /// The full JID that the server gave.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// Sends the initial presence, after which the server delivers messages to this client.
    pub fn send_presence(&mut self) -> io::Result<()> {
        self.send_raw("<presence/>")?;
        // The server sends it back once it has taken effect.
        let jid = self.jid.clone();
        self.answer(|stanza| stanza.starts_with("<presence") && attribute(stanza, "from") == Some(&jid))
            .map(drop)
    }

    /// Turns push on for this account at the app server `jid`; `module` goes into the publish-options.
    pub fn enable_push(&mut self, jid: &str, node: &str, module: Option<&str>) -> io::Result<String> {
        let mut fields = vec![("FORM_TYPE", PUBLISH_OPTIONS)];
        fields.extend(module.map(|module| ("pushModule", module)));
        self.enable_push_with(jid, node, &submit_form(&fields))
    }

    /// The same, with this XML inside of `<enable/>`: a [`submit_form`] with publish-options, extensions, or nothing.
    pub fn enable_push_with(&mut self, jid: &str, node: &str, children: &str) -> io::Result<String> {
        self.request(
            "set",
            "",
            &format!(
                "<enable xmlns='urn:xmpp:push:0' jid='{}' node='{}'>{children}</enable>",
                escape(jid),
                escape(node)
            ),
        )
    }

    /// Executes an ad-hoc command (XEP-0050) of one step at `jid` and returns the answer; see [`form_value`].
    pub fn execute(
        &mut self,
        jid: &str,
        command: &str,
        action: Option<&str>,
        fields: &[(&str, &str)],
    ) -> io::Result<String> {
        let action = action.map_or_else(String::new, |action| format!(" action='{action}'"));
        self.request(
            "set",
            jid,
            &format!(
                "<command xmlns='http://jabber.org/protocol/commands' node='{command}'{action}>{}</command>",
                submit_form(fields)
            ),
        )
    }

    /// Sends a chat message.
    pub fn send_message(&mut self, to: &str, body: &str) -> io::Result<()> {
        self.send_raw(&format!(
            "<message to='{}' type='chat'><body>{}</body></message>",
            escape(to),
            escape(body)
        ))
    }

    /// Sends an iq with this child and returns its result; an error reply is an error. An empty `to` is the user's own
    /// server.
    pub fn request(&mut self, kind: &str, to: &str, child: &str) -> io::Result<String> {
        self.requests += 1;
        let id = format!("request-{}", self.requests);
        let to = if to.is_empty() {
            String::new()
        } else {
            format!(" to='{}'", escape(to))
        };
        self.send_raw(&format!("<iq type='{kind}' id='{id}'{to}>{child}</iq>"))?;
        let reply =
            self.answer(|stanza| stanza.starts_with("<iq") && attribute(stanza, "id") == Some(&id))?;
        match attribute(&reply, "type") {
            Some("result") => Ok(reply),
            _ => Err(io::Error::other(format!("the server refused {child}: {reply}"))),
        }
    }

    /// Writes these bytes to the stream.
    pub fn send_raw(&mut self, xml: &str) -> io::Result<()> {
        self.stream.write_all(xml.as_bytes())
    }

    /// The next stanza that is wanted; the ones before it are dropped.
    pub fn next_matching(&mut self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> io::Result<String> {
        self.next_piece(wanted, timeout, &mut Vec::new())
    }

    /// The stanza that answers one of ours; others that come before it are kept.
    fn answer(&mut self, wanted: impl Fn(&str) -> bool) -> io::Result<String> {
        let mut others = Vec::new();
        let answer = self.next_piece(wanted, LONG, &mut others);
        for other in others.into_iter().rev() {
            self.unread.push_front(Piece::Stanza(other));
        }
        answer
    }

    fn next_piece(
        &mut self,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
        others: &mut Vec<String>,
    ) -> io::Result<String> {
        let end = Instant::now() + timeout;
        loop {
            while let Some(piece) = self.unread.pop_front() {
                match piece {
                    Piece::Stanza(stanza) if wanted(&stanza) => return Ok(stanza),
                    Piece::Stanza(stanza) => others.push(stanza),
                    Piece::Header(_) => {}
                    Piece::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Piece::Broken(text) => return Err(io::Error::other(format!("no XMPP: {text}"))),
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timed_out(format!("the stanza did not come in {timeout:?}")));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.unread.extend(self.cutter.push(&bytes[..count])),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Closes the stream and waits until the server has, so that the user is offline from here on.
    pub fn logout(mut self) -> io::Result<()> {
        self.send_raw("</stream:stream>")?;
        match self.next_matching(|_| false, LONG) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
            Ok(_) => Ok(()),
        }
    }

    fn connect(port: u16, host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            cutter: Cutter::default(),
            unread: VecDeque::new(),
            host: host.to_owned(),
            jid: String::new(),
            requests: 0,
        };
        client.open_stream()?;
        Ok(client)
    }

    fn open_stream(&mut self) -> io::Result<()> {
        self.cutter = Cutter::default();
        self.send_raw(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='{}' version='1.0'>",
            escape(&self.host)
        ))?;
        self.answer(|stanza| stanza.starts_with("<stream:features"))
            .map(drop)
    }
}

/// The value of an attribute of the first tag, as it was written.
pub fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = &element[..tag_length(element.as_bytes())?];
    loop {
        let equals = rest.find('=')?;
        let found = rest[..equals].rsplit(|c: char| c.is_whitespace()).next()?;
        let quote = rest[equals + 1..].chars().next()?;
        let value = &rest[equals + 2..];
        let end = value.find(quote)?;
        if found == name {
            return Some(&value[..end]);
        }
        rest = &value[end + 1..];
    }
}

/// The text with the characters replaced that XML gives a meaning.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

/// A form (XEP-0004) with these fields, as clients send it.
pub fn submit_form(fields: &[(&str, &str)]) -> String {
    let fields: String = fields
        .iter()
        .map(|(var, value)| {
            format!(
                "<field var='{}'><value>{}</value></field>",
                escape(var),
                escape(value)
            )
        })
        .collect();
    format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>")
}

/// The first value of this field of a form anywhere in the stanza.
pub fn form_value(stanza: &str, var: &str) -> Option<String> {
    let field = stanza
        .match_indices("<field ")
        .map(|(at, _)| &stanza[at..])
        .find(|field| attribute(field, "var") == Some(var))?;
    let field = &field[..field.find("</field>")?];
    // A field without a value may close its own tag.
    let value = between(field, "<value>", "</value>").filter(|_| field.matches("<field ").count() == 1)?;
    Some(unescape(value))
}

/// Takes back [`escape`], and what else servers escape.
fn unescape(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The length of the tag at the start, up to its `>`; a `>` inside an attribute is none.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (index, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(index + 1),
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let text = &text[text.find(start)? + start.len()..];
    Some(&text[..text.find(end)?])
}

const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_in_the_first_tag_only() {
        assert_eq!(
            attribute("<iq id='1' a='>' type=\"set\"><a from='x'/></iq>", "type"),
            Some("set")
        );
        assert_eq!(attribute("<iq id='1'><a from='x'/></iq>", "from"), None);
    }

    #[test]
    fn a_form_gives_back_its_values() {
        let values = [("a", "'<&>\" ä"), ("b", ""), ("c", "&lt;")];
        let form = submit_form(&values);
        for (var, value) in values {
            assert_eq!(form_value(&form, var).as_deref(), Some(value), "{form}");
        }
        assert_eq!(form_value(&form, "d"), None);
        let form = "<x><field var=\"a\" type='hidden'/><field type='x' var='b'><value>1</value></field></x>";
        assert_eq!(form_value(form, "a"), None);
        assert_eq!(form_value(form, "b").as_deref(), Some("1"));
    }
}

//! Walking through one stanza, without recursion and without a tree.
//!
//! A cursor gives the children of an element one after the other; what nobody asks for is skipped, however
//! deep it is. Namespaces are resolved, because servers write them in different ways.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    escape::unescape,
    events::{Event, attributes::Attributes},
};

/// Somebody sent what is not XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not well-formed XML")]
pub(crate) struct Malformed;

/// A position in a stanza.
pub(crate) struct Cursor<'a> {
    input: &'a str,
    reader: Reader<&'a [u8]>,
    depth: u32,
    /// Namespace declarations in force, the innermost last.
    scopes: Vec<Scope<'a>>,
}

struct Scope<'a> {
    depth: u32,
    prefix: &'a str,
    namespace: Cow<'a, str>,
}

/// An element whose start tag was read.
pub(crate) struct Open<'a> {
    /// Between `<` and `>`.
    tag: &'a str,
    name: usize,
    /// The local name.
    pub(crate) local: &'a str,
    /// The namespace; empty if there is none.
    pub(crate) namespace: Cow<'a, str>,
    depth: u32,
    empty: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor at the beginning of a stanza of a component stream.
    pub(crate) fn new(stanza: &'a [u8]) -> Result<Self, Malformed> {
        let input = std::str::from_utf8(stanza).map_err(|_| Malformed)?;
        let scope = |prefix, namespace| Scope {
            depth: 0,
            prefix,
            namespace: Cow::Borrowed(namespace),
        };
        let scopes = vec![
            scope("stream", xmpp_parsers::ns::STREAM),
            scope("", xmpp_parsers::ns::COMPONENT),
        ];
        Ok(Self {
            input,
            reader: Reader::from_str(input),
            depth: 0,
            scopes,
        })
    }

    /// The stanza's own element.
    pub(crate) fn root(&mut self) -> Result<Open<'a>, Malformed> {
        loop {
            match self.event()? {
                Walked::Open(open) => return Ok(open),
                Walked::Other => {}
                Walked::Close | Walked::Text(_) | Walked::End => return Err(Malformed),
            }
        }
    }

    /// The next child of an element that was opened and not left yet. What is left of the child before it is
    /// skipped.
    pub(crate) fn child(&mut self, parent: &Open<'a>) -> Result<Option<Open<'a>>, Malformed> {
        if parent.empty {
            return Ok(None);
        }
        loop {
            match self.event()? {
                Walked::Open(open) if open.depth == parent.depth + 1 => return Ok(Some(open)),
                Walked::Close if self.depth < parent.depth => return Ok(None),
                Walked::End => return Err(Malformed),
                Walked::Open(_) | Walked::Close | Walked::Text(_) | Walked::Other => {}
            }
        }
    }

    /// The text directly in an element that was just opened, up to its end.
    pub(crate) fn text(&mut self, element: &Open<'a>) -> Result<Cow<'a, str>, Malformed> {
        let mut text = Cow::Borrowed("");
        if element.empty {
            return Ok(text);
        }
        loop {
            match self.event()? {
                Walked::Text(more) if self.depth == element.depth => {
                    if text.is_empty() {
                        text = more;
                    } else {
                        text.to_mut().push_str(&more);
                    }
                }
                Walked::Close if self.depth < element.depth => return Ok(text),
                Walked::End => return Err(Malformed),
                Walked::Open(_) | Walked::Close | Walked::Text(_) | Walked::Other => {}
            }
        }
    }

    fn event(&mut self) -> Result<Walked<'a>, Malformed> {
        let before = self.position();
        let event = self.reader.read_event().map_err(|_| Malformed)?;
        let raw = self.input.get(before..self.position()).ok_or(Malformed)?;
        Ok(match event {
            Event::Start(start) => {
                self.depth += 1;
                let tag = raw.get(1..raw.len() - 1).ok_or(Malformed)?;
                Walked::Open(self.open(tag, start.name().as_ref().len(), self.depth, false)?)
            }
            Event::Empty(start) => {
                let tag = raw.get(1..raw.len() - 2).ok_or(Malformed)?;
                Walked::Open(self.open(tag, start.name().as_ref().len(), self.depth + 1, true)?)
            }
            Event::End(_) => {
                self.depth -= 1;
                Walked::Close
            }
            Event::Text(_) | Event::GeneralRef(_) => Walked::Text(unescape(raw).map_err(|_| Malformed)?),
            Event::CData(text) => Walked::Text(Cow::Owned(text.into_inner().into_owned())),
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_) => Walked::Other,
            Event::Eof => Walked::End,
        })
    }

    fn open(&mut self, tag: &'a str, name: usize, depth: u32, empty: bool) -> Result<Open<'a>, Malformed> {
        while self.scopes.last().is_some_and(|scope| scope.depth >= depth) {
            self.scopes.pop();
        }
        // Most elements declare nothing, and looking is cheaper than reading all attributes.
        if memchr::memmem::find(&tag.as_bytes()[name..], b"xmlns").is_some() {
            for attribute in attributes(tag, name) {
                let (key, value) = attribute?;
                let prefix = match key.strip_prefix("xmlns") {
                    Some("") => "",
                    Some(prefix) if prefix.starts_with(':') => &prefix[1..],
                    Some(_) | None => continue,
                };
                // Each element looks through the declarations in force and may copy the one it finds.
                if self.scopes.len() == MAX_SCOPES {
                    return Err(Malformed);
                }
                let namespace = match value.len() {
                    ..=MAX_NAMESPACE => unescape(value).map_err(|_| Malformed)?,
                    _ => Cow::Borrowed(value),
                };
                self.scopes.push(Scope {
                    depth,
                    prefix,
                    namespace,
                });
            }
        }
        let (prefix, local) = tag[..name].split_once(':').unwrap_or(("", &tag[..name]));
        let scope = self.scopes.iter().rev().find(|scope| scope.prefix == prefix);
        let namespace = scope.map_or(Cow::Borrowed(""), |scope| scope.namespace.clone());
        Ok(Open {
            tag,
            name,
            local,
            namespace,
            depth,
            empty,
        })
    }

    fn position(&self) -> usize {
        // A stanza is far smaller than any usize.
        self.reader.buffer_position() as usize
    }
}

enum Walked<'a> {
    Open(Open<'a>),
    Close,
    Text(Cow<'a, str>),
    Other,
    End,
}

impl<'a> Open<'a> {
    /// Whether the element has this name.
    pub(crate) fn is(&self, namespace: &str, local: &str) -> bool {
        self.local == local && self.namespace == namespace
    }

    /// The value of an attribute without a namespace.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        self.raw_attribute(name)?
            .map(|value| unescape(value).map_err(|_| Malformed))
            .transpose()
    }

    /// The value of an attribute as it was sent, escapes and all.
    pub(crate) fn raw_attribute(&self, name: &str) -> Result<Option<&'a str>, Malformed> {
        for attribute in attributes(self.tag, self.name) {
            let (key, value) = attribute?;
            if key == name {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Names and raw values. Attributes that occur twice are not looked for: that takes quadratic time.
fn attributes(tag: &str, name: usize) -> impl Iterator<Item = Result<(&str, &str), Malformed>> {
    let mut attributes = Attributes::new(tag, name);
    attributes.with_checks(false);
    attributes.map(|attribute| {
        let attribute = attribute.map_err(|_| Malformed)?;
        match attribute.value {
            Cow::Borrowed(value) => Ok((attribute.key.into_inner(), value)),
            Cow::Owned(_) => Err(Malformed),
        }
    })
}

/// Namespace declarations in force at a time; a stanza has a handful.
const MAX_SCOPES: usize = 100;
/// What is longer is none that we know, and stays as it is.
const MAX_NAMESPACE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_one_after_the_other_and_the_rest_is_skipped() {
        let mut cursor = Cursor::new(b"<iq>t<a><b><c/></b></a><d/>u<e>x</e></iq>").unwrap();
        let root = cursor.root().unwrap();
        let mut names = Vec::new();
        while let Some(child) = cursor.child(&root).unwrap() {
            names.push(child.local);
        }
        assert_eq!(names, ["a", "d", "e"]);
    }

    #[test]
    fn nested_children_and_texts_are_read() {
        let mut cursor =
            Cursor::new(b"<iq><a><b>x &lt;<i>no</i>&#65;<![CDATA[<z>]]></b><c/></a><d/></iq>").unwrap();
        let root = cursor.root().unwrap();
        let a = cursor.child(&root).unwrap().unwrap();
        let b = cursor.child(&a).unwrap().unwrap();
        assert_eq!(cursor.text(&b).unwrap(), "x <A<z>");
        let c = cursor.child(&a).unwrap().unwrap();
        assert_eq!((c.local, cursor.text(&c).unwrap().as_ref()), ("c", ""));
        assert!(cursor.child(&a).unwrap().is_none());
        assert_eq!(cursor.child(&root).unwrap().unwrap().local, "d");
        assert!(cursor.child(&root).unwrap().is_none());
    }

    #[test]
    fn namespaces_are_resolved_with_and_without_prefix() {
        let stanza =
            b"<iq><a xmlns='urn:a'><b/><p:c xmlns:p='urn:c'><p:d/><e/></p:c><f xmlns=''/></a><g/></iq>";
        let mut cursor = Cursor::new(stanza).unwrap();
        let root = cursor.root().unwrap();
        assert!(root.is("jabber:component:accept", "iq"));
        let a = cursor.child(&root).unwrap().unwrap();
        assert!(a.is("urn:a", "a"));
        assert!(cursor.child(&a).unwrap().unwrap().is("urn:a", "b"));
        let c = cursor.child(&a).unwrap().unwrap();
        assert!(c.is("urn:c", "c"));
        assert!(cursor.child(&c).unwrap().unwrap().is("urn:c", "d"));
        assert!(cursor.child(&c).unwrap().unwrap().is("urn:a", "e"));
        assert!(cursor.child(&a).unwrap().unwrap().is("", "f"));
        assert!(
            cursor
                .child(&root)
                .unwrap()
                .unwrap()
                .is("jabber:component:accept", "g")
        );
    }

    #[test]
    fn attributes_are_given_raw_and_unescaped() {
        let mut cursor = Cursor::new(b"<iq id='a&amp;b' x:to='no' to=\"it's\"/>").unwrap();
        let root = cursor.root().unwrap();
        assert_eq!(root.raw_attribute("id").unwrap(), Some("a&amp;b"));
        assert_eq!(root.attribute("id").unwrap().unwrap(), "a&b");
        assert_eq!(root.raw_attribute("to").unwrap(), Some("it's"));
        assert_eq!(root.raw_attribute("from").unwrap(), None);
    }

    #[test]
    fn what_is_no_xml_is_said_to_be_none() {
        for broken in [
            "<iq><a></b></iq>",
            "<iq",
            "<iq><a>&nope;</a></iq>",
            "<iq><a b></a></iq>",
            "",
        ] {
            let walk = || -> Result<(), Malformed> {
                let mut cursor = Cursor::new(broken.as_bytes())?;
                let root = cursor.root()?;
                while let Some(child) = cursor.child(&root)? {
                    child.attribute("b")?;
                    cursor.text(&child)?;
                }
                Ok(())
            };
            assert_eq!(walk(), Err(Malformed), "{broken}");
        }
        assert!(Cursor::new(b"<iq a='\xff'/>").is_err());
    }

    /// Otherwise the work would grow with the square of the stanza's length.
    #[test]
    fn many_or_long_namespaces_make_no_work() {
        let walk = |stanza: &str| -> Result<String, Malformed> {
            let mut cursor = Cursor::new(stanza.as_bytes())?;
            let root = cursor.root()?;
            let mut last = String::new();
            while let Some(child) = cursor.child(&root)? {
                last = child.namespace.into_owned();
            }
            Ok(last)
        };
        let declare = |count: usize| (0..count).map(|n| format!(" xmlns:a{n}='x'")).collect::<String>();
        assert_eq!(
            walk(&format!("<iq{}><b/></iq>", declare(98))),
            Ok(xmpp_parsers::ns::COMPONENT.into())
        );
        assert_eq!(walk(&format!("<iq{}><b/></iq>", declare(99))), Err(Malformed));
        let siblings = "<a xmlns='b'/>".repeat(1_000);
        assert_eq!(walk(&format!("<iq>{siblings}</iq>")), Ok("b".into()));
        let long = format!("&amp;{}", "x".repeat(300));
        assert_eq!(
            walk(&format!("<iq><a xmlns='{long}'/></iq>")),
            Ok(long),
            "is not unescaped, so not copied"
        );
    }
}

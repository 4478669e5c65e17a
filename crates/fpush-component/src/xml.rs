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
            match self.walk()? {
                Walked::Tag(tag) => return self.open(tag),
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
            match self.walk()? {
                Walked::Tag(tag) if tag.depth == parent.depth + 1 => return self.open(tag).map(Some),
                Walked::Close if self.depth < parent.depth => return Ok(None),
                Walked::End => return Err(Malformed),
                Walked::Tag(_) | Walked::Close | Walked::Text(_) | Walked::Other => {}
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
            match self.walk()? {
                Walked::Text(more) if self.depth == element.depth => {
                    if text.is_empty() {
                        text = more;
                    } else {
                        text.to_mut().push_str(&more);
                    }
                }
                Walked::Close if self.depth < element.depth => return Ok(text),
                Walked::End => return Err(Malformed),
                Walked::Tag(_) | Walked::Close | Walked::Text(_) | Walked::Other => {}
            }
        }
    }

    fn walk(&mut self) -> Result<Walked<'a>, Malformed> {
        let before = self.position();
        let event = self.reader.read_event().map_err(|_| Malformed)?;
        let raw = self.input.get(before..self.position()).ok_or(Malformed)?;
        Ok(match event {
            Event::Start(start) => {
                self.depth += 1;
                let text = raw.get(1..raw.len() - 1).ok_or(Malformed)?;
                Walked::Tag(Tag {
                    text,
                    name: start.name().as_ref().len(),
                    depth: self.depth,
                    empty: false,
                })
            }
            Event::Empty(start) => {
                let text = raw.get(1..raw.len() - 2).ok_or(Malformed)?;
                Walked::Tag(Tag {
                    text,
                    name: start.name().as_ref().len(),
                    depth: self.depth + 1,
                    empty: true,
                })
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

    /// Resolves the name of an element. Only for those that somebody asks for: all their ancestors have been
    /// opened as well, so that their declarations are known, and nobody can make us search through the
    /// declarations for each of a million elements that are skipped.
    fn open(&mut self, tag: Tag<'a>) -> Result<Open<'a>, Malformed> {
        let Tag {
            text,
            name,
            depth,
            empty,
        } = tag;
        while self.scopes.last().is_some_and(|scope| scope.depth >= depth) {
            self.scopes.pop();
        }
        // Most elements declare nothing, and looking is cheaper than reading all attributes.
        if memchr::memmem::find(&text.as_bytes()[name..], b"xmlns").is_some() {
            for attribute in attributes(text, name) {
                let (key, value) = attribute?;
                let prefix = match key.strip_prefix("xmlns") {
                    Some("") => "",
                    Some(prefix) if prefix.starts_with(':') => &prefix[1..],
                    Some(_) | None => continue,
                };
                if self.scopes.len() == MAX_SCOPES || value.len() > MAX_NAMESPACE {
                    return Err(Malformed);
                }
                let namespace = unescape(value).map_err(|_| Malformed)?;
                self.scopes.push(Scope {
                    depth,
                    prefix,
                    namespace,
                });
            }
        }
        let (prefix, local) = text[..name].split_once(':').unwrap_or(("", &text[..name]));
        // Nearly every name is without a prefix, and comparing lengths is cheaper than comparing texts.
        let mut scopes = self.scopes.iter().rev();
        let scope = if prefix.is_empty() {
            scopes.find(|scope| scope.prefix.is_empty())
        } else {
            scopes.find(|scope| scope.prefix == prefix)
        };
        let namespace = scope.map_or(Cow::Borrowed(""), |scope| scope.namespace.clone());
        Ok(Open {
            tag: text,
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
    Tag(Tag<'a>),
    Close,
    Text(Cow<'a, str>),
    Other,
    End,
}

/// A start tag: what is between `<` and `>`, and where its name ends.
struct Tag<'a> {
    text: &'a str,
    name: usize,
    depth: u32,
    empty: bool,
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

/// More declarations in force than any server writes.
const MAX_SCOPES: usize = 64;
/// Longer than any namespace.
const MAX_NAMESPACE: usize = 1_024;

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

    /// What a stranger can make us look at for each element is bounded.
    #[test]
    fn declarations_and_namespaces_are_bounded() {
        let walk = |stanza: &str| -> Result<usize, Malformed> {
            let mut cursor = Cursor::new(stanza.as_bytes())?;
            let root = cursor.root()?;
            let mut children = 0;
            while cursor.child(&root)?.is_some() {
                children += 1;
            }
            Ok(children)
        };
        let declare = |count: usize| {
            (0..count)
                .map(|n| format!(" xmlns:p{n}='urn:{n}'"))
                .collect::<String>()
        };
        assert_eq!(walk(&format!("<iq{}><a/><b/></iq>", declare(60))), Ok(2));
        assert_eq!(
            walk(&format!("<iq{}><a/><b/></iq>", declare(100))),
            Err(Malformed)
        );
        assert_eq!(
            walk(&format!("<iq><a xmlns='{}'/></iq>", "x".repeat(2_000))),
            Err(Malformed)
        );
        let skipped = format!("<iq><a><b{}/></a><c/></iq>", declare(100));
        assert_eq!(
            walk(&skipped),
            Ok(2),
            "what nobody asks for may declare what it likes"
        );
    }
}

//! Walking through one stanza, without recursion and without a tree.
//!
//! A cursor gives the children of an element one after the other; elements that are not asked for are skipped, however
//! deep they are. The positions of the tags are known already, because the stanza was cut along them. Namespaces are
//! resolved, because servers write them in different ways.

use std::borrow::Cow;

use memchr::memchr;
use quick_xml::escape::unescape;
use xmpp_parsers::ns;

use crate::stream::{Mark, Stanza};

/// Somebody sent what is not XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not well-formed XML")]
pub(crate) struct Malformed;

/// A position in a stanza.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    /// How much of the text was walked over.
    position: usize,
    /// The markup that was not walked over yet.
    marks: &'a [Mark],
    /// The names of the elements that we are in.
    names: Vec<&'a str>,
    /// Namespace declarations of the stanza in force, the innermost last.
    scopes: Vec<Scope<'a>>,
}

struct Scope<'a> {
    depth: usize,
    prefix: &'a str,
    namespace: Cow<'a, str>,
}

/// An element whose start tag was read.
pub(crate) struct Open<'a> {
    /// The local name.
    pub(crate) local: &'a str,
    /// The namespace; empty if there is none.
    pub(crate) namespace: Cow<'a, str>,
    attributes: &'a str,
    depth: usize,
    empty: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor at the beginning of a stanza of a component stream.
    pub(crate) fn new(stanza: Stanza<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            text: std::str::from_utf8(stanza.bytes).map_err(|_| Malformed)?,
            position: 0,
            marks: stanza.marks,
            // As deep as a publish is.
            names: Vec::with_capacity(8),
            scopes: Vec::with_capacity(8),
        })
    }

    /// The stanza's own element.
    pub(crate) fn root(&mut self) -> Result<Open<'a>, Malformed> {
        match self.walk()? {
            Walked::Tag(tag) => self.open(tag),
            Walked::Close | Walked::Text(_) | Walked::Other => Err(Malformed),
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
                Walked::Close if self.names.len() < parent.depth => return Ok(None),
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
                Walked::Text(more) if self.names.len() == element.depth => {
                    if text.is_empty() {
                        text = more;
                    } else {
                        text.to_mut().push_str(&more);
                    }
                }
                Walked::Close if self.names.len() < element.depth => return Ok(text),
                Walked::Tag(_) | Walked::Close | Walked::Text(_) | Walked::Other => {}
            }
        }
    }

    /// Calls back with the name and the first value of each field of a data form (XEP-0004); a field without a value has
    /// an empty one.
    pub(crate) fn fields(
        &mut self,
        form: &Open<'a>,
        mut field: impl FnMut(Cow<'a, str>, Cow<'a, str>),
    ) -> Result<(), Malformed> {
        while let Some(child) = self.child(form)? {
            if !child.is(ns::DATA_FORMS, "field") {
                continue;
            }
            let Some(var) = child.attribute("var")? else {
                continue;
            };
            let mut first = None;
            while let Some(value) = self.child(&child)? {
                if first.is_none() && value.is(ns::DATA_FORMS, "value") {
                    first = Some(self.text(&value)?);
                }
            }
            field(var, first.unwrap_or_default());
        }
        Ok(())
    }

    /// Walks over a piece of markup, or over the text before it. A caller that wants more than there is was given
    /// tags that do not match.
    // What it gives is large, and to copy it would cost more than to find it.
    #[inline(always)]
    fn walk(&mut self) -> Result<Walked<'a>, Malformed> {
        let (mark, marks) = self.marks.split_first().ok_or(Malformed)?;
        let range = mark.range();
        if self.position < range.start {
            let text = &self.text[self.position..range.start];
            self.position = range.start;
            return unescape(text).map(Walked::Text).map_err(|_| Malformed);
        }
        self.marks = marks;
        self.position = range.end;
        let markup = &self.text[range];
        Ok(match markup.as_bytes() {
            [b'<', b'/', ..] => {
                let name = markup[2..markup.len() - 1].trim_end_matches(is_space);
                if self.names.pop() != Some(name) {
                    return Err(Malformed);
                }
                Walked::Close
            }
            [b'<', b'!', b'[', ..] => {
                let text = markup.strip_prefix("<![CDATA[").ok_or(Malformed)?;
                Walked::Text(Cow::Borrowed(&text[..text.len() - 3]))
            }
            // A comment or a processing instruction.
            [b'<', b'!', b'-', b'-', ..] | [b'<', b'?', _, _, ..] => Walked::Other,
            [b'<', b'!' | b'?', ..] => return Err(Malformed),
            _ => {
                let tag = Tag::new(markup, self.names.len() + 1);
                if !tag.empty {
                    self.names.push(tag.name);
                }
                Walked::Tag(tag)
            }
        })
    }

    /// Resolves the name of an element. Only for those that somebody asks for: all their ancestors have been
    /// opened as well, so that their declarations are known, and nobody can make us search through the
    /// declarations for each of a million elements that are skipped.
    // For the same reason as `walk`.
    #[inline(always)]
    fn open(&mut self, tag: Tag<'a>) -> Result<Open<'a>, Malformed> {
        let Tag {
            name,
            attributes,
            depth,
            empty,
        } = tag;
        while self.scopes.last().is_some_and(|scope| scope.depth >= depth) {
            self.scopes.pop();
        }
        // Most elements declare nothing, and looking is cheaper than reading all attributes.
        if attributes.contains("xmlns") {
            for attribute in Attributes(attributes) {
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
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        // Nearly every name is without a prefix, and comparing lengths is cheaper than comparing texts.
        let mut scopes = self.scopes.iter().rev();
        let scope = if prefix.is_empty() {
            scopes.find(|scope| scope.prefix.is_empty())
        } else {
            scopes.find(|scope| scope.prefix == prefix)
        };
        let namespace = scope.map_or_else(
            || Cow::Borrowed(stream_namespace(prefix)),
            |scope| scope.namespace.clone(),
        );
        Ok(Open {
            local,
            namespace,
            attributes,
            depth,
            empty,
        })
    }
}

enum Walked<'a> {
    Tag(Tag<'a>),
    Close,
    Text(Cow<'a, str>),
    Other,
}

/// A start tag.
struct Tag<'a> {
    name: &'a str,
    /// What is behind the name.
    attributes: &'a str,
    depth: usize,
    empty: bool,
}

impl<'a> Tag<'a> {
    /// A start tag, from `<` to `>`.
    fn new(markup: &'a str, depth: usize) -> Self {
        let (inner, empty) = match markup.strip_suffix("/>") {
            Some(before) => (&before[1..], true),
            None => (&markup[1..markup.len() - 1], false),
        };
        let (name, attributes) = split_name(inner, is_space);
        Self {
            name,
            attributes,
            depth,
            empty,
        }
    }
}

impl<'a> Open<'a> {
    /// Reads the start tag of a stanza of which there is nothing else.
    pub(crate) fn alone(tag: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(Stanza {
            bytes: tag,
            marks: &[],
        })?;
        cursor.open(Tag::new(cursor.text, 1))
    }

    /// Whether the element has this name.
    pub(crate) fn is(&self, namespace: &str, local: &str) -> bool {
        self.local == local && self.namespace == namespace
    }

    /// The value of an attribute without a namespace.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let [value] = self.raw_attributes([name])?;
        value
            .map(|value| unescape(value).map_err(|_| Malformed))
            .transpose()
    }

    /// The values of attributes without a namespace as they were sent, escapes and all.
    pub(crate) fn raw_attributes<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<&'a str>; N], Malformed> {
        let mut values = [None; N];
        let mut missing = N;
        let mut attributes = Attributes(self.attributes);
        while missing > 0
            && let Some(attribute) = attributes.next()
        {
            let (key, value) = attribute?;
            if let Some(at) = names.iter().position(|name| *name == key)
                && values[at].is_none()
            {
                values[at] = Some(value);
                missing -= 1;
            }
        }
        Ok(values)
    }
}

/// Names and raw values of the attributes of a start tag. Attributes that occur twice are not
/// looked for: that takes quadratic time.
struct Attributes<'a>(&'a str);

impl<'a> Attributes<'a> {
    fn read(&mut self) -> Result<(&'a str, &'a str), Malformed> {
        let (name, rest) = split_name(self.0, |c| c == '=' || is_space(c));
        let rest = rest
            .trim_start_matches(is_space)
            .strip_prefix('=')
            .ok_or(Malformed)?;
        let rest = rest.trim_start_matches(is_space);
        let quote = *rest.as_bytes().first().ok_or(Malformed)?;
        if name.is_empty() || !matches!(quote, b'\'' | b'"') {
            return Err(Malformed);
        }
        let end = 1 + memchr(quote, &rest.as_bytes()[1..]).ok_or(Malformed)?;
        self.0 = &rest[end + 1..];
        Ok((name, &rest[1..end]))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(&'a str, &'a str), Malformed>;

    /// Nobody goes on behind an attribute that cannot be read.
    fn next(&mut self) -> Option<Self::Item> {
        self.0 = self.0.trim_start_matches(is_space);
        (!self.0.is_empty()).then(|| self.read())
    }
}

/// What a prefix means that the stanza does not declare: the stream did.
fn stream_namespace(prefix: &str) -> &'static str {
    match prefix {
        "" => ns::COMPONENT,
        "stream" => ns::STREAM,
        _ => "",
    }
}

/// Splits a tag behind the name that it begins with, and that only these ASCII characters end.
fn split_name(tag: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    let name = tag.bytes().position(|byte| ends(char::from(byte)));
    tag.split_at(name.unwrap_or(tag.len()))
}

/// What XML takes for white space.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// More declarations in force than any server writes.
const MAX_SCOPES: usize = 64;
/// Longer than any namespace.
const MAX_NAMESPACE: usize = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_xml::{
        NsReader,
        events::Event,
        name::{Namespace, ResolveResult},
    };

    use super::*;
    use crate::stream::{Cutter, Piece};

    fn cursor(stanza: &[u8]) -> Cursor<'static> {
        Cursor::new(Stanza::cut(stanza).unwrap()).unwrap()
    }

    #[test]
    fn children_come_one_after_the_other_and_the_rest_is_skipped() {
        let mut cursor = cursor(b"<iq>t<a><b><c/></b></a><d/>u<e>x</e></iq>");
        let root = cursor.root().unwrap();
        let mut names = Vec::new();
        while let Some(child) = cursor.child(&root).unwrap() {
            names.push(child.local);
        }
        assert_eq!(names, ["a", "d", "e"]);
    }

    #[test]
    fn nested_children_and_texts_are_read() {
        let mut cursor = cursor(b"<iq><a><b>x &lt;<i>no</i>&#65;<![CDATA[<z>]]></b><c/></a><d/></iq>");
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
        let mut cursor = cursor(stanza);
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
        let root = Open::alone(b"<iq id='a&amp;b' x:to='no' to=\"it's\" id='c'>").unwrap();
        assert_eq!(
            root.raw_attributes(["to", "from", "id"]),
            Ok([Some("it's"), None, Some("a&amp;b")])
        );
        assert_eq!(root.attribute("id").unwrap().unwrap(), "a&b");
    }

    #[test]
    fn attributes_are_read_however_they_are_written() {
        let read = |tag: &'static str| Open::alone(tag.as_bytes())?.raw_attributes(["b"]).map(|[b]| b);
        for tag in [
            "<a b='>'>",
            "<a b='>'/>",
            "<a\n\tb\r=\n\">\" >",
            "<a c='='b='>'/>",
            "<a b='>' c>",
        ] {
            assert_eq!(read(tag), Ok(Some(">")), "{tag}");
        }
        for tag in ["<a>", "<a />", "<a c='b'>"] {
            assert_eq!(read(tag), Ok(None), "{tag}");
        }
        for tag in [
            "<a b>",
            "<a b=>",
            "<a b=c>",
            "<a c b='1'>",
            "<a ='1'>",
            "<a b='1>",
            "<a b=\"1'>",
        ] {
            assert_eq!(read(tag), Err(Malformed), "{tag}");
        }
    }

    #[test]
    fn what_is_not_xml_is_said_to_be_none() {
        for broken in [
            "<iq><a></b></iq>",
            "<iq",
            "<iq><a>&nope;</a></iq>",
            "<iq><a b></a></iq>",
            "<iq><a></a b=''></iq>",
            "<iq><![CDAT[x]]></iq>",
            "<iq><!-x--></iq>",
            "<iq><!DOCTYPE iq></iq>",
            "<iq><?></iq>",
            "",
        ] {
            let walk = || -> Result<(), Malformed> {
                let mut cursor = Cursor::new(Stanza::cut(broken.as_bytes()).ok_or(Malformed)?)?;
                let root = cursor.root()?;
                while let Some(child) = cursor.child(&root)? {
                    child.attribute("b")?;
                    cursor.text(&child)?;
                }
                Ok(())
            };
            assert_eq!(walk(), Err(Malformed), "{broken}");
        }
        assert!(Cursor::new(Stanza::cut(b"<iq a='\xff'/>").unwrap()).is_err());
    }

    /// What a stranger can make us look at for each element is bounded.
    #[test]
    fn declarations_and_namespaces_are_bounded() {
        let walk = |stanza: &str| -> Result<usize, Malformed> {
            let mut cursor = cursor(stanza.as_bytes());
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

    /// Every step of a walk costs the same, whatever was walked over: these take minutes otherwise.
    #[test]
    fn large_stanzas_take_no_longer_than_their_length() {
        let size = 1 << 20;
        let broad = format!("<iq>{}<z/></iq>", "<a/>".repeat(size / 4));
        let deep = format!(
            "<iq><a>{}{}</a><z/></iq>",
            "<a>".repeat(size / 7),
            "</a>".repeat(size / 7)
        );
        let comments = format!("<iq>{}<z/></iq>", "<!---->&#65;".repeat(size / 12));
        let attributes = format!("<iq><z{}/></iq>", " a=''".repeat(size / 5));
        let spaces = format!("<iq><z{}/></iq>", " a".repeat(size / 2));
        for stanza in [broad, deep, comments, attributes, spaces] {
            let mut cursor = cursor(stanza.as_bytes());
            let root = cursor.root().unwrap();
            let mut last = None;
            while let Some(child) = cursor.child(&root).unwrap() {
                let _ = child.attribute("b");
                last = Some(child.local);
            }
            assert_eq!(last, Some("z"));
        }
    }

    /// What quick-xml makes of an element.
    #[derive(Debug, Default)]
    struct Node {
        namespace: String,
        local: String,
        attributes: Vec<(String, String)>,
        text: String,
        children: Vec<Self>,
    }

    /// What quick-xml makes of stanzas.
    fn oracle(stanzas: &[String]) -> Vec<Node> {
        let stream = format!(
            "<stream:stream xmlns='{}' xmlns:stream='{}'>{}</stream:stream>",
            ns::COMPONENT,
            ns::STREAM,
            stanzas.concat()
        );
        let mut reader = NsReader::from_str(&stream);
        let mut open = vec![Node::default()];
        loop {
            let event = reader.read_event().unwrap();
            let top = open.last_mut().unwrap();
            match &event {
                Event::Start(start) | Event::Empty(start) => {
                    let (namespace, local) = reader.resolver().resolve_element(start.name());
                    let mut node = Node {
                        local: local.as_ref().to_owned(),
                        ..Node::default()
                    };
                    if let ResolveResult::Bound(Namespace(namespace)) = namespace {
                        node.namespace = namespace.to_owned();
                    }
                    for attribute in start.attributes().with_checks(false) {
                        let attribute = attribute.unwrap();
                        let key = attribute.key.as_ref().to_owned();
                        node.attributes.push((key, attribute.value.into_owned()));
                    }
                    if matches!(event, Event::Start(_)) {
                        open.push(node);
                    } else {
                        top.children.push(node);
                    }
                }
                Event::End(_) => {
                    let node = open.pop().unwrap();
                    open.last_mut().unwrap().children.push(node);
                }
                Event::Text(text) => top.text.push_str(text),
                Event::GeneralRef(name) => top
                    .text
                    .push_str(&unescape(&format!("&{};", name.as_ref() as &str)).unwrap()),
                Event::CData(text) => top.text.push_str(text),
                Event::Eof => return open.pop().unwrap().children.pop().unwrap().children,
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_) => {}
            }
        }
    }

    /// Reads an element as `choices` want it, and compares it with what quick-xml says: its text, all of its
    /// children, some of them or nothing of it.
    fn compare<'a>(
        cursor: &mut Cursor<'a>,
        element: &Open<'a>,
        node: &Node,
        choices: &mut impl Iterator<Item = u8>,
    ) {
        assert_eq!(
            (element.local, &*element.namespace),
            (&*node.local, &*node.namespace)
        );
        for (name, _) in &node.attributes {
            let first = node.attributes.iter().find(|(other, _)| other == name);
            let value = first.map(|(_, value)| &**value);
            assert_eq!(element.raw_attributes([name, "none"]), Ok([value, None]));
        }
        match choices.next() {
            Some(0) => assert_eq!(cursor.text(element).unwrap(), node.text),
            Some(1) => {}
            Some(2) => {
                for node in node.children.iter().take(1) {
                    let child = cursor.child(element).unwrap().unwrap();
                    compare(cursor, &child, node, choices);
                }
            }
            _ => {
                for node in &node.children {
                    let child = cursor.child(element).unwrap().unwrap();
                    compare(cursor, &child, node, choices);
                }
                assert!(cursor.child(element).unwrap().is_none());
            }
        }
    }

    fn attribute() -> impl Strategy<Value = String> {
        let plain = prop_oneof![
            (
                "[ \t\n]{1,2}(a|to|p:to|xml:lang|xmlnsish)[ \n]?=[ \t]?",
                "[a-z/<>'=é &]{0,8}"
            )
                .prop_map(|(name, value)| format!("{name}\"{}\"", value.replace('&', "&amp;"))),
            (" (b|from|f-1)[ \n]?=", "[a-z/<>\"=é ]{0,8}")
                .prop_map(|(name, value)| format!("{name}'{value}'")),
        ];
        prop_oneof![4 => plain, 1 => " xmlns(:p|:q|:stream)?='urn:[a-c]'", 1 => Just(" xmlns=''".to_owned())]
    }

    fn element() -> impl Strategy<Value = String> {
        let start = || {
            (
                "(iq|a|b|p:a|q:c|stream:error|é)",
                prop::collection::vec(attribute(), 0..4),
            )
        };
        let empty = (start(), "[ \n]?")
            .prop_map(|((name, attributes), space)| format!("<{name}{}{space}/>", attributes.concat()));
        empty.prop_recursive(4, 32, 5, move |inner| {
            let content = prop_oneof![
                4 => inner,
                2 => "[a-z>\"' \n/é]{1,8}",
                1 => "&(lt|gt|amp|apos|quot|#65|#xe9);",
                1 => "<!--[a-z<>'\"/ ]{0,6}-->",
                1 => "<!--->(<iq>)?-->",
                1 => "<!\\[CDATA\\[[a-z<>&'\"\\]]{0,6}[a-z]\\]{0,2}\\]\\]>".prop_filter("one section", |text| text.find("]]>") == Some(text.len() - 3)),
                1 => "<\\?[a-z<'\"/ ]{0,6}\\?>",
            ];
            (start(), prop::collection::vec(content, 0..5), "[ \n]?").prop_map(
                |((name, attributes), content, space)| {
                    format!("<{name}{}>{}</{name}{space}>", attributes.concat(), content.concat())
                },
            )
        })
    }

    proptest! {
        /// Whatever is in stanzas, and in whatever pieces they come: they are read as quick-xml reads them.
        #[test]
        fn stanzas_are_read_as_quick_xml_reads_them(
            stanzas in prop::collection::vec(element(), 1..4),
            chunks in prop::collection::vec(1..40_usize, 1..20),
            choices in prop::collection::vec(0..6_u8, 0..20),
        ) {
            let expected = oracle(&stanzas);
            let mut cutter = Cutter::new(1 << 20, b"");
            let (mut chunks, mut choices) = (chunks.iter().cycle(), choices.into_iter());
            let mut read = 0;
            let stream = stanzas.join("<!-- > -->\n");
            let mut rest = stream.as_bytes();
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(rest.len().min(*chunks.next().unwrap()));
                rest = behind;
                cutter.space().extend_from_slice(chunk);
                while let Some(piece) = cutter.next() {
                    let Piece::Stanza(stanza) = piece else { panic!("{piece:?}") };
                    prop_assert_eq!(stanza.bytes, stanzas[read].as_bytes());
                    let mut cursor = Cursor::new(stanza).unwrap();
                    let root = cursor.root().unwrap();
                    compare(&mut cursor, &root, &expected[read], &mut choices);
                    read += 1;
                }
            }
            prop_assert_eq!(read, stanzas.len());
        }
    }
}

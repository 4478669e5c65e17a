//! The part of Lua in which Prosody writes tables: tables, strings, numbers and words, and nothing that could be executed.

/// Reads `return { ["key"] = "value"; … };`. Returns the texts in the outermost table that have a text as their key.
///
/// # Errors
///
/// It is not such a table, from this byte on.
pub(super) fn parse(content: &[u8]) -> Result<Vec<(String, String)>, usize> {
    let mut parser = Parser { content, at: 0 };
    let mut texts = Vec::new();
    let whole = parser.word(b"return").and_then(|()| {
        parser.table(0, &mut |key, value| {
            if let (Some(Value::Text(key)), Value::Text(value)) = (key, value) {
                texts.push((key, value));
            }
        })?;
        parser.skip(b";");
        parser.end()
    });
    match whole {
        Some(()) => Ok(texts),
        None => Err(parser.at),
    }
}

/// A value, as far as it matters.
enum Value {
    Text(String),
    Other,
}

/// Where the parser is. Every method that returns `None` met something that it does not know.
struct Parser<'a> {
    content: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// A table. Calls with each entry's key, if it has one, and value.
    fn table(&mut self, depth: usize, entry: &mut dyn FnMut(Option<Value>, Value)) -> Option<()> {
        if depth == DEEPEST {
            return None;
        }
        self.sign(b'{')?;
        while !self.skip(b"}") {
            let key = if self.skip(b"[") {
                let key = self.value(depth)?;
                self.sign(b']')?;
                self.sign(b'=')?;
                Some(key)
            } else {
                self.name()
            };
            let value = self.value(depth)?;
            entry(key, value);
            if !(self.skip(b";") || self.skip(b",")) {
                self.sign(b'}')?;
                break;
            }
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.space();
        match self.content.get(self.at)? {
            b'"' => self.text().map(Value::Text),
            b'{' => self.table(depth + 1, &mut |_, _| {}).map(|()| Value::Other),
            b'-' | b'0'..=b'9' => self.number().map(|()| Value::Other),
            _ => {
                let words = [&b"true"[..], b"false", b"nil"];
                let infinite = [&b"(1/0)"[..], b"(-1/0)", b"(0/0)"];
                let known = infinite.iter().any(|text| self.skip(text))
                    || words.iter().any(|word| self.word(word).is_some());
                known.then_some(Value::Other)
            }
        }
    }

    /// A key without brackets, and the equals sign after it. Where there is none nothing was read.
    fn name(&mut self) -> Option<Value> {
        self.space();
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let rest = &self.content[self.at..];
        let length = rest.iter().take_while(is_part).count();
        let name = str::from_utf8(&rest[..length]).ok()?;
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let (name, before) = (name.to_owned(), self.at);
        self.at += length;
        if self.skip(b"=") {
            Some(Value::Text(name))
        } else {
            self.at = before;
            None
        }
    }

    fn number(&mut self) -> Option<()> {
        let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(*byte);
        let digits: Vec<_> = self.content[self.at..]
            .iter()
            .take_while(is_part)
            .copied()
            .collect();
        str::from_utf8(&digits).ok()?.parse::<f64>().ok()?;
        self.at += digits.len();
        Some(())
    }

    fn text(&mut self) -> Option<String> {
        self.sign(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => bytes.push(self.escaped()?),
                byte if byte < b' ' => return None,
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).ok()
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Option<u8> {
        Some(match self.next()? {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' | b'\n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            same @ (b'\\' | b'"' | b'\'') => same,
            first @ b'0'..=b'9' => {
                let mut code = u32::from(first - b'0');
                for _ in 0..2 {
                    match self.content.get(self.at) {
                        Some(digit @ b'0'..=b'9') => code = code * 10 + u32::from(digit - b'0'),
                        _ => break,
                    }
                    self.at += 1;
                }
                u8::try_from(code).ok()?
            }
            _ => return None,
        })
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.content.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn space(&mut self) {
        let space = self.content[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace());
        self.at += space.count();
    }

    /// Goes past this text, if it comes next.
    fn skip(&mut self, text: &[u8]) -> bool {
        self.space();
        let comes = self.content[self.at..].starts_with(text);
        if comes {
            self.at += text.len();
        }
        comes
    }

    /// Goes past a sign that must come next.
    fn sign(&mut self, sign: u8) -> Option<()> {
        self.skip(&[sign]).then_some(())
    }

    /// Goes past a word that must come next, and be the whole word.
    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.space();
        let after = self.content[self.at..].strip_prefix(word)?;
        if after
            .first()
            .is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_')
        {
            return None;
        }
        self.at += word.len();
        Some(())
    }

    /// Nothing must come any more.
    fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.content.len()).then_some(())
    }
}

/// Tables in tables.
const DEEPEST: usize = 16;

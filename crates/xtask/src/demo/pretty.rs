//! XML and JSON for the eye.

use serde_json::Value;

/// One element per line; an element that holds only text stays on its line.
pub(crate) fn xml(stanza: &str) -> String {
    let mut lines = Vec::new();
    let mut depth = 0_usize;
    let mut rest = stanza.trim();
    while !rest.is_empty() {
        let (token, after) = token(rest);
        rest = after;
        let indent = |depth: usize| "  ".repeat(depth);
        if token.starts_with("</") {
            depth = depth.saturating_sub(1);
            lines.push(format!("{}{token}", indent(depth)));
        } else if !token.starts_with('<') {
            if !token.trim().is_empty() {
                lines.push(format!("{}{token}", indent(depth)));
            }
        } else if token.ends_with("/>") {
            lines.push(format!("{}{token}", indent(depth)));
        } else if let Some((text, end, after)) = text_only(rest) {
            lines.push(format!("{}{token}{text}{end}", indent(depth)));
            rest = after;
        } else {
            lines.push(format!("{}{token}", indent(depth)));
            depth += 1;
        }
    }
    lines.join("\n")
}

/// Indented JSON.
pub(crate) fn json(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Every line moved to the right.
pub(crate) fn indent(text: &str) -> String {
    text.lines()
        .map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("    {line}\n")
            }
        })
        .collect()
}

/// The text up to the next tag, or the tag, and what follows.
fn token(xml: &str) -> (&str, &str) {
    if !xml.starts_with('<') {
        return xml.split_at(xml.find('<').unwrap_or(xml.len()));
    }
    let mut quote = None;
    for (index, character) in xml.char_indices() {
        match (quote, character) {
            (None, '>') => return xml.split_at(index + 1),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            _ => {}
        }
    }
    (xml, "")
}

/// The text, the closing tag and what follows, if that is all the element holds.
fn text_only(after_start: &str) -> Option<(&str, &str, &str)> {
    let (text, rest) = after_start.split_at(after_start.find('<')?);
    let (end, rest) = token(rest);
    end.starts_with("</").then_some((text, end, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_indented() {
        let pretty = xml("<iq id='a>b'><x><value>text</value><empty/></x><y></y></iq>");
        assert_eq!(
            pretty,
            "<iq id='a>b'>\n  <x>\n    <value>text</value>\n    <empty/>\n  </x>\n  <y></y>\n</iq>"
        );
    }

    #[test]
    fn half_a_stanza_is_shown_too() {
        assert_eq!(xml("<iq><x>text"), "<iq>\n  <x>\n    text");
    }
}

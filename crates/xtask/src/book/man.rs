//! Manual pages of pages of the reference, in the language of `man(7)`.

use std::path::Path;

use anyhow::Result;
use pulldown_cmark::{Event, HeadingLevel, Tag, TagEnd};

use super::{parse, read};

/// A manual page.
pub(super) struct ManPage {
    pub(super) file: &'static str,
    /// The page that it is made of.
    source: &'static str,
    name: &'static str,
    section: u8,
    /// What stands in lists of manual pages.
    about: &'static str,
    synopsis: &'static str,
    see_also: &'static str,
}

pub(super) const PAGES: [ManPage; 2] = [
    ManPage {
        file: "docs/man/fpush.8",
        source: "docs/reference/command-line.md",
        name: "fpush",
        section: 8,
        about: "push server for XMPP",
        synopsis: "\\fBfpush\\fR [\\fISETTINGS\\fR]\n.br\n\\fBfpush\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fISETTINGS\\fR]",
        see_also: "\\fBfpush.settings\\fR(5), \\fBprosodyctl\\fR(8), \\fBejabberdctl\\fR(8), \\fBsystemd.exec\\fR(5)",
    },
    ManPage {
        file: "docs/man/fpush.settings.5",
        source: "docs/reference/settings.md",
        name: "fpush.settings",
        section: 5,
        about: "settings of fpush",
        synopsis: "\\fI/etc/fpush/settings.json\\fR",
        see_also: "\\fBfpush\\fR(8)",
    },
];

impl ManPage {
    /// Its text, made of the page in the repository `root`.
    pub(super) fn make(&self, root: &Path) -> Result<String> {
        let source = read(&root.join(self.source))?;
        let Self {
            name,
            section,
            about,
            synopsis,
            see_also,
            ..
        } = self;
        let title = name.to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        let body = body(&source);
        Ok(format!(
            ".\\\" Made of {} by cargo xtask reference.\n.TH {title} {section} \"\" \"fpush {version}\"\n\
             .SH NAME\n{name} \\- {about}\n.SH SYNOPSIS\n{synopsis}\n.SH DESCRIPTION\n{body}.SH SEE ALSO\n{see_also}\n\
             .PP\nThe book is in /usr/share/doc/fpush if the package is installed.\n",
            self.source
        ))
    }
}

/// All but the title.
fn body(markdown: &str) -> String {
    let mut page = Page::default();
    for event in parse(markdown) {
        page.take(event);
    }
    page.done
}

#[derive(Default)]
struct Page {
    done: String,
    /// The block that is under way.
    text: String,
    in_code: bool,
    /// The names of the columns of a table, and the cells of the row that is under way.
    columns: Vec<String>,
    cells: Vec<String>,
    in_head: bool,
    /// Whether the block is a list's item, and the number of the next one where they are numbered.
    lists: Vec<Option<u64>>,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => self.text += &escaped(&text),
            Event::Text(text) => self.text += &escaped(&text),
            Event::Code(code) => self.text += &format!("\\fB{}\\fR", escaped(&code)),
            Event::SoftBreak | Event::HardBreak => self.text.push('\n'),
            // Marks of what is made of the program.
            Event::Html(_) | Event::InlineHtml(_) => {}
            Event::Rule
            | Event::FootnoteReference(_)
            | Event::TaskListMarker(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::CodeBlock(_) => {
                self.flush("");
                self.in_code = true;
            }
            Tag::List(first) => {
                self.flush("");
                self.lists.push(first);
            }
            Tag::Table(_) => self.columns.clear(),
            Tag::TableHead => self.in_head = true,
            Tag::Strong => self.text += "\\fB",
            Tag::Emphasis => self.text += "\\fI",
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let title = std::mem::take(&mut self.text);
                match level {
                    HeadingLevel::H1 => {}
                    HeadingLevel::H2 => self.done += &format!(".SH \"{}\"\n", capital(&title)),
                    _ => self.done += &format!(".SS \"{title}\"\n"),
                }
            }
            TagEnd::Paragraph => self.flush(".PP\n"),
            TagEnd::Item => {
                self.flush("");
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::CodeBlock => {
                self.in_code = false;
                let code = std::mem::take(&mut self.text);
                self.done += &format!(
                    ".PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n",
                    guarded(code.trim_end_matches('\n'))
                );
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.text)),
            TagEnd::TableHead => {
                self.in_head = false;
                self.columns = std::mem::take(&mut self.cells);
            }
            TagEnd::TableRow => self.row(),
            TagEnd::Strong | TagEnd::Emphasis => self.text += "\\fR",
            _ => {}
        }
    }

    /// A row of a table: what the first cell names, and sentences of the others.
    fn row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let mut cells = self.columns.iter().zip(cells);
        let Some((_, name)) = cells.next() else { return };
        let mut text = String::new();
        for (column, cell) in cells {
            if cell.is_empty() {
                continue;
            }
            let cell = match column.as_str() {
                "default" if cell != "required" => format!("Default: {cell}"),
                _ => capital_first(&cell),
            };
            let end = if cell.ends_with(['.', ':', '?']) { "" } else { "." };
            text += &format!("{cell}{end}\n");
        }
        self.done += &format!(".TP\n\\fB{}\\fR\n{}\n", name, guarded(text.trim_end()));
    }

    /// Ends the block that is under way.
    fn flush(&mut self, paragraph: &str) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        let begin = match self.lists.last_mut() {
            None => paragraph.to_owned(),
            Some(None) => ".IP \\(bu 2\n".to_owned(),
            Some(Some(number)) => {
                *number += 1;
                format!(".IP {}. 3\n", *number - 1)
            }
        };
        self.done += &format!("{begin}{}\n", guarded(&text));
    }
}

/// A text in which nothing means anything to the formatter.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Lines of text, none of which is taken for an order.
fn guarded(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let begins = line.starts_with(['.', '\'']);
        format!("{}{line}", if begins { "\\&" } else { "" })
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A title in capitals, but for what is code in it.
fn capital(title: &str) -> String {
    if title.contains(['\\', '.']) || title.chars().skip(1).any(char::is_uppercase) {
        title.to_owned()
    } else {
        title.to_uppercase()
    }
}

fn capital_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_pages_are_made_of_the_reference() {
        let root = crate::root().unwrap();
        for page in &PAGES {
            let found = read(&root.join(page.file)).unwrap_or_default();
            assert!(
                found == page.make(&root).unwrap(),
                "{} is not what {} says; run: cargo xtask reference",
                page.file,
                page.source
            );
        }
    }

    #[test]
    fn markdown_becomes_a_manual_page() {
        let markdown = "# Title\n\nA `b-c` [d](e.md)\n'f\n\n## Of it\n\n- one\n- two\n\n```text\n.x \\\n```\n\n\
            | key | type | default | meaning |\n|---|---|---|---|\n| `k` | path | required | why |\n| `l` | a \\| b | `1` | how |\n";
        assert_eq!(
            body(markdown),
            ".PP\nA \\fBb\\-c\\fR d\n\\&'f\n.SH \"OF IT\"\n.IP \\(bu 2\none\n.IP \\(bu 2\ntwo\n.PP\n.RS 4\n.nf\n\\&.x \\e\n.fi\n.RE\n\
             .TP\n\\fB\\fBk\\fR\\fR\nPath.\nRequired.\nWhy.\n.TP\n\\fB\\fBl\\fR\\fR\nA | b.\nDefault: \\fB1\\fR.\nHow.\n"
        );
    }
}

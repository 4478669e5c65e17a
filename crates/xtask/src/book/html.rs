//! Web pages of the documents: one for each, below the same name, with the table of contents beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use pulldown_cmark::{CowStr, Event, Tag, TagEnd, html};

use super::{documents, parse, read};

/// Documents beside those of the folders. The first one is the first page.
const TOP: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
];

const CONTENTS: &str = "docs/SUMMARY.md";

/// Makes the pages of the repository `root` below `folder`. What they show or name of the repository is copied there. Returns
/// how many there are.
pub(crate) fn build(root: &Path, folder: &Path) -> Result<usize> {
    let mut sources: Vec<_> = TOP.iter().map(PathBuf::from).collect();
    for below in ["docs", "examples"] {
        let found = documents(&root.join(below))?;
        sources.extend(
            found
                .iter()
                .filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned())),
        );
    }
    let contents = read(&root.join(CONTENTS))?;
    for source in &sources {
        let mut page = Page {
            root,
            folder,
            source,
            anchors: BTreeMap::new(),
        };
        let text = read(&root.join(source))?;
        let title = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        let body = page.html(&text)?;
        page.source = Path::new(CONTENTS);
        let nav = page
            .html(&contents)?
            .replace("<h1 id=\"summary\">Summary</h1>\n", "");
        // Their links are those of a page in the folder of the contents.
        let nav = relinked(&nav, source);
        let file = folder.join(target(source));
        let parent = file.parent().context("a page is in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let text = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<nav>\n{nav}</nav>\n<main>\n{body}</main>\n</body>\n</html>\n",
            escaped(title)
        );
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(sources.len())
}

struct Page<'a> {
    root: &'a Path,
    folder: &'a Path,
    source: &'a Path,
    anchors: BTreeMap<String, usize>,
}

impl Page<'_> {
    fn html(&mut self, markdown: &str) -> Result<String> {
        let mut events = Vec::new();
        let mut heading: Option<usize> = None;
        for event in parse(markdown) {
            let event = match event {
                Event::Start(Tag::Link {
                    link_type,
                    dest_url,
                    title,
                    id,
                }) => Event::Start(Tag::Link {
                    link_type,
                    dest_url: self.link(&dest_url)?.into(),
                    title,
                    id,
                }),
                Event::Start(Tag::Image {
                    link_type,
                    dest_url,
                    title,
                    id,
                }) => Event::Start(Tag::Image {
                    link_type,
                    dest_url: self.link(&dest_url)?.into(),
                    title,
                    id,
                }),
                other => other,
            };
            match &event {
                Event::Start(Tag::Heading { .. }) => heading = Some(events.len()),
                Event::End(TagEnd::Heading(_)) => {
                    if let Some(begin) = heading.take() {
                        let text: String = events[begin..].iter().filter_map(text_of).collect();
                        let anchor = self.anchor(&text);
                        if let Event::Start(Tag::Heading { id, .. }) = &mut events[begin] {
                            *id = Some(CowStr::from(anchor));
                        }
                    }
                }
                _ => {}
            }
            events.push(event);
        }
        let mut text = String::new();
        html::push_html(&mut text, events.into_iter());
        Ok(text)
    }

    /// The anchor of a heading, as GitHub makes it.
    fn anchor(&mut self, title: &str) -> String {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let name: String = title.to_lowercase().chars().filter(kept).collect();
        let name = name.replace(' ', "-");
        let times = self.anchors.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => name,
            more => format!("{name}-{}", more - 1),
        }
    }

    /// Where a link leads from the page that is made. A file or folder of the repository that is not a document comes along.
    fn link(&self, target: &str) -> Result<String> {
        if target.contains("://") || target.starts_with("mailto:") || target.starts_with('#') {
            return Ok(target.to_owned());
        }
        let (file, anchor) = match target.split_once('#') {
            Some((file, anchor)) => (file, format!("#{anchor}")),
            None => (target, String::new()),
        };
        let leads = normal(&self.source.with_file_name("").join(file));
        let from = self.root.join(&leads);
        ensure!(from.exists(), "{}: there is no {target}", self.source.display());
        let made = self::target(&leads);
        if made == leads {
            copy(&from, &self.folder.join(&leads))?;
        }
        Ok(relative(&made, self.source) + &anchor)
    }
}

/// The file of a page, or of what comes along.
fn target(source: &Path) -> PathBuf {
    if source == Path::new(TOP[0]) {
        return "index.html".into();
    }
    if source.extension().is_some_and(|extension| extension == "md") {
        return source.with_extension("html");
    }
    source.to_owned()
}

/// The path from a page to a file, both below the same folder.
fn relative(file: &Path, from: &Path) -> String {
    let up = from.components().count() - 1;
    let path = "../".repeat(up) + &file.display().to_string();
    path.trim_end_matches('/').to_owned()
}

/// The links of the contents, which is in `docs`, as another page has them.
fn relinked(nav: &str, page: &Path) -> String {
    let up = "../".repeat(page.components().count() - 1);
    nav.replace("href=\"../", &format!("href=\"{up}"))
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

fn text_of(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Text(text) | Event::Code(text) => Some(text.to_string()),
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            c => {
                let _ = escaped.write_char(c);
            }
        }
    }
    escaped
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let folder = to.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

const STYLE: &str = "\
body { margin: 0 auto; max-width: 76rem; display: flex; flex-wrap: wrap; font: 1rem/1.5 sans-serif; color: #222; background: #fff }
nav { flex: 1 1 14rem; padding: 1rem; font-size: .875rem }
nav h1 { font-size: .875rem; margin: 1rem 0 0 }
nav ul { list-style: none; margin: 0; padding: 0 }
main { flex: 4 1 36rem; min-width: 0; padding: 1rem }
a { color: #0057ae }
pre { overflow-x: auto; padding: .75rem; background: #f4f4f4 }
code { font-size: .875rem }
table { display: block; overflow-x: auto; border-collapse: collapse }
th, td { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top }
img { max-width: 100% }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1b1b }
  a { color: #7ab8ff }
  pre { background: #2a2a2a }
  th, td { border-color: #555 }
}
@media print { nav { display: none } }
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fpush_testkit::TempDir;

    use super::*;

    /// The values of an attribute.
    fn values<'a>(html: &'a str, attribute: &'a str) -> impl Iterator<Item = &'a str> {
        let parts = html.split(attribute).skip(1);
        parts.filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_link_of_every_page_leads_somewhere() {
        let folder = TempDir::new();
        let count = build(&crate::root().unwrap(), folder.path()).unwrap();
        assert!(count > 50, "{count}");
        let mut pages = vec![folder.path().to_owned()];
        let (mut seen, mut wrong) = (0, Vec::new());
        while let Some(path) = pages.pop() {
            if path.is_dir() {
                pages.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let Ok(html) = fs::read_to_string(&path) else {
                continue;
            };
            if !html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\"") {
                continue;
            }
            for link in values(&html, "href=\"").chain(values(&html, "src=\"")) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                seen += 1;
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let file = if file.is_empty() {
                    path.clone()
                } else {
                    path.with_file_name(file)
                };
                let there = || fs::read_to_string(&file).unwrap_or_default();
                let has_anchor = || {
                    values(&there(), "id=\"")
                        .collect::<BTreeSet<_>>()
                        .contains(anchor)
                };
                if !file.exists() || !anchor.is_empty() && !has_anchor() {
                    wrong.push(format!("{}: {link}", path.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(seen > 2000, "{seen}");
    }
}

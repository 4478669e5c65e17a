//! The documents: every link leads somewhere, every page is in the table of contents, and README.md is short. The other files
//! look at what stands in code.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod blocks;
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const TOP: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
];
const CONTENTS: &str = "docs/SUMMARY.md";
const LONGEST_README: usize = 7_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository is there")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Markdown files below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let root = root();
    let top = TOP.map(|name| root.join(name));
    top.into_iter()
        .chain(pages(&root.join("docs")))
        .chain(pages(&root.join("examples")))
        .collect()
}

/// The text without code.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // A span of code may be longer than a line, but no link of ours is near such a one.
            for (at, part) in line.split('`').enumerate() {
                prose.push_str(if at % 2 == 0 { part } else { "code" });
            }
        }
        prose.push('\n');
    }
    assert!(!fenced, "a block of code has no end");
    prose
}

/// Where the links of a text lead.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned());
    let references = prose
        .lines()
        .filter(|line| line.starts_with('['))
        .filter_map(|line| line.split_once("]: "))
        .map(|(_, target)| target.to_owned());
    inline.chain(references).collect()
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = title.trim().to_lowercase().chars().filter(kept).collect();
        let anchor = anchor.replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *times == 0 {
            anchor
        } else {
            format!("{anchor}-{times}")
        });
        *times += 1;
    }
    anchors
}

fn is_elsewhere(target: &str) -> bool {
    ["https://", "http://", "mailto:"]
        .iter()
        .any(|scheme| target.starts_with(scheme))
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in documents() {
        for target in links(&read(&page)) {
            count += 1;
            if is_elsewhere(&target) {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() {
                page.clone()
            } else {
                page.with_file_name("").join(file)
            };
            let found = file.exists() && (anchor.is_empty() || anchors(&read(&file)).contains(anchor));
            if !found {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "{count}");
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let docs = root().join("docs");
    let contents = root().join(CONTENTS);
    let mut listed: Vec<_> = links(&read(&contents))
        .into_iter()
        .filter(|target| *target != "../README.md")
        .map(|target| docs.join(target))
        .collect();
    listed.sort();
    let mut there = pages(&docs);
    there.retain(|page| *page != contents);
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn every_page_begins_with_its_title() {
    for page in documents() {
        assert!(read(&page).starts_with("# "), "{}", page.display());
    }
}

#[test]
fn the_readme_can_be_read_in_a_minute() {
    let length = read(&root().join("README.md")).len();
    assert!(length <= LONGEST_README, "README.md has {length} bytes");
}

/// The source of all crates, in one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&read(&path));
        }
    }
    text
}

#[test]
fn every_message_that_is_explained_is_one_of_the_program() {
    let page = read(&root().join("docs/reference/messages.md"));
    let sources = sources(&root().join("crates"));
    let mut count = 0;
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1));
    for message in rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
        // What a message names is `X` here, and the reason behind "link down" is a text of its own.
        let part = message.strip_prefix("link down: ").unwrap_or(message);
        let part = part.split(" X,").next().unwrap_or_default();
        assert!(sources.contains(part), "nothing says {message:?}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// The tables at the heads of test programs: which test shows what.
#[test]
fn every_test_that_the_sources_name_exists() {
    let sources = sources(&root().join("crates"));
    let rows = sources.lines().filter(|line| line.starts_with("//! |"));
    let is_path = |name: &&str| {
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
    };
    let mut count = 0;
    for path in rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(is_path)
    {
        let Some((_, name)) = path.rsplit_once("::") else {
            continue;
        };
        let is_there = [format!("fn {name}("), format!("mod {name};")]
            .iter()
            .any(|definition| sources.contains(definition));
        assert!(is_there, "no test is named {path}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[test]
fn links_and_anchors_are_found() {
    let text = "# A `b` c\n\n[x](y.md#z) and `[no](link)`\n\n```\n# no\n[no](link)\n```\n## Where do I …\n## A b c\n\n[r]: s.md\n";
    assert_eq!(links(text), ["y.md#z", "s.md"]);
    assert_eq!(
        anchors(text).into_iter().collect::<Vec<_>>(),
        ["a-b-c", "a-b-c-1", "where-do-i-"]
    );
}

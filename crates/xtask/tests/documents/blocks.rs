//! Blocks of code: each says its language, or is indented and shell, and is right for who reads that language.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use quick_xml::{Reader, events::Event};

use crate::{documents, read};

/// A block of code.
pub(crate) struct Block {
    /// Page and line.
    pub(crate) place: String,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// All blocks of all documents.
pub(crate) fn all() -> Vec<Block> {
    let pages = documents().into_iter();
    pages
        .flat_map(|page| blocks(&page.display().to_string(), &read(&page)))
        .collect()
}

/// Those of a page.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let (mut found, mut fence): (Vec<Block>, Option<usize>) = (Vec::new(), None);
    // In a list, text may be indented as far as code elsewhere; code stands four columns further in.
    let (mut list, mut is_indented, mut after_blank) = (0, false, true);
    for (at, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let content = line.trim_start();
        let begin = |language: &str| Block {
            place: format!("{page}:{}", at + 1),
            language: language.to_owned(),
            text: String::new(),
        };
        if let Some(language) = content.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => {
                    found.push(begin(language));
                    Some(indent)
                }
            };
            is_indented = false;
        } else if let Some(indent) = fence {
            let line = line.get(indent..).unwrap_or_default();
            found.last_mut().unwrap().text.extend([line, "\n"]);
        } else if content.is_empty() {
            after_blank = true;
            continue;
        } else if indent >= list + 4 && (after_blank || is_indented) {
            if !is_indented {
                found.push(begin("sh"));
            }
            found.last_mut().unwrap().text.extend([content, "\n"]);
            is_indented = true;
        } else {
            is_indented = false;
            let marker = content.split(' ').next().unwrap_or_default();
            let is_item = marker == "-"
                || marker
                    .strip_suffix('.')
                    .is_some_and(|number| number.parse::<u32>().is_ok());
            if is_item {
                list = indent + marker.len() + 1;
            } else if indent < list && after_blank {
                list = 0;
            }
        }
        after_blank = false;
    }
    found
}

/// What a reader says of the block that it gets on standard input, if it is wrong.
fn refused(command: &mut Command, text: &str) -> Option<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut input = child.stdin.take().unwrap();
    // One that has seen enough closes it.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn wrong(block: &Block) -> Option<String> {
    let text = &block.text;
    match block.language.as_str() {
        "sh" => refused(Command::new("bash").arg("-n"), text),
        "lua" => {
            let script = "local chunk, why = load(io.read('a'), 'block'); if not chunk then error(why) end";
            refused(Command::new("lua5.4").args(["-e", script]), text)
        }
        "yaml" => {
            let script = "import sys, yaml; yaml.safe_load(sys.stdin)";
            refused(Command::new("python3").args(["-c", script]), text)
        }
        "xml" => xml(text),
        // Settings, which a test of the program checks.
        "json" => None,
        // Parts of settings.
        "jsonc" => {
            let options = jsonc_parser::ParseOptions::default();
            let text = format!("{{{text}}}");
            let read = jsonc_parser::parse_to_value(&text, &options);
            read.err().map(|error| error.to_string())
        }
        // No language that anything here reads.
        "text" | "console" | "js" => None,
        other => Some(format!("{other:?} is not a language that this test knows")),
    }
}

fn xml(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    let mut depth = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                depth += 1;
                if let Some(error) = tag.attributes().find_map(Result::err) {
                    return Some(error.to_string());
                }
            }
            Ok(Event::End(_)) => depth -= 1,
            Ok(Event::Eof) if depth == 0 => return None,
            Ok(Event::Eof) => return Some(format!("{depth} elements have no end")),
            Ok(_) => {}
            Err(error) => return Some(error.to_string()),
        }
    }
}

#[test]
fn every_block_is_right_for_its_language() {
    let all = all();
    let count = |language: &str| all.iter().filter(|block| block.language == language).count();
    for (language, least) in [
        ("sh", 25),
        ("xml", 5),
        ("lua", 2),
        ("yaml", 2),
        ("json", 5),
        ("jsonc", 3),
    ] {
        assert!(count(language) >= least, "{language}: {}", count(language));
    }
    let wrong: Vec<_> = all
        .iter()
        .filter_map(|block| Some(format!("{}: {}", block.place, wrong(block)?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn blocks_are_found_and_mistakes_in_them() {
    let text = "a\n\n    if x\n\n    b\n\n- c\n    d\n\n      (e\n  ```xml\n  <a><b></a>\n  ```\n\n```lua\nx = = 1\n```\n\n```yaml\na: [\n```\n\
        ```jsonc\n\"a\": 1,\n\"b\": }\n```\n```\n```\n";
    let blocks = blocks("p", text);
    let found: Vec<_> = blocks
        .iter()
        .map(|block| (block.place.as_str(), block.language.as_str(), block.text.as_str()))
        .collect();
    assert_eq!(found[0], ("p:3", "sh", "if x\nb\n"));
    assert_eq!(found[1], ("p:10", "sh", "(e\n"));
    assert_eq!(found[2], ("p:11", "xml", "<a><b></a>\n"));
    assert_eq!(found.len(), 7);
    for block in &blocks {
        assert!(wrong(block).is_some(), "{}", block.place);
    }
}

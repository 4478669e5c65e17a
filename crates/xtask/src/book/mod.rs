//! `cargo xtask book`: the documents as web pages, and `cargo xtask reference`: the parts of them that are made of the program,
//! and the manual pages.

mod html;
mod man;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use pulldown_cmark::{Options, Parser};

use crate::process::{self, cargo};

pub(crate) use self::html::build;

/// Where the web pages are.
const FOLDER: &str = "target/book";

/// Makes the web pages.
pub(crate) fn run() -> Result<()> {
    let folder = Path::new(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {FOLDER}"))?;
    }
    let count = build(Path::new("."), folder)?;
    println!(
        "{count} pages; the first is {}",
        env::current_dir()?.join(folder).join("index.html").display()
    );
    Ok(())
}

/// Writes the parts of the reference that are made of the program, and the manual pages, which are made of the reference.
pub(crate) fn reference() -> Result<()> {
    for (package, tests) in [("fpush", "reference::"), ("fpush-monitor", "the_page_of_metrics")] {
        let mut write = cargo(&["test", "--package", package, "--lib", tests]);
        write.env("UPDATE_EXPECT", "1").stdin(Stdio::null());
        println!("{}", process::line(&write));
        process::run(&mut write)?;
    }
    for page in &man::PAGES {
        let file = Path::new(page.file);
        let text = page.make(Path::new("."))?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// What a document consists of.
fn parse(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// All Markdown files below a folder, by name.
fn documents(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(documents(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

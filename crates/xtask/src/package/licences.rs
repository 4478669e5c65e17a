//! `THIRD-PARTY`: what the program contains of others, and under which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{cargo, said_by};

/// All libraries of the program with licence and source, and each text that one of them brings.
pub(super) fn third_party() -> Result<String> {
    let tree = said_by(&mut cargo(&TREE.split(' ').collect::<Vec<_>>()))?;
    let linked: BTreeSet<_> = tree.lines().filter_map(name_and_version).collect();
    let metadata = said_by(&mut cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata writes no JSON")?;
    let (mut list, mut texts) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let said = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", said("name"), said("version"));
        // What has no source is ours.
        if package["source"].is_null() || !linked.contains(&name) {
            continue;
        }
        list.push(format!("{name}: {}; {}\n", said("license"), said("repository")));
        for text in texts_beside(Path::new(said("manifest_path")))? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    ensure!(list.len() > 50, "only these libraries were found: {list:?}");
    let texts = texts.into_iter();
    let texts = texts.map(|(text, of)| format!("{RULE}{}:\n\n{text}\n", of.join(", ")));
    Ok(format!("{HEAD}\n{}{}", list.concat(), texts.collect::<String>()))
}

/// From a line such as `h2 v0.4.1 (*)`.
fn name_and_version(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
}

/// The texts of licences and notices at the top of a crate.
fn texts_beside(manifest: &Path) -> Result<BTreeSet<String>> {
    let folder = manifest.parent().context("a manifest is in a folder")?;
    let mut texts = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase());
        let begins = |beginning| name.as_ref().is_some_and(|name| name.starts_with(beginning));
        if path.is_file() && BEGINNINGS.into_iter().any(begins) {
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            texts.insert(String::from_utf8_lossy(&text).replace('\r', "").trim().to_owned());
        }
    }
    Ok(texts)
}

/// What is linked into the program: neither what only tests or builds need nor macros.
const TREE: &str = "tree --locked --package fpush --edges normal,no-proc-macro --prefix none --format {p}";
/// LICENSE, LICENCE, COPYING, COPYRIGHT, and so on.
const BEGINNINGS: [&str; 4] = ["LICEN", "COPY", "NOTICE", "UNLICENSE"];
const RULE: &str = "\n================================================================================\n";
const HEAD: &str = "\
The program contains these libraries, unchanged: name, version, licence, and where the source is. Below are the texts that
they come with; of one that comes without, the name of its licence is all there is. The standard library of Rust is in it,
too (MIT OR Apache-2.0; https://github.com/rust-lang/rust), and SQLite, below libsqlite3-sys, which is in the public domain.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_texts_of_their_licences_are_found() {
        assert_eq!(name_and_version("h2 v0.4.1 (*)").as_deref(), Some("h2 0.4.1"));
        let text = third_party().unwrap();
        for part in [
            "\nrustls ",
            "\nlibsqlite3-sys ",
            ": MPL-2.0; ",
            "Mozilla Public License Version 2.0",
            "Apache License",
        ] {
            assert!(text.contains(part), "no {part}");
        }
        for other in [
            "\nfpush",
            "\nserde_derive ",
            "\nproptest ",
            "\ncriterion ",
            "\nrcgen ",
        ] {
            assert!(!text.contains(other), "{other} is not part of the program");
        }
    }
}

//! The parts of the reference that are made of the program: the tables of settings, and the command line.
//!
//! A page below `docs/reference` says where they stand: between `<!-- made: NAME -->` and `<!-- end -->`.
//! `cargo xtask reference` writes them.

mod commands;
mod settings;

use std::{env, fs, path::Path};

const BEGIN: &str = "<!-- made: ";
const END: &str = "<!-- end -->";

/// Fails if a page differs from what the program is; with `UPDATE_EXPECT=1` in the environment, writes it.
fn compare(page: &str, names: &[&str], make: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(page);
    let found = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (wanted, there) = replaced(&found, make);
    assert_eq!(there, names, "{page} has these parts");
    if wanted == found {
        return;
    }
    assert!(
        env::var_os("UPDATE_EXPECT").is_some(),
        "docs/reference/{page} is not what the program is; run: cargo xtask reference"
    );
    fs::write(&path, wanted).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A page with its parts made anew, and their names.
fn replaced(page: &str, make: impl Fn(&str) -> String) -> (String, Vec<String>) {
    let (mut text, mut names, mut old) = (String::new(), Vec::new(), false);
    for line in page.lines() {
        let name = line
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(" -->"));
        old &= line != END;
        if !old {
            text.extend([line, "\n"]);
        }
        if let Some(name) = name {
            assert!(!old, "{name} begins before the end of another part");
            text.extend(["\n", make(name).trim_end(), "\n\n"]);
            names.push(name.to_owned());
            old = true;
        }
    }
    assert!(!old, "the last part has no end");
    (text, names)
}

/// A row of a table.
fn row(cells: &[&str]) -> String {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// Its first two lines.
fn head(cells: &[&str]) -> String {
    row(cells) + &row(&vec!["---"; cells.len()]).replace(' ', "")
}

#[test]
fn parts_are_replaced_and_all_else_stays() {
    let page = "a\n<!-- made: x y -->\nold\n\n<!-- end -->\nb\n<!-- made: z -->\n<!-- end -->\n";
    let (text, names) = replaced(page, |name| format!("new {name}\n"));
    assert_eq!(
        text,
        "a\n<!-- made: x y -->\n\nnew x y\n\n<!-- end -->\nb\n<!-- made: z -->\n\nnew z\n\n<!-- end -->\n"
    );
    assert_eq!(names, ["x y", "z"]);
    let again = replaced(&text, |name| format!("new {name}\n"));
    assert_eq!(again.0, text);
}

#[test]
fn a_row_may_have_the_sign_between_cells_in_it() {
    assert_eq!(head(&["a", "b"]), "| a | b |\n|---|---|\n");
    assert_eq!(row(&["a|b", "c"]), "| a\\|b | c |\n");
}

//! Tables, as text and as Markdown.

use std::fmt::{self, Display, Formatter};

/// Columns are left-aligned up to the first that holds a number, and right-aligned from there on.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
    /// What one has to know to read it.
    pub(crate) notes: Vec<String>,
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let rule = (0..self.head.len()).map(|column| if self.is_number(column) { "--:" } else { "---" });
        let head = self
            .head
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>();
        let mut lines = vec![
            markdown_row(&head),
            markdown_row(&rule.map(str::to_owned).collect::<Vec<_>>()),
        ];
        lines.extend(self.rows.iter().map(|row| markdown_row(row)));
        let notes = self.notes.iter().map(|note| format!("\n{note}\n"));
        format!(
            "### {}\n\n{}\n{}",
            self.title,
            lines.join("\n"),
            notes.collect::<String>()
        )
    }

    fn is_number(&self, column: usize) -> bool {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let mut cells = cells.filter(|cell| !cell.is_empty());
        column > 0 && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        longest.max(self.head.get(column).map_or(0, |cell| cell.chars().count()))
    }
}

fn markdown_row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let head = self
            .head
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>();
        for row in [&head].into_iter().chain(&self.rows) {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                line += &if self.is_number(column) {
                    format!(" {cell:>width$} ")
                } else {
                    format!(" {cell:<width$} ")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let table = Table {
            title: "Fruit".to_owned(),
            head: &["kind", "grows in", "weight"],
            rows: vec![
                vec!["apple".to_owned(), "Europe".to_owned(), "150 g".to_owned()],
                vec!["fig".to_owned(), String::new(), "40 g".to_owned()],
            ],
            notes: vec!["Ripe.".to_owned()],
        };
        assert_eq!(
            table.to_string(),
            "Fruit\n  kind   grows in  weight\n  apple  Europe     150 g\n  fig                40 g\n\
             \x20 Ripe.\n"
        );
        assert_eq!(
            table.markdown(),
            "### Fruit\n\n| kind | grows in | weight |\n| --- | --- | --: |\n| apple | Europe | 150 g |\n\
             | fig |  | 40 g |\n\nRipe.\n"
        );
    }
}

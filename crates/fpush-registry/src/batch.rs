//! Rows of a table as `mysql --batch` writes them and `LOAD DATA` reads them: a line with the names of the columns, then one
//! for each row. Between values is a tab; a backslash is before whatever would be one in a value.

use std::fmt::Write as _;

/// The names of the columns.
#[derive(Clone, Debug)]
pub(crate) struct Columns(Vec<String>);

/// Why a line is not a row. It holds nothing of the line's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The first line lacks a column.
    #[error(
        "the first line has no column \"{0}\": use the query of the documents, and keep the line with the names"
    )]
    NoColumn(&'static str),
    /// There are more or fewer values than columns.
    #[error("the row has another number of values than the first line")]
    Values,
    /// A column is NULL or empty.
    #[error("the column \"{0}\" is empty")]
    Empty(&'static str),
    /// A column holds something else than it should.
    #[error("the column \"{0}\" does not hold what it should")]
    Column(&'static str),
    /// A field is empty, too long, or has control characters.
    #[error("a field is empty, too long, or has control characters")]
    Field,
}

impl Columns {
    /// Reads the first line, which has to name these columns.
    pub(crate) fn read(line: &str, needed: &[&'static str]) -> Result<Self, RowError> {
        let columns = Self(line.split('\t').map(str::to_owned).collect());
        match needed.iter().find(|name| columns.place(name).is_none()) {
            Some(missing) => Err(RowError::NoColumn(missing)),
            None => Ok(columns),
        }
    }

    /// The values of a row.
    pub(crate) fn row<'a>(&'a self, line: &str) -> Result<Row<'a>, RowError> {
        let values: Vec<_> = line.split('\t').map(value).collect();
        if values.len() == self.0.len() {
            Ok(Row {
                columns: self,
                values,
            })
        } else {
            Err(RowError::Values)
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column.eq_ignore_ascii_case(name))
    }
}

/// A row.
pub(crate) struct Row<'a> {
    columns: &'a Columns,
    values: Vec<Option<String>>,
}

impl Row<'_> {
    /// The value of a column, unless it is NULL or empty.
    pub(crate) fn optional(&self, column: &'static str) -> Option<&str> {
        let place = self.columns.place(column)?;
        self.values[place].as_deref().filter(|value| !value.is_empty())
    }

    /// The value of a column that must have one.
    pub(crate) fn required(&self, column: &'static str) -> Result<&str, RowError> {
        self.optional(column).ok_or(RowError::Empty(column))
    }
}

/// Takes back the escaping; `None` for NULL.
fn value(written: &str) -> Option<String> {
    if written == "NULL" || written == "\\N" {
        return None;
    }
    let (mut value, mut escaped) = (String::with_capacity(written.len()), false);
    for c in written.chars() {
        match (escaped, c) {
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (true, 't') => value.push('\t'),
            (true, 'n') => value.push('\n'),
            (true, '0') => value.push('\0'),
            (true | false, c) => value.push(c),
        }
        escaped = false;
    }
    Some(value)
}

/// A row with these values, without the line feed.
pub(crate) fn line(values: &[&str]) -> String {
    let mut line = String::new();
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            line.push('\t');
        }
        for c in value.chars() {
            // Writing to a string does not fail.
            let _ = match c {
                '\t' => line.write_str("\\t"),
                '\n' => line.write_str("\\n"),
                '\0' => line.write_str("\\0"),
                '\\' => line.write_str("\\\\"),
                c => line.write_char(c),
            };
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(".{0,20}|[\\\\\t\n\0a]{1,6}", 1..5)) {
            let names: Vec<_> = (0..values.len()).map(|number| format!("c{number}")).collect();
            let columns = Columns::read(&names.join("\t"), &["c0"]).unwrap();
            let texts: Vec<_> = values.iter().map(String::as_str).collect();
            let line = line(&texts);
            prop_assert!(!line.contains('\n'));
            let row = columns.row(&line).unwrap();
            for (read, written) in row.values.iter().zip(&values) {
                if written != "NULL" {
                    prop_assert_eq!(read.as_deref(), Some(written.as_str()));
                }
            }
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_not_rows() {
        assert_eq!(
            Columns::read("a\tb", &["a", "c"]).map(drop),
            Err(RowError::NoColumn("c"))
        );
        let columns = Columns::read("a\tB", &["a", "b"]).unwrap();
        assert_eq!(columns.row("1").map(drop), Err(RowError::Values));
        assert_eq!(columns.row("1\t2\t3").map(drop), Err(RowError::Values));
        let row = columns.row("NULL\tx\\").unwrap();
        assert_eq!(row.required("a"), Err(RowError::Empty("a")));
        assert_eq!(row.required("b"), Ok("x"));
    }
}

//! Rows of the table of devices that cannot be read.

use std::fmt;

use crate::device::Dialect;

/// So many devices are in the database and cannot be read: a later version has written them, or they are damaged. Nobody
/// is told that they are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(usize);

impl Unreadable {
    /// `None` if there are none.
    pub(crate) fn of(number: usize) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }
}

/// What happened and what to do, in words.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Dialect::ALL.map(|dialect| format!("'{}'", dialect.name()));
        write!(
            f,
            "registered devices in the database cannot be read ({}): pushes for them are answered wait, and all others work. If a \
             newer version of fpush has written them, use that one; otherwise import them from a backup, or remove them, so \
             that their apps can register again: SELECT node FROM devices WHERE dialect NOT IN ({}), and fpush devices remove",
            self.0,
            names.join(", ")
        )
    }
}

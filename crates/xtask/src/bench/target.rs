//! A figure, and what is to be reached.

use serde_json::{Value, json};

use crate::table::Table;

/// What was measured.
pub(super) struct Target {
    what: String,
    measured: f64,
    /// Where it is a target.
    bound: Option<Bound>,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    /// What is to be read beside targets.
    pub(super) fn none(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            measured,
            bound: None,
            unit,
        }
    }

    pub(super) fn at_most(what: impl Into<String>, measured: f64, most: f64, unit: &'static str) -> Self {
        Self {
            bound: Some(Bound::AtMost(most)),
            ..Self::none(what, measured, unit)
        }
    }

    pub(super) fn at_least(what: impl Into<String>, measured: f64, least: f64, unit: &'static str) -> Self {
        Self {
            bound: Some(Bound::AtLeast(least)),
            ..Self::none(what, measured, unit)
        }
    }

    /// Whether there is something to reach.
    pub(super) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    fn is_met(&self) -> Option<bool> {
        self.bound.map(|bound| match bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        })
    }

    fn figure(&self, figure: f64) -> String {
        let digits = if figure >= 1_000.0 { 0 } else { 2 };
        format!("{figure:.digits$}{}", self.unit)
    }

    /// What was measured, then what another program reached if there is one, the bound, and whether it is met.
    fn cells(&self, other: Option<&Self>) -> Vec<String> {
        let bound = self.bound.map(|bound| match bound {
            Bound::AtMost(most) => format!("at most {}", self.figure(most)),
            Bound::AtLeast(least) => format!("at least {}", self.figure(least)),
        });
        let met = self.is_met().map(|met| if met { "met" } else { "MISSED" });
        let mut cells = vec![self.what.clone()];
        cells.extend(other.map(|other| other.figure(other.measured)));
        cells.extend([
            self.figure(self.measured),
            bound.unwrap_or_default(),
            met.unwrap_or_default().to_owned(),
        ]);
        cells
    }

    pub(super) fn json(&self) -> Value {
        let (at_most, at_least) = match self.bound {
            Some(Bound::AtMost(most)) => (Some(most), None),
            Some(Bound::AtLeast(least)) => (None, Some(least)),
            None => (None, None),
        };
        json!({
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit.trim(),
            "at_most": at_most,
            "at_least": at_least,
            "met": self.is_met(),
        })
    }
}

/// All in one table.
pub(super) fn table<'a>(title: &str, targets: impl IntoIterator<Item = &'a Target>) -> Table {
    Table {
        title: title.to_owned(),
        head: &["", "measured", "target", ""],
        rows: targets.into_iter().map(|target| target.cells(None)).collect(),
        notes: Vec::new(),
    }
}

/// The same beside what another program reached.
pub(super) fn table_against(title: &str, other: &[Target], this: &[Target]) -> Table {
    let both = this.iter().zip(other);
    Table {
        title: title.to_owned(),
        head: &["", "the other", "this", "target", ""],
        rows: both.map(|(this, other)| this.cells(Some(other))).collect(),
        notes: Vec::new(),
    }
}

//! Prometheus's text format: writing metrics of the table, and reading samples.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use crate::table::Metric;

/// Metrics as text.
pub(crate) struct Exposition(pub(crate) String);

impl Exposition {
    /// Appends a metric without labels.
    pub(crate) fn single(&mut self, metric: &Metric, value: f64) {
        self.family(metric, [([], value)]);
    }

    /// Appends all samples of a metric, with the values of its labels in the order of the table. A scrape with two
    /// samples of the same labels is refused as a whole, so of such the first one counts.
    pub(crate) fn family<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], f64)>,
    ) {
        let mut unique = BTreeMap::new();
        for (labels, value) in samples {
            unique.entry(labels).or_insert(value);
        }
        if unique.is_empty() {
            return;
        }
        self.head(metric);
        for (labels, value) in unique {
            let labels = metric.labels.iter().copied().zip(labels);
            self.sample(format_args!("{}", metric.name), labels, value);
        }
    }

    /// Appends what comes before the samples of a metric.
    pub(crate) fn head(&mut self, metric: &Metric) {
        let Metric { name, kind, help, .. } = metric;
        self.write(format_args!(
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.name()
        ));
    }

    /// Appends a sample.
    pub(crate) fn sample<'a>(
        &mut self,
        name: fmt::Arguments<'_>,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        self.write(name);
        let mut before = '{';
        for (label, value) in labels {
            self.write(format_args!("{before}{label}=\"{}\"", escaped(value)));
            before = ',';
        }
        let after = if before == '{' { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }

    fn write(&mut self, what: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(what);
    }
}

fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(value.replace('\n', "\\n"))
}

/// The labels and the value of a line, if it is a sample of this name.
pub(crate) fn sample(line: &str, name: &str) -> Option<(Vec<(String, String)>, f64)> {
    let mut rest = line.strip_prefix(name)?;
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquoted(quoted)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    Some((labels, value))
}

/// The text up to the next quotation mark, and what is behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{COMPONENT_UP, MODULE_TROUBLE, MODULE_UP};

    #[test]
    fn what_is_written_can_be_read() {
        let strange = "a\"b\\n\n{},= ü";
        let mut text = Exposition(String::new());
        text.single(&COMPONENT_UP, 1.0);
        text.family(&MODULE_UP, [(["b"], 0.5), ([strange], -1e9), (["b"], 7.0)]);
        text.family(&MODULE_TROUBLE, [(["m", strange], 1.0)]);
        text.family::<1>(&MODULE_UP, []);
        let lines: Vec<_> = text.0.lines().collect();
        assert_eq!(lines[2], "fpush_component_up 1");
        assert_eq!(lines[4], "# TYPE fpush_module_up gauge");
        assert_eq!(lines.len(), 10, "{lines:#?}");
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(sample(lines[2], "fpush_component_up"), Some((vec![], 1.0)));
        assert_eq!(
            sample(lines[5], "fpush_module_up"),
            Some((vec![label("module", strange)], -1e9))
        );
        assert_eq!(
            sample(lines[6], "fpush_module_up"),
            Some((vec![label("module", "b")], 0.5))
        );
        assert_eq!(
            sample(lines[9], "fpush_module_trouble"),
            Some((vec![label("module", "m"), label("kind", strange)], 1.0))
        );
        assert_eq!(sample(lines[9], "fpush_module"), None);
        assert_eq!(sample("fpush_module_up{module=\"a", "fpush_module_up"), None);
    }
}

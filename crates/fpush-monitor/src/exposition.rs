//! Prometheus's text format.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
};

use fpush_push::metrics::Histogram;

use crate::table::Metric;

/// Metrics as text.
#[derive(Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// All that was appended.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    /// Appends a metric without labels.
    pub(crate) fn single(&mut self, metric: &Metric, value: impl Display) {
        self.family(metric, [([], value)]);
    }

    /// Appends all samples of a metric, with the values of its labels in the order of the table.
    pub(crate) fn family<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], impl Display)>,
    ) {
        self.each(metric, samples, |text, labels, value| {
            text.sample(metric, "", labels, None, value);
        });
    }

    /// Appends counters that are there from their first count on.
    pub(crate) fn counted<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], u64)>,
    ) {
        self.family(metric, samples.into_iter().filter(|(_, count)| *count > 0));
    }

    /// Appends histograms.
    pub(crate) fn histograms<'a, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        histograms: impl IntoIterator<Item = ([&'a str; LABELS], &'a Histogram)>,
    ) {
        self.each(metric, histograms, |text, labels, histogram| {
            let mut total = 0;
            for (bound, count) in histogram.cumulative() {
                text.sample(metric, "_bucket", labels, Some(bound), count);
                total = count;
            }
            text.sample(metric, "_sum", labels, None, histogram.sum().as_secs_f64());
            text.sample(metric, "_count", labels, None, total);
        });
    }

    /// Appends what comes before the samples of a metric, and those. A scrape with two samples of the same labels is
    /// refused as a whole, so of such the first one counts.
    fn each<'a, T, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'a str; LABELS], T)>,
        append: impl Fn(&mut Self, &[&str], T),
    ) {
        let mut unique = BTreeMap::new();
        for (labels, value) in samples {
            unique.entry(labels).or_insert(value);
        }
        if unique.is_empty() {
            return;
        }
        let Metric { name, help, .. } = metric;
        let metric_type = metric.metric_type.name();
        self.write(format_args!(
            "# HELP {name} {help}\n# TYPE {name} {metric_type}\n"
        ));
        for (labels, value) in unique {
            append(self, &labels, value);
        }
    }

    /// Appends a line; `bound` is that of a histogram's range.
    fn sample(
        &mut self,
        metric: &Metric,
        part: &str,
        labels: &[&str],
        bound: Option<f64>,
        value: impl Display,
    ) {
        self.write(format_args!("{}{part}", metric.name));
        let mut before = '{';
        for (label, value) in metric.labels.iter().zip(labels) {
            self.write(format_args!("{before}{label}=\"{}\"", escaped(value)));
            before = ',';
        }
        match bound {
            Some(f64::INFINITY) => self.write(format_args!("{before}le=\"+Inf\"}}")),
            Some(bound) => self.write(format_args!("{before}le=\"{bound}\"}}")),
            None if before == ',' => self.write(format_args!("}}")),
            None => {}
        }
        self.write(format_args!(" {value}\n"));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fpush_testkit::Scrape;

    use super::*;
    use crate::table::{
        MODULE_TROUBLE, MODULE_UP, PROVIDER_DURATION, REGISTERED_DEVICES, RELOADS, REPLY_DURATION,
    };

    #[test]
    fn what_is_written_can_be_read() {
        let strange = "a\"b\\n\n{},= ü";
        let mut text = Exposition::default();
        text.single(&REGISTERED_DEVICES, 1);
        text.family(&MODULE_UP, [(["b"], 0.5), ([strange], -1e9), (["b"], 7.0)]);
        text.family(&MODULE_TROUBLE, [(["m", strange], 1)]);
        text.family(&MODULE_UP, [([""; 1], 0); 0]);
        text.counted(&RELOADS, [(["ok"], 0), (["refused"], u64::MAX)]);
        let text = text.into_text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2], "fpush_registered_devices 1");
        assert_eq!(lines[4], "# TYPE fpush_module_up gauge");
        assert_eq!(
            lines[12],
            "fpush_reloads_total{result=\"refused\"} 18446744073709551615"
        );
        assert_eq!(lines.len(), 13, "{lines:#?}");
        let scrape = Scrape::parse(&text).unwrap();
        for (name, labels, value) in [
            ("fpush_registered_devices", [].as_slice(), 1.0),
            ("fpush_module_up", &[("module", "b")], 0.5),
            ("fpush_module_up", &[("module", strange)], -1e9),
            ("fpush_module_trouble", &[("module", "m"), ("kind", strange)], 1.0),
        ] {
            assert_eq!(scrape.value(name, labels), Some(value), "{name} {labels:?}");
        }
    }

    #[test]
    fn a_histogram_has_its_ranges_its_sum_and_its_count() {
        let histogram = Histogram::new(&[0.005, 30.0]);
        for micros in [5_000, 5_001, 30_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut text = Exposition::default();
        text.histograms(&PROVIDER_DURATION, [(["a"], &histogram)]);
        text.histograms(&REPLY_DURATION, [([], &histogram)]);
        let text = text.into_text();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE fpush_provider_duration_seconds histogram",
                "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.005\"} 1",
                "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"30\"} 2",
                "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"+Inf\"} 3",
                "fpush_provider_duration_seconds_sum{module=\"a\"} 30.010002",
                "fpush_provider_duration_seconds_count{module=\"a\"} 3",
                "# TYPE fpush_reply_duration_seconds histogram",
                "fpush_reply_duration_seconds_bucket{le=\"0.005\"} 1",
                "fpush_reply_duration_seconds_bucket{le=\"30\"} 2",
                "fpush_reply_duration_seconds_bucket{le=\"+Inf\"} 3",
                "fpush_reply_duration_seconds_sum 30.010002",
                "fpush_reply_duration_seconds_count 3",
            ]
        );
    }
}

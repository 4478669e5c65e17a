//! Histograms: a counter for each range. Those of the exporter keep every single value until they are read, which takes
//! time and memory at a hundred thousand pushes a second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::{
    exposition::Exposition,
    table::{Kind, METRICS, Metric},
};

/// The recorder of this process: histograms of the table are ours, everything else is the exporter's.
pub(crate) struct Recording {
    pub(crate) exporter: PrometheusRecorder,
    pub(crate) histograms: Arc<Histograms>,
}

/// All histograms.
#[derive(Default)]
pub(crate) struct Histograms(Mutex<BTreeMap<&'static str, Family>>);

/// The histograms of one name, by the values of their labels in the order of the table.
type Family = BTreeMap<Vec<String>, Arc<Buckets>>;

/// One histogram.
#[derive(Debug)]
pub(crate) struct Buckets {
    bounds: &'static [f64],
    /// How many values were in each range; the last one is above all bounds.
    counts: Box<[AtomicU64]>,
    /// The sum of all values, in billionths: they are seconds.
    sum: AtomicU64,
}

impl Histograms {
    /// The histogram of this key, if its name is that of one in the table.
    fn of(&self, key: &Key) -> Option<Arc<Buckets>> {
        let metric = METRICS.iter().find(|metric| metric.name == key.name())?;
        let Kind::Histogram(bounds) = metric.kind else {
            return None;
        };
        let value = |name: &&str| {
            let mut labels = key.labels();
            let label = labels.find(|label| label.key() == *name);
            label.map_or_else(String::new, |label| label.value().to_owned())
        };
        let labels = metric.labels.iter().map(value).collect();
        let mut families = self.lock();
        let histogram = families.entry(metric.name).or_default().entry(labels);
        Some(Arc::clone(
            histogram.or_insert_with(|| Arc::new(Buckets::new(bounds))),
        ))
    }

    /// Appends all of them.
    pub(crate) fn write(&self, text: &mut Exposition) {
        let families = self.lock();
        for metric in METRICS {
            if let Some(family) = families.get(metric.name) {
                text.head(metric);
                for (labels, histogram) in family {
                    histogram.write(metric, labels, text);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn write(&self, metric: &Metric, values: &[String], text: &mut Exposition) {
        let name = metric.name;
        let labels = || {
            metric
                .labels
                .iter()
                .copied()
                .zip(values.iter().map(String::as_str))
        };
        let bounds = self.bounds.iter().map(f64::to_string);
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            let labels = labels().chain([("le", &*bound)]);
            text.sample(format_args!("{name}_bucket"), labels, total as f64);
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / BILLION;
        text.sample(format_args!("{name}_sum"), labels(), sum);
        text.sample(format_args!("{name}_count"), labels(), total as f64);
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * BILLION) as u64, Ordering::Relaxed);
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        match self.histograms.of(key) {
            Some(histogram) => Histogram::from_arc(histogram),
            None => self.exporter.register_histogram(key, metadata),
        }
    }
}

const BILLION: f64 = 1e9;

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn values_are_counted_at_and_below_their_bounds() {
        let histograms = Histograms::default();
        let key = |module| {
            Key::from_parts(
                "fpush_provider_duration_seconds",
                vec![Label::new("module", module)],
            )
        };
        let first = histograms.of(&key("a")).unwrap();
        for value in [0.0, 0.005, 0.006, 0.25, 30.0, 30.001] {
            first.record(value);
        }
        histograms.of(&key("a")).unwrap().record(0.1);
        histograms.of(&key("b\"")).unwrap().record(1.0);
        assert!(histograms.of(&Key::from_name("fpush_component_up")).is_none());
        let mut text = Exposition(String::new());
        histograms.write(&mut text);
        let text = text.0;
        for line in [
            "# TYPE fpush_provider_duration_seconds histogram",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.005\"} 2",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.01\"} 3",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.05\"} 3",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.1\"} 4",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"0.25\"} 5",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"30\"} 6",
            "fpush_provider_duration_seconds_bucket{module=\"a\",le=\"+Inf\"} 7",
            "fpush_provider_duration_seconds_sum{module=\"a\"} 60.362",
            "fpush_provider_duration_seconds_count{module=\"a\"} 7",
            "fpush_provider_duration_seconds_count{module=\"b\\\"\"} 1",
        ] {
            assert!(text.lines().any(|its| its == line), "no {line}\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), 1);
    }
}

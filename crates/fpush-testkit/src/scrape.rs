//! What an operator sees of a daemon from outside: its metrics, its readiness and its status page.
//!
//! The requests are written by hand, so that what is tested is what stands on the wire and not what a library makes
//! of it.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::Daemon;
use crate::LONG;

/// The listener of the setting `monitoring`.
#[derive(Clone, Copy, Debug)]
pub struct Monitoring {
    address: SocketAddr,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// All metrics at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// As they came.
    pub text: String,
    /// Taken apart.
    pub samples: Vec<Sample>,
}

/// One line of metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name, with `_bucket` and the like.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Monitoring {
    /// That of a daemon, which says in its log where it listens; the last such line counts. Panics when `timeout` is
    /// over.
    #[track_caller]
    pub fn of(daemon: &Daemon, timeout: Duration) -> Self {
        const OPEN: &str = "metrics and status page are open";
        daemon.wait_for_log(OPEN, timeout);
        let log = daemon.log();
        let line = log.lines().rfind(|line| line.contains(OPEN)).unwrap();
        let address = line.split(|c: char| !(c.is_ascii_digit() || ".:".contains(c)));
        let address = address
            .filter_map(|part| part.trim_start_matches(':').parse().ok())
            .next_back();
        Self {
            address: address.unwrap_or_else(|| panic!("no address in {line}")),
        }
    }

    /// Where it listens.
    pub fn address(self) -> SocketAddr {
        self.address
    }

    /// `GET`s a path.
    #[track_caller]
    pub fn get(self, path: &str) -> Page {
        self.request("GET", path)
    }

    /// Sends a request without a body. Panics if there is no answer.
    #[track_caller]
    pub fn request(self, method: &str, path: &str) -> Page {
        self.try_request(method, path)
            .unwrap_or_else(|e| panic!("{method} {path} has no answer: {e}"))
    }

    /// The same where there may be no answer.
    pub fn try_request(self, method: &str, path: &str) -> io::Result<Page> {
        let mut stream = TcpStream::connect_timeout(&self.address, LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        let host = self.address;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Page::parse(&answer).ok_or_else(|| io::Error::other(format!("this is not an answer: {answer:?}")))
    }

    /// The metrics. Panics if one of their lines cannot be read.
    #[track_caller]
    pub fn scrape(self) -> Scrape {
        let page = self.get("/metrics");
        assert_eq!(page.status, 200, "{}", page.body);
        Scrape::parse(&page.body).unwrap_or_else(|line| panic!("no metric: {line:?}"))
    }

    /// What the status page shows; `null` before there is anything.
    #[track_caller]
    pub fn status(self) -> Value {
        let page = self.get("/status.json");
        if page.status == 503 {
            return Value::Null;
        }
        assert_eq!(page.status, 200, "{}", page.body);
        serde_json::from_str(&page.body).unwrap()
    }

    /// The status and the text of `/readyz`.
    #[track_caller]
    pub fn readiness(self) -> (u16, String) {
        let page = self.get("/readyz");
        (page.status, page.body)
    }

    /// Waits until the daemon has taken note of what it is now, which it does once a second. What happened before this
    /// call is in the status, the metrics and the readiness after it.
    #[track_caller]
    pub fn wait_for_news(self) {
        // In two seconds from now a status that is less than a second old is younger than this call.
        let uptime = || self.status()["uptime"].as_u64().map(|uptime| uptime + 2);
        let end = Instant::now() + LONG;
        let mut until = uptime();
        loop {
            let now = self.status();
            let known = until.zip(now["uptime"].as_u64());
            if known.is_some_and(|(until, uptime)| uptime >= until && now["age"] == 0) {
                return;
            }
            assert!(Instant::now() < end, "no news within {LONG:?}: {now}");
            until = until.or_else(uptime);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Page {
    fn parse(answer: &str) -> Option<Self> {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            status,
            headers,
            body: body.to_owned(),
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }
}

impl Scrape {
    /// Takes Prometheus' text format apart; the line that cannot be read, if there is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| Sample::parse(line).ok_or_else(|| line.to_owned()));
        Ok(Self {
            text: text.to_owned(),
            samples: samples.collect::<Result<_, _>>()?,
        })
    }

    /// The samples of this name that have at least these labels.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(label, value): &(&str, &str)| sample.label(label) == Some(value);
            sample.name == name && labels.iter().all(has)
        })
    }

    /// The sum of the samples of this name that have at least these labels, if there are any.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(name, labels)
            .map(|sample| sample.value)
            .reduce(|a, b| a + b)
    }

    /// Whether a comparison holds, as an alert would make it: `name{label="value"} >= 1`. Samples that have more labels
    /// than those count together; of no sample at all nothing holds but `absent`: `name{label="value"} absent`. Panics
    /// if it is not a comparison.
    #[track_caller]
    pub fn holds(&self, comparison: &str) -> bool {
        let wrong = || -> ! { panic!("{comparison:?} is not a comparison") };
        let (series, compared) = match comparison.strip_suffix(" absent") {
            Some(series) => (series, None),
            None => {
                let mut parts = comparison.rsplitn(3, ' ');
                let (Some(limit), Some(operator), Some(series)) = (parts.next(), parts.next(), parts.next())
                else {
                    wrong()
                };
                (series, Some((operator, limit)))
            }
        };
        let Some(wanted) = Sample::parse(&format!("{series} 0")) else {
            wrong()
        };
        let labels: Vec<_> = wanted
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let value = self.value(&wanted.name, &labels);
        let Some((operator, limit)) = compared else {
            return value.is_none();
        };
        let Ok(limit) = limit.parse::<f64>() else { wrong() };
        value.is_some_and(|value| match operator {
            "==" => value == limit,
            "<" => value < limit,
            "<=" => value <= limit,
            ">" => value > limit,
            ">=" => value >= limit,
            _ => wrong(),
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, quoted) = rest.split_once("=\"")?;
                let (value, after) = unquoted(quoted)?;
                labels.insert(label.to_owned(), value).is_none().then_some(())?;
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.strip_prefix(' ')?.parse().ok()?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
        };
        (is_name(name) && labels.keys().all(|label| is_name(label))).then(|| Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
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
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{m=\"x\",o=\"one\"} 1\n\
                           a_total{m=\"x\",o=\"two\"} 2\na_total{m=\"y \\\"\\\\\\n},\"} 4\n\nup 1\nage -1.5e3\n";

    #[test]
    fn metrics_are_found_by_name_and_labels() {
        let scrape = Scrape::parse(METRICS).unwrap();
        assert_eq!(scrape.samples.len(), 5);
        assert_eq!(scrape.value("a_total", &[]), Some(7.0));
        assert_eq!(scrape.value("a_total", &[("m", "x")]), Some(3.0));
        assert_eq!(scrape.value("a_total", &[("o", "two"), ("m", "x")]), Some(2.0));
        assert_eq!(scrape.value("a_total", &[("m", "y \"\\\n},")]), Some(4.0));
        assert_eq!(scrape.value("a_total", &[("m", "z")]), None);
        assert_eq!(scrape.value("a", &[]), None);
        assert_eq!(scrape.value("age", &[]), Some(-1_500.0));
    }

    #[test]
    fn comparisons_are_those_of_alerts() {
        let scrape = Scrape::parse(METRICS).unwrap();
        for holds in [
            "up == 1",
            "age < 0",
            "a_total{m=\"x\"} >= 3",
            "a_total{m=\"x\",o=\"one\"} <= 1",
            "a_total > 6",
            "a_total{m=\"z\"} absent",
        ] {
            assert!(scrape.holds(holds), "{holds}");
        }
        for not in ["up == 0", "a_total{m=\"z\"} >= 0", "up absent", "a_total < 7"] {
            assert!(!scrape.holds(not), "{not}");
        }
    }

    #[test]
    fn what_is_not_a_metric_is_refused() {
        for line in [
            "a",
            "a b",
            "a{m=\"x\" 1",
            "a{m=\"x\"}",
            "{} 1",
            "a{m=\"\\x\"} 1",
            "a{m=\"1\",m=\"2\"} 1",
        ] {
            assert_eq!(Scrape::parse(line).unwrap_err(), line);
        }
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let page = Page::parse("HTTP/1.1 503 Bad\r\nA-b: c: d\r\n\r\nx\r\n\r\ny").unwrap();
        assert_eq!(
            (page.status, page.header("a-b"), &*page.body),
            (503, Some("c: d"), "x\r\n\r\ny")
        );
        assert!(Page::parse("HTTP/1.1 200 OK\r\n").is_none());
    }
}

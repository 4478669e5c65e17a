//! Dashboard and alerts name only metrics and labels that there are.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{METRICS, Metric};

/// Labels that Prometheus adds, or that a histogram has.
const ALWAYS: [&str; 3] = ["instance", "job", "le"];

fn contrib() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib")
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The names of metrics in a text, each with the text behind it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(part) {
        let word = &rest[at..];
        let (name, behind) = word.split_at(word.find(|c| !part(c)).unwrap_or(word.len()));
        if name.starts_with("fpush_") || name.starts_with("process_") {
            found.push((name, behind));
        }
        rest = behind;
    }
    found
}

fn metric(name: &str) -> Option<&'static Metric> {
    let find = |name| METRICS.iter().find(|metric| metric.name == name);
    let of_histogram =
        |suffix| find(name.strip_suffix(suffix)?).filter(|metric| metric.metric_type.name() == "histogram");
    find(name).or_else(|| ["_bucket", "_sum", "_count"].into_iter().find_map(of_histogram))
}

/// The names of the labels in what follows the name of a metric.
fn selected(behind: &str) -> Vec<&str> {
    let inside = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
    let mut quoted = false;
    inside.map_or_else(Vec::new, |(inside, _)| {
        inside
            .split(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            })
            .filter_map(|matcher| matcher.split_once(['=', '!']))
            .map(|(label, _)| label.trim())
            .collect()
    })
}

/// The names in `by (…)`, `{{…}}` and `$labels.…`.
fn used(text: &str) -> Vec<&str> {
    let between = |begin: &'static str, end: &'static str| {
        text.split(begin)
            .skip(1)
            .filter_map(move |part| Some(part.split_once(end)?.0))
    };
    let grouped = between("by (", ")").flat_map(|labels| labels.split(','));
    let templates = between("{{", "}}").filter_map(|template| match template.trim() {
        template if template.starts_with("$labels.") => template.strip_prefix("$labels."),
        template => (!template.contains('$')).then_some(template),
    });
    grouped.chain(templates).map(str::trim).collect()
}

#[test]
fn every_name_is_in_the_table() {
    let labels: BTreeSet<_> = METRICS
        .iter()
        .flat_map(|metric| metric.labels)
        .chain(&ALWAYS)
        .collect();
    let mut seen = BTreeSet::new();
    let folders = ["grafana", "prometheus"].map(|folder| contrib().join(folder));
    for file in folders.iter().flat_map(|folder| files(folder)) {
        // JSON escapes the quotation marks of PromQL.
        let text = fs::read_to_string(&file).unwrap().replace("\\\"", "\"");
        let file = file.display();
        for (name, behind) in named(&text) {
            let metric = metric(name).unwrap_or_else(|| panic!("{file}: there is no metric {name}"));
            seen.insert(metric.name);
            for label in selected(behind) {
                let known = metric.labels.contains(&label) || ALWAYS.contains(&label);
                assert!(known, "{file}: {name} has no label {label}");
            }
        }
        for label in used(&text) {
            assert!(labels.contains(&label), "{file}: no metric has a label {label}");
        }
    }
    for metric in METRICS {
        let shown = seen.contains(metric.name) || metric.name == "process_threads";
        assert!(
            shown,
            "{} is neither on the dashboard nor in an alert",
            metric.name
        );
    }
}

/// Code cannot write what is not in the table, but tests and documents could name it.
#[test]
fn every_metric_that_is_named_anywhere_is_in_the_table() {
    let root = contrib().join("..").canonicalize().unwrap();
    let crates = root.join("crates");
    let ours: BTreeSet<_> = fs::read_dir(&crates)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .replace('-', "_")
        })
        .collect();
    let documents =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name));
    let folders = [root.join("docs"), crates.join("fpush/tests")];
    // Variables of the Ansible role begin with the same word.
    let role = fs::read_to_string(contrib().join("ansible/roles/fpush/meta/argument_specs.yml")).unwrap();
    let variables: BTreeSet<_> = named(&role).into_iter().map(|(name, _)| name).collect();
    let mut seen = BTreeSet::new();
    for file in documents
        .into_iter()
        .chain(folders.iter().flat_map(|folder| files(folder)))
    {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        for (name, _) in named(&text) {
            // Others are crates and files of packages.
            let is_metric =
                |rest: &str| !rest.is_empty() && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_'));
            if !ours.contains(name)
                && !variables.contains(name)
                && name.strip_prefix("fpush_").is_some_and(is_metric)
            {
                let metric = metric(name);
                let metric =
                    metric.unwrap_or_else(|| panic!("{}: there is no metric {name}", file.display()));
                seen.insert(metric.name);
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn the_outcomes_of_the_error_ratio_are_those_that_count_as_failed_here() {
    use fpush_push::Outcome;

    use crate::history::Group;
    let failed: BTreeSet<_> = Outcome::ALL
        .into_iter()
        .filter(|outcome| Group::of(*outcome) == Group::Failed)
        .map(Outcome::name)
        // A stop is not an error.
        .filter(|name| *name != "shutting_down")
        .collect();
    for file in ["prometheus/alerts.yml", "grafana/fpush.json"] {
        let text = fs::read_to_string(contrib().join(file))
            .unwrap()
            .replace("\\\"", "\"");
        let (_, list) = text.split_once("outcome=~\"").unwrap();
        let (list, _) = list.split_once('"').unwrap();
        assert_eq!(list.split('|').collect::<BTreeSet<_>>(), failed, "{file}");
    }
}

fn dashboard() -> Value {
    let text = fs::read_to_string(contrib().join("grafana/fpush.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What Grafana expects and does not complain of: it shows an empty panel instead.
#[test]
fn the_dashboard_is_one_that_grafana_shows() {
    let dashboard = dashboard();
    // From 36 on a datasource is an object, and Grafana 10 has 38; what is newer migrates older ones.
    assert!((36..=38).contains(&dashboard["schemaVersion"].as_u64().unwrap()));
    assert!(dashboard["uid"].as_str().unwrap().len() <= 40);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
    let variables: BTreeSet<_> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .chain(["__rate_interval"])
        .collect();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24 && w > 0 && h > 0, "{title} is too wide, or nothing");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies on another panel");
        }
        let kind = panel["type"].as_str().unwrap();
        if kind == "row" {
            assert_eq!(
                panel["collapsed"], false,
                "{title}: its panels would have to be inside"
            );
            continue;
        }
        assert!(KINDS.contains(&kind), "{title}: {kind}");
        let look = &panel["fieldConfig"]["defaults"];
        let turns_red = look["thresholds"]["steps"].as_array().unwrap().len() > 1;
        assert!(
            !turns_red || look["color"]["mode"] == "thresholds",
            "{title} keeps its colour"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks for nothing");
        let mut names = BTreeSet::new();
        for target in targets {
            assert!(
                names.insert(target["refId"].as_str().unwrap()),
                "{title}: two of one refId"
            );
            assert_ne!(target["instant"], target["range"], "{title}");
            for part in target["expr"].as_str().unwrap().split('$').skip(1) {
                let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let variable = &part[..end.unwrap_or(part.len())];
                assert!(
                    variables.contains(variable),
                    "{title}: there is no variable {variable}"
                );
            }
        }
        for asking in targets.iter().chain([panel]) {
            let datasource = &asking["datasource"];
            assert_eq!(
                (&datasource["type"], &datasource["uid"]),
                (&json!("prometheus"), &json!("${datasource}")),
                "{title}"
            );
        }
    }
}

/// Panels that every Grafana has.
const KINDS: [&str; 5] = ["bargauge", "stat", "state-timeline", "table", "timeseries"];

/// Where there is a promtool.
#[test]
fn promtool_takes_the_questions_of_the_dashboard() {
    let dashboard = dashboard();
    let targets = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let rules: Vec<_> = targets
        .flatten()
        .enumerate()
        .map(|(at, target)| {
            let question = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            json!({ "record": format!("question_{at}"), "expr": question })
        })
        .collect();
    assert!(rules.len() > 30, "{rules:?}");
    // JSON is YAML.
    let folder = fpush_testkit::temp_dir::TempDir::new();
    let file = folder.path().join("rules.yml");
    fs::write(
        &file,
        json!({ "groups": [{ "name": "questions", "rules": rules }] }).to_string(),
    )
    .unwrap();
    let Ok(output) = Command::new("promtool")
        .args(["check", "rules"])
        .arg(file)
        .output()
    else {
        println!("there is no promtool: apt-get install prometheus");
        return;
    };
    assert!(output.status.success(), "{output:?}");
}

/// Where there is a promtool.
#[test]
fn promtool_takes_the_alerts() {
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let folder = contrib().join("prometheus");
        let Ok(output) = Command::new("promtool")
            .args(arguments)
            .current_dir(folder)
            .output()
        else {
            println!("there is no promtool: apt-get install prometheus");
            return;
        };
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn every_alert_has_a_test_that_it_fires_and_one_that_it_is_quiet() {
    let read = |name: &str| fs::read_to_string(contrib().join("prometheus").join(name)).unwrap();
    let (alerts, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let names: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        for what in ["fires", "is quiet"] {
            let test = format!("- name: {name} {what}");
            assert!(
                tests.lines().any(|line| line.trim() == test),
                "there is no {test}"
            );
        }
    }
}

/// The headings of a page, as links name them.
fn anchors(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            title
                .to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_alert_has_its_place_in_the_runbook_and_is_named_there() {
    let runbook = fs::read_to_string(contrib().join("../docs/operate/runbook.md")).unwrap();
    let alerts = fs::read_to_string(contrib().join("prometheus/alerts.yml")).unwrap();
    let anchors = anchors(&runbook);
    let alerts: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        let (_, link) = alert
            .split_once("docs/operate/runbook.md#")
            .unwrap_or_else(|| panic!("{name} names no part of the runbook"));
        let anchor = link.split_whitespace().next().unwrap();
        assert!(anchors.contains(anchor), "{name}: the runbook has no #{anchor}");
        let part = runbook
            .split("\n## ")
            .find(|part| self::anchors(&format!("## {part}")).contains(anchor))
            .unwrap();
        assert!(
            part.contains(&format!("`{name}`")),
            "#{anchor} does not name {name}"
        );
    }
}

/// With `UPDATE_EXPECT=1` in the environment it writes the page.
#[test]
fn the_page_of_metrics_has_all_of_them() {
    let path = contrib().join("../docs/reference/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (mut wanted, mut about) = (page.split("\n## ").next().unwrap().to_owned(), "");
    for metric in METRICS {
        if metric.about != about {
            about = metric.about;
            wanted += &format!("\n## {about}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
        }
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels) = (metric.metric_type.name(), labels.join(", "));
        wanted += &format!("| `{}` | {name} | {labels} | {} |\n", metric.name, metric.help);
    }
    if wanted == page {
        return;
    }
    assert!(
        env::var_os("UPDATE_EXPECT").is_some(),
        "docs/reference/metrics.md is not what the program is; run: cargo xtask reference"
    );
    fs::write(path, wanted).unwrap();
}

#[test]
fn the_readers_of_this_test_find_what_they_look_for() {
    let text =
        "rate(fpush_x_total{a=~\"b,c\", d!=\"e\"}[5m]) by (f, g) {{h}} {{ $labels.i }} {{ $value | x }}";
    assert_eq!(named(text)[0].0, "fpush_x_total");
    assert_eq!(selected(named(text)[0].1), ["a", "d"]);
    assert_eq!(used(text), ["f", "g", "h", "i"]);
    assert_eq!(
        metric("fpush_reply_duration_seconds_bucket").unwrap().name,
        "fpush_reply_duration_seconds"
    );
    assert!(metric("fpush_pushes_total_bucket").is_none());
}

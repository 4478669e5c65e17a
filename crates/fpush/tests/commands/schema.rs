//! `fpush schema`, as an editor uses it: with a validator that is not ours.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
};

use fpush_testkit::{TempDir, run_to_end};
use serde_json::{Value, json};

use crate::rig::{PROGRAM, Place};

/// Says of each file whether it is what the schema wants.
const VALIDATOR: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
for name in sys.argv[2:]:
    print(json.dumps([error.json_path for error in Draft202012Validator(schema).iter_errors(json.load(open(name)))]))
";

fn python(args: &[&str]) -> io::Result<Output> {
    Command::new("python3").args(args).output()
}

fn schema() -> Value {
    let said = run_to_end(PROGRAM, ["schema"], Path::new("."));
    assert!(said.status.success());
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The places where settings are not what the schema wants. Panics if there is no validator.
fn validate(all: &[Value]) -> Vec<Vec<String>> {
    assert!(
        python(&["-c", "import jsonschema"]).is_ok_and(|said| said.status.success()),
        "this test needs python3-jsonschema: apt-get install python3-jsonschema"
    );
    let dir = TempDir::new();
    let file = |name: String, value: &Value| dir.write(&name, value.to_string()).display().to_string();
    let schema = file("schema".to_owned(), &schema());
    let files = all
        .iter()
        .enumerate()
        .map(|(number, value)| file(number.to_string(), value));
    let files: Vec<_> = files.collect();
    let args = ["-c", VALIDATOR, &schema];
    let said = python(
        &args
            .into_iter()
            .chain(files.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout).unwrap();
    let places = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    places.collect()
}

#[test]
fn what_check_accepts_the_schema_accepts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings/valid");
    let (mut names, mut all) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Some have comments, and some another spelling of JSON.
        if path.extension().is_some_and(|extension| extension == "json")
            && let Ok(settings) = serde_json::from_slice(&fs::read(&path).unwrap())
        {
            names.push(path);
            all.push(settings);
        }
    }
    assert!(all.len() > 20, "{names:?}");
    for (name, wrong) in names.iter().zip(validate(&all)) {
        assert_eq!(wrong, [""; 0], "{}", name.display());
    }
}

#[test]
fn what_is_wrong_is_found_at_its_place() {
    let place = Place::new();
    let good: Value = serde_json::from_slice(&fs::read(place.settings()).unwrap()).unwrap();
    let with = |pointer: &str, key: &str, value: Value| {
        let mut settings = good.clone();
        settings.pointer_mut(pointer).unwrap()[key] = value;
        settings
    };
    let cases = [
        (good.clone(), ""),
        (with("", "$schema", json!("settings.schema.json")), ""),
        (with("", "monitring", json!({})), "$"),
        (
            with("/component", "serverPort", json!(70_000)),
            "$.component.serverPort",
        ),
        (
            with("/component", "serverPort", json!("5347")),
            "$.component.serverPort",
        ),
        (with("/component", "tls", json!(true)), ""),
        (with("/component", "tls", json!({ "serverName": "x" })), ""),
        (
            with("/component", "tls", json!({ "serverNam": "x" })),
            "$.component.tls",
        ),
        (
            with("", "component", json!([good["component"], good["component"]])),
            "",
        ),
        (with("", "component", json!([])), "$.component"),
        (
            with(
                "",
                "component",
                json!([{ "componentHostname": "a", "serverHostname": "b" }]),
            ),
            "$.component[0]",
        ),
        (
            with("/pushModules/ios", "type", json!("aple")),
            "$.pushModules.ios.type",
        ),
        (
            with("/pushModules/ios/apns", "pushTtl", json!("soon")),
            "$.pushModules.ios.apns.pushTtl",
        ),
        (with("/pushModules/ios/apns", "pushTtl", json!("1h 30min")), ""),
        (
            with("/pushModules/ios/apns", "requestTimeout", json!(0)),
            "$.pushModules.ios.apns.requestTimeout",
        ),
        (
            with("/pushModules/ios/apns", "badge", json!("all")),
            "$.pushModules.ios.apns.badge",
        ),
        (with("/pushModules/ios/apns", "badge", json!(3)), ""),
        (
            with("/pushModules/android/fcm", "additionalData", json!({ "a": 1 })),
            "$.pushModules.android.fcm.additionalData.a",
        ),
        (with("/pushModules", "m", json!({})), "$.pushModules.m"),
        (with("", "pushModules", json!({})), "$.pushModules"),
    ];
    let all: Vec<_> = cases.iter().map(|(settings, _)| settings.clone()).collect();
    for ((settings, expected), found) in cases.iter().zip(validate(&all)) {
        let expected: Vec<_> = [*expected]
            .into_iter()
            .filter(|place| !place.is_empty())
            .collect();
        assert_eq!(found, expected, "{settings}");
    }
}

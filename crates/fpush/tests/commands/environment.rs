//! Settings in variables of the environment.

use fpush_testkit::Daemon;
use serde_json::json;

use crate::rig::{CONFIG, LONG, PROGRAM, Place, RESULT, Running, apple};

/// The place without the secret of the link and without the module `ios`, which is called `my-ios` instead.
fn place() -> Place {
    let place = Place::new();
    place.set(|settings| {
        settings["component"]
            .as_object_mut()
            .unwrap()
            .remove("componentKey");
        let modules = settings["pushModules"].as_object_mut().unwrap();
        let ios = modules.remove("ios").unwrap();
        modules.insert("my-ios".to_owned(), ios);
    });
    place
}

#[test]
fn settings_of_every_type_come_from_variables() {
    let place = place();
    let variables = [
        // A text that looks like something else.
        ("FPUSH__component__componentKey", "777888999"),
        ("FPUSH__component__serverHostname", "\"localhost\""),
        ("FPUSH__component__maxStanzaSize", "20000"),
        ("FPUSH__pushModules__my_ios__is_default_module", "true"),
        ("FPUSH__pushModules__my_ios__maxInFlight", "7"),
        (
            "FPUSH__pushModules__my_ios__ratelimit",
            r#"{ "enabled": false, "ratelimitTime": "9s" }"#,
        ),
        ("FPUSH__pushModules__my_ios__ratelimit__enabled", "true"),
        ("FPUSH__pushModules__my_ios__apns__topic", "org.example.other"),
        ("FPUSH__pushModules__my_ios__apns__requestTimeout", "3s"),
        ("FPUSH__pushModules__my_ios__apns__poolIdleTimeout", "60"),
        ("FPUSH__pushModules__my_ios__apns__badge", "count"),
        ("FPUSH__pushModules__my_ios__apns__relevanceScore", "0.5"),
        ("FPUSH__pushModules__my_ios__apns__alertTitle", ""),
        ("FPUSH__pushModules__my_ios__apns__alertTitleLocKey", "NEW"),
        (
            "FPUSH__pushModules__my_ios__apns__alertTitleLocArgs",
            r#"["a", "b"]"#,
        ),
        ("FPUSH__pushModules__my_ios__apns__additionalData__number", "5"),
        (
            "FPUSH__pushModules__my_ios__apns__additionalData__words",
            "not JSON",
        ),
        ("FPUSH__pushModules__android__fcm__additionalData__text", "5"),
        ("FPUSH__pushModules__more", r#"{ "type": "demo" }"#),
        ("FPUSH__logging__level", "debug"),
    ];
    let said = place.run_with(&["check", "--show-payloads"], &variables);
    let mut expected: Vec<_> = vec![
        "component.componentKey is what the environment variable FPUSH__component__componentKey says".to_owned(),
        "pushModules.my-ios.apns.topic is what the environment variable FPUSH__pushModules__my_ios__apns__topic says"
            .to_owned(),
        format!("component push.localhost at localhost port {}", place.xmpp.port()),
    ];
    for part in [
        "  project: project-1",
        "module my-ios (apple, default)",
        "  topic: org.example.other",
        "  rate limit: 9s between",
        "  at the provider at a time: 7",
        "module more (demo)",
        "log level: debug",
        "\"text\": \"5\"",
        "\"title-loc-key\": \"NEW\"",
        "\"relevance-score\": 0.5",
        "\"badge\": 1",
        "\"number\": 5",
        "\"words\": \"not JSON\"",
    ] {
        expected.push(part.to_owned());
    }
    assert_eq!(said.status, Some(0), "{}", said.err);
    for part in &expected {
        assert!(said.out.contains(part), "no {part:?} in {}", said.out);
    }
    assert!(!said.out.contains("777888999"), "a secret is shown: {}", said.out);
}

#[test]
fn mistakes_in_variables_name_the_variable_and_show_no_value() {
    let place = Place::new();
    place.set(|settings| {
        settings["registration"] =
            json!({ "store": { "path": "d.db" }, "types": { "a-b": "ios", "a.b": "ios" } });
    });
    for (variable, value, problem) in [
        (
            "FPUSH__component__serverHostnam",
            "s3cret",
            "no setting \"serverHostnam\" there; did you mean \"serverHostname\"?",
        ),
        (
            "FPUSH__COMPONENT__componentKey",
            "s3cret",
            "no setting \"COMPONENT\" there; did you mean \"component\"?",
        ),
        (
            "FPUSH__component__serverPort",
            "s3cret",
            "expected a number, as JSON",
        ),
        (
            "FPUSH__component__serverPort",
            "0",
            "component.serverPort: expected a whole number from 1 to 65535",
        ),
        (
            "FPUSH__component__serverPort__x",
            "1",
            "component.serverPort is not an object",
        ),
        ("FPUSH__component", "s3cret", "expected an object such as"),
        (
            "FPUSH__component",
            r#"[{ "serverPort": 0 }]"#,
            "component[0].serverPort: expected a whole number from 1 to 65535",
        ),
        (
            "FPUSH__component__tls",
            "s3cret",
            "expected true, false or an object",
        ),
        (
            "FPUSH__registration__types__a_b",
            "ios",
            "a_b may mean a-b or a.b",
        ),
        (
            "FPUSH__monitoring",
            r#"{ "listen": "127.0.0.1:0", "s3t": "s3cret" }"#,
            "monitoring.s3t: this key is not known",
        ),
        ("FPUSH__", "s3cret", "there is no setting \"\" there"),
    ] {
        let said = place.run_with(&["check"], &[(variable, value)]);
        assert_eq!(said.status, Some(CONFIG), "{variable}: {}", said.err);
        let line = said.err.lines().find(|line| line.contains(problem));
        let line = line.unwrap_or_else(|| panic!("{variable}: no {problem:?} in {}", said.err));
        assert!(line.starts_with("error: ") && line.contains(variable), "{line}");
        assert!(!said.err.contains("s3cret"), "{}", said.err);
        // No daemon starts with it.
        let said = place.run_with(&[], &[(variable, value)]);
        assert_eq!(said.status, Some(CONFIG), "{variable}: {}", said.err);
    }
}

#[test]
fn variables_come_after_the_file_at_the_start_and_at_each_reload() {
    let place = Place::new();
    place.set(|settings| settings["component"]["componentKey"] = json!("another"));
    let daemon = Daemon::builder(PROGRAM)
        .args([place.settings()])
        .env("FPUSH__component__componentKey", "secret")
        .env("FPUSH__pushModules__ios__apns__topic", "org.example.variable")
        .start();
    let link = place.accept(&daemon);
    daemon.wait_for_log(
        "component.componentKey is what the environment variable FPUSH__component__componentKey says",
        LONG,
    );
    let mut running = Running::of(daemon, link);
    assert_eq!(running.push("ios", &apple(1)), RESULT);
    place.set(|settings| {
        settings["component"]["componentKey"] = json!("a third");
        settings["pushModules"]["ios"]["apns"]["topic"] = json!("org.example.file");
        settings["pushModules"]["ios"]["apns"]["alertTitle"] = json!("reloaded");
    });
    place.fpush(&["reload"]).expect(0, &["settings reloaded from "]);
    assert_eq!(running.push("ios", &apple(2)), RESULT);
    let requests = place.apns.requests();
    assert_eq!(requests[1].body["aps"]["alert"]["title"], "reloaded");
    for request in requests {
        assert_eq!(request.header("apns-topic"), Some("org.example.variable"));
    }
    let log = running.stop();
    assert!(!log.contains("secret\""), "{log}");
}

#[cfg(feature = "enable_registration")]
#[test]
fn the_url_of_a_database_may_be_in_a_file() {
    let place = Place::new();
    let with = |store: serde_json::Value| {
        place.set(|settings| {
            settings["registration"] = json!({ "store": store, "types": { "apns": "ios" } });
        });
        place.fpush(&["check"])
    };
    let file = place.write("url", "postgres://fpush:s3cret@127.0.0.1:1/fpush\n");
    let said = with(json!({ "type": "postgres", "urlFile": file }));
    said.expect(0, &["store: PostgreSQL"]);
    assert!(!said.out.contains("s3cret"));
    for (store, problem) in [
        (
            json!({ "type": "postgres", "urlFile": file, "url": "postgres://x" }),
            "registration.store.url: expected either url or urlFile, found both",
        ),
        (
            json!({ "type": "postgres", "urlFile": place.write("bad", "mysql://s3cret") }),
            "registration.store.urlFile: expected a URL such as",
        ),
        (
            json!({ "type": "postgres", "urlFile": "none" }),
            "registration.store.urlFile: cannot read the file none",
        ),
    ] {
        let said = with(store);
        assert_eq!(said.status, Some(CONFIG));
        assert!(said.err.contains(problem), "{}", said.err);
        assert!(!said.err.contains("s3cret"), "{}", said.err);
    }
}

#[test]
fn what_variables_say_in_vain_is_a_warning() {
    let place = Place::new();
    for (variable, value, warning) in [
        (
            "FPUSH_logging_level",
            "s3cret",
            Some(
                "the environment variable FPUSH_logging_level sets nothing; did you mean FPUSH__logging__level?",
            ),
        ),
        (
            "RUST_LOG",
            "debgu",
            Some("RUST_LOG cannot be read and is ignored: \"debgu\" is not a level; did you mean \"debug\"?"),
        ),
        (
            "RUST_LOG",
            "info,apns=debug",
            Some("RUST_LOG: no part of fpush that logs is called \"apns\"; did you mean \"fpush_apns\"?"),
        ),
        // What Kubernetes sets for a service that is called fpush.
        ("FPUSH_SERVICE_HOST", "10.0.0.1", None),
        ("RUST_LOG", "info,fpush_apns=debug", None),
    ] {
        let said = place.run_with(&["check"], &[(variable, value)]);
        assert_eq!(said.status, Some(0), "{}", said.err);
        match warning {
            Some(warning) => assert!(said.err.contains(&format!("warning: {warning}")), "{}", said.err),
            None => assert!(!said.err.contains("warning"), "{}", said.err),
        }
        assert!(!said.err.contains("s3cret"), "a value is shown: {}", said.err);
    }
}

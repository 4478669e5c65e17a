//! Settings as operators write them, read by the real program.
//!
//! Each `settings/valid/NAME.json` and `settings/invalid/NAME.json` has a `NAME.expected` with what `fpush check`
//! says about it, and so has each `settings/expired/NAME.json`, which a daemon starts with; `UPDATE_EXPECT=1 cargo test -p fpush --test settings` writes these anew. The files that the settings
//! name are those of [`Folder`]. A file with modules that this build leaves out is not looked at.
//!
//! The JSON in the documents and in settings.example.json is checked as well, with files of ours in the place of the
//! operator's: see [`with_our_files`].

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[cfg(feature = "enable_demo_support")]
mod common;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fpush_testkit::{ApnsKey, Daemon, LONG, TempDir, certs::service_account_json, fixture, run_to_end};
use serde_json::{Map, Value};

const BIN: &str = env!("CARGO_BIN_EXE_fpush");

/// The port of the server in all settings here; another one takes its place when they are used.
const PORT: &str = "5347";

/// A private key, from RFC 8291, appendix A.
const VAPID_KEY: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";

/// The exit status of a program with wrong settings (`EX_CONFIG` of sysexits.h).
const CONFIG: i32 = 78;

/// A folder with settings and all the files that they may name.
struct Folder {
    dir: TempDir,
    /// Takes the connections of a daemon that starts.
    server: TcpListener,
}

impl Folder {
    fn with(settings: &str) -> Self {
        let dir = TempDir::new();
        let fixtures = fixture("aps.pem").parent().unwrap().to_owned();
        for entry in fs::read_dir(fixtures).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".pem") || name.ends_with(".p12") {
                private(&dir.write(name, fs::read(&path).unwrap()));
            }
        }
        let account = service_account_json("project-1", "https://oauth2.googleapis.com/token");
        let mut incomplete: Value = serde_json::from_str(&account).unwrap();
        for key in ["project_id", "private_key"] {
            incomplete.as_object_mut().unwrap().remove(key);
        }
        let mut broken: Value = serde_json::from_str(&account).unwrap();
        broken["private_key"] = "-----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n".into();
        for (name, content) in [
            ("component.key", "secret\n"),
            ("p12.password", "test\n"),
            ("empty", ""),
            ("AuthKey.p8", &ApnsKey::generate().p8()),
            // As Apple names it.
            ("AuthKey_ZYX987WVUT.p8", &ApnsKey::generate().p8()),
            ("vapid.key", VAPID_KEY),
            ("service-account.json", &account),
            ("incomplete-account.json", &incomplete.to_string()),
            ("broken-account.json", &broken.to_string()),
            ("google-services.json", r#"{ "project_info": {}, "client": [] }"#),
        ] {
            private(&dir.write(name, content));
        }
        Self::add_field_files(&dir, &account);
        public(&dir.write("public.key", "secret\n"));
        public(&dir.write("public-aps.key.pem", fs::read(fixture("aps.key.pem")).unwrap()));
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_nonblocking(true).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let folder = Self { dir, server };
        let settings = folder
            .ours()
            .iter()
            .fold(settings.replace(PORT, &port), |settings, (theirs, ours)| {
                settings.replace(theirs, ours)
            });
        private(&folder.dir.write("settings.json", settings));
        folder
    }

    /// What stands in the settings for places that `fpush check` tries, and what is tried here: it must neither depend on what
    /// else this machine does, nor be in the way of another test.
    fn ours(&self) -> [(&'static str, String); 5] {
        let port = self.server.local_addr().unwrap().port();
        let [high, low] = port.to_be_bytes();
        let listen = |port: u16| format!("127.99.{high}.{low}:{port}");
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        [
            ("127.0.0.1:9115", listen(9115)),
            ("127.0.0.1:9114", listen(9114)),
            ("127.0.0.1:8280", listen(8280)),
            ("/var/lib/fpush", path("lib")),
            ("/run/fpush-of-this-test", path("run")),
        ]
    }

    /// Files as operators have them: from other tools, from other editors, and what is not a file.
    fn add_field_files(dir: &TempDir, account: &str) {
        let apple = fixture("apple/key.pem").parent().unwrap().to_owned();
        for entry in fs::read_dir(apple).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("apple-{}", path.file_name().unwrap().to_str().unwrap());
            private(&dir.write(&name, fs::read(&path).unwrap()));
        }
        for name in [
            "endless-mac.p12",
            "endless-keys.p12",
            "gnutls-default.p12",
            "keychain.p12",
            "nss-default.p12",
            "nss-rc4.p12",
            "pbmac1-short-key.p12",
            "windows.p12",
        ] {
            private(&dir.write(name, fs::read(fixture(&format!("pkcs12/{name}"))).unwrap()));
        }
        let account_of_field = fs::read(fixture("bom-service-account.json")).unwrap();
        private(&dir.write("bom-service-account.json", account_of_field));
        let text = |name: &str| fs::read_to_string(fixture(name)).unwrap();
        let (key, push) = (text("apple/key.pem"), text("apple/push.pem"));
        let marked = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes();
        let utf16 = |text: &str| {
            let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
            units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()
        };
        let p8 = ApnsKey::generate().p8();
        let der = |pem: &str| {
            let lines = pem.lines().filter(|line| !line.starts_with("---"));
            BASE64_STANDARD.decode(lines.collect::<String>()).unwrap()
        };
        let around = format!("Bag Attributes\n    friendlyName: push\n{key}\nsubject=M\u{fc}ller\n{push}");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nYQ==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (name, content) in [
            ("apple-all.pem", around.into_bytes()),
            ("apple-push.cer", der(&push)),
            ("apple-key.der", der(&key)),
            ("apple-push-mark.pem", marked(&push)),
            ("apple-push-mac.pem", push.replace('\n', "\r").into_bytes()),
            ("apple-key-mark.pem", marked(&key)),
            ("apple-key-utf16.pem", utf16(&key)),
            ("apple-key-encrypted.pem", encrypted.as_bytes().to_vec()),
            ("account-mark.json", marked(account)),
            ("account-utf16.json", utf16(account)),
            ("AuthKey-mark.p8", marked(&p8)),
            ("ca-mark.pem", marked(&text("client-ca.pem"))),
            ("component-mark.key", marked("secret \n")),
            ("component-utf16.key", utf16("secret\n")),
            ("p12-mark.password", marked("test12\r\n\n")),
            ("vapid-mark.key", marked(&format!("{VAPID_KEY}\n"))),
            ("database-mark.url", marked("postgres://fpush@127.0.0.1/fpush\n")),
            ("engine-mark.url", marked("rediss://127.0.0.1/\n")),
            ("large", vec![b' '; 5 << 20]),
        ] {
            private(&dir.write(name, content));
        }
        symlink("/dev/zero", dir.path().join("endless")).unwrap();
        let fifo = Command::new("mkfifo").arg(dir.path().join("fifo")).status();
        assert!(fifo.unwrap().success());
    }

    fn fpush(&self, args: &[&str]) -> Output {
        run_to_end(BIN, args.iter().copied(), self.dir.path())
    }

    /// Runs `fpush check` and returns the exit status, what it wrote to stderr, and what to stdout.
    fn check(&self) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.fpush(&["check", "settings.json"]);
        // What is said of those without one depends on the machine, and is tested beside the commands that miss it.
        let said = self.plain(stderr);
        let said = said
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("note: runtimeDirectory: "));
        (status.code(), said.collect(), self.plain(stdout))
    }

    /// The text without what differs from run to run, or with the next backend.
    fn plain(&self, text: Vec<u8>) -> String {
        let port = self.server.local_addr().unwrap().port().to_string();
        let version = String::from_utf8(self.fpush(&["--version"]).stdout).unwrap();
        let text = String::from_utf8(text).unwrap();
        let ours = self.ours();
        let text = ours
            .iter()
            .fold(text, |text, (theirs, ours)| text.replace(ours, theirs));
        text.replace(&port, PORT)
            .replace(&version, "fpush VERSION\n")
            .replace(types(), "TYPES")
    }

    fn was_contacted(&self) -> bool {
        self.server.accept().is_ok()
    }
}

/// The types of modules as the program lists them, such as `"apple" or "google"`.
fn types() -> &'static str {
    static TYPES: OnceLock<String> = OnceLock::new();
    TYPES.get_or_init(|| {
        let dir = TempDir::new();
        dir.write("settings.json", r#"{ "pushModules": { "m": { "type": "?" } } }"#);
        let check = run_to_end(BIN, ["check", "settings.json"], dir.path());
        let said = String::from_utf8(check.stderr).unwrap();
        let (_, list) = said.split_once("pushModules.m.type: expected ").expect(&said);
        let (list, _) = list.split_once(", found").expect(&said);
        list.to_owned()
    })
}

#[test]
fn the_types_of_modules_are_listed() {
    let types: Vec<_> = types().split(" or ").collect();
    assert!(types.contains(&"\"demo\""), "{types:?}");
    for name in types {
        let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        assert!(inner.is_some_and(|name| !name.contains('"')), "{name}");
    }
}

fn private(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn public(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
}

/// The settings in a folder beside this file, and where to find what is expected of each.
fn cases(folder: &str) -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/settings")
        .join(folder);
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let settings = fs::read_to_string(&path).unwrap();
            if is_built(&settings) {
                cases.push((settings, path.with_extension("expected")));
            }
        }
    }
    cases.sort();
    cases
}

/// Whether this build has all the types of modules that stand in these settings.
fn is_built(settings: &str) -> bool {
    let needs = |name: &str| settings.contains(&format!("\"{name}\""));
    (cfg!(feature = "enable_apns_support") || !needs("apple"))
        && (cfg!(feature = "enable_fcm_support") || !needs("google"))
        && (cfg!(feature = "enable_webpush_support") || !settings.contains(r#""type": "webpush""#))
        && (cfg!(feature = "enable_demo_support") || !needs("demo"))
        && (cfg!(feature = "enable_registration") || !needs("registration"))
        && (cfg!(feature = "enable_cluster") || !needs("cluster"))
}

/// Compares with the expected text, or writes it.
fn compare(expected: &Path, found: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(expected, found).unwrap();
        return;
    }
    let name = expected.file_stem().unwrap().to_str().unwrap();
    match fs::read_to_string(expected) {
        Ok(text) if text == found => {}
        Ok(text) => wrong.push(format!("{name}: expected\n{text}found\n{found}")),
        Err(e) => wrong.push(format!("{}: {e}; UPDATE_EXPECT=1 writes it", expected.display())),
    }
}

/// Whether a line of the log says of a mistake what `fpush check` does: there its place is a field of its own.
fn ends_with(line: &str, mistake: &str) -> bool {
    line.ends_with(mistake)
        || mistake
            .split_once(": ")
            .is_some_and(|(place, what)| line.ends_with(&format!(": {what} settings={place}")))
}

#[track_caller]
fn none_is(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A proxy resolves names, so that nobody here sees where a stranger's leads.
#[cfg(feature = "enable_webpush_support")]
#[test]
fn any_endpoint_behind_a_proxy_is_refused() {
    let settings = r#"{
        "component": { "componentHostname": "push.example.org", "componentKey": "secret", "serverHostname": "127.0.0.1", "serverPort": 5347 },
        "pushModules": { "web": { "type": "webpush", "webpush": {
            "vapidKeyFilePath": "vapid.key", "subject": "mailto:push@example.org", "allowedEndpoints": ["*"]
        } } }
    }"#;
    let folder = Folder::with(settings);
    let check = |proxy: &str| {
        let mut check = Command::new(BIN);
        check
            .args(["check", "settings.json"])
            .current_dir(folder.dir.path())
            .env("https_proxy", proxy);
        check.output().unwrap()
    };
    let refused = check("http://127.0.0.1:3128");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(CONFIG), "{said}");
    assert!(
        said.contains("pushModules.web.webpush.allowedEndpoints: \"*\" cannot be used behind a proxy"),
        "{said}"
    );
    assert_eq!(check("").status.code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_and_nothing_starts() {
    let mut wrong = Vec::new();
    for (settings, expected) in cases("invalid") {
        let name = expected.file_stem().unwrap().to_str().unwrap();
        let folder = Folder::with(&settings);
        let (status, errors, facts) = folder.check();
        compare(&expected, &errors, &mut wrong);
        if status != Some(CONFIG) {
            wrong.push(format!("{name}: the exit status of check is {status:?}"));
        }
        let mistakes: Vec<_> = errors
            .lines()
            .filter_map(|line| line.strip_prefix("error: "))
            .collect();
        // A daemon starts with these.
        if mistakes
            .iter()
            .all(|mistake| mistake.contains("this key is not known"))
        {
            continue;
        }
        if !facts.is_empty() {
            wrong.push(format!(
                "{name}: check describes a start that does not happen: {facts}"
            ));
        }
        let run = folder.fpush(&["settings.json"]);
        let log = folder.plain(run.stderr);
        if run.status.code() != Some(CONFIG) || !log.contains("not started") || folder.was_contacted() {
            wrong.push(format!(
                "{name}: the daemon ended with {:?} and said {log}",
                run.status
            ));
        }
        for mistake in mistakes {
            let level = if mistake.contains("this key is not known") {
                " WARN "
            } else {
                "ERROR "
            };
            if !log
                .lines()
                .any(|line| line.contains(level) && ends_with(line, mistake))
            {
                wrong.push(format!("{name}: the daemon does not say {mistake:?} but {log}"));
            }
        }
        for secret in ["s3cret", "wr0ng", "user:pw"] {
            if errors.contains(secret) || log.contains(secret) {
                wrong.push(format!("{name}: {secret} is shown"));
            }
        }
    }
    none_is(&wrong);
}

#[test]
fn what_is_right_is_accepted_and_described() {
    let mut wrong = Vec::new();
    for (settings, expected) in cases("valid") {
        let folder = Folder::with(&settings);
        let (status, warnings, facts) = folder.check();
        compare(&expected, &format!("{warnings}{facts}"), &mut wrong);
        if status != Some(0) || folder.was_contacted() {
            wrong.push(format!("{}: {status:?}", expected.display()));
        }
    }
    none_is(&wrong);
}

/// Each setting of every type may be a variable of the environment: with a file that says nothing, and a variable for each, they
/// are the same settings.
#[test]
fn the_same_settings_in_variables_are_the_same() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (settings, expected) in cases("valid") {
        let name = expected.file_stem().unwrap().to_str().unwrap();
        // Those with many settings.
        let parts = ["every", "payload", "webpush", "text-mark"];
        if !parts.iter().any(|part| name.contains(part)) {
            continue;
        }
        let folder = Folder::with(&settings);
        let file = folder.dir.path().join("settings.json");
        let Some(settings) = without_last_commas(&file) else {
            continue;
        };
        compared += 1;
        let facts = |variables: &[(String, String)]| {
            let mut check = Command::new(BIN);
            check.args(["check", "--show-payloads", "settings.json"]);
            check
                .current_dir(folder.dir.path())
                .envs(variables.iter().cloned());
            let said = check.output().unwrap();
            let text = String::from_utf8(said.stdout).unwrap();
            let lines = text.lines().filter(|line| !line.contains(VARIABLE));
            // Keys come in another order, and time goes on.
            let lines = lines.filter(|line| !line.contains("apns-expiration: "));
            let lines = lines.map(|line| line.trim_end_matches(',').to_owned());
            let mut lines: Vec<_> = lines.collect();
            lines.sort_unstable();
            (said.status.code(), lines, String::from_utf8(said.stderr).unwrap())
        };
        let of_file = facts(&[]);
        let mut variables = Vec::new();
        add_variables("FPUSH", &settings, &mut variables);
        fs::write(&file, "{}").unwrap();
        let of_variables = facts(&variables);
        if (of_file.0, &of_file.1) != (of_variables.0, &of_variables.1) {
            wrong.push(format!(
                "{name}: {variables:?}: {of_file:?}, but {of_variables:?}"
            ));
        }
    }
    none_is(&wrong);
    assert!(compared > 0);
}

/// Settings, also with a comma after the last key of an object. `None` with comments, which no variable has.
fn without_last_commas(file: &Path) -> Option<Map<String, Value>> {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<_> = text.split_whitespace().collect();
    let text = lines.join(" ").replace(", }", " }").replace(", ]", " ]");
    serde_json::from_str(&text).ok()
}

/// What `check` says of a setting that is a variable.
const VARIABLE: &str = " is what the environment variable ";

/// A variable for each setting. Names of the operator's that a variable cannot have as they are, and lists, are in the value.
fn add_variables(name: &str, settings: &Map<String, Value>, variables: &mut Vec<(String, String)>) {
    let is_plain = |key: &String| {
        key.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    for (key, value) in settings {
        let name = format!("{name}__{key}");
        match value {
            Value::Object(inner) if !inner.is_empty() && inner.keys().all(is_plain) => {
                add_variables(&name, inner, variables);
            }
            _ => variables.push((name, value.to_string())),
        }
    }
}

/// The daemon starts with these, because only a part of it cannot work; that is a test of its own.
#[test]
fn what_has_expired_is_described_and_fails_the_check() {
    let mut wrong = Vec::new();
    for (settings, expected) in cases("expired") {
        let folder = Folder::with(&settings);
        let (status, errors, facts) = folder.check();
        compare(&expected, &format!("{errors}{facts}"), &mut wrong);
        if status != Some(CONFIG) {
            wrong.push(format!("{}: {status:?}", expected.display()));
        }
    }
    none_is(&wrong);
}

/// What cannot work is an error of `fpush check`. A daemon starts all the same and says it: everything else works, and a
/// service that was upgraded must not end over it.
#[test]
fn what_cannot_work_is_an_error_of_check_and_no_end_of_a_service() {
    let mut wrong = Vec::new();
    for (settings, expected) in cases("mistaken") {
        let name = expected.file_stem().unwrap().to_str().unwrap();
        let folder = Folder::with(&settings);
        let (status, errors, facts) = folder.check();
        compare(&expected, &format!("{errors}{facts}"), &mut wrong);
        if status != Some(CONFIG) || facts.is_empty() {
            wrong.push(format!("{name}: the exit status of check is {status:?}"));
        }
        let command = format!("cd {} && exec {BIN} settings.json", folder.dir.path().display());
        let daemon = Daemon::builder("/bin/sh").args(["-c", &command]).start();
        daemon.wait_for_log(" started version=", LONG);
        let log = folder.plain(daemon.log().into_bytes());
        for mistake in errors.lines().filter_map(|line| line.strip_prefix("error: ")) {
            if !log
                .lines()
                .any(|line| line.contains(" WARN ") && ends_with(line, mistake))
            {
                wrong.push(format!("{name}: the daemon does not say {mistake:?} but {log}"));
            }
        }
    }
    none_is(&wrong);
}

#[test]
fn every_expected_text_belongs_to_settings() {
    for folder in ["valid", "invalid", "expired", "mistaken"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/settings")
            .join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                path.with_extension("json").exists(),
                "{} is left over",
                path.display()
            );
        }
    }
}

/// The default modules of a build without registration are known: nothing else is wrong with this file.
#[test]
#[cfg(all(feature = "enable_demo_support", not(feature = "enable_registration")))]
fn registration_names_the_feature_that_brings_it() {
    let settings = format!(
        r#"{{ "component": {{ "componentHostname": "push.example.org", "componentKey": "secret",
              "serverHostname": "127.0.0.1", "serverPort": {PORT} }},
             "pushModules": {{ "m": {{ "type": "demo" }} }}, "registration": {{}} }}"#
    );
    let (status, errors, _) = Folder::with(&settings).check();
    assert_eq!(status, Some(CONFIG));
    assert!(
        errors.contains("registration: this fpush was built without registration"),
        "{errors}"
    );
    assert!(errors.contains("enable_registration"), "{errors}");
}

#[test]
fn a_settings_file_that_is_not_there_is_reported() {
    let folder = Folder::with("");
    for args in [["check", "no-such-file.json"].as_slice(), &["no-such-file.json"]] {
        let output = folder.fpush(args);
        assert_eq!(output.status.code(), Some(CONFIG));
        let said = folder.plain(output.stderr);
        assert!(
            said.contains("cannot read the settings file no-such-file.json"),
            "{said}"
        );
        assert!(said.contains("No such file"), "{said}");
    }
}

#[test]
fn settings_in_another_encoding_are_reported() {
    let folder = Folder::with("");
    folder.dir.write("settings.json", b"{ \"component\": \"\xff\" }");
    let (status, errors, _) = folder.check();
    assert_eq!(status, Some(CONFIG));
    assert!(errors.contains("cannot read the settings file"), "{errors}");
}

#[test]
fn wrong_arguments_are_refused_and_help_is_given() {
    let folder = Folder::with("");
    for args in [["--nonsense"].as_slice(), &["a", "b"], &["check", "a", "b"]] {
        let output = folder.fpush(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage"));
    }
    let version = folder.fpush(&["--version"]);
    assert_eq!(folder.plain(version.stdout), "fpush VERSION\n");
    let help = folder.fpush(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("check"));
}

/// A build without a type says so, and not that the type is unknown.
#[test]
fn a_type_that_this_build_leaves_out_is_reported_with_its_feature() {
    let types = [
        (
            "apple",
            cfg!(feature = "enable_apns_support"),
            "enable_apns_support",
        ),
        (
            "google",
            cfg!(feature = "enable_fcm_support"),
            "enable_fcm_support",
        ),
        (
            "webpush",
            cfg!(feature = "enable_webpush_support"),
            "enable_webpush_support",
        ),
        (
            "demo",
            cfg!(feature = "enable_demo_support"),
            "enable_demo_support",
        ),
    ];
    for (name, is_built, feature) in types {
        let settings = format!(
            r#"{{ "component": {{ "componentHostname": "push.example.org", "componentKey": "secret",
                  "serverHostname": "127.0.0.1", "serverPort": {PORT} }},
                 "pushModules": {{ "m": {{ "type": "{name}", "apns": {{}}, "fcm": {{}} }} }} }}"#
        );
        let (status, errors, _) = Folder::with(&settings).check();
        assert_eq!(status, Some(CONFIG), "{errors}");
        assert_eq!(errors.contains(feature), !is_built, "{errors}");
        assert_eq!(errors.contains("built without"), !is_built, "{errors}");
    }
}

#[cfg(feature = "enable_demo_support")]
mod a_daemon {
    use fpush_testkit::{Daemon, FakeXmpp, LONG, publish::prosody_publish};
    use serde_json::json;

    use super::{BIN, Folder, private, public};
    use crate::common::{DOMAIN, SECRET, settings};

    /// The original ignores keys that it does not know, and its files must go on working.
    #[test]
    fn starts_with_an_unknown_key_and_warns() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let modules = json!({ "demo": { "type": "demo", "is_default_module": true, "ratelimt": {} } });
        let daemon = Daemon::builder(BIN).settings(&settings(&xmpp, &modules)).start();
        let mut link = xmpp.accept(LONG);
        link.send(prosody_publish("1", "t", None, true));
        assert_eq!(link.reply_to("1", LONG).verdict(), "result");
        let line = daemon.wait_for_log("pushModules.demo.ratelimt", LONG);
        assert!(
            line.contains("WARN") && line.contains("did you mean \"ratelimit\"?"),
            "{line}"
        );
    }

    #[test]
    fn reads_its_secret_from_a_file_and_its_settings_from_its_folder() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let mut settings = settings(&xmpp, &json!({ "demo": { "type": "demo" } }));
        let component = settings["component"].as_object_mut().unwrap();
        component.remove("componentKey");
        component.insert("componentKeyFile".to_owned(), "component.key".into());
        let _daemon = Daemon::builder(BIN)
            .settings(&settings)
            .file("component.key", format!("{SECRET}\r\n"))
            .args::<&str>([])
            .start();
        xmpp.accept(LONG);
    }

    /// Settings without a secret in them may be read by everybody.
    #[test]
    fn warns_if_everybody_can_read_a_secret_in_the_settings() {
        let xmpp = FakeXmpp::start(DOMAIN, SECRET);
        let with_secret = settings(&xmpp, &json!({ "demo": { "type": "demo" } }));
        let mut without = with_secret.clone();
        let component = without["component"].as_object_mut().unwrap();
        component.remove("componentKey");
        component.insert("componentKeyFile".to_owned(), "component.key".into());
        for (settings, is_public, warned) in [
            (&with_secret, true, true),
            (&with_secret, false, false),
            (&without, true, false),
        ] {
            let folder = Folder::with(&settings.to_string());
            let file = folder.dir.path().join("settings.json");
            let set = if is_public { public } else { private };
            set(&file);
            let (status, warnings, _) = folder.check();
            assert_eq!(status, Some(0), "{warnings}");
            assert_eq!(
                warnings.contains("everybody on this machine can read settings.json"),
                warned,
                "{warnings}"
            );
        }
    }
}

/// The documents' settings need modules of all kinds.
#[cfg(all(
    feature = "enable_apns_support",
    feature = "enable_fcm_support",
    feature = "enable_webpush_support",
    feature = "enable_demo_support"
))]
mod documents {
    use super::{Folder, Path, fs};

    /// Puts files of [`Folder`] in the place of those that a document names. Each key of the settings that names a file
    /// has one, and the password of a PKCS#12 file becomes that of ours; nothing else is changed.
    fn with_our_files(settings: &str) -> String {
        let mut settings = settings.to_owned();
        for (key, ours) in [
            ("componentKeyFile", "component.key"),
            ("certPasswordFile", "p12.password"),
            ("certPassword", "test"),
            ("certKeyFilePath", "aps.key.pem"),
            ("tokenKeyFilePath", "AuthKey.p8"),
            ("caFilePath", "client-ca.pem"),
            ("fcmSecretPath", "service-account.json"),
            ("vapidKeyFilePath", "vapid.key"),
        ] {
            settings = replace(&settings, key, |_| ours);
        }
        replace(&settings, "certFilePath", |file| {
            if file.ends_with(".pem") {
                "aps.pem"
            } else {
                "rc2.p12"
            }
        })
    }

    /// Replaces the strings that belong to a key.
    fn replace(settings: &str, key: &str, ours: impl Fn(&str) -> &'static str) -> String {
        let quoted = format!("\"{key}\"");
        let mut parts = settings.split(quoted.as_str());
        let mut replaced = parts.next().unwrap().to_owned();
        for part in parts {
            let mut pieces = part.splitn(3, '"');
            let (colon, value, rest) = (pieces.next(), pieces.next(), pieces.next());
            match (colon, value, rest) {
                (Some(colon), Some(value), Some(rest)) if colon.trim() == ":" => {
                    replaced += &format!("{quoted}{colon}\"{}\"{rest}", ours(value));
                }
                _ => replaced += &format!("{quoted}{part}"),
            }
        }
        replaced
    }

    fn read(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[track_caller]
    fn passes(what: &str, settings: &str) {
        let folder = Folder::with(&with_our_files(settings));
        let (status, errors, _) = folder.check();
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{what}: {settings}");
    }

    #[test]
    fn the_example_settings_are_right() {
        passes("settings.example.json", &read("settings.example.json"));
    }

    /// All Markdown files in and below a folder of the repository.
    fn pages(folder: &str) -> Vec<String> {
        let path = format!("{}/../../{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}")) {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                found.extend(pages(&name));
            } else if name.ends_with(".md") {
                found.push(name);
            }
        }
        found
    }

    #[test]
    fn the_settings_in_the_documents_are_right() {
        let mut blocks = 0;
        for page in ["README.md".to_owned()].into_iter().chain(pages("docs")) {
            let text = read(&page);
            let mut rest = text.as_str();
            while let Some((_, block)) = rest.split_once("```json\n") {
                let (block, after) = block.split_once("```").unwrap();
                passes(&page, block);
                (blocks, rest) = (blocks + 1, after);
            }
        }
        assert!(blocks >= 5, "the documents show {blocks} settings");
    }

    #[test]
    fn files_are_replaced_whatever_stands_around_them() {
        let settings = r#"{ "certFilePath" : "/etc/x.p12", // "certFilePath"
            "certPassword":"", "other": "certFilePath" }"#;
        let expected = r#"{ "certFilePath" : "rc2.p12", // "certFilePath"
            "certPassword":"test", "other": "certFilePath" }"#;
        assert_eq!(with_our_files(settings), expected);
        assert_eq!(
            with_our_files(r#""certFilePath": "a.pem""#),
            r#""certFilePath": "aps.pem""#
        );
    }
}

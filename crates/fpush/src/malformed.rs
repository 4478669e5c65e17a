//! Settings and the files that they name, spoilt in thousands of ways, always the same ones: whatever an editor, a copy or a
//! disk made of them, the words that come of it are an operator's, and hold nothing of what is secret.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fpush_testkit::{ApnsKey, Dice, TempDir, certs::service_account_json, fixture};

use crate::{backends, settings::load};

const SETTINGS: &str = r#"{
    // A comment
    "component": {
        "componentHostname": "push.example.org", "componentKey": "secret-of-the-component-0123456789",
        "serverHostname": "localhost", "serverPort": 5347,
    },
    "pushModules": {
        "ios": { "type": "apple", "is_default_module": true, "apns": {
            "certFilePath": "cert.pem", "certKeyFilePath": "key.pem", "topic": "org.example.app",
            "environment": "production", "pushPriority": "auto", "caFilePath": "ca.pem",
        } },
        "token": { "type": "apple", "ratelimit": { "enabled": true, "ratelimitTime": "20s" }, "apns": {
            "tokenKeyFilePath": "AuthKey.p8", "keyId": "KEY1234567", "teamId": "TEAM123456", "topic": "org.example.app",
        } },
        "android": { "type": "google", "fcm": { "fcmSecretPath": "account.json", "target": "auto" } },
        "demo": { "type": "demo" },
    },
    "registration": {
        "store": { "type": "sqlite", "path": "devices.db" },
        "types": { "apns": "ios", "fcm": "android" },
        "http": { "listen": "127.0.0.1:8280", "certFilePath": "cert.pem", "keyFilePath": "key.pem" },
    },
    "cluster": {
        "url": "rediss://fpush:secret-of-the-engine-0123456789@127.0.0.1:6379", "caFilePath": "ca.pem", "timeout": "20ms",
    },
    "monitoring": { "listen": "127.0.0.1:9114" },
    "timeout": { "xmppconnectionError": "10s" },
    "logging": { "level": "info" },
    "stateDirectory": "state",
}"#;

/// A folder with settings that are right, and the names of all files in it but those of the settings.
fn folder() -> (TempDir, Vec<&'static str>) {
    let dir = TempDir::new();
    let pem = |name: &str| fs::read(fixture(name)).unwrap();
    let account = service_account_json("project-1", "https://oauth2.googleapis.com/token");
    let files = [
        ("cert.pem", pem("aps.pem")),
        ("key.pem", pem("aps.key.pem")),
        ("ca.pem", pem("client-ca.pem")),
        ("AuthKey.p8", ApnsKey::generate().p8().into_bytes()),
        ("account.json", account.into_bytes()),
    ];
    for (name, content) in &files {
        write(&dir.path().join(name), content);
    }
    (dir, files.iter().map(|(name, _)| *name).collect())
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The settings with the paths of this folder.
fn settings(dir: &TempDir, names: &[&str]) -> String {
    names.iter().fold(SETTINGS.to_owned(), |settings, name| {
        let path = dir.path().join(name);
        settings.replace(&format!("\"{name}\""), &format!("\"{}\"", path.display()))
    })
}

/// Reads the settings. Returns whether they are good.
fn is_read(dir: &TempDir, secrets: &[String], what: &str) -> bool {
    let (loaded, problems) = load(&dir.path().join("settings.json"), &backends::table());
    assert!(loaded.is_some() || !problems.is_empty(), "{what}: without a word");
    for problem in &problems {
        let words = problem.to_string();
        let is_short = words.len() < 2_000;
        assert!(is_short, "{what}: {} bytes: {words:?}", words.len());
        for secret in secrets {
            assert!(!words.contains(secret), "{what}: a secret is said: {words}");
        }
    }
    loaded.is_some()
}

/// Parts of everything that is secret: what is between the first and last line of a PEM file, and in a secret of one line.
fn secrets(dir: &TempDir) -> Vec<String> {
    let mut secrets = ["component", "engine"]
        .map(|whose| format!("secret-of-the-{whose}"))
        .to_vec();
    for name in ["key.pem", "AuthKey.p8", "account.json"] {
        let text = fs::read_to_string(dir.path().join(name))
            .unwrap()
            .replace("\\n", "\n");
        let is_base64 = |line: &&str| line.len() >= 40 && BASE64_STANDARD.decode(line).is_ok();
        let parts = text.lines().filter(is_base64);
        secrets.extend(parts.flat_map(|line| [line[..20].to_owned(), line[20..40].to_owned()]));
    }
    assert!(secrets.len() > 20, "{}", secrets.len());
    secrets
}

#[test]
fn settings_text_that_was_spoilt_is_understood_or_refused_in_words() {
    let (dir, names) = folder();
    let (right, secrets) = (settings(&dir, &names), secrets(&dir));
    let file = dir.path().join("settings.json");
    write(&file, right.as_bytes());
    assert!(is_read(&dir, &secrets, "the right ones"));
    let other = fs::read(dir.path().join("cert.pem")).unwrap();
    let mut dice = Dice::new(0x5eed);
    let mut read = 0;
    for number in 0..1_500 {
        let mut content = right.clone().into_bytes();
        for _ in 0..=dice.below(3) {
            dice.spoil(&mut content, &other);
        }
        write(&file, &content);
        let what = format!("settings {number}: {}", String::from_utf8_lossy(&content));
        read += usize::from(is_read(&dir, &secrets, &what));
    }
    // Blanks, comments and names of folders may be anything.
    assert!((15..1_000).contains(&read), "{read}");
}

#[test]
fn files_of_certificates_and_keys_that_were_spoilt_are_understood_or_refused_in_words() {
    let (dir, names) = folder();
    let secrets = secrets(&dir);
    write(
        &dir.path().join("settings.json"),
        settings(&dir, &names).as_bytes(),
    );
    let mut dice = Dice::new(0x5eed);
    for name in &names {
        let file = dir.path().join(name);
        let right = fs::read(&file).unwrap();
        let other = fs::read(dir.path().join(names[dice.below(names.len())])).unwrap();
        let mut read = 0;
        for number in 0..300 {
            let mut content = right.clone();
            for _ in 0..=dice.below(3) {
                dice.spoil(&mut content, &other);
            }
            write(&file, &content);
            let what = format!("{name} {number}: {}", String::from_utf8_lossy(&content));
            read += usize::from(is_read(&dir, &secrets, &what));
        }
        write(&file, &right);
        assert!((1..250).contains(&read), "{name}: {read}");
    }
}

/// As somebody does who takes "the key" for what is asked for.
#[test]
fn the_content_of_a_file_in_the_place_of_its_path_is_not_repeated() {
    let (dir, names) = folder();
    let (right, secrets) = (settings(&dir, &names), secrets(&dir));
    let file = dir.path().join("settings.json");
    for name in names {
        let path = dir.path().join(name);
        let content = fs::read_to_string(&path).unwrap();
        let pasted = serde_json::Value::from(content).to_string();
        write(
            &file,
            right
                .replace(&format!("\"{}\"", path.display()), &pasted)
                .as_bytes(),
        );
        assert!(!is_read(&dir, &secrets, name), "{name}");
    }
}

/// What is nested deeper than anybody writes it must not end the program.
#[test]
fn depth_is_not_a_danger() {
    let (dir, _) = folder();
    for open in ["[", "{\"a\":", "{\"component\":[", "/*", "\"\\"] {
        for depth in [100, 10_000, 200_000] {
            write(&dir.path().join("settings.json"), open.repeat(depth).as_bytes());
            let what = format!("{depth} times {open}");
            assert!(!is_read(&dir, &[], &what));
        }
    }
}

//! Files of operators and of other programs: certificates, keys, devices.

use fpush_client::Trust;
use fpush_registry::{Device, Time, lines, p2};

use crate::{check_line, check_words, split_line};

/// A certificate, a line `%%%%`, and its key; both in PEM form or in DER.
fn pair(input: &[u8]) -> (&[u8], &[u8]) {
    let found = input.windows(BETWEEN.len()).position(|window| window == BETWEEN);
    found.map_or((input, input), |at| (&input[..at], &input[at + BETWEEN.len()..]))
}

/// Apple's certificate and its key.
pub(crate) fn apns_certificate(input: &[u8]) {
    let (certificate, key) = pair(input);
    if let Some(words) = fpush_apns::fuzz::pem(certificate, key) {
        // The names in a certificate are not secret, and are said.
        check_line(&words);
    }
}

/// A listener's certificate and its key.
pub(crate) fn listener_certificate(input: &[u8]) {
    let (certificate, key) = pair(input);
    if let Some(words) = fpush_http::fuzz::certificate(certificate, key) {
        check_words(&words);
    }
}

/// A PKCS#12 file.
pub(crate) fn pkcs12(input: &[u8]) {
    if let Some(words) = fpush_apns::fuzz::pkcs12(input, "test") {
        check_line(&words);
    }
}

/// Apple's `.p8` file.
pub(crate) fn provider_token_key(input: &[u8]) {
    if let Some(words) = fpush_apns::fuzz::p8(input) {
        check_words(&words);
    }
}

/// Google's file of a service account.
pub(crate) fn service_account(input: &[u8]) {
    for words in fpush_fcm::fuzz::account(input) {
        check_words(&words);
    }
}

/// Roots in PEM form.
pub(crate) fn trusted_roots(input: &[u8]) {
    if let Err(error) = Trust::new(Some(input)) {
        check_words(&error.to_string());
    }
}

/// A file of `mod_push_appserver`'s in Prosody's storage; its first line is its name. What is read of it is exported and imported as
/// it is.
pub(crate) fn prosody_file(input: &[u8]) {
    let (name, content) = split_line(input);
    let name = String::from_utf8_lossy(name);
    let unescaped = fpush_registry::fuzz::prosody_name(&name);
    assert!(unescaped.is_none_or(|unescaped| unescaped.len() <= name.len()));
    match fpush_registry::fuzz::prosody_file(content, None) {
        Ok(device) => check_device(&device),
        Err(words) => check_words(&words),
    }
}

/// p2's table as `mysql --batch` writes it. What is read of it is exported and imported as it is, and goes back to p2 as it came.
pub(crate) fn p2_table(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let written = Time::from_millis(1_700_000_000_000);
    let rows = match p2::Rows::new(lines.next().unwrap_or_default(), written) {
        Ok(rows) => rows,
        Err(error) => return check_words(&error.to_string()),
    };
    let again = p2::Rows::new(&p2::first_line(), written);
    for line in lines {
        match rows.device(line) {
            Ok(device) => {
                check_device(&device);
                let row = p2::to_line(&device).map(|row| again.as_ref().map(|rows| rows.device(&row)));
                assert!(row == Some(Ok(Ok(device))), "it is another one in p2's table");
            }
            Err(error) => check_words(&error.to_string()),
        }
    }
}

/// Lines of an export, or a database's column of replaced secrets.
pub(crate) fn json_lines(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for line in text.lines() {
        match lines::from_line(line) {
            Ok(device) => check_device(&device),
            Err(error) => check_words(&error.to_string()),
        }
    }
    let once = fpush_registry::fuzz::former_secrets(&text);
    let again = once.as_deref().and_then(fpush_registry::fuzz::former_secrets);
    assert_eq!(again, once, "what was read is written and read again");
    assert!(once.is_none_or(|once| once.len() <= MOST_FORMER * LONGEST_FORMER));
}

/// A device has bounds, and is exported and imported as it is.
fn check_device(device: &Device) {
    for (text, longest) in [
        (&device.kind, 128),
        (&device.node, 512),
        (&device.secret, 256),
        (&device.token, 4_096),
    ] {
        assert!((1..=longest).contains(&text.len()) && !text.chars().any(char::is_control));
    }
    let line = lines::to_line(device);
    assert!(!line.contains('\n'));
    let read = lines::from_line(&line);
    assert!(read.as_ref() == Ok(device), "{:?}", read.map(drop));
}

const BETWEEN: &[u8] = b"%%%%\n";
/// Replaced secrets of a device, and the bytes of one: a time, a mark, a secret.
const MOST_FORMER: usize = 64;
const LONGEST_FORMER: usize = 300;

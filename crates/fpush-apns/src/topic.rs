//! `apns.topic`: the bundle ID of the app.

use fpush_push::settings::Section;

/// Reads the topic. What cannot be a header of a request is refused; what Apple will refuse is named.
pub(crate) fn read(apns: &mut Section<'_>) -> Option<String> {
    let text = apns.string("topic")?;
    let topic = text.trim();
    if topic.is_empty() || !topic.bytes().all(|byte| byte.is_ascii_graphic()) {
        apns.error(
            "topic",
            format_args!(
                "{EXPECTED}, found a blank, a control character or a letter that has no place in one"
            ),
        );
        return None;
    }
    if topic != text {
        apns.unusable(
            "topic",
            format_args!("{EXPECTED}, found blanks or line ends around it; they are left out"),
        );
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(fits);
    if !topic.split('.').all(is_label) {
        apns.unusable(
            "topic",
            format_args!("{EXPECTED}: letters, digits and hyphens between dots"),
        );
    }
    Some(topic.to_owned())
}

/// Names what a topic has too much, for a module that has no certificate which says what its topic is.
pub(crate) fn check(apns: &Section<'_>, topic: &str, team_id: &str, calls: bool) {
    if let Some((prefix, bundle)) = topic.split_once('.') {
        if prefix == team_id {
            apns.unusable(
                "topic",
                format_args!("{EXPECTED}, found one with the ID of the team before it; write \"{bundle}\""),
            );
        } else if is_id(prefix) && prefix.bytes().any(|byte| byte.is_ascii_digit()) {
            apns.warning(
                "topic",
                format_args!(
                    "this looks like a bundle ID with the ID of a team before it; is it \"{bundle}\"?"
                ),
            );
        }
    }
    if let Some(bundle) = topic.strip_suffix(".voip") {
        let message = with_voip(bundle);
        if calls {
            apns.unusable("topic", message);
        } else {
            apns.warning("topic", message);
        }
    }
}

/// What is wrong with a topic that is this bundle ID and `.voip`.
pub(crate) fn with_voip(bundle: &str) -> String {
    format!("{EXPECTED}; fpush adds \".voip\" for calls by itself, so write \"{bundle}\"")
}

/// Reads `keyId` or `teamId`. Blanks around it are left out; what Apple did not give out is named.
pub(crate) fn read_id(apns: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = apns.string(key)?;
    let id = text.trim();
    let found = if !is_id(id) {
        if is_id(&id.to_ascii_uppercase()) {
            "found lower-case letters"
        } else {
            "found something else"
        }
    } else if id != text {
        "found blanks around it, which are left out"
    } else {
        return Some(id.to_owned());
    };
    let example = if key == "keyId" {
        "the key's ID"
    } else {
        "the team's ID"
    };
    apns.unusable(
        key,
        format_args!("expected {example} as developer.apple.com shows it, which has 10 characters of A-Z and 0-9, {found}"),
    );
    Some(id.to_owned())
}

/// Whether it has the form of Apple's IDs.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

const EXPECTED: &str = "expected the bundle ID of the app, such as \"org.example.app\"";

//! Devices as lines of JSON, for export and import.

use fpush_push::canonical_jid;
use serde::{Deserialize, Serialize};

use crate::{
    device::{Device, Dialect},
    former::Former,
    time::Time,
};

/// Why a line is not a device. It holds nothing of the line's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is not a JSON object with the right keys.
    #[error("this is not a device as the export writes it")]
    Malformed,
    /// The dialect is not known.
    #[error("the dialect is not known")]
    Dialect,
    /// A time is not RFC 3339 in UTC.
    #[error("a time is not in the form 2017-03-18T04:07:44Z")]
    Time,
    /// A field is empty, too long, or has control characters.
    #[error("a field is empty, too long, or has control characters")]
    Field,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    dialect: String,
    #[serde(rename = "type")]
    kind: String,
    node: String,
    secret: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// Without an owner: whether an account may claim it, or it registered over HTTP. Older exports do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported: Option<bool>,
    registered: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_successful_push: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_push_error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former_secrets: Vec<FormerLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormerLine {
    secret: String,
    until: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    used: bool,
}

impl From<Former> for FormerLine {
    fn from(former: Former) -> Self {
        Self {
            secret: former.secret,
            until: former.until.to_string(),
            used: former.used,
        }
    }
}

/// A device as one line, without the line feed.
#[must_use]
pub fn to_line(device: &Device) -> String {
    let time = |time: Option<Time>| time.map(|time| time.to_string());
    let device = device.clone();
    let line = Line {
        dialect: device.dialect.name().to_owned(),
        imported: device.owner.is_none().then_some(device.imported),
        kind: device.kind,
        node: device.node,
        secret: device.secret,
        token: device.token,
        second_token: device.voip_token,
        owner: device.owner,
        account: device.account,
        channel: device.channel,
        registered: device.registered.to_string(),
        renewed: time(device.renewed),
        last_successful_push: time(device.delivered),
        last_push_error: time(device.failed),
        former_secrets: device.former.into_iter().map(FormerLine::from).collect(),
    };
    // Strings and strings only: that cannot fail.
    serde_json::to_string(&line).unwrap_or_default()
}

/// Reads a line.
///
/// # Errors
///
/// It is not a device.
pub fn from_line(line: &str) -> Result<Device, LineError> {
    let line: Line = serde_json::from_str(line).map_err(|_| LineError::Malformed)?;
    let time = |text: Option<String>| match text {
        None => Ok(None),
        Some(text) => Time::parse(&text).map(Some).ok_or(LineError::Time),
    };
    let former = |line: FormerLine| {
        let until = Time::parse(&line.until).ok_or(LineError::Time)?;
        Ok(Former {
            until,
            used: line.used,
            secret: line.secret,
        })
    };
    let device = Device {
        dialect: Dialect::from_name(&line.dialect).ok_or(LineError::Dialect)?,
        kind: line.kind,
        node: line.node,
        secret: line.secret,
        token: line.token,
        voip_token: line.second_token,
        account: line.account,
        channel: line.channel,
        registered: Time::parse(&line.registered).ok_or(LineError::Time)?,
        renewed: time(line.renewed)?,
        delivered: time(line.last_successful_push)?,
        failed: time(line.last_push_error)?,
        former: line
            .former_secrets
            .into_iter()
            .map(former)
            .collect::<Result<_, _>>()?,
        imported: line.owner.is_none() && line.imported.unwrap_or(true),
        // Not written down: it is found out again with one request, and older versions can read the line.
        in_second: false,
        owner: line.owner.map(|owner| canonical_jid(&owner).into_owned()),
    };
    if device.is_sane() {
        Ok(device)
    } else {
        Err(LineError::Field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_gives_back_its_device(
            dialect in proptest::sample::select(&Dialect::ALL[..]),
            texts in proptest::array::uniform4("[^\\p{Cc}]{1,40}"),
            more in proptest::array::uniform4(proptest::option::of("[^\\p{Cc}]{1,40}")),
            registered in 0..4_000_000_000_000_i64,
            times in proptest::array::uniform3(proptest::option::of(0..4_000_000_000_000_i64)),
            [used, imported]: [bool; 2],
        ) {
            let [kind, node, secret, token] = texts;
            let [voip_token, owner, account, channel] = more;
            let owner = owner.map(|owner| canonical_jid(&owner).into_owned());
            let owner = owner.filter(|owner| !owner.is_empty());
            let [renewed, delivered, failed] = times.map(|time| time.map(Time));
            let registered = Time(registered);
            let device = Device {
                imported: imported && owner.is_none(),
                in_second: false,
                dialect, kind, node, secret, token, voip_token, owner, account, channel,
                registered, renewed, delivered, failed,
                former: vec![Former { until: Time(registered.0 + 1), used, secret: "before".to_owned() }],
            };
            let line = to_line(&device);
            prop_assert!(!line.contains('\n'));
            prop_assert!(from_line(&line).unwrap() == device);
        }
    }

    #[test]
    fn what_is_not_a_device_is_refused() {
        let line = r#"{"dialect":"p2","type":"fcm","node":"n","secret":"s","token":"t","registered":"2026-01-01T00:00:00Z"}"#;
        assert!(from_line(line).is_ok());
        let with = |from: &str, to: &str| from_line(&line.replace(from, to)).map(drop);
        assert_eq!(with("p2", "p3"), Err(LineError::Dialect));
        assert_eq!(with("2026", "soon"), Err(LineError::Time));
        assert_eq!(with("\"n\"", "\"\""), Err(LineError::Field));
        assert_eq!(with("\"n\"", "\"\\u0000\""), Err(LineError::Field));
        assert_eq!(with("\"n\"", "1"), Err(LineError::Malformed));
        assert_eq!(with("\"type\"", "\"tipe\""), Err(LineError::Malformed));
        assert_eq!(from_line("").map(drop), Err(LineError::Malformed));
    }
}

//! Devices of p2, in its table `target`.
//!
//! p2 knows of an account its domain and a hash, and no dates. So a device that was imported belongs to an account of that domain
//! that nobody knows, until one registers that has this hash: it proves that by its address and the id of its device.

use fpush_push::canonical_jid;

use crate::{
    batch::{self, Columns, RowError},
    device::{Device, Dialect},
    time::Time,
};

/// Reads rows.
#[derive(Clone, Debug)]
pub struct Rows {
    columns: Columns,
    written: Time,
}

impl Rows {
    /// Reads the first line, with the names of the columns. `written` is when the table was.
    ///
    /// # Errors
    ///
    /// A column is missing.
    pub fn new(first: &str, written: Time) -> Result<Self, RowError> {
        let columns = Columns::read(first, &COLUMNS)?;
        Ok(Self { columns, written })
    }

    /// The device of a row.
    ///
    /// # Errors
    ///
    /// There is none; see [`RowError`].
    pub fn device(&self, line: &str) -> Result<Device, RowError> {
        let row = self.columns.row(line)?;
        let hash = |column, text: &str| {
            let is_hash = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let hash = is_hash.then(|| text.to_ascii_lowercase());
            hash.ok_or(RowError::Column(column))
        };
        let kind = match row.required("service")?.to_ascii_lowercase() {
            kind if ["fcm", "apns"].contains(&&*kind) => kind,
            _ => return Err(RowError::Column("service")),
        };
        let channel = row.optional("channel");
        let device = Device {
            dialect: Dialect::P2,
            kind,
            node: row.required("node")?.to_owned(),
            secret: row.required("secret")?.to_owned(),
            token: row.required("token")?.to_owned(),
            voip_token: None,
            owner: Some(canonical_jid(&somebody_of(row.required("domain")?)).into_owned()),
            account: Some(hash("device", row.required("device")?)?),
            channel: channel.map(|channel| hash("channel", channel)).transpose()?,
            registered: self.written,
            renewed: None,
            delivered: None,
            failed: None,
            former: Vec::new(),
            imported: false,
            in_second: false,
        };
        if device.is_sane() {
            Ok(device)
        } else {
            Err(RowError::Field)
        }
    }
}

/// The line with the names of the columns.
#[must_use]
pub fn first_line() -> String {
    batch::line(&COLUMNS)
}

/// A device as a row; `None` if p2 knows no such device: it is of another dialect or push type, or nobody's.
#[must_use]
pub fn to_line(device: &Device) -> Option<String> {
    let service = match (device.dialect, &*device.kind) {
        (Dialect::P2, "fcm") => "FCM",
        (Dialect::P2, "apns") => "APNS",
        (Dialect::P2 | Dialect::Seed | Dialect::Tigase, _) => return None,
    };
    let owner = device.owner.as_deref()?;
    let domain = owner.split_once('@').map_or(owner, |(_, domain)| domain);
    Some(batch::line(&[
        service,
        device.account.as_deref()?,
        device.channel.as_deref().unwrap_or(""),
        domain,
        &device.token,
        &device.node,
        &device.secret,
    ]))
}

/// Owns what belongs to an account of a domain of which only a hash is known. No bare JID looks like that.
pub(crate) fn somebody_of(domain: &str) -> String {
    format!("@{domain}")
}

/// Whether an owner is such an account, and not one that has registered here.
#[must_use]
pub fn is_somebody(owner: &str) -> bool {
    owner.starts_with('@')
}

const COLUMNS: [&str; 7] = [
    "service", "device", "channel", "domain", "token", "node", "secret",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_device_and_a_row_again() {
        let rows = Rows::new(&first_line(), Time::from_millis(1_000_000_000_000)).unwrap();
        let hash = "88d1ece36bcc07f55cac62aa41b53a9a0804fbbb";
        let good = format!("FCM\t{hash}\t\tA.Example\ttok:en\tn/o+de\tse\\\\cret");
        let device = rows.device(&good).unwrap();
        assert_eq!(device.owner.as_deref(), Some("@a.example"));
        assert_eq!((&*device.secret, device.channel.as_ref()), ("se\\cret", None));
        assert_eq!(to_line(&device).unwrap(), good.replace("A.Example", "a.example"));
        let wrong = |from: &str, to: &str| rows.device(&good.replace(from, to)).err();
        assert_eq!(wrong("FCM", "GCM"), Some(RowError::Column("service")));
        assert_eq!(wrong("FCM", "NULL"), Some(RowError::Empty("service")));
        assert_eq!(wrong(hash, "88d1"), Some(RowError::Column("device")));
        assert_eq!(wrong("\t\t", "\tx\t"), Some(RowError::Column("channel")));
        assert_eq!(wrong("tok:en", "a\\nb"), Some(RowError::Field));
        assert_eq!(wrong("\ttok:en", ""), Some(RowError::Values));
        assert_eq!(
            Rows::new("service\tdevice", Time::from_millis(0)).err(),
            Some(RowError::NoColumn("channel"))
        );
    }
}

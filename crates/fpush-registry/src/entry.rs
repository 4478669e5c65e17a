//! A device as the cache keeps it: one piece of memory with what a push needs, texts as few bytes as their letters allow.

mod form;

use std::sync::Arc;

use self::form::Form;
use crate::{
    device::Device,
    former,
    text::{MAX_NODE, MAX_SECRET},
    time::Time,
};

/// What a push to a device needs. Clones share their memory.
#[derive(Clone)]
pub(crate) struct Entry(Arc<[u8]>);

/// The bytes of an entry, wherever they are.
///
/// Eight bytes for the time of the last registration; two with two bits for each field, how it is written, and one for the
/// lane; a number for the kind, and one for the length of each field that is there; then the fields.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a>(&'a [u8]);

/// A text of an entry.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    Node,
    Secret,
    Token,
    VoipToken,
    Account,
    Channel,
    /// The secrets that were replaced, as the database keeps them.
    Former,
}

impl Entry {
    /// The entry of a device. The kind is whatever number the cache knows it by.
    pub(crate) fn new(device: &Device, kind: u32) -> Self {
        let former = former::to_text(&device.former);
        let fields = [
            Some(&device.node),
            Some(&device.secret),
            Some(&device.token),
            device.voip_token.as_ref(),
            device.account.as_ref(),
            device.channel.as_ref(),
            former.as_ref(),
        ];
        let (mut texts, mut forms, mut lengths) = (Vec::new(), 0_u16, Vec::new());
        for (index, text) in fields.into_iter().enumerate() {
            let Some(text) = text else { continue };
            let start = texts.len();
            let form = Form::pack(text, &mut texts);
            forms |= (form as u16) << (2 * index);
            push_number(texts.len() - start, &mut lengths);
        }
        let mut bytes = Vec::with_capacity(NUMBERS + 5 + lengths.len() + texts.len());
        if device.in_second {
            forms |= IN_SECOND;
        }
        bytes.extend(device.changed().millis().to_le_bytes());
        bytes.extend(forms.to_le_bytes());
        push_number(kind as usize, &mut bytes);
        bytes.extend(lengths);
        bytes.extend(texts);
        Self(bytes.into())
    }

    /// Its bytes.
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed(&self.0)
    }

    /// When the device last registered.
    pub(crate) fn changed(&self) -> Time {
        Time(i64::from_le_bytes(self.packed().array(0)))
    }

    /// Whether the last push was accepted in the second lane.
    pub(crate) fn in_second(&self) -> bool {
        u16::from_le_bytes(self.packed().array(FORMS)) & IN_SECOND != 0
    }

    /// A text.
    pub(crate) fn text(&self, field: Field) -> Option<String> {
        self.packed().text(field)
    }
}

impl<'a> Packed<'a> {
    /// What [`bytes`](Self::bytes) returned.
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// A copy that outlives them.
    pub(crate) fn to_entry(self) -> Entry {
        Entry(self.0.into())
    }

    /// The number that was given for its kind.
    pub(crate) fn kind(self) -> u32 {
        read_number(&self.0[NUMBERS..]).0 as u32
    }

    /// A text.
    pub(crate) fn text(self, field: Field) -> Option<String> {
        let (bytes, form) = self.field(field)?;
        let mut text = vec![0; form.length(bytes)];
        form.unpack(bytes, &mut text);
        String::from_utf8(text).ok()
    }

    /// Calls with the node, without allocating.
    pub(crate) fn with_node<T>(self, run: impl FnOnce(&[u8]) -> T) -> T {
        self.with::<MAX_NODE, T>(Field::Node, run)
    }

    /// Calls with the secret, without allocating.
    pub(crate) fn with_secret<T>(self, run: impl FnOnce(&[u8]) -> T) -> T {
        self.with::<MAX_SECRET, T>(Field::Secret, run)
    }

    fn with<const MAX: usize, T>(self, field: Field, run: impl FnOnce(&[u8]) -> T) -> T {
        match self.field(field) {
            None => run(b""),
            Some((bytes, Form::AsItIs)) => run(bytes),
            Some((bytes, form)) => {
                let mut text = [0; MAX];
                let text = &mut text[..form.length(bytes)];
                form.unpack(bytes, text);
                run(text)
            }
        }
    }

    /// The bytes of a field, and how they are written.
    fn field(self, wanted: Field) -> Option<(&'a [u8], Form)> {
        let forms = u16::from_le_bytes(self.array(FORMS));
        let form = |index: usize| Form::of(forms >> (2 * index));
        let wanted = wanted as usize;
        let its_form = form(wanted)?;
        let (_, mut rest) = read_number(&self.0[NUMBERS..]);
        let (mut start, mut its) = (0, 0);
        for index in (0..FIELDS).filter(|index| form(*index).is_some()) {
            let (length, after) = read_number(rest);
            rest = after;
            if index < wanted {
                start += length;
            } else if index == wanted {
                its = length;
            }
        }
        Some((&rest[start..][..its], its_form))
    }

    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.0[at..][..N]);
        array
    }
}

/// Appends a number, seven bits in each byte, the lowest first.
pub(crate) fn push_number(mut number: usize, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads such a number; returns what comes after it, too.
pub(crate) fn read_number(bytes: &[u8]) -> (usize, &[u8]) {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (number, &bytes[index + 1..]);
        }
    }
    (number, &[])
}

/// Where the parts begin.
const FORMS: usize = 8;
const NUMBERS: usize = 10;
const FIELDS: usize = Field::Former as usize + 1;
/// Above the forms of the fields.
const IN_SECOND: u16 = 1 << (2 * FIELDS);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::Dialect;

    proptest! {
        #[test]
        fn an_entry_holds_what_the_device_has(
            node in "[0-9a-f]{0,8}|.{1,20}",
            secret in "[0-9a-f]{64}|.{1,20}",
            token in "[0-9a-fA-F]{64}|[A-Za-z0-9_-]{1,22}:[A-Za-z0-9_-]{1,141}|.{1,300}",
            voip_token in proptest::option::of("[0-9a-f]{2,64}"),
            account in proptest::option::of(".{0,40}"),
            channel in proptest::option::of("[0-9a-f]{40}"),
            kind: u32,
            renewed: Option<i64>,
            in_second: bool,
        ) {
            let device = Device {
                dialect: Dialect::P2,
                kind: "fcm".to_owned(),
                node, secret, token, voip_token, account, channel,
                owner: None,
                registered: Time(7),
                renewed: renewed.map(Time),
                delivered: None,
                failed: None,
                former: Vec::new(),
                imported: false,
                in_second,
            };
            let entry = Entry::new(&device, kind);
            prop_assert_eq!(entry.text(Field::Node), Some(device.node.clone()));
            prop_assert_eq!(entry.packed().with_node(<[u8]>::to_vec), device.node.as_bytes());
            prop_assert_eq!(entry.packed().with_secret(<[u8]>::to_vec), device.secret.as_bytes());
            prop_assert_eq!(entry.text(Field::Secret), Some(device.secret.clone()));
            prop_assert_eq!(entry.text(Field::Token), Some(device.token.clone()));
            prop_assert_eq!(entry.text(Field::VoipToken), device.voip_token.clone());
            prop_assert_eq!(entry.text(Field::Account), device.account.clone());
            prop_assert_eq!(entry.text(Field::Channel), device.channel.clone());
            prop_assert_eq!(entry.packed().kind(), kind);
            prop_assert_eq!(entry.changed(), device.changed());
            prop_assert_eq!(entry.in_second(), in_second);
        }
    }
}

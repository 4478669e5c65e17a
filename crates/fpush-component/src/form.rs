//! Data forms (XEP-0004): what somebody has filled in, and what we say in one.

use std::{borrow::Cow, slice};

use fpush_push::Value;
use xmpp_parsers::{
    minidom::{Element, rxml::xml_ncname},
    ns,
};

use crate::xml::{Cursor, Malformed, Open};

/// Calls back with the name and the first value of each field of a data form; a field without a value has an
/// empty one.
pub(crate) fn read_fields<'a>(
    cursor: &mut Cursor<'a>,
    form: &Open<'a>,
    mut field: impl FnMut(Cow<'a, str>, Cow<'a, str>),
) -> Result<(), Malformed> {
    while let Some(child) = cursor.child(form)? {
        if !child.is(ns::DATA_FORMS, "field") {
            continue;
        }
        let Some(var) = child.attribute("var")? else {
            continue;
        };
        let mut first = None;
        while let Some(value) = cursor.child(&child)? {
            if first.is_none() && value.is(ns::DATA_FORMS, "value") {
                first = Some(cursor.text(&value)?);
            }
        }
        field(var, first.unwrap_or_default());
    }
    Ok(())
}

/// A form of this type with these values.
pub(crate) fn form(kind: &str, values: &[(&str, Value)]) -> Element {
    Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").into(), kind)
        .append_all(values.iter().map(|(var, value)| field(var, value)))
        .build()
}

fn field(var: &str, value: &Value) -> Element {
    let (kind, values) = match value {
        Value::Text(value) => ("text-single", slice::from_ref(value)),
        Value::Address(value) => ("jid-single", slice::from_ref(value)),
        Value::List(values) => ("text-multi", values.as_slice()),
    };
    let value = |value: &String| {
        Element::builder("value", ns::DATA_FORMS)
            .append(value.as_str())
            .build()
    };
    Element::builder("field", ns::DATA_FORMS)
        .attr(xml_ncname!("var").into(), var)
        .attr(xml_ncname!("type").into(), kind)
        .append_all(values.iter().map(value))
        .build()
}

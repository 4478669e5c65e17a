//! What nodes look like: which are nobody's to choose.

use fpush_push::is_tigase_node;

/// Whether a node looks like one that a registry makes. Such a node belongs to its dialect for ever.
pub(crate) fn is_generated(node: &str) -> bool {
    let is_of_p2 = node.len() == 64 && node.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_of_p2 || is_tigase_node(node)
}

/// Whether a text is what apps have for an id of their device: a UUID, with or without its dashes, or up to 32 hexadecimal
/// digits, such as an Android ID. No provider's tokens have that form.
pub(crate) fn is_device_id(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<_> = text.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    parts.iter().copied().all(is_hex) && (is_uuid || (parts.len() == 1 && text.len() <= 32))
}

//! The fields of a form (`application/x-www-form-urlencoded`), read as the original reads them.

use percent_encoding::percent_decode;

use crate::wording::Refusal;

/// The fields of a form. There is no `Debug`: it holds secrets.
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads a body or a query. Its content type is not looked at, because the original does not; `None` if it
    /// is not UTF-8.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        text.split(|byte| *byte == b'&')
            .filter_map(|pair| {
                let equals = pair.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (&pair[..equals], &pair[equals + 1..]);
                Some(decode(name).zip(decode(value)))
            })
            .collect::<Option<_>>()
            .map(Self)
    }

    /// All of them, in their order.
    pub(crate) fn into_inner(self) -> Vec<(String, String)> {
        self.0
    }

    /// The last field of this name; an empty one counts as none.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(field, _)| field == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The last field of each name.
    ///
    /// # Errors
    ///
    /// There is none of one name, or it is empty: the first such.
    pub(crate) fn all_of<const N: usize>(&self, names: [&'static str; N]) -> Result<[String; N], Refusal> {
        if let Some(missing) = names.into_iter().find(|name| self.optional(name).is_none()) {
            return Err(Refusal::BadField(missing));
        }
        Ok(names.map(|name| self.optional(name).unwrap_or_default().to_owned()))
    }
}

fn decode(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_original_reads_them() {
        let fields = Fields::parse(b"a=1&b=x+y%2B%3D%26&empty=&c=p=q&a=2&novalue&%c3%a4=1").unwrap();
        assert_eq!(fields.optional("a"), Some("2"), "the last one counts");
        assert_eq!(fields.optional("b"), Some("x y+=&"));
        assert_eq!(fields.optional("c"), Some("p=q"));
        assert_eq!(fields.optional("ä"), Some("1"));
        assert_eq!(fields.optional("empty"), None);
        assert_eq!(fields.optional("novalue"), None);
        assert!(fields.all_of(["a", "d"]).is_err());
        assert!(Fields::parse(b"").unwrap().optional("a").is_none());
        assert_eq!(
            Fields::parse(b"a=100%").unwrap().optional("a"),
            Some("100%"),
            "what is not an escape stays"
        );
        assert!(Fields::parse(b"a=%ff").is_none(), "not UTF-8");
    }
}

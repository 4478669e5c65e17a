//! The settings that every backend with a provider behind HTTP/2 has.

use fpush_push::settings::Section;
use http::Uri;

use crate::dial::Dialer;

/// Where the provider is and how to get there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// An https URL without a path.
    pub uri: Uri,
    /// Connects there.
    pub dialer: Dialer,
}

impl Endpoint {
    /// Reads `endpoint`, which replaces the provider's own URL.
    pub fn read(section: &mut Section<'_>, providers: &str) -> Option<Self> {
        Self::read_key(section, "endpoint", providers)
    }

    /// Reads a URL under this key, which replaces one of the provider's own.
    pub fn read_key(section: &mut Section<'_>, key: &'static str, providers: &str) -> Option<Self> {
        let text = section.optional_string(key).unwrap_or(providers);
        let Some(uri) = parse_endpoint(text) else {
            section.error(
                key,
                "expected an https URL without a path, such as \"https://127.0.0.1:2197\"",
            );
            return None;
        };
        let dialer = Dialer::new(&uri).inspect_err(|e| section.error(key, e)).ok()?;
        Some(Self { uri, dialer })
    }

    /// For `fpush check`: the URL, and the proxy on the way to it.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let proxy = self.dialer.proxy_host(&self.uri).map(|host| ("proxy", host));
        [("endpoint", self.uri.to_string())]
            .into_iter()
            .chain(proxy)
            .collect()
    }
}

fn parse_endpoint(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    (uri.scheme_str() == Some("https") && bare && plain).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_without_anything_behind_the_port() {
        assert!(parse_endpoint("https://127.0.0.1:2197").is_some());
        assert!(parse_endpoint("https://api.push.apple.com/").is_some());
        for bad in [
            "http://a",
            "a",
            "https://a/b",
            "https://a?b",
            "https://u:p@a",
            "https://",
        ] {
            assert!(parse_endpoint(bad).is_none(), "{bad}");
        }
    }
}

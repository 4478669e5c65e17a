//! What clients of the HTTP listeners send.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    str::FromStr as _,
    time::{Duration, SystemTime},
};

use fpush_http::HostNames;
use fpush_push::Network;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::split_line;

/// The body of a form, or what Siskin sends to remove an account.
pub(crate) fn http_form(input: &[u8]) {
    fpush_http::fuzz::unregistering(input);
    let Some(fields) = fpush_http::fuzz::form(input) else {
        return;
    };
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= input.len(), "{size} bytes of {}", input.len());
    let mut written = String::new();
    for (name, value) in &fields {
        let [name, value] = [name, value].map(|text| {
            text.bytes().fold(String::new(), |mut all, byte| {
                let _ = write!(all, "%{byte:02X}");
                all
            })
        });
        let _ = write!(written, "{name}={value}&");
    }
    assert!(
        fpush_http::fuzz::form(written.as_bytes()) == Some(fields),
        "{written}"
    );
}

/// A subscription as a token: its one spelling is read as the same one, and leads to an allowed host over https.
pub(crate) fn webpush_token(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Some(canonical) = fpush_webpush::fuzz::token(text) else {
        return;
    };
    assert_eq!(fpush_webpush::fuzz::token(&canonical).as_ref(), Some(&canonical));
    let endpoint = canonical
        .strip_prefix("webpush:")
        .and_then(|rest| rest.rsplitn(3, '|').nth(2))
        .expect("it has three parts");
    let uri: Uri = endpoint.parse().expect("it is a URL");
    let host = uri.host().expect("it has a host");
    let is_allowed = host == "localhost" || host.ends_with(".org") || host.ends_with(".com");
    assert!(uri.scheme_str() == Some("https") && is_allowed, "{endpoint}");
    assert!(
        matches!(uri.port_u16(), None | Some(8_443)) && !endpoint.contains('#'),
        "{endpoint}"
    );
    assert!(
        uri.authority()
            .is_some_and(|authority| !authority.as_str().contains('@'))
    );
}

/// The target of a request in the first line, and its headers in the others.
pub(crate) fn http_headers(input: &[u8]) {
    let (target, mut rest) = split_line(input);
    let target = Uri::try_from(target).unwrap_or_else(|_| Uri::from_static("/"));
    let mut headers = HeaderMap::new();
    while !rest.is_empty() && headers.len() < MOST_HEADERS {
        let line;
        (line, rest) = split_line(rest);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let stranger = IpAddr::from([192, 0, 2, 7]);
    let proxy = IpAddr::from(Ipv4Addr::LOCALHOST);
    let trusted = ["127.0.0.1", "10.0.0.0/8"].map(|network| Network::parse(network).expect("it is one"));
    let (address, _) = fpush_http::fuzz::client(stranger, &target, &headers, &trusted);
    assert_eq!(address, stranger, "nobody but a proxy says who somebody is");
    let (address, _) = fpush_http::fuzz::client(proxy, &target, &headers, &trusted);
    assert_eq!(address, address.to_canonical());
    let names = HostNames::new(["status.example"]).expect("it is a name");
    if fpush_http::fuzz::is_known_host(&names, &target, &headers) {
        for host in headers.get_all(http::header::HOST) {
            let host = host
                .to_str()
                .expect("what is not text is not a name")
                .to_ascii_lowercase();
            assert!(!host.contains("evil.example"), "{host}");
        }
    }
    let wait = fpush_client::retry_after(
        &headers,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    );
    assert!(
        wait.is_none_or(|wait| wait <= Duration::from_secs(3_600)),
        "{wait:?}"
    );
    let text = String::from_utf8_lossy(input);
    for word in text.split_whitespace() {
        if let (Some(network), Ok(address)) = (Network::parse(word), IpAddr::from_str(word)) {
            assert!(network.contains(address), "{word}");
        }
    }
}

const MOST_HEADERS: usize = 100;

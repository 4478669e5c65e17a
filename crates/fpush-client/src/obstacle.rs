//! Why no connection comes to be: sorted by what the operator can do about it.

use std::{error::Error, io};

use fpush_tls::certificate_fault;
use rustls::AlertDescription;

/// What keeps this machine from reaching an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The name of the endpoint, or of the proxy, has no address.
    #[error("its name cannot be resolved: {0}")]
    Name(String),
    /// The name has addresses, but none that may be connected to.
    #[error("its name has no public address of another machine")]
    Address,
    /// TCP cannot connect.
    #[error("{0}")]
    Tcp(String),
    /// The proxy cannot be reached.
    #[error("the proxy cannot be reached: {0}")]
    Proxy(Box<Self>),
    /// The proxy answers CONNECT with this status.
    #[error("the proxy answers CONNECT with status {0}")]
    ProxyRefuses(u16),
    /// The proxy closes the connection, or answers with something that is not HTTP.
    #[error("the proxy gives no answer of HTTP to CONNECT")]
    ProxyTalksOtherwise,
    /// The endpoint's certificate is not trusted.
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    /// Something in TLS itself.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// TLS works, and what is behind it does not offer HTTP/2.
    #[error("this endpoint does not speak HTTP/2")]
    NotHttp2,
    /// TLS works, but the server offers neither h2 nor http/1.1.
    #[error("this endpoint speaks neither HTTP/2 nor HTTP/1.1")]
    NotHttp,
    /// Requests to this URL are not allowed.
    #[error("its URL must begin with https:// and name a host, without a user")]
    Url,
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
}

impl Obstacle {
    /// Finds it in the causes of an error.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(obstacle) = cause.downcast_ref::<Self>() {
                return obstacle.clone();
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            let io = cause.downcast_ref::<io::Error>();
            if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
                return Self::TimedOut;
            }
            // The error inside an io::Error is not its source(), but takes its place.
            next = match io.and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        Self::Tcp(root_cause(error))
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(certificate_fault(reason)),
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::NoApplicationProtocol => Self::NotHttp2,
            other => Self::Tls(other.to_string()),
        }
    }

    /// What it means, and what the operator can do.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Name(_) => {
                "This machine cannot find the address of a name: of the endpoint, or of the proxy. Check the DNS servers in \
                 /etc/resolv.conf, the spelling of endpoint, and HTTPS_PROXY."
            }
            Self::Address => {
                "The name belongs to this machine or to a private network, to which no device may direct requests. If it is a \
                 server of your own, add its network to allowedNetworks."
            }
            Self::Tcp(_) => {
                "No connection can be made. Check the network, that the firewall lets this machine out to the endpoint's \
                 port, the port in endpoint, and HTTPS_PROXY if all must go through a proxy."
            }
            Self::Proxy(_) => {
                "The proxy that HTTPS_PROXY or ALL_PROXY names does not take connections. Check its host and port there, and \
                 that it runs."
            }
            Self::ProxyRefuses(407) => {
                "The proxy wants a user and a password. Put them into HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT."
            }
            Self::ProxyRefuses(_) => {
                "The proxy that HTTPS_PROXY or ALL_PROXY names does not let this machine through to the endpoint. Let it \
                 allow CONNECT to the endpoint's host and port, or name the host in NO_PROXY to go past it."
            }
            Self::ProxyTalksOtherwise => {
                "What HTTPS_PROXY or ALL_PROXY names is not an HTTP proxy, or it ends the connection. Check the host and \
                 the port there."
            }
            Self::Certificate(_) => {
                "Somebody answers in the endpoint's place, or with a certificate that this machine does not trust. If it is \
                 a relay or a proxy of your own that opens TLS, put the certificate of its authority into caFilePath; \
                 otherwise update the package ca-certificates and check the clock of this machine."
            }
            Self::Tls(_) => {
                "There is something that does not speak TLS as it should. Check the host and the port in endpoint, and \
                 whether a firewall or a proxy on the way changes the connection."
            }
            Self::NotHttp2 => {
                "TLS works, but there is no HTTP/2 behind it, and pushes need HTTP/2. Check the host and the port in \
                 endpoint; a relay or a proxy that opens TLS on the way must offer h2 (ALPN)."
            }
            Self::NotHttp => {
                "TLS works, but the server offers neither h2 nor http/1.1 (ALPN). Check the host and the port of its \
                 URL, and whether a firewall or a proxy on the way answers in its place."
            }
            Self::Url => {
                "This URL cannot be used. Give one that begins with https:// and names a host, and keep users and passwords \
                 out of it."
            }
            Self::TimedOut => {
                "Nothing answers. Check the network, that the firewall lets this machine out to the endpoint's port, and \
                 HTTPS_PROXY if all must go through a proxy."
            }
        }
    }
}

/// The first cause of an error: the outer ones only say that something failed. Of what the other side says at the end of
/// an HTTP/2 connection nothing is repeated but a reason in the form of Apple's.
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<h2::Error>() {
        Some(http2) => http2_cause(http2),
        None => cause.to_string(),
    }
}

fn http2_cause(error: &h2::Error) -> String {
    if let Some(io) = error.get_io() {
        return io.to_string();
    }
    let Some(reason) = error.reason() else {
        return "it takes no requests".to_owned();
    };
    let what = match (error.is_go_away(), error.is_remote()) {
        (true, true) => "GOAWAY",
        (true, false) => "HTTP/2 is violated",
        (false, true) => "RST_STREAM",
        (false, false) => "the stream is over",
    };
    match apples_reason(&error.to_string()) {
        Some(apples) => format!("{what} with {reason:?} and the reason {apples}"),
        None => format!("{what} with {reason:?}"),
    }
}

/// The reason in the JSON object that Apple puts behind a GOAWAY. h2 shows that as a literal of Rust, and only there.
fn apples_reason(shown: &str) -> Option<&str> {
    let (_, behind) = shown.split_once(r#"\"reason\":\""#)?;
    let letters = behind.find(|c: char| !c.is_ascii_alphabetic())?;
    behind
        .get(..letters)
        .filter(|name| (1..=40).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    /// As the layers of hyper wrap what they meet.
    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer(#[source] Box<dyn Error + Send + Sync>);

    fn of(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Obstacle {
        Obstacle::of(&Outer(Box::new(Outer(cause.into()))))
    }

    #[test]
    fn it_is_found_behind_what_others_say() {
        let in_io = |error: rustls::Error| of(io::Error::other(error));
        assert_eq!(of(Obstacle::ProxyRefuses(403)), Obstacle::ProxyRefuses(403));
        assert_eq!(
            in_io(CertificateError::UnknownIssuer.into()),
            Obstacle::Certificate("its authority is unknown".into())
        );
        assert_eq!(
            in_io(CertificateError::Revoked.into()),
            Obstacle::Certificate("Revoked".into())
        );
        assert_eq!(
            in_io(rustls::Error::AlertReceived(
                AlertDescription::NoApplicationProtocol
            )),
            Obstacle::NotHttp2
        );
        assert!(matches!(in_io(rustls::Error::DecryptError), Obstacle::Tls(_)));
        assert_eq!(of(io::Error::from(io::ErrorKind::TimedOut)), Obstacle::TimedOut);
        let refused = of(io::Error::from_raw_os_error(111));
        assert_eq!(refused.to_string(), "Connection refused (os error 111)");
        assert_eq!(of("anything"), Obstacle::Tcp("anything".into()));
    }

    #[test]
    fn of_what_the_other_side_says_only_a_reason_of_apples_is_repeated() {
        let shown = |debug: &str| {
            format!(
                "connection error received: x ({:?})",
                bytes::Bytes::from(debug.to_owned())
            )
        };
        for (debug, reason) in [
            (
                r#"{"reason":"BadCertificate","timestamp":1}"#,
                Some("BadCertificate"),
            ),
            (r#"{"reason":""}"#, None),
            (r#"{"reason":"00112233"}"#, None),
            (r#"{"reason":"Shutdown 00112233"}"#, Some("Shutdown")),
            ("too_many_pings", None),
            (r#"{"reason":"#, None),
            ("", None),
        ] {
            assert_eq!(apples_reason(&shown(debug)), reason, "{debug}");
        }
        let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(41));
        assert_eq!(apples_reason(&shown(&long)), None);
        let reset = h2::Error::from(h2::Reason::CANCEL);
        assert_eq!(of_any(&reset), "the stream is over with CANCEL");
    }

    fn of_any(error: &(dyn Error + 'static)) -> String {
        root_cause(error)
    }

    #[test]
    fn each_has_a_remedy() {
        let all = [
            Obstacle::Name("x".into()),
            Obstacle::Address,
            Obstacle::Tcp("x".into()),
            Obstacle::Proxy(Box::new(Obstacle::TimedOut)),
            Obstacle::ProxyRefuses(407),
            Obstacle::ProxyRefuses(503),
            Obstacle::ProxyTalksOtherwise,
            Obstacle::Certificate("x".into()),
            Obstacle::Tls("x".into()),
            Obstacle::NotHttp2,
            Obstacle::NotHttp,
            Obstacle::Url,
            Obstacle::TimedOut,
        ];
        for obstacle in all {
            let meaning = obstacle.meaning();
            assert!((60..400).contains(&meaning.len()), "{meaning}");
            assert!(meaning.ends_with('.') && !meaning.contains("  "), "{meaning}");
        }
    }
}

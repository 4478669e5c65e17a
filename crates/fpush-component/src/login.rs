//! Connecting to the server and logging in (XEP-0114), and what the operator must do where that fails.

use std::{fmt, io, time::Duration};

use fpush_tls::{certificate_fault, fault_of};
use rustls::CertificateError;

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tokio_xmpp::xmlstream::{
    ReadError, StreamHeader, Timeouts, XmlStream, XmppStreamElement, initiate_stream,
};
use xmpp_parsers::{component::Handshake, ns, stream_error::DefinedCondition};

use crate::{
    dial::{Dial, Net, Socket},
    settings::LinkSettings,
    tls::TlsSettings,
};

/// A stream that was logged in.
#[derive(Debug)]
pub(crate) struct Established<S> {
    pub(crate) socket: S,
    /// What the server sent right behind its handshake.
    pub(crate) already_read: Vec<u8>,
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// There is no connection.
    Connect(io::Error),
    /// The server's certificate is not accepted.
    Certificate(CertificateError),
    /// TLS fails otherwise.
    Tls(rustls::Error),
    /// The server does not know our name.
    HostUnknown,
    /// The server does not accept our secret.
    NotAuthorized,
    /// Somebody else has our name.
    Conflict,
    /// The server closed the stream without a word.
    Closed,
    /// The server said something else.
    Refused(String),
    /// The server said nothing.
    TimedOut,
}

impl LoginError {
    /// Whether trying again soon is pointless, because somebody has to change something first.
    pub(crate) fn needs_the_operator(&self) -> bool {
        match self {
            Self::HostUnknown | Self::NotAuthorized | Self::Conflict | Self::Certificate(_) => true,
            Self::Connect(_) | Self::Tls(_) | Self::Closed | Self::Refused(_) | Self::TimedOut => false,
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Certificate(_) => "certificate",
            Self::Tls(_) => "tls",
            Self::HostUnknown => "host-unknown",
            Self::NotAuthorized => "not-authorized",
            Self::Conflict => "conflict",
            Self::Closed => "closed",
            Self::Refused(_) => "refused",
            Self::TimedOut => "timeout",
        }
    }

    /// What to change, on Prosody and on ejabberd.
    pub(crate) fn advice(&self, settings: &LinkSettings) -> String {
        let (name, host, port) = (&settings.hostname, &settings.server_host, settings.server_port);
        let (path, secret) = (&settings.path, settings.secret_key);
        let usual = usual_port(port);
        let tls = if settings.tls.is_none() {
            format!(". If that port speaks TLS, set {path}.tls")
        } else {
            format!(". If that port speaks no TLS, remove {path}.tls")
        };
        match self {
            Self::Connect(e) => format!(
                "{usual}is the server running, and does it listen for components on {host} port {port}? Prosody: \
                 component_ports = {{ {port} }} and component_interfaces, at the top of its configuration. ejabberd: \
                 a listener with module: ejabberd_service and port: {port}{}",
                // TCP has an answer of its own where nobody listens.
                if e.kind() == io::ErrorKind::TimedOut {
                    &tls
                } else {
                    ""
                }
            ),
            Self::HostUnknown => format!(
                "{usual}the server knows no component {name}, or port {port} is not its port for components. Prosody: \
                 Component \"{name}\" with component_secret, and component_ports. ejabberd: hosts: {{ {name}: \
                 {{ password: … }} }} in the listener with module: ejabberd_service"
            ),
            Self::NotAuthorized => format!(
                "the server does not accept {path}.{secret} for {name}. Prosody: it must be the \
                 component_secret of Component \"{name}\". ejabberd: it must be the password of {name} in hosts of the \
                 listener with module: ejabberd_service, which must name {name}"
            ),
            Self::Conflict => format!(
                "the server has a connection of {name} already: another fpush, or one that is half-open. Prosody: \
                 stop the other one, or, if there is only this one, component_conflict_resolve = \"kick_old\" under \
                 Component \"{name}\". ejabberd accepts several connections"
            ),
            Self::Closed => format!(
                "{usual}some servers do so when the secret is wrong: check {path}.{secret}, and whether port {port} \
                 is the server's port for components and not the one for clients{tls}"
            ),
            Self::Refused(_) | Self::TimedOut => format!(
                "{usual}is {host} port {port} the server's port for components? Prosody: component_ports. ejabberd: the \
                 listener with module: ejabberd_service{tls}"
            ),
            Self::Certificate(CertificateError::UnknownIssuer) => format!(
                "put the certificate of its authority, in PEM form, into a file, and its path into {path}.tls.caFilePath; \
                 and let the server send the certificates between the two as well. A certificate that vouches for itself is its own \
                 authority"
            ),
            Self::Certificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "it must be for {}, as a subjectAltName. If the server has another name in it, set {path}.tls.serverName to \
                 that; otherwise give the server a new certificate",
                settings
                    .tls
                    .as_ref()
                    .map(TlsSettings::server_name)
                    .unwrap_or_default()
            ),
            Self::Certificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => "give the server a new certificate, and check the clock of this machine".to_owned(),
            Self::Certificate(_) => format!(
                "give the server a certificate that is for a server (no authority's own: basicConstraints CA:FALSE), \
                 signed by an authority that this machine or {path}.tls.caFilePath has"
            ),
            Self::Tls(_) => format!(
                "does {host} port {port} speak TLS from the first byte? ejabberd: tls: true and certfile in the listener with \
                 module: ejabberd_service. Prosody has no TLS for components: stunnel in front of it, or remove {path}.tls"
            ),
        }
    }
}

/// What a port is for on nearly every server, if that is not components; a sentence of its own.
fn usual_port(port: u16) -> String {
    let what = match port {
        5222 | 5223 => "clients",
        5269 | 5270 => "other servers",
        5280 | 5281 | 5443 => "HTTP",
        _ => return String::new(),
    };
    format!(
        "port {port} is usually the one for {what}, and components have another one: 5347 on Prosody, on ejabberd the \
         port of the listener with module: ejabberd_service. If it is the right one: "
    )
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(e) => write!(f, "cannot connect to the server: {e}"),
            Self::Certificate(reason) => write!(
                f,
                "the server's certificate is not accepted: {}",
                certificate_fault(reason)
            ),
            Self::Tls(e) => write!(f, "TLS with the server fails: {e}"),
            Self::HostUnknown => f.write_str("the server answered host-unknown"),
            Self::NotAuthorized => f.write_str("the server answered not-authorized"),
            Self::Conflict => f.write_str("the server answered conflict"),
            Self::Closed => f.write_str("the server closed the stream during the login"),
            Self::Refused(what) => write!(f, "the server refused the login: {what}"),
            Self::TimedOut => f.write_str("the server did not answer during the login"),
        }
    }
}

impl LinkSettings {
    /// Logs in and out again. Returns nothing to say, or why that is not possible and what to do.
    ///
    /// # Errors
    ///
    /// What the server said or did, and what to change.
    pub async fn try_login(&self) -> Result<(), String> {
        let mut established = login(self, &Net)
            .await
            .map_err(|error| format!("{error}; {}", error.advice(self)))?;
        close(&mut established.socket).await;
        Ok(())
    }
}

/// Ends our side of a stream. An error is ignored: the connection ends anyway.
pub(crate) async fn close(writer: &mut (impl AsyncWrite + Unpin)) {
    let farewell = async {
        writer.write_all(b"</stream:stream>").await?;
        writer.shutdown().await
    };
    drop(timeout(FAREWELL, farewell).await);
}

pub(crate) async fn login<D: Dial>(
    settings: &LinkSettings,
    dial: &D,
) -> Result<Established<D::Socket>, LoginError> {
    let socket = match timeout(CONNECT_TIMEOUT, dial.dial(settings)).await {
        Ok(connected) => connected.map_err(of_dial)?,
        Err(_) => return Err(LoginError::Connect(io::ErrorKind::TimedOut.into())),
    };
    timeout(LOGIN_TIMEOUT, authenticate(socket, settings))
        .await
        .map_err(|_| LoginError::TimedOut)?
}

async fn authenticate<S: Socket>(socket: S, settings: &LinkSettings) -> Result<Established<S>, LoginError> {
    let header = StreamHeader {
        from: None,
        to: Some(settings.hostname.as_str().into()),
        id: None,
    };
    let opening = initiate_stream(BufReader::new(socket), ns::COMPONENT, header, Timeouts::default());
    let mut opened = opening.await.map_err(of_io)?;
    let id = opened
        .take_header()
        .id
        .ok_or_else(|| LoginError::Refused("its stream has no id".to_owned()))?;
    let mut stream: XmlStream<_, XmppStreamElement> = opened.skip_features();
    let handshake = Handshake::from_stream_id_and_password(id.into_owned(), settings.secret.as_str());
    let handshake = XmppStreamElement::ComponentHandshake(handshake);
    futures_util::SinkExt::send(&mut stream, &handshake)
        .await
        .map_err(of_io)?;
    loop {
        match stream.next().await {
            Some(Ok(XmppStreamElement::ComponentHandshake(_))) => break,
            Some(Ok(XmppStreamElement::StreamError(error))) => return Err(of_condition(error.0.condition)),
            Some(Ok(_)) => {
                return Err(LoginError::Refused(
                    "it sent something else than a handshake".to_owned(),
                ));
            }
            Some(Err(ReadError::SoftTimeout)) => {}
            // Behind a good header, what is not XML is a stream that was cut off.
            Some(Err(ReadError::HardError(e))) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(LoginError::Closed);
            }
            Some(Err(ReadError::HardError(e))) => return Err(of_io(e)),
            Some(Err(ReadError::ParseError(_))) => {
                return Err(LoginError::Refused("it sent what cannot be read".to_owned()));
            }
            Some(Err(ReadError::StreamFooterReceived)) | None => return Err(LoginError::Closed),
        }
    }
    let reader = stream.into_inner();
    let already_read = reader.buffer().to_vec();
    Ok(Established {
        socket: reader.into_inner(),
        already_read,
    })
}

fn of_condition(condition: DefinedCondition) -> LoginError {
    match condition {
        DefinedCondition::HostUnknown | DefinedCondition::HostGone => LoginError::HostUnknown,
        DefinedCondition::NotAuthorized => LoginError::NotAuthorized,
        DefinedCondition::Conflict => LoginError::Conflict,
        other => LoginError::Refused(other.to_string()),
    }
}

fn of_dial(error: io::Error) -> LoginError {
    match fault_of(&error) {
        Some(rustls::Error::InvalidCertificate(reason)) => LoginError::Certificate(reason.clone()),
        Some(other) => LoginError::Tls(other.clone()),
        None => LoginError::Connect(error),
    }
}

fn of_io(error: io::Error) -> LoginError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            LoginError::Closed
        }
        io::ErrorKind::InvalidData => LoginError::Refused("it does not speak XMPP".to_owned()),
        _ => LoginError::Connect(error),
    }
}

/// How long the end of a stream may take.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(error: &LoginError, server_port: u16, path: &str, secret_key: &'static str) -> String {
        error.advice(&LinkSettings {
            path: path.to_owned(),
            secret_key,
            server_port,
            ..LinkSettings::made_up()
        })
    }

    #[test]
    fn a_port_that_is_for_others_is_told_first() {
        for error in [LoginError::HostUnknown, LoginError::Closed, LoginError::TimedOut] {
            let said = advice(&error, 5222, "component", "componentKey");
            assert!(
                said.starts_with("port 5222 is usually the one for clients"),
                "{said}"
            );
            assert!(said.contains("5347 on Prosody"), "{said}");
            let said = advice(&error, 5347, "component", "componentKey");
            assert!(!said.contains("usually") && said.contains("port 5347"), "{said}");
        }
    }

    #[test]
    fn the_secret_is_corrected_where_it_is() {
        for (path, key) in [
            ("component", "componentKey"),
            ("component[1]", "componentKeyFile"),
        ] {
            for error in [LoginError::NotAuthorized, LoginError::Closed] {
                let said = advice(&error, 5347, path, key);
                assert!(said.contains(&format!("{path}.{key}")), "{said}");
                assert!(
                    !said.contains(&format!("{key}File")) && !said.contains("s3cret"),
                    "{said}"
                );
            }
        }
    }
}

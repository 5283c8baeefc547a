//! Texts for failures of nodes: the error, and its remedy.

use std::io;

use pingora::{Error, ErrorType, ImmutStr};

use super::RunningUpstream;

/// Returns the text of an error before the header of the response: its type, the remedy, and the cause in the words of
/// the system or of the TLS library.
pub(crate) fn describe(error: &Error, upstream: &RunningUpstream) -> String {
    text(error, advice(error.etype(), &error.to_string(), upstream.settings().tls.is_some()))
}

/// Returns the text of an error after the header of the response, as [`describe`] does.
pub(crate) fn describe_cut(error: &Error, upstream: &RunningUpstream) -> String {
    match advice_on_cut(error.etype()) {
        None => describe(error, upstream),
        advice => text(error, advice),
    }
}

fn text(error: &Error, advice: Option<&str>) -> String {
    let kind = error.etype();
    let context = || error.context.as_ref().map(|context| context.as_str().to_owned());
    // The error is from this crate. Its context is the whole text.
    if let ErrorType::HTTPStatus(_) | ErrorType::CustomCode(..) = kind {
        return context().unwrap_or_else(|| kind.as_str().to_owned());
    }
    let mut text = kind.as_str().to_owned();
    for (part, (begin, end)) in [(advice.map(str::to_owned), (": ", "")), (cause(error), (" (", ")"))] {
        if let Some(part) = part {
            text.extend([begin, &part, end]);
        }
    }
    text
}

/// Whether the operating system closed the connection because the node took no data for `timeouts.write`: see
/// [`super::peer`].
pub(crate) fn is_write_timeout(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError)
        && cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// Returns the cause of a failed TLS handshake, or of an error of a socket or of HTTP/2.
fn cause(error: &Error) -> Option<String> {
    let mut error = error;
    loop {
        // Pingora has the cause of a failed TLS handshake only in this text.
        let context = error.context.as_ref().map(ImmutStr::as_str);
        if let Some(handshake) = context.and_then(|context| context.strip_prefix("TLS connect() failed: ")) {
            let cause = handshake.rsplit_once(", SNI: ").map_or(handshake, |(cause, _)| cause);
            return Some(cause.trim().to_owned());
        }
        let cause = error.cause.as_ref()?;
        match cause.downcast_ref::<Box<Error>>() {
            Some(cause) => error = cause,
            None => return Some(cause.to_string()),
        }
    }
}

/// Words in the texts of errors, each with the remedy.
const BY_TEXT: [(&str, &str); 23] = [
    (
        "CaUsedAsEndEntity",
        "the node uses a CA certificate as its own; give it a certificate with basicConstraints=CA:FALSE and set `tls.ca` \
         to its issuer, or set `tls.verify: false`",
    ),
    (
        "UnknownIssuer",
        "no trusted CA has issued the node's certificate; set `tls.ca` to the file of its CA, or of the certificate \
         itself if it is self-signed",
    ),
    ("not valid for name", "the node's certificate is for other names; set `tls.sni` to one of them"),
    ("NotValidForName", "the node's certificate is for other names; set `tls.sni` to one of them"),
    ("certificate expired", "the node's certificate has expired; renew it"),
    ("certificate not valid yet", "the node's certificate is not valid yet; check the clocks of both machines"),
    ("CertificateRequired", "the node requires a client certificate; set `tls.cert` and `tls.key`"),
    ("alert: BadCertificate", CLIENT_CERTIFICATE),
    ("alert: UnknownCA", CLIENT_CERTIFICATE),
    ("alert: CertificateUnknown", CLIENT_CERTIFICATE),
    ("alert: CertificateExpired", CLIENT_CERTIFICATE),
    ("alert: DecryptError", CLIENT_CERTIFICATE),
    ("NoApplicationProtocol", "the node does not offer HTTP/2; remove `http2: true`"),
    ("UnrecognisedName", "the node does not know this server name; set `tls.sni`"),
    ("alert: HandshakeFailure", TLS_VERSION),
    ("alert: ProtocolVersion", TLS_VERSION),
    ("InvalidContentType", "the node does not speak TLS on this port; remove `tls`, or write the port that has TLS"),
    (
        "tls handshake eof",
        "the node closed the connection in the TLS handshake; check that the port has TLS, and the log of the node",
    ),
    ("invalid Content-Length header", BAD_LENGTH),
    ("negative Content-Length header", BAD_LENGTH),
    ("Response header larger than", "the response header is larger than 1 MiB"),
    ("too many headers", "the response has more than 256 header fields"),
    // The first bytes of a TLS alert, where a response should be.
    ("buf: \\x15\\x03", ADD_TLS),
];
const CLIENT_CERTIFICATE: &str =
    "the node refuses the client certificate; check `tls.cert`, and the CA that the node trusts";
const BAD_LENGTH: &str = "`Content-Length` of the response is not one number; correct it in the node";
const TLS_VERSION: &str = "no TLS version and cipher in common with the node, which needs TLS 1.2 or later";
pub(crate) const ADD_TLS: &str = "the node speaks TLS on this port; add `tls` to the upstream";

/// Returns the remedy of an error, if it is known. `text` is the whole text of the error.
fn advice(kind: &ErrorType, text: &str, tls: bool) -> Option<&'static str> {
    use ErrorType::*;
    if let Some((_, advice)) = BY_TEXT.iter().find(|(words, _)| text.contains(words)) {
        return Some(advice);
    }
    Some(match kind {
        InternalError | ConnectError if text.contains("Permission denied") => {
            "no access to the socket; give the user that runs corsgate write permission on it, and access to its directory"
        }
        ConnectError if text.contains("No such file or directory") => {
            "there is no socket at this path; start the node, or correct its address"
        }
        ConnectError if text.contains("Resource temporarily unavailable") => {
            "the queue of the socket is full; raise the backlog of the node, and net.core.somaxconn"
        }
        ConnectRefused => "nothing listens there; start the node, or correct its address",
        ConnectNoRoute => "no route to the node; check its address and the network",
        ConnectTimedout => {
            "no connection within `timeouts.connect`; check the address, and whether a firewall drops the packets"
        }
        TLSHandshakeTimedout => "no TLS handshake within `timeouts.connect`; check that the port has TLS",
        InternalError | SocketError | ConnectError if text.contains("Too many open files") => {
            "no file descriptor is left; raise the limit of the process (`ulimit -n`, LimitNOFILE)"
        }
        InternalError | BindError if text.contains("Cannot assign requested address") => {
            "no local port is left for a connection to this node; add nodes, or widen net.ipv4.ip_local_port_range"
        }
        InvalidHTTPHeader => {
            "the response is not HTTP/1; check the port, or set `http2: true` if the node has only HTTP/2"
        }
        H2Error if text.contains("frame with invalid size") => {
            "the response is not HTTP/2; check the port, or remove `http2: true`"
        }
        ConnectionClosed | ReadError if !tls => {
            "the node closed the connection before its response; see its log, or add `tls` if the port has TLS"
        }
        ConnectionClosed | ReadError => "the node closed the connection before its response; see its log",
        ReadTimedout => "no response within `timeouts.read`",
        WriteTimedout => "the node took no data for `timeouts.write`",
        _ => return None,
    })
}

/// Returns the remedy of an error after the header of the response, if it differs from that of [`advice`].
fn advice_on_cut(kind: &ErrorType) -> Option<&'static str> {
    use ErrorType::*;
    Some(match kind {
        ConnectionClosed | ReadError => "the node closed the connection before the end of its response; see its log",
        ReadTimedout => "the node sent no more of its response for `timeouts.read`",
        kind if kind.as_str() == "InvalidChunk" => "the node sends invalid chunks; see its log",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_decides_before_its_type() {
        for (kind, text, tls, words) in [
            (ErrorType::TLSHandshakeFailure, "invalid peer certificate: UnknownIssuer", true, "`tls.ca`"),
            (ErrorType::TLSHandshakeFailure, "Other(OtherError(CaUsedAsEndEntity))", true, "CA:FALSE"),
            (ErrorType::TLSHandshakeFailure, "certificate not valid for name \"a\"; certificate", true, "`tls.sni`"),
            (ErrorType::InvalidHTTPHeader, "buf: \\x15\\x03\\x03\\x00", false, "add `tls`"),
            (ErrorType::InvalidHTTPHeader, "buf: 220 mail", false, "not HTTP/1"),
            (ErrorType::InvalidHTTPHeader, "context: invalid Content-Length header value: x", false, "not one number"),
            (ErrorType::InvalidHTTPHeader, "context: buf: a cause: too many headers", false, "256 header fields"),
            (ErrorType::InvalidHTTPHeader, "context: Response header larger than 1048575", false, "1 MiB"),
            (ErrorType::ReadError, "Connection reset by peer", false, "add `tls`"),
            (ErrorType::InternalError, "Too many open files (os error 24)", false, "LimitNOFILE"),
            (ErrorType::ConnectRefused, "", false, "nothing listens"),
            (ErrorType::InternalError, "Permission denied (os error 13)", false, "write permission"),
            (ErrorType::ConnectError, "No such file or directory (os error 2)", false, "no socket at this path"),
        ] {
            let advice = advice(&kind, text, tls);
            assert!(advice.is_some_and(|advice| advice.contains(words)), "{text}: {advice:?}");
        }
        assert!(!advice(&ErrorType::ReadError, "", true).unwrap().contains("add `tls`"));
        assert_eq!(advice(&ErrorType::InternalError, "another error", false), None);
    }
}

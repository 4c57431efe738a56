//! The far end of a connection, and whom a request says it comes from.

use std::net::{IpAddr, SocketAddr};

/// What one connection tells about its far end. Nothing here comes from a header.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The port the peer reached us on.
    pub local_port: u16,
    pub tls: Option<TlsFacts>,
}

#[derive(Debug, Clone)]
pub struct TlsFacts {
    pub version: &'static str,
    /// True if the client chose HTTP/2 (ALPN).
    pub http2: bool,
    /// The name that it asked for (SNI), in lower case.
    pub name: Option<String>,
    /// By which authorities' word the certificate that it showed was believed; `None` if none was
    /// asked for.
    pub authorities: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Whom a request comes from and what it asked for, as believed: from the connection, or from
/// the forwarding headers of a trusted peer.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: IpAddr,
    /// Lower case, without the port.
    pub host: String,
    /// The public port.
    pub port: u16,
    pub scheme: Scheme,
    /// The `X-Forwarded-For` chain that a trusted peer sent, to be continued with its address.
    pub chain: Option<String>,
}

impl Client {
    /// The host as URLs write it: the port only when it is not the scheme's own.
    pub fn authority(&self) -> String {
        let Some(port) = self.odd_port() else { return self.host.clone() };
        let (mut digits, host) = (itoa::Buffer::new(), &*self.host);
        let port = digits.format(port);
        let mut text = String::with_capacity(host.len() + 1 + port.len());
        for part in [host, ":", port] {
            text.push_str(part);
        }
        text
    }

    /// The same, to a head that is being written.
    pub fn write_authority(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.host.as_bytes());
        if let Some(port) = self.odd_port() {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
    }

    /// True if this is how `authority` would write it.
    pub fn is_authority(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(self.host.as_bytes()) else { return false };
        match self.odd_port() {
            None => rest.is_empty(),
            Some(port) => {
                let port = itoa::Buffer::new().format(port).as_bytes()
                    == rest.get(1..).unwrap_or_default();
                port && rest.starts_with(b":")
            }
        }
    }

    /// The port, if it is not the scheme's own.
    fn odd_port(&self) -> Option<u16> {
        (self.port != self.scheme.default_port()).then_some(self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scheme: Scheme, port: u16, expected: &str, others: &[&str]) {
        let address = [10, 0, 0, 9].into();
        let client = Client { address, host: "a.example".to_owned(), port, scheme, chain: None };
        assert_eq!(client.authority(), expected);
        assert!(client.is_authority(expected.as_bytes()));
        for other in others {
            assert!(!client.is_authority(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_port_is_written_only_where_it_is_not_the_schemes_own() {
        check(Scheme::Https, 443, "a.example", &["a.example:443", "A.example", "a.examples", ""]);
        check(Scheme::Http, 443, "a.example:443", &["a.example", "a.example:", "a.example:4430"]);
        check(Scheme::Http, 8080, "a.example:8080", &["a.example;8080", "a.example:08080", "b"]);
    }
}

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
    /// True if it showed a certificate, which is one that was asked for.
    pub verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        if self.port == self.scheme.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

//! What a stranger's page may have made a browser ask; pure.
//!
//! Where no token is asked for (over a unix socket, which `ssh -L` brings to a browser), a page of
//! anybody's could send requests here, or read them under a name of its own that it lets resolve to
//! this address. The first shows in `Origin`, the second in `Host`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};

use crate::exchange::headers::split_port;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strange {
    /// A name that strangers may own.
    Host,
    /// Another page than ours.
    Origin,
}

impl Strange {
    pub fn message(self) -> &'static str {
        match self {
            Self::Host => {
                "this listener is asked by an address, as localhost or by a name without dots, \
                so that no page of the internet can ask it; a proxy before it sets Host: localhost\n"
            }
            Self::Origin => "no page of another origin may ask this listener\n",
        }
    }
}

/// Judges by what every browser sends; programs send no `Origin`.
pub fn judge(headers: &HeaderMap) -> Result<(), Strange> {
    let text = |value: Option<&HeaderValue>| {
        value.map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase())
    };
    let host = text(headers.get(header::HOST));
    if host.as_deref().is_some_and(|host| !is_near(host)) {
        return Err(Strange::Host);
    }
    let Some(origin) = text(headers.get(header::ORIGIN)) else { return Ok(()) };
    let same = origin.split_once("://").map(|(_, authority)| authority) == host.as_deref();
    if same { Ok(()) } else { Err(Strange::Origin) }
}

/// Names that resolve the same way for everybody: addresses, `localhost`, and those without a dot,
/// which nobody can register.
fn is_near(authority: &str) -> bool {
    let Some((host, _)) = split_port(authority) else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || !host.contains('.') || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_told_by_their_names() {
        let judged = |host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            origin.map(|origin| headers.insert(header::ORIGIN, HeaderValue::from_static(origin)));
            judge(&headers)
        };
        for host in [
            "localhost",
            "LOCALHOST:9180",
            "127.0.0.1:9180",
            "[::1]:9180",
            "vestibule",
            "a.localhost:1",
        ] {
            assert_eq!(judged(host, None), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.:80",
            "a@localhost",
            "",
        ] {
            assert_eq!(judged(host, None), Err(Strange::Host), "{host}");
        }
        for (origin, same) in [
            ("http://localhost:9180", Ok(())),
            ("http://LocalHost:9180", Ok(())),
            ("http://localhost:3000", Err(Strange::Origin)),
            ("http://evil.example", Err(Strange::Origin)),
            ("null", Err(Strange::Origin)),
        ] {
            assert_eq!(judged("localhost:9180", Some(origin)), same, "{origin}");
        }
        assert_eq!(judge(&HeaderMap::new()), Ok(()), "a program of HTTP/1.0");
    }
}

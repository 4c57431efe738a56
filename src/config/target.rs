//! Where servers are found, by network or by socket; pure.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::units::address;
use super::{AdminAddress, Target};

impl Target {
    /// `http://HOST`, `https://HOST`, both perhaps with a port, or `unix:PATH`; a relative path
    /// begins at `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket(path, folder).map(Self::Unix);
        }
        let (rest, scheme, usual) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(rest), _) => (rest, "http", 80),
                (None, Some(rest)) => (rest, "https", 443),
                (None, None) if text.starts_with(['/', '.']) => {
                    return Err(format!("{text:?} has no scheme; write unix:{text}"));
                }
                (None, None) => {
                    return Err(format!(
                        "{text:?} is no target; write http://HOST:PORT or unix:PATH"
                    ));
                }
            };
        let authority = authority(rest.strip_suffix('/').unwrap_or(rest), usual);
        let (host, port) = authority.ok_or_else(|| {
            format!("{text:?} is no target; write {scheme}://HOST:PORT, without a path")
        })?;
        let host = host.to_owned();
        Ok(if scheme == "http" { Self::Tcp(host, port) } else { Self::Tls(host, port) })
    }
}

/// Host, an IPv6 address without its brackets, and port; `usual` if none is written.
pub fn authority(text: &str, usual: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(letter)).then_some((host, port))?
        }
    };
    if port.is_empty() {
        return Some((host, usual));
    }
    let port = port.strip_prefix(':')?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port > 0)?;
    Some((host, port))
}

fn at(scheme: &str, host: &str, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}://[{host}]:{port}")
    } else {
        write!(f, "{scheme}://{host}:{port}")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => at("http", host, *port, f),
            Self::Tls(host, port) => at("https", host, *port, f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl AdminAddress {
    /// `unix:PATH`, or an address and port.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => socket(path, folder).map(Self::Unix),
            None if text.starts_with(['/', '.']) => {
                Err(format!("{text:?} has no scheme; write unix:{text}"))
            }
            None => address(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What `sun_path` holds, less its end.
const SOCKET_PATH_MAX: usize = 107;

fn socket(path: &str, folder: &Path) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("unix: has no path behind it".to_owned());
    }
    let path = folder.join(path);
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let path = path.display();
        return Err(format!(
            "{path} has {length} bytes; a socket's path has at most {SOCKET_PATH_MAX}"
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = Target::parse(text, Path::new("etc")).map(|target| target.to_string());
        assert_eq!(found.as_deref().ok(), expected, "{text}: {found:?}");
    }

    #[test]
    fn targets_have_a_scheme_and_no_path() {
        check("http://localhost", Some("http://localhost:80"));
        check("http://127.0.0.1:3000/", Some("http://127.0.0.1:3000"));
        check("http://[::1]:3000", Some("http://[::1]:3000"));
        check("http://[::1]", Some("http://[::1]:80"));
        check("https://app.example", Some("https://app.example:443"));
        check("https://[::1]:8443/", Some("https://[::1]:8443"));
        check("unix:run/a.sock", Some("unix:etc/run/a.sock"));
        check("unix:/run/a.sock", Some("unix:/run/a.sock"));
        for text in [
            "",
            "localhost",
            "http://",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:+80",
            "http://a:65536",
            "http://a/b",
            "https://a/b",
            "https://",
            "http://a b",
            "http://user@a",
            "http://::1",
            "http://[::1]80",
            "http://[a]",
            "unix:",
        ] {
            check(text, None);
        }
        let long = "a".repeat(SOCKET_PATH_MAX - "/run/".len());
        check(&format!("unix:/run/{long}"), Some(&format!("unix:/run/{long}")));
        check(&format!("unix:/run/{long}a"), None);
    }
}

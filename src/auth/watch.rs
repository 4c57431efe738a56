//! Cookies that the application sets, as they pass: a session that ends, or becomes another.

use std::sync::Arc;

use http::HeaderMap;
use http::header::SET_COOKIE;

use crate::exchange::Client;

use super::credentials::Credentials;
use super::provider::Digest;
use super::worker::Candidate;
use super::{Auth, clock, time};

/// A session that may have ended by an answer of the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Of what was shown, or what all tokens of one session have in common.
    pub digest: Digest,
    /// The cookie is still there, with another value.
    pub replaced: bool,
    /// Nobody can be asked whether it has ended.
    pub stateless: bool,
    /// Refused until then, in milliseconds since 1970; 0: nothing is to be refused.
    pub until: i64,
}

/// What an answer's cookies did to one session.
pub struct Passed {
    pub suspicion: Suspicion,
    pub before: Candidate,
    /// What is shown in its place from now on, which has still to be right.
    pub next: Option<Candidate>,
    /// All that is shown from now on.
    pub after: Credentials,
}

impl Auth {
    /// Tokens in a request: each may be a newer one of a session that is known by an older.
    pub fn tokens(&self, shown: &Credentials, client: &Client) -> Vec<Candidate> {
        let stateless = self.providers.iter().filter(|provider| provider.is_stateless());
        stateless.filter_map(|provider| Candidate::find(provider, shown, client)).collect()
    }

    /// What an answer's cookies do to the sessions of the client's request for a path.
    pub fn passed(
        &self,
        shown: &Credentials,
        answer: &HeaderMap,
        (client, path): (&Client, &str),
    ) -> Vec<Passed> {
        let now = clock::now();
        if !answer.contains_key(SET_COOKIE) {
            return Vec::new();
        }
        let mut after = shown.clone();
        for line in answer.get_all(SET_COOKIE) {
            let set = set(line.as_bytes(), now, (&client.host, path));
            let set = set.filter(|(name, _)| self.wanted.keeps(name));
            set.into_iter().for_each(|(name, value)| after.set(&name, value));
        }
        if after == *shown {
            return Vec::new();
        }
        let suspect = |provider: &Arc<super::Provider>| {
            let before = Candidate::find(provider, shown, client)?;
            let next = Candidate::find(provider, &after, client);
            // What is there in pieces that do not fit is still there.
            let replaced = !matches!(provider.find(&after, client), Ok(None));
            let stateless = provider.is_stateless();
            let suspicion = Suspicion { digest: before.digest, replaced, stateless, until: 0 };
            let changed = next.as_ref().map(|next| next.digest) != Some(before.digest);
            changed.then(|| Passed { suspicion, before, next, after: after.clone() })
        };
        self.providers.iter().filter_map(suspect).collect()
    }
}

/// Name and value of a `Set-Cookie`; no value if it takes the cookie away.
///
/// `None` too if it is about another cookie of that name than what came with a request for this host
/// and path: a browser has one for each domain and path (RFC 6265 §5.3), and sends those that fit.
fn set(line: &[u8], now: i64, (host, path): (&str, &str)) -> Option<(String, Option<Vec<u8>>)> {
    let mut parts = line.split(|byte| *byte == b';');
    let pair = parts.next()?;
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (name, value) = pair.split_at_checked(at)?;
    let name = String::from_utf8_lossy(name).trim().to_owned();
    let value = value.get(1..)?.trim_ascii().to_vec();
    let (mut lasts, mut ends, mut domain, mut within) = (None, None, None, None);
    for attribute in parts {
        let text = String::from_utf8_lossy(attribute);
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        match key.trim().to_ascii_lowercase().as_str() {
            "max-age" => lasts = value.trim().parse::<i64>().ok(),
            "expires" => ends = time::parse_http(value.trim()),
            "domain" => domain = Some(value.trim().trim_start_matches('.').to_ascii_lowercase()),
            // Without a slash it is the default, which always fits.
            "path" => within = Some(value.trim().to_owned()).filter(|path| path.starts_with('/')),
            _ => (),
        }
    }
    let domain = domain.filter(|domain| !domain.is_empty());
    if domain.is_some_and(|domain| !is_in_domain(host, &domain))
        || within.is_some_and(|within| !is_below(path, &within))
    {
        return None;
    }
    // The one with the say (RFC 6265 §5.3).
    let gone = match lasts {
        Some(lasts) => lasts <= 0,
        None => ends.is_some_and(|ends| ends <= now),
    };
    Some((name, (!gone && !value.is_empty() && value != b"\"\"").then_some(value)))
}

/// RFC 6265 §5.1.3.
fn is_in_domain(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// RFC 6265 §5.1.4.
fn is_below(path: &str, within: &str) -> bool {
    let rest = path.strip_prefix(within);
    rest.is_some_and(|rest| rest.is_empty() || within.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_set_and_taken_away() {
        let now = 1_800_000_000_000;
        for (line, value) in [
            ("s=a; Path=/", Some("a")),
            ("s=a; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some("a")),
            ("s=; Path=/", None),
            ("s=\"\"", None),
            ("s=a; max-age=0", None),
            ("s=a; Max-Age=-1", None),
            ("s=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("s=a; expires=Sat, 15-Jan-2028 08:00:00 GMT", Some("a")),
        ] {
            let set = set(line.as_bytes(), now, ("a.example", "/api/logout"));
            let (name, set) = set.expect("a cookie");
            assert_eq!((name.as_str(), set.as_deref()), ("s", value.map(str::as_bytes)), "{line}");
        }
    }

    #[test]
    fn cookies_of_other_places_are_others() {
        for (line, is_it) in [
            ("s=; Path=/", true),
            ("s=; Path=/api", true),
            ("s=; Path=/api/", true),
            ("s=; Path=/ap", false),
            ("s=; Path=/other", false),
            ("s=; Path=other", true),
            ("s=; Domain=a.example", true),
            ("s=; Domain=.EXAMPLE", true),
            ("s=; Domain=", true),
            ("s=; Domain=b.example; Path=/", false),
            ("s=; Domain=ample", false),
            ("s=; Domain=x.a.example", false),
        ] {
            let found = set(line.as_bytes(), 0, ("a.example", "/api/logout"));
            assert_eq!(found.is_some(), is_it, "{line}");
        }
    }
}

//! How much one address, or one key, may ask for; counted on tables that no client makes grow.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderName};
use tokio::time::Instant;

use crate::config::{self, RateBy};
use crate::exchange::{Client, Fault, Side};
use crate::limits::{Buckets, Rate, key_of};

/// What everybody has asked for lately; shared by all workers, kept over reloads.
pub struct Meter {
    addresses: Buckets,
    keys: Buckets,
    hash: RandomState,
    began: Instant,
}

/// What a route allows.
#[derive(Debug)]
pub struct Quota {
    rate: Rate,
    by: By,
    /// The same after a reload.
    name: String,
}

#[derive(Debug)]
enum By {
    Address,
    Header(HeaderName),
    Cookie(String),
}

const TOO_MANY: Fault = Fault::new(429, Side::Client, "rate_limited");

impl Default for Meter {
    fn default() -> Self {
        let (addresses, keys) = (Buckets::default(), Buckets::default());
        Self { addresses, keys, hash: RandomState::new(), began: Instant::now() }
    }
}

impl Meter {
    /// Counts one request of an address.
    pub fn address(&self, address: IpAddr, rate: Rate) -> Result<(), Fault> {
        let asked = self.addresses.ask(key_of(address), rate, self.began.elapsed());
        asked.map_err(too_many)
    }

    /// Counts one request to a route, of whoever it is counted by.
    pub fn route(&self, quota: &Quota, client: &Client, headers: &HeaderMap) -> Result<(), Fault> {
        let shown = match &quota.by {
            By::Address => None,
            By::Header(name) => headers.get(name).map(|value| value.as_bytes()),
            By::Cookie(name) => cookie(headers, name.as_bytes()),
        };
        // Whoever shows none is counted by address, or a limit could be left by showing none.
        let key = match shown {
            Some(shown) => self.hash.hash_one((&quota.name, shown)),
            None => self.hash.hash_one((&quota.name, key_of(client.address))),
        };
        self.keys.ask(key, quota.rate, self.began.elapsed()).map_err(too_many)
    }
}

/// Whole seconds to wait, so that the next try passes.
fn too_many(wait: Duration) -> Fault {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    TOO_MANY.after(u16::try_from(seconds).unwrap_or(u16::MAX))
}

/// The first cookie of this name.
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

impl Quota {
    /// `site` and `path` name the route.
    pub fn compile(words: &config::RouteRate, site: &str, path: &str) -> Self {
        let by = match &words.by {
            RateBy::Address => By::Address,
            // The configuration has checked that it is one.
            RateBy::Header(name) => HeaderName::try_from(name).map_or(By::Address, By::Header),
            RateBy::Cookie(name) => By::Cookie(name.clone()),
        };
        Self { rate: rate(&words.quota), by, name: format!("{site} {path}") }
    }
}

pub fn rate(words: &config::Quota) -> Rate {
    Rate::new(words.rate.count, words.rate.per, words.burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Scheme;
    use http::HeaderValue;

    fn client(last: u8) -> Client {
        Client {
            address: [10, 0, 0, last].into(),
            host: "a".to_owned(),
            port: 80,
            scheme: Scheme::Http,
            chain: None,
        }
    }

    #[test]
    fn a_key_is_counted_by_what_it_shows() {
        let meter = Meter::default();
        let quota = config::Quota {
            rate: config::Rate { count: 1, per: Duration::from_secs(60) },
            burst: 2,
        };
        let by = RateBy::Header("x-api-key".to_owned());
        let quota = Quota::compile(&config::RouteRate { quota, by }, "a", "/api/*");
        let key = |key| {
            HeaderMap::from_iter([(
                "x-api-key".parse().expect("a name"),
                HeaderValue::from_static(key),
            )])
        };
        let passes = |client: u8, headers: &HeaderMap| {
            meter.route(&quota, &self::client(client), headers).is_ok()
        };
        assert!(passes(1, &key("a")) && passes(2, &key("a")) && !passes(3, &key("a")));
        assert!(passes(1, &key("b")));
        // Without a key it is the address.
        assert!(passes(1, &HeaderMap::new()) && passes(1, &HeaderMap::new()));
        let refused = meter.route(&quota, &client(1), &HeaderMap::new()).expect_err("too many");
        assert!((1..=60).contains(&refused.wait) && refused.status == 429, "{refused:?}");
        assert!(passes(2, &HeaderMap::new()));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("asid=1; sid=2;sid=3"));
        headers.append(COOKIE, HeaderValue::from_static("other=4"));
        assert_eq!(cookie(&headers, b"sid"), Some(&b"2"[..]));
        assert_eq!(cookie(&headers, b"other"), Some(&b"4"[..]));
        assert_eq!(cookie(&headers, b"si"), None);
    }
}

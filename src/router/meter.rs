//! How much one address, or one key, may ask for; counted on tables that no client makes grow.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
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
    /// Of each quota its own, by its name: what one route has counted says nothing of another's.
    keys: Mutex<Vec<(String, Weak<Counted>)>>,
    hash: RandomState,
    began: Instant,
}

/// A table that is made when something is counted on it.
type Counted = OnceLock<Buckets>;

/// What a route allows.
pub struct Quota {
    rate: Rate,
    /// For `explain`.
    pub words: String,
    by: By,
    counted: Arc<Counted>,
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
        let (addresses, keys) = (Buckets::large(), Mutex::default());
        Self { addresses, keys, hash: RandomState::new(), began: Instant::now() }
    }
}

impl Meter {
    /// The table of this name; the one that is there if some configuration uses it.
    fn counted(&self, name: String) -> Arc<Counted> {
        let mut all = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, counted)| counted.strong_count() > 0);
        let known = all.iter().find(|(known, _)| *known == name);
        if let Some(counted) = known.and_then(|(_, counted)| counted.upgrade()) {
            return counted;
        }
        let counted = Arc::default();
        all.push((name, Arc::downgrade(&counted)));
        counted
    }

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
            Some(shown) => self.hash.hash_one(shown),
            None => self.hash.hash_one(key_of(client.address)),
        };
        let counted = quota.counted.get_or_init(Buckets::large);
        counted.ask(key, quota.rate, self.began.elapsed()).map_err(too_many)
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
    /// `route` names whose it is. What was counted stays over reloads, unless the words change.
    pub fn compile(words: &config::RouteRate, route: &str, meter: &Meter) -> Self {
        let by = match &words.by {
            RateBy::Address => By::Address,
            // The configuration has checked that it is one.
            RateBy::Header(name) => HeaderName::try_from(name).map_or(By::Address, By::Header),
            RateBy::Cookie(name) => By::Cookie(name.clone()),
        };
        let counted = meter.counted(format!("{route} {words:?}"));
        let named = match &words.by {
            RateBy::Address => "ip".to_owned(),
            RateBy::Header(name) => format!("header:{name}"),
            RateBy::Cookie(name) => format!("cookie:{name}"),
        };
        let words = &words.quota;
        Self { rate: rate(words), words: format!("{}, by {named}", said(words)), by, counted }
    }
}

/// In words.
pub fn said(words: &config::Quota) -> String {
    format!("{}, {} at once", words.rate, words.burst)
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
        let quota = Quota::compile(&config::RouteRate { quota, by }, "a /api/*", &meter);
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

    fn every(seconds: u64, burst: u32) -> config::RouteRate {
        let rate = config::Rate { count: 1, per: Duration::from_secs(seconds) };
        config::RouteRate { quota: config::Quota { rate, burst }, by: RateBy::Address }
    }

    #[test]
    fn a_route_that_is_seldom_asked_takes_nothing_of_anothers() {
        let meter = Meter::default();
        let slow = Quota::compile(&every(360, 1), "a /register", &meter);
        let fast = Quota::compile(&every(1, 20), "a /api/*", &meter);
        let from = |number: u32| Client { address: number.to_be_bytes().into(), ..client(0) };
        let passes = |quota: &Quota, number: u32| {
            meter.route(quota, &from(number), &HeaderMap::new()).is_ok()
        };
        let lost = (0..4000).filter(|number| !passes(&slow, *number)).count();
        assert!(lost < 20, "{lost} of 4000 that come for the first time");
        assert!((10_000..14_000).all(|number| passes(&fast, number)));
        // Also beside a quota for the same path.
        let other = Quota::compile(&every(1, 20), "a /register", &meter);
        assert!((20_000..24_000).all(|number| passes(&other, number)));
    }

    #[test]
    fn what_was_counted_stays_for_as_long_as_the_words_do() {
        let meter = Meter::default();
        let compile = |seconds| Quota::compile(&every(seconds, 1), "a /register", &meter);
        let passes = |quota: &Quota| meter.route(quota, &client(1), &HeaderMap::new()).is_ok();
        let before = compile(360);
        assert!(passes(&before) && !passes(&before));
        let after = compile(360);
        drop(before);
        assert!(!passes(&after));
        let changed = compile(60);
        drop(after);
        assert!(passes(&changed));
        assert_eq!(meter.keys.lock().expect("whole").len(), 2);
        drop(compile(60));
        assert_eq!(meter.keys.lock().expect("whole").len(), 1);
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

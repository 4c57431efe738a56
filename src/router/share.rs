//! Which part of the clients one belongs to, and stays in.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::table::cookies;

/// So many of ten thousand have drawn a lot that wins.
#[derive(Debug, Clone)]
pub struct Share {
    pub of: u16,
    /// Where clients keep their lot. Routes with the same cookie have the same winners, so a larger
    /// share has all those of a smaller one.
    pub cookie: String,
    pub lasts: Duration,
}

/// The lots that were drawn for one request, because it showed none.
#[derive(Default)]
pub struct Lots(Vec<Drawn>);

struct Drawn {
    cookie: String,
    lot: u16,
    lasts: Duration,
}

const LOTS: u16 = 10_000;

impl Lots {
    /// Whether the client that sent these headers is in the share.
    pub fn wins(&mut self, share: &Share, headers: &HeaderMap) -> bool {
        // Without a choice there is nothing to remember.
        if share.of == 0 || share.of >= LOTS {
            return share.of >= LOTS;
        }
        self.lot(share, headers) < share.of
    }

    fn lot(&mut self, share: &Share, headers: &HeaderMap) -> u16 {
        if let Some(lot) = cookies(headers, &share.cookie).find_map(read) {
            return lot;
        }
        if let Some(drawn) = self.0.iter().find(|drawn| drawn.cookie == share.cookie) {
            return drawn.lot;
        }
        let lot = draw();
        self.0.push(Drawn { cookie: share.cookie.clone(), lot, lasts: share.lasts });
        lot
    }

    /// What the client is to keep.
    pub fn cookies(&self, secure: bool) -> impl Iterator<Item = HeaderValue> {
        self.0.iter().filter_map(move |Drawn { cookie, lot, lasts }| {
            let secure = if secure { "; Secure" } else { "" };
            let seconds = lasts.as_secs();
            let text = format!(
                "{cookie}={lot}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
            );
            HeaderValue::try_from(text).ok()
        })
    }
}

fn read(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok()?;
    let is_lot = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_lot)
}

/// No secret: whoever likes may choose one.
fn draw() -> u16 {
    let number = RandomState::new().hash_one(0_u8) % u64::from(LOTS);
    u16::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn share(of: u16) -> Share {
        Share { of, cookie: "lot".to_owned(), lasts: Duration::from_secs(60) }
    }

    #[test]
    fn a_client_stays_where_it_was() {
        for (cookie, of, expected) in [
            ("lot=0", 1, true),
            ("lot=1", 1, false),
            ("a=1; lot=4999", 5000, true),
            ("lot=9999", 9999, false),
            ("lot=9999", 10_000, true),
            ("lot=0", 0, false),
        ] {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookie))]);
            let mut lots = Lots::default();
            assert_eq!(lots.wins(&share(of), &headers), expected, "{cookie} of {of}");
            assert_eq!(lots.cookies(false).count(), 0);
        }
    }

    #[test]
    fn one_lot_is_drawn_for_all_routes_and_kept() {
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("lot=+1"))]);
        let mut lots = Lots::default();
        let first = lots.wins(&share(5000), &headers);
        assert_eq!(lots.wins(&share(5000), &headers), first);
        let kept: Vec<_> = lots.cookies(true).collect();
        let text = kept.first().and_then(|value| value.to_str().ok()).expect("one cookie");
        assert_eq!(kept.len(), 1);
        let end = "; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure";
        assert!(text.starts_with("lot=") && text.ends_with(end), "{text}");
    }

    #[test]
    fn lots_are_spread() {
        let low = (0..4000).filter(|_| draw() < LOTS / 2).count();
        assert!((1700..2300).contains(&low), "{low} of 4000");
    }
}

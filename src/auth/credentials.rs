//! What a client shows of its session: cookies and a bearer token; pure.
//!
//! Parsers of cookies disagree about duplicates, quotes and escapes. Who a user is must not depend
//! on whose parser is right, so what is ambiguous is refused.

use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use super::identity::Denial;
use super::seal::{base64, sha256_of};

/// What some provider may read, and nothing else of a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Names and values as they came, in their order.
    cookies: Vec<(String, Vec<u8>)>,
    bearer: Option<String>,
    /// `auth.token` of a CONNECT.
    token: Option<String>,
}

/// Which cookies are worth keeping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With their chunks, `NAME.0`, `NAME.1` …
    pub cookies: Vec<String>,
    pub bearer: bool,
}

/// More cookies than any application sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// How a value too long for one cookie is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// All of them, in order, and nothing beside them.
    Strict,
    /// The whole cookie if there is one; else up to the first gap.
    FirstGap,
}

const COOKIES_MAX: usize = 100;
const CHUNKS_MAX: usize = 10;
/// Bytes of one credential.
const CREDENTIAL_MAX: usize = 64 << 10;
/// Bytes of a name and its password, as they are sent.
const BASIC_MAX: usize = 1024;

impl Wanted {
    pub fn keeps(&self, name: &str) -> bool {
        self.cookies.iter().any(|wanted| {
            let rest = name.strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

impl Credentials {
    /// Several lines of cookies are one, as HTTP/2 sends them.
    pub fn read(headers: &HeaderMap, wanted: &Wanted) -> Result<Self, TooMany> {
        let lines = headers.get_all(COOKIE).iter().map(http::HeaderValue::as_bytes);
        let cookies = Self::of_lines(lines, wanted)?.cookies;
        let bearer = wanted.bearer.then(|| bearer(headers)).flatten();
        Ok(Self { cookies, bearer, token: None })
    }

    pub fn of_lines<'a>(
        lines: impl Iterator<Item = &'a [u8]>,
        wanted: &Wanted,
    ) -> Result<Self, TooMany> {
        let (mut cookies, mut count) = (Vec::new(), 0);
        for line in lines {
            for (name, value) in pairs(line) {
                count += 1;
                if wanted.keeps(&name) {
                    cookies.push((name.into_owned(), value.to_vec()));
                }
            }
        }
        if count > COOKIES_MAX { Err(TooMany) } else { Ok(Self { cookies, ..Self::default() }) }
    }

    /// With the token of a CONNECT.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        let fits = |token: &&str| !token.is_empty() && token.len() <= CREDENTIAL_MAX;
        Self { token: token.filter(fits).map(str::to_owned), ..self.clone() }
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// As it will be with the next request; `None` takes the cookie away.
    pub fn set(&mut self, name: &str, value: Option<Vec<u8>>) {
        let known = self.cookies.iter().any(|(known, _)| known == name);
        match value {
            None => self.cookies.retain(|(known, _)| known != name),
            Some(value) if known => {
                let same = self.cookies.iter_mut().filter(|(known, _)| known == name);
                same.for_each(|(_, kept)| kept.clone_from(&value));
            }
            // One that was not there, or a piece of one.
            Some(value) => self.cookies.push((name.to_owned(), value)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty() && self.bearer.is_none() && self.token.is_none()
    }

    /// True if a browser may have sent it by itself.
    pub fn has_cookies(&self) -> bool {
        !self.cookies.is_empty()
    }

    pub fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// The value of one cookie. Empty is none; twice with different values is an attack, or as bad.
    pub fn cookie(&self, name: &str) -> Result<Option<String>, Denial> {
        let mut found: Option<String> = None;
        for (_, raw) in self.cookies.iter().filter(|(known, _)| known == name) {
            let value = decode(raw)?;
            if found.as_ref().is_some_and(|before| *before != value) {
                return Err(Denial::Refused("conflicting_cookies"));
            }
            found = Some(value);
        }
        Ok(found.filter(|value| !value.is_empty()))
    }

    /// The value of a cookie that may have come in pieces.
    pub fn chunked(&self, name: &str, chunks: Chunks) -> Result<Option<String>, Denial> {
        let whole = self.cookie(name)?;
        let mut numbers: Vec<usize> =
            self.cookies.iter().filter_map(|(known, _)| number(known, name)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        match chunks {
            Chunks::FirstGap if whole.is_some() => return Ok(whole),
            Chunks::Strict if whole.is_some() && numbers.is_empty() => return Ok(whole),
            Chunks::Strict if whole.is_some() => return Err(Denial::Refused("ambiguous_chunks")),
            _ if numbers.is_empty() => return Ok(None),
            _ => (),
        }
        let gapless = numbers.iter().enumerate().take_while(|(at, number)| at == *number).count();
        let strict = chunks == Chunks::Strict;
        if gapless == 0 || gapless > CHUNKS_MAX || (strict && gapless < numbers.len()) {
            return Err(Denial::MALFORMED);
        }
        let mut joined = String::new();
        for number in 0..gapless {
            match self.cookie(&format!("{name}.{number}"))? {
                Some(piece) => joined.push_str(&piece),
                None => return Err(Denial::MALFORMED),
            }
            if joined.len() > CREDENTIAL_MAX {
                return Err(Denial::MALFORMED);
            }
        }
        Ok(Some(joined))
    }

    /// The same for the same cookies and the same bearer token, and for no others.
    pub fn digest(&self) -> [u8; 32] {
        let cookies = self.cookies.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
        let bearer = self.bearer.as_deref().unwrap_or_default();
        sha256_of(cookies.chain([bearer.as_bytes()]))
    }

    /// Those of these names and their chunks, as whoever decides is sent them: one line.
    pub fn cookie_line(&self, names: &[String]) -> Option<Vec<u8>> {
        let wanted = Wanted { cookies: names.to_vec(), bearer: false };
        let kept =
            self.cookies.iter().filter(|(name, value)| wanted.keeps(name) && !value.is_empty());
        let pair = |(name, value): &(String, Vec<u8>)| [name.as_bytes(), b"=", value].concat();
        let pairs: Vec<_> = kept.map(pair).collect();
        (!pairs.is_empty()).then(|| pairs.join(&b"; "[..]))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The number of a chunk: no zeros before it.
fn number(known: &str, name: &str) -> Option<usize> {
    let digits = known.strip_prefix(name)?.strip_prefix('.')?;
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Names and values of one line.
fn pairs(line: &[u8]) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, &[u8])> {
    line.split(|byte| *byte == b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        Some((String::from_utf8_lossy(trim(name)), trim(value.get(1..)?)))
    })
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Unquoted and decoded once; what is no text, or has control characters in it, is refused.
fn decode(raw: &[u8]) -> Result<String, Denial> {
    let raw = match raw {
        [b'"', inside @ .., b'"'] => inside,
        all => all,
    };
    if raw.len() > CREDENTIAL_MAX {
        return Err(Denial::MALFORMED);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(*byte).to_digit(16));
        let (high, low) = (digit(), digit());
        let value = high.zip(low).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(value.ok_or(Denial::MALFORMED)?);
    }
    let text = String::from_utf8(bytes).map_err(|_error| Denial::MALFORMED)?;
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(Denial::MALFORMED);
    }
    Ok(text)
}

/// The token of the one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next()?.to_str().ok()?;
    let (scheme, token) = line.split_once(' ')?;
    let alone = lines.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
    (alone && !token.is_empty() && token.len() <= CREDENTIAL_MAX).then(|| token.trim().to_owned())
}

/// Name and password of the one `Authorization: Basic` (RFC 7617).
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next()?.to_str().ok()?;
    let (scheme, encoded) = line.split_once(' ')?;
    if lines.next().is_some() || !scheme.eq_ignore_ascii_case("basic") || encoded.len() > BASIC_MAX
    {
        return None;
    }
    let text = String::from_utf8(base64(encoded.trim())?).ok()?;
    let (name, password) = text.split_once(':')?;
    let plain = !name.is_empty() && !text.chars().any(char::is_control);
    plain.then(|| (name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str, name: &str) -> Credentials {
        let mut headers = HeaderMap::new();
        for line in line.lines() {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).expect("a line"));
        }
        let wanted = Wanted { cookies: vec![name.to_owned()], bearer: false };
        Credentials::read(&headers, &wanted).expect("not too many")
    }

    #[test]
    fn chunks_are_whole_or_refused() {
        let strict = |line| shown(line, "s").chunked("s", Chunks::Strict);
        let gap = |line| shown(line, "s").chunked("s", Chunks::FirstGap);
        let value = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(strict("s.1=b; s.0=a"), value("ab"));
        assert_eq!(strict("s.0=a\ns.1=b"), value("ab"));
        assert_eq!(strict("s=a; sx=1; s.x=2"), value("a"));
        assert_eq!(strict("s.00=a"), Ok(None));
        for line in ["s.1=b", "s.0=a; s.2=c", "s=a; s.0=a", "s.0=a; s.1=", "s.0=a; s.0=b"] {
            assert!(strict(line).is_err(), "{line}");
        }
        let many: Vec<_> = (0..50).map(|number| format!("s.{number}=a")).collect();
        assert!(strict(&many.join("; ")).is_err());
        assert_eq!(gap("s=w; s.0=a"), value("w"));
        assert_eq!(gap("s.0=a; s.2=c"), value("a"));
        assert!(gap("s.1=b").is_err());
    }

    #[test]
    fn nothing_else_is_kept_and_nothing_prints() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("other=1; s=2"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer tok"));
        let wanted = Wanted { cookies: vec!["s".to_owned()], bearer: true };
        let shown = Credentials::read(&headers, &wanted).expect("few");
        assert_eq!(shown.cookie("other"), Ok(None));
        assert_eq!(shown.bearer(), Some("tok"));
        assert_eq!(shown.cookie_line(&["s".to_owned()]).as_deref(), Some(&b"s=2"[..]));
        assert_eq!(format!("{shown:?}"), "***");
        let crowd = "a=1; ".repeat(101);
        headers.append(COOKIE, HeaderValue::from_str(&crowd).expect("a line"));
        assert_eq!(Credentials::read(&headers, &wanted).err(), Some(TooMany));
    }

    #[test]
    fn names_and_passwords_are_read() {
        let read = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_static(line));
            basic(&headers)
        };
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read("basic YTo6Yg=="), pair("a", ":b"));
        for wrong in
            ["Basic", "Basic !", "Basic QQ==", "Basic OmI=", "Bearer YTpi", "Basic YTpi YTpi"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        // A control letter, and what is no UTF-8.
        assert_eq!((read("Basic YQo6Yg=="), read("Basic /zpi")), (None, None));
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in prop::collection::vec(0x20_u8..=0xff, 0..60)) {
            let line = HeaderValue::from_bytes(&line);
            let mut headers = HeaderMap::new();
            if let Ok(line) = line {
                headers.append(COOKIE, line);
            }
            let wanted = Wanted { cookies: vec!["s".to_owned()], bearer: false };
            let shown = Credentials::read(&headers, &wanted).expect("few");
            let _read = (shown.cookie("s"), shown.chunked("s", Chunks::Strict));
        }
    }
}

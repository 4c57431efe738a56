//! How an exchange's line is written: JSON, combined, or a template; with secrets left out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::Version;
use http::header::{HeaderName, REFERER, USER_AGENT};
use serde::Serialize;

use crate::config::{self, AccessFormat, AccessTo, LogField, LogPiece};

use super::access::{Access, TRACEPARENT};
use super::context::Context;
use super::lines;

/// Compiled from `log.access`; part of the snapshot.
#[derive(Debug)]
pub struct Format {
    shape: Shape,
    /// Keys of a query with one of these words in them keep their values for themselves.
    redact: Vec<String>,
}

#[derive(Debug)]
enum Shape {
    Json,
    Combined,
    Template { pieces: Vec<Piece>, headers: Vec<HeaderName> },
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Field(LogField),
    /// By its place among the headers that are noted.
    Header(usize),
}

/// What of a request only its line needs.
#[derive(Debug, Default)]
pub struct Noted {
    query: Option<String>,
    agent: Option<String>,
    referer: Option<String>,
    headers: Vec<Option<String>>,
    /// The trace that it came with.
    trace: Option<u128>,
}

/// What stands for a secret.
const REDACTED: &str = "***";

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: Option<std::net::IpAddr>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    status: u16,
    bytes: u64,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

impl Format {
    /// `None` if exchanges have no lines.
    pub fn compile(words: &config::Access) -> Option<Self> {
        if words.to == AccessTo::Off {
            return None;
        }
        let shape = match &words.format {
            AccessFormat::Json => Shape::Json,
            AccessFormat::Combined => Shape::Combined,
            AccessFormat::Template { pieces, .. } => template(pieces),
        };
        Some(Self { shape, redact: words.redact.clone() })
    }

    /// Notes what a request says that its line will need.
    pub fn note(&self, query: Option<&str>, fields: &HeaderMap) -> Noted {
        let text = |name: &HeaderName| {
            fields.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let query = query.map(|query| redacted(query, &self.redact).into_owned());
        let agent = text(&USER_AGENT);
        let trace = || {
            let came = fields.get(TRACEPARENT).and_then(|value| value.to_str().ok());
            came.and_then(Context::read).map(|came| came.trace)
        };
        match &self.shape {
            Shape::Json => Noted { query, agent, trace: trace(), ..Noted::default() },
            Shape::Combined => {
                let referer = self.referer(text(&REFERER));
                Noted { query, agent, referer, ..Noted::default() }
            }
            Shape::Template { headers, .. } => Noted {
                query,
                agent,
                referer: self.referer(text(&REFERER)),
                headers: headers.iter().map(text).collect(),
                trace: trace(),
            },
        }
    }

    /// The page before may have had secrets, too.
    fn referer(&self, url: Option<String>) -> Option<String> {
        let url = url?;
        let Some((page, query)) = url.split_once('?') else { return Some(url) };
        Some(format!("{page}?{}", redacted(query, &self.redact)))
    }

    /// Writes the line of an exchange.
    pub fn write(&self, access: &Access, noted: &Noted, status: u16, took: Duration) {
        let time = lines::time(SystemTime::now() - took);
        if let Shape::Json = self.shape {
            return lines::write(&json(access, noted, status, took, time));
        }
        lines::write_text(&self.text(&Known { access, noted, status, took, time: &time }));
    }

    /// A line that is not JSON.
    fn text(&self, known: &Known<'_>) -> String {
        let mut out = String::with_capacity(256);
        match &self.shape {
            Shape::Json | Shape::Combined => combined(known, &mut out),
            Shape::Template { pieces, .. } => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Field(field) => known.put(*field, &mut out),
                        Piece::Header(place) => {
                            let value = known.noted.headers.get(*place).and_then(Option::as_deref);
                            escape(value.unwrap_or("-"), &mut out);
                        }
                    }
                }
            }
        }
        out
    }
}

fn template(words: &[LogPiece]) -> Shape {
    let mut headers = Vec::new();
    let pieces = words.iter().map(|piece| match piece {
        LogPiece::Text(text) => Piece::Text(text.clone()),
        LogPiece::Field(field) => Piece::Field(*field),
        LogPiece::Header(name) => match HeaderName::try_from(name) {
            Ok(name) => {
                headers.push(name);
                Piece::Header(headers.len() - 1)
            }
            // The configuration has checked that it is one.
            Err(_) => Piece::Text("-".to_owned()),
        },
    });
    let pieces = pieces.collect();
    Shape::Template { pieces, headers }
}

fn json<'a>(
    access: &'a Access,
    noted: &'a Noted,
    status: u16,
    took: Duration,
    time: String,
) -> Line<'a> {
    Line {
        time,
        client: access.client,
        method: access.method.as_str(),
        host: &access.host,
        path: &access.path,
        query: noted.query.as_deref(),
        protocol: protocol(access.version),
        tls: access.tls,
        status,
        bytes: access.bytes,
        ms: ms(took),
        route: access.route.as_ref().map(|route| route.name.as_str()),
        reason: access.reason,
        upstream: access.sent.target.as_deref(),
        upstream_ms: access.sent.took.map(ms),
        tries: access.sent.target.as_ref().map(|_| access.sent.tries),
        trace: trace(access, noted),
        agent: noted.agent.as_deref(),
    }
}

/// As a `traceparent` has it.
fn trace(access: &Access, noted: &Noted) -> Option<String> {
    access.traced().or(noted.trace).map(|trace| format!("{trace:032x}"))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn ms(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// What is known of an exchange when it is over.
struct Known<'a> {
    access: &'a Access,
    noted: &'a Noted,
    status: u16,
    took: Duration,
    /// As RFC 3339 has it.
    time: &'a str,
}

impl Known<'_> {
    /// A field, escaped; `-` if there is none.
    fn put(&self, field: LogField, out: &mut String) {
        let Self { access, noted, .. } = self;
        // Writing to a String cannot fail.
        let _written = match field {
            LogField::Bytes => write!(out, "{}", access.bytes),
            LogField::Ms => write!(out, "{}", ms(self.took)),
            LogField::Status => write!(out, "{}", self.status),
            LogField::Tries => write!(out, "{}", access.sent.tries),
            LogField::UpstreamMs => match access.sent.took {
                Some(took) => write!(out, "{}", ms(took)),
                None => out.write_str("-"),
            },
            LogField::Trace => out.write_str(trace(access, noted).as_deref().unwrap_or("-")),
            LogField::Client => match access.client {
                Some(client) => write!(out, "{client}"),
                None => out.write_str("-"),
            },
            LogField::Target => {
                escape(&access.path, out);
                if let Some(query) = &noted.query {
                    out.push('?');
                    escape(query, out);
                }
                Ok(())
            }
            field => {
                let text = match field {
                    LogField::Time => Some(self.time),
                    LogField::Method => Some(access.method.as_str()),
                    LogField::Host => Some(access.host.as_str()).filter(|host| !host.is_empty()),
                    LogField::Path => Some(access.path.as_str()),
                    LogField::Query => noted.query.as_deref(),
                    LogField::Protocol => Some(protocol(access.version)),
                    LogField::Tls => access.tls,
                    LogField::Route => access.route.as_ref().map(|route| route.name.as_str()),
                    LogField::Reason => access.reason,
                    LogField::Agent => noted.agent.as_deref(),
                    LogField::Referer => noted.referer.as_deref(),
                    LogField::Upstream => access.sent.target.as_deref(),
                    _ => None,
                };
                escape(text.unwrap_or("-"), out);
                Ok(())
            }
        };
    }
}

/// As Apache and nginx write it: nobody's own ideas of a name, and a time of their own.
fn combined(known: &Known<'_>, out: &mut String) {
    known.put(LogField::Client, out);
    out.push_str(" - - [");
    clf_time(known.time, out);
    out.push_str("] \"");
    known.put(LogField::Method, out);
    out.push(' ');
    known.put(LogField::Target, out);
    out.push(' ');
    out.push_str(match known.access.version {
        // What readers of this format know.
        Version::HTTP_2 => "HTTP/2.0",
        version => protocol(version),
    });
    out.push_str("\" ");
    known.put(LogField::Status, out);
    out.push(' ');
    known.put(LogField::Bytes, out);
    out.push_str(" \"");
    known.put(LogField::Referer, out);
    out.push_str("\" \"");
    known.put(LogField::Agent, out);
    out.push('"');
}

/// `2026-11-28T14:03:49.123Z` → `28/Nov/2026:14:03:49 +0000`.
fn clf_time(time: &str, out: &mut String) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |from: usize, to: usize| time.get(from..to).unwrap_or_default();
    let month =
        part(5, 7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    for text in [
        part(8, 10),
        "/",
        month.copied().unwrap_or("-"),
        "/",
        part(0, 4),
        ":",
        part(11, 19),
        " +0000",
    ] {
        out.push_str(text);
    }
}

/// Adds a client's text so that it can neither end a line nor a quoted part of it.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            letter if letter.is_control() => {
                let _infallible = write!(out, "\\x{:02x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
}

/// A query without the values of keys that have one of `words` in them.
pub fn redacted<'a>(query: &'a str, words: &[String]) -> Cow<'a, str> {
    let secret = |pair: &str| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        pair.contains('=') && is_secret(key, words)
    };
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len());
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            out.push('&');
        }
        match pair.split_once('=').filter(|(key, _)| is_secret(key, words)) {
            Some((key, _)) => {
                out.push_str(key);
                out.push('=');
                out.push_str(REDACTED);
            }
            None => out.push_str(pair),
        }
    }
    Cow::Owned(out)
}

/// True if one of a key's words is a secret's, or all of them together: `access_token`,
/// `accessToken`, `api-key`.
fn is_secret(key: &str, words: &[String]) -> bool {
    let key = decoded(key);
    let (mut word, mut whole, mut found) = (String::new(), String::new(), false);
    let mut lower = false;
    for letter in key.chars() {
        if !letter.is_alphanumeric() || (lower && letter.is_uppercase()) {
            found |= words.contains(&word);
            word.clear();
        }
        lower = letter.is_lowercase();
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
            whole.extend(letter.to_lowercase());
        }
    }
    found || words.contains(&word) || words.contains(&whole)
}

/// `%74oken` is a token, too.
fn decoded(key: &str) -> Cow<'_, str> {
    if !key.contains('%') {
        return Cow::Borrowed(key);
    }
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method};

    fn words() -> Vec<String> {
        ["token", "apikey", "sid", "code"].map(str::to_owned).to_vec()
    }

    #[test]
    fn secrets_of_a_query_are_left_out() {
        for (query, expected) in [
            ("a=1&b=2", "a=1&b=2"),
            ("token=x", "token=***"),
            ("a=1&access_token=x&b", "a=1&access_token=***&b"),
            ("accessToken=x&TOKEN=y", "accessToken=***&TOKEN=***"),
            ("%74oken=x", "%74oken=***"),
            ("api-key=x&api_key=y&apikey=z", "api-key=***&api_key=***&apikey=***"),
            ("tokens=x&considered=y", "tokens=x&considered=y"),
            ("EIO=4&sid=abc&t=1", "EIO=4&sid=***&t=1"),
            ("token", "token"),
            ("code=a=b&&=", "code=***&&="),
        ] {
            assert_eq!(redacted(query, &words()), expected);
        }
    }

    fn line(format: &str, agent: &'static str) -> String {
        let format = config::access_format(format).expect("a format");
        let words = config::Access { to: AccessTo::Stdout, format, redact: words() };
        let format = Format::compile(&words).expect("lines");
        let mut fields = HeaderMap::new();
        fields.insert(USER_AGENT, HeaderValue::from_static(agent));
        fields.insert(REFERER, HeaderValue::from_static("https://a.example/?code=secret"));
        fields.insert("x-id", HeaderValue::from_static("7"));
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        fields.insert(TRACEPARENT, HeaderValue::from_static(trace));
        let mut access = Access::begin(Method::GET, Version::HTTP_2);
        access.path = "/a\"b".to_owned();
        access.client = Some([192, 0, 2, 1].into());
        access.bytes = 12;
        let noted = format.note(Some("token=secret&x=1"), &fields);
        let known = Known {
            access: &access,
            noted: &noted,
            status: 200,
            took: Duration::from_micros(1500),
            time: "2026-11-28T14:03:49.123Z",
        };
        match &format.shape {
            Shape::Json => {
                let line = json(&access, &noted, 200, known.took, "now".to_owned());
                serde_json::to_string(&line).expect("JSON")
            }
            _ => format.text(&known),
        }
    }

    #[test]
    fn lines_as_other_programs_read_them() {
        assert_eq!(
            line("combined", "Mozilla/5.0 \"x\""),
            r#"192.0.2.1 - - [28/Nov/2026:14:03:49 +0000] "GET /a\"b?token=***&x=1 HTTP/2.0" 200 12 "https://a.example/?code=***" "Mozilla/5.0 \"x\"""#
        );
        assert_eq!(
            line("{{{method}}} {path} {query} {ms} {header.x-id} {header.x-none} {route}", "a"),
            r#"{GET} /a\"b token=***&x=1 1.5 7 - -"#
        );
        assert_eq!(
            line("json", "a"),
            r#"{"time":"now","client":"192.0.2.1","method":"GET","host":"","path":"/a\"b","query":"token=***&x=1","protocol":"HTTP/2","status":200,"bytes":12,"ms":1.5,"trace":"4bf92f3577b34da6a3ce929d0e0e4736","agent":"a"}"#
        );
        assert_eq!(
            line("{upstream} {upstream_ms} {tries} {trace}", "a"),
            "- - 0 4bf92f3577b34da6a3ce929d0e0e4736"
        );
    }
}

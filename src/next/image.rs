//! What of a request decides about the picture that Next.js makes, and where its source may be; pure.

use http::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::Value;

/// The formats that it makes besides the source's own, as it looks for them in `Accept`.
const FORMATS: [&str; 2] = ["image/avif", "image/webp"];

/// Makes requests that come to the same picture say so in the same words: of `Accept` it reads no
/// more than which of its formats are there.
///
/// What weighs one against the other stays as it is.
pub fn normalize(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(ACCEPT).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return };
    let Some(words) = line.to_str().ok().and_then(said) else { return };
    headers.insert(ACCEPT, HeaderValue::from_static(words));
}

fn said(accept: &str) -> Option<&'static str> {
    let mut found = [false; FORMATS.len()];
    for range in accept.split(',').map(str::trim) {
        let (kind, weight) = range.split_once(';').unwrap_or((range, ""));
        for (format, found) in FORMATS.iter().zip(&mut found) {
            if !kind.trim_end().eq_ignore_ascii_case(format) {
                continue;
            }
            if !weight.is_empty() || kind.trim_end() != *format {
                return None;
            }
            *found = true;
        }
    }
    Some(match found {
        [true, true] => "image/avif,image/webp",
        [true, false] => "image/avif",
        [false, true] => "image/webp",
        [false, false] => "*/*",
    })
}

/// Where sources may be, as `next.config` says it (`remotePatterns`, `domains`, `localPatterns`).
///
/// Next.js has the last word: its patterns are read so that nothing is refused which it would take.
#[derive(Debug, Default)]
pub struct Sources {
    remote: Vec<Remote>,
    /// `None`: anywhere in the application.
    local: Option<Vec<Local>>,
}

#[derive(Debug)]
struct Remote {
    /// Without its colon.
    protocol: Option<String>,
    host: String,
}

#[derive(Debug)]
struct Local {
    path: String,
    /// Nothing may stand behind a question mark.
    plain: bool,
}

impl Sources {
    /// From `config.images` of `required-server-files.json`.
    pub fn parse(images: &Value) -> Option<Self> {
        let list = |name: &str| images.get(name).and_then(Value::as_array);
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
        let hosts = list("domains")?.iter().filter_map(Value::as_str);
        let hosts = hosts.map(|host| Remote { protocol: None, host: host.to_owned() });
        let patterns = list("remotePatterns")?.iter().map(|pattern| Remote {
            protocol: text(pattern, "protocol").map(|word| word.trim_end_matches(':').to_owned()),
            host: text(pattern, "hostname").unwrap_or_else(|| "**".to_owned()),
        });
        let local = list("localPatterns").map(|patterns| {
            let pattern = |pattern| Local {
                path: text(pattern, "pathname").unwrap_or_else(|| "**".to_owned()),
                plain: text(pattern, "search").as_deref() == Some(""),
            };
            patterns.iter().map(pattern).collect()
        });
        Some(Self { remote: hosts.chain(patterns).collect(), local })
    }

    /// False for a source that no pattern is for; `url` as the application decodes it.
    pub fn may_be(&self, url: &str) -> bool {
        match url.split_once("://").filter(|_| !url.starts_with('/')) {
            Some((protocol, rest)) => self.may_be_remote(protocol, rest),
            None => self.may_be_local(url),
        }
    }

    fn may_be_remote(&self, protocol: &str, rest: &str) -> bool {
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        // Nobody's pictures need a name and a password, and what is empty is read in many ways.
        if authority.is_empty() || authority.contains('@') {
            return false;
        }
        let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        // Other hosts have other spellings, which the application knows.
        let is_known = !host.is_empty() && host.bytes().all(is_plain);
        self.remote.iter().any(|pattern| {
            pattern.protocol.as_deref().is_none_or(|known| known == protocol)
                && (!is_known || may_match(&pattern.host, &host))
        })
    }

    fn may_be_local(&self, url: &str) -> bool {
        let Some(patterns) = &self.local else { return true };
        let url = url.split('#').next().unwrap_or_default();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"%\\\"<>^`{|}".contains(&byte);
        // What would be spelt otherwise is left to the application.
        let is_known = path.bytes().all(is_plain) && !path.contains("/.");
        patterns.iter().any(|pattern| {
            (!pattern.plain || query.is_empty()) && (!is_known || may_match(&pattern.path, path))
        })
    }
}

/// Whether a glob may mean the text: a star stands for anything, and so does what is no plain glob.
fn may_match(glob: &str, text: &str) -> bool {
    if glob.contains(['?', '[', ']', '{', '}', '(', ')', '!', '+', '@', '|', '\\']) {
        return true;
    }
    // `/a/**` is for `/a` too, and `/**/` for one slash.
    let glob = glob.replace("/**/", "*").replace("/**", "*");
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &[&'static str], expected: &[&str]) {
        let mut headers = HeaderMap::new();
        for line in accept {
            let line = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
            headers.append(ACCEPT, line);
        }
        normalize(&mut headers);
        let lines: Vec<_> = headers
            .get_all(ACCEPT)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        assert_eq!(lines, expected, "{accept:?}");
    }

    #[test]
    fn sources_are_where_the_configuration_has_them() {
        let sources = Sources::parse(&serde_json::json!({
            "domains": ["cdn.example"],
            "remotePatterns": [
                { "protocol": "https", "hostname": "**.pictures.example" },
                { "protocol": "https:", "hostname": "one.example", "pathname": "/a/**" },
                { "hostname": "{a,b}.example" },
            ],
            "localPatterns": [{ "pathname": "/assets/**", "search": "" }, { "pathname": "/b/*.png" }],
        }));
        let sources = sources.expect("sources");
        for (url, expected) in [
            ("https://cdn.example/a.png", true),
            ("http://cdn.example:8080/a.png", true),
            ("https://CDN.example", true),
            ("https://cdn.example.evil/a.png", true),
            ("https://x.y.pictures.example/a.png?b", true),
            ("http://x.pictures.example/a.png", true),
            ("https://one.example/b", true),
            ("/assets/a/b.png", true),
            ("/assets", true),
            ("/assets/a.png?x=1", false),
            ("/b/c.png?x=1", true),
            ("/c/c.png", false),
            ("/assetsx", true),
            ("/c/%61ssets", true),
            ("/c/../assets/a.png", true),
            ("https:///cdn.example/a.png", false),
            ("https://user@cdn.example/a.png", false),
        ] {
            assert_eq!(sources.may_be(url), expected, "{url}");
        }
        // With a pattern that cannot be read every host is one; without it they are told apart.
        let sources = Sources::parse(&serde_json::json!({
            "domains": ["cdn.example"],
            "remotePatterns": [{ "protocol": "https", "hostname": "**.pictures.example" }],
        }));
        let sources = sources.expect("sources");
        for (url, expected) in [
            ("https://cdn.example.evil/a.png", false),
            ("https://evil.example/cdn.example", false),
            ("https://evil.example\\@cdn.example", false),
            ("http://x.pictures.example/a.png", false),
            ("https://x.pictures.example/a.png", true),
            ("https://pictures.example/a.png", false),
            ("https://169.254.169.254/latest", false),
            ("https://[::1]/", true),
            ("/anything?x", true),
        ] {
            assert_eq!(sources.may_be(url), expected, "{url}");
        }
        assert!(Sources::parse(&serde_json::json!({})).is_none());
    }

    #[test]
    fn globs_mean_no_less_than_they_say() {
        for (glob, text, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.example", "a.example", true),
            ("*.example", ".example.evil", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("/a/**/b", "/a/b", true),
            ("/a/**", "/a", true),
            ("**", "", true),
            ("a?c", "xyz", true),
        ] {
            assert_eq!(may_match(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn browsers_that_want_the_same_say_the_same() {
        let both = ["image/avif,image/webp"];
        check(&["image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"], &both);
        check(&["image/webp, image/avif , */*"], &both);
        check(&["image/webp,*/*;q=0.5"], &["image/webp"]);
        check(&["image/avif"], &["image/avif"]);
        check(&["image/png,image/*"], &["*/*"]);
        check(&["text/html,application/xhtml+xml"], &["*/*"]);
        check(&[""], &["*/*"]);
        check(&[], &[]);
        for odd in ["image/avif;q=0.1,image/webp", "image/webp;q=0", "IMAGE/WEBP", "\u{e4}"] {
            check(&[odd], &[odd]);
        }
        check(&["image/webp", "image/avif"], &["image/webp", "image/avif"]);
    }
}

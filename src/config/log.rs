//! The log as written → `Log`; pure.

use super::problem::nearest;
use super::section::{Section, choose};
use super::{
    Access, AccessFormat, AccessTo, EventKind, Level, Log, LogField, LogFormat, LogPiece, Target,
    Traces, routes, sites,
};

pub fn read(section: &Section<'_>) -> Log {
    let access = section.section("access");
    let to = access.get("to", |text| match text {
        "stdout" => Ok(AccessTo::Stdout),
        "none" => Ok(AccessTo::Off),
        "off" | "false" => Err(format!("{text:?} is no place; write none")),
        "stderr" => Err("stderr is the log's own; write stdout, none or a path".to_owned()),
        path => Ok(AccessTo::File(section.folder().join(path))),
    });
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    Log {
        access: Access {
            to: to.unwrap_or(AccessTo::Stdout),
            format: access.get("format", format).unwrap_or(AccessFormat::Json),
            redact: access.list("redact", word),
        },
        level: section.choice("level", &LEVELS).unwrap_or(Level::Info),
        format: section.choice("format", &formats).unwrap_or(LogFormat::Human),
        events: section.list("events", |text| choose(text, &EVENTS)),
    }
}

/// `None` if nothing is written.
pub fn traces(section: &Section<'_>, is_written: bool) -> Option<Traces> {
    if !is_written {
        return None;
    }
    if section.written("to").is_none() {
        section.refuse_lack("has no to; write http://127.0.0.1:4318");
    }
    let folder = section.folder();
    let to = section.get("to", |text| {
        let at =
            text.find("://").map(|at| at + 3).and_then(|at| Some(at + text.get(at..)?.find('/')?));
        let (origin, path) = at.and_then(|at| text.split_at_checked(at)).unwrap_or((text, "/"));
        let path = sites::url_path(path)?;
        let path = path.trim_end_matches('/').trim_end_matches("/v1/traces").to_owned();
        Ok((Target::parse(origin, folder)?, path))
    });
    let header = section.written("header").and_then(|field| {
        let header = field.read_secret()?;
        let shaped = header.expose().split_once(':').is_some_and(|(name, value)| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !name.is_empty()
                && name.bytes().all(letter)
                && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        });
        if !shaped {
            field.refuse("is no header; write 'authorization: Bearer …'");
        }
        shaped.then_some(header)
    });
    let share = section.value("share", routes::percent);
    let service = section.value("service", |text| match text.trim() {
        "" => Err("is empty; write what this is called: vestibule".to_owned()),
        text => Ok(text.to_owned()),
    });
    let (to, path) = to?;
    Some(Traces { to, path, share, service, header })
}

impl Traces {
    /// Whether the same collector is told in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        let header =
            |traces: &Self| traces.header.as_ref().map(|header| header.expose().to_owned());
        (&self.to, &self.path, &self.service) == (&other.to, &other.path, &other.service)
            && header(self) == header(other)
    }
}

const EVENTS: [(&str, EventKind); 4] = [
    ("connect", EventKind::Connect),
    ("disconnect", EventKind::Disconnect),
    ("event", EventKind::Event),
    ("deny", EventKind::Deny),
];

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

/// What a template may name.
const FIELDS: [(&str, LogField); 20] = [
    ("agent", LogField::Agent),
    ("bytes", LogField::Bytes),
    ("client", LogField::Client),
    ("host", LogField::Host),
    ("method", LogField::Method),
    ("ms", LogField::Ms),
    ("path", LogField::Path),
    ("protocol", LogField::Protocol),
    ("query", LogField::Query),
    ("reason", LogField::Reason),
    ("referer", LogField::Referer),
    ("route", LogField::Route),
    ("status", LogField::Status),
    ("target", LogField::Target),
    ("time", LogField::Time),
    ("tls", LogField::Tls),
    ("trace", LogField::Trace),
    ("tries", LogField::Tries),
    ("upstream", LogField::Upstream),
    ("upstream_ms", LogField::UpstreamMs),
];

/// Headers that open sessions.
const SECRETS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// Headers of requests that a template may name.
const HEADERS_MAX: usize = 16;

fn word(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        format!("{text:?} is no word of a key; write letters and digits alone: token")
    })
}

/// `json`, `combined`, or a text with fields in braces; `{{` and `}}` are braces.
pub fn format(text: &str) -> Result<AccessFormat, String> {
    match text {
        "json" => return Ok(AccessFormat::Json),
        "combined" => return Ok(AccessFormat::Combined),
        text if !text.contains('{') => {
            return Err(format!(
                "{text:?} is no format; write json, combined or a text with fields: {{method}} {{path}} {{status}}"
            ));
        }
        _ => (),
    }
    if text.contains(|letter: char| letter.is_control()) {
        return Err("has a line break or another control character; a line is one line".to_owned());
    }
    let pieces = pieces(text)?;
    let headers = pieces.iter().filter(|piece| matches!(piece, LogPiece::Header(_))).count();
    if headers > HEADERS_MAX {
        return Err(format!("names {headers} headers; {HEADERS_MAX} are the most"));
    }
    Ok(AccessFormat::Template { written: text.to_owned(), pieces })
}

fn pieces(text: &str) -> Result<Vec<LogPiece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = after.strip_prefix("{{") {
            plain.push('{');
            rest = after;
        } else if let Some(after) = after.strip_prefix("}}") {
            plain.push('}');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or("has a { without its }")?;
            if !plain.is_empty() {
                pieces.push(LogPiece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(field(name)?);
            rest = after;
        } else {
            return Err("has a } without its {; write }} for the character".to_owned());
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(LogPiece::Text(plain));
    }
    Ok(pieces)
}

fn field(name: &str) -> Result<LogPiece, String> {
    if let Some(header) = name.strip_prefix("header.") {
        let header = header.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if header.is_empty() || !header.bytes().all(token) {
            return Err(format!(
                "names {name:?}, which is no header; write {{header.x-request-id}}"
            ));
        }
        if SECRETS.contains(&header.as_str()) {
            return Err(format!("names {name:?}, which opens sessions; it is never written"));
        }
        return Ok(LogPiece::Header(header));
    }
    if let Some((_, field)) = FIELDS.iter().find(|(word, _)| *word == name) {
        return Ok(LogPiece::Field(*field));
    }
    Err(match nearest(name, FIELDS.iter().map(|(word, _)| *word)) {
        Some(word) => format!("names {name:?}, which is no field; did you mean {word:?}?"),
        None => {
            let words: Vec<_> = FIELDS.iter().map(|(word, _)| *word).collect();
            format!("names {name:?}; known are {} and header.NAME", words.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_texts_with_fields() {
        let read = |text| match format(text) {
            Ok(AccessFormat::Template { pieces, .. }) => Ok(pieces),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(
            read("{{{method}}} {header.X-Request-Id}!"),
            Ok(vec![
                LogPiece::Text("{".to_owned()),
                LogPiece::Field(LogField::Method),
                LogPiece::Text("} ".to_owned()),
                LogPiece::Header("x-request-id".to_owned()),
                LogPiece::Text("!".to_owned()),
            ])
        );
        for (text, what) in [
            ("{metod}", "did you mean \"method\""),
            ("{method", "without its }"),
            ("method}{path}", "without its {"),
            ("{header.cookie}", "never written"),
            ("{header.Authorization}", "never written"),
            ("{header.}", "no header"),
            ("{method}\n", "line break"),
            ("common", "no format"),
        ] {
            assert!(read(text).is_err_and(|error| error.contains(what)), "{text}");
        }
    }
}

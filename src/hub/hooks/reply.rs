//! What the application answers; pure.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The body of a 2xx; everything may be left out.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// The acknowledgement's values.
    pub ack: List,
    pub join: Vec<String>,
    pub leave: Vec<String>,
    pub emit: Vec<Emit>,
    /// Kept with the socket, and sent with its next questions.
    pub data: Option<Json>,
    pub disconnect: bool,
}

/// An event to sockets of the namespace.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// Rooms, or sockets by their ids; left out, everyone.
    pub to: Option<Vec<String>>,
    #[serde(default)]
    pub except: Vec<String>,
    pub event: String,
    #[serde(default)]
    pub args: List,
    #[serde(default)]
    pub volatile: bool,
}

/// A value as the application wrote it: it may hold what our own would not, as half of a surrogate
/// pair that a client has sent.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// The same of an array; `None` is the empty one.
#[derive(Debug, Default, PartialEq)]
pub struct List(Option<Json>);

impl List {
    /// With its brackets.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("[]", Json::as_str)
    }

    /// An array that begins with the text `first`, and goes on with these.
    pub fn after(&self, first: &str) -> String {
        let rest = self.as_str().strip_prefix('[').unwrap_or_default().trim_start();
        let (first, comma) = (Value::from(first), if rest == "]" { "" } else { "," });
        format!("[{first}{comma}{rest}")
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        if !json.as_str().starts_with('[') {
            return Err(D::Error::custom("a list of values is expected"));
        }
        Ok(Self(Some(json)))
    }
}

/// What came of a question.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Answered(Box<Reply>),
    /// 401 or 403, with what the body said.
    Denied(Value),
    /// Another 4xx, or an answer that means nothing, as the error for the client.
    Failed(Value),
    /// No answer within the time for it.
    Unavailable,
}

/// Why an answer is none: ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerError(pub u16);

impl ServerError {
    /// True if it comes from something in between: nobody is there who could answer.
    pub fn is_absence(self) -> bool {
        matches!(self.0, 502..=504)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "it answered {}", self.0)
    }
}

/// Reads an answer by its status.
pub fn read(status: u16, body: &[u8]) -> Result<Outcome, ServerError> {
    match status {
        204 => Ok(Outcome::Answered(Box::default())),
        200..=299 if body.is_empty() => Ok(Outcome::Answered(Box::default())),
        200..=299 => Ok(match serde_json::from_slice(body) {
            Ok(reply) => Outcome::Answered(Box::new(reply)),
            Err(error) => {
                Outcome::Failed(json!({ "code": "bad_reply", "message": error.to_string() }))
            }
        }),
        401 | 403 => Ok(Outcome::Denied(error_of(body).unwrap_or(Value::Null))),
        400..=499 => {
            let error =
                error_of(body).unwrap_or_else(|| json!({ "code": "rejected", "status": status }));
            Ok(Outcome::Failed(error))
        }
        // A redirect answers nobody: it is the application's mistake, and told as one.
        300..=399 => Ok(Outcome::Failed(json!({ "code": "bad_reply", "status": status }))),
        _ => Err(ServerError(status)),
    }
}

fn error_of(body: &[u8]) -> Option<Value> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    body.get_mut("error").map(Value::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_status() {
        let empty = || Ok(Outcome::Answered(Box::default()));
        assert_eq!(read(204, b"anything"), empty());
        assert_eq!(read(200, b""), empty());
        assert_eq!(read(200, b"{}"), empty());
        let reply = read(201, br#"{"ack":[1],"join":["a"],"emit":[{"event":"x"}]}"#);
        let Ok(Outcome::Answered(reply)) = reply else { panic!("{reply:?}") };
        assert_eq!(
            (reply.ack.as_str(), &reply.join[..], reply.emit.len()),
            ("[1]", &["a".to_owned()][..], 1)
        );
        assert_eq!(read(403, b"<html>"), Ok(Outcome::Denied(Value::Null)));
        assert_eq!(read(401, br#"{"error":"no"}"#), Ok(Outcome::Denied(json!("no"))));
        assert_eq!(
            read(422, br#"{"error":{"code":"x"}}"#),
            Ok(Outcome::Failed(json!({ "code": "x" })))
        );
        assert_eq!(read(500, b""), Err(ServerError(500)));
        for (status, body) in [
            (200, &b"{"[..]),
            (200, br#"{"akc":[]}"#),
            (200, br#"{"ack":null}"#),
            (200, br#"{"ack":{}}"#),
            (307, b""),
        ] {
            let failed = read(status, body);
            assert!(
                matches!(&failed, Ok(Outcome::Failed(error)) if error["code"] == "bad_reply"),
                "{failed:?}"
            );
        }
        assert!(
            matches!(read(404, b""), Ok(Outcome::Failed(error)) if error["code"] == "rejected")
        );
    }

    #[test]
    fn what_a_client_wrote_comes_back_as_it_was() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for strange in [r#""a\ud83d""#, "1e999", &deep] {
            let body = format!(
                r#"{{"ack":[ {strange} ],"data":{strange},"emit":[{{"event":"x\"","args":[{strange}]}}]}}"#
            );
            let reply = read(200, body.as_bytes());
            let Ok(Outcome::Answered(reply)) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.ack.as_str(), format!("[ {strange} ]"));
            assert_eq!(reply.data.as_ref().map(Json::as_str), Some(strange));
            let emit = reply.emit.first().expect("an event");
            assert_eq!(emit.args.after(&emit.event), format!(r#"["x\"",{strange}]"#));
        }
        assert_eq!(List::default().after("x"), r#"["x"]"#);
        let empty: List = serde_json::from_str("[ ]").expect("a list");
        assert_eq!(empty.after("x"), r#"["x"]"#);
    }
}

//! What the application answers; pure.

use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::hub::binary::{self, Unfit};
use crate::hub::packet;

/// What the application wants done. All of it can be: what cannot is no reply.
#[derive(Debug, Default, PartialEq)]
pub struct Reply {
    /// The acknowledgement's values.
    pub ack: Said,
    pub join: Vec<String>,
    pub leave: Vec<String>,
    pub emit: Vec<Emit>,
    /// Kept with the socket, and sent with its next questions.
    pub data: Option<Json>,
    pub disconnect: bool,
}

/// An event to sockets of the namespace.
#[derive(Debug, PartialEq)]
pub struct Emit {
    /// Rooms, or sockets by their ids; `None` is everyone.
    pub to: Option<Vec<String>>,
    pub except: Vec<String>,
    /// Its name first.
    pub said: Said,
    pub volatile: bool,
}

/// An array as packets carry it: placeholders stand for its binary parts.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub data: String,
    pub parts: Vec<Bytes>,
}

impl Default for Said {
    fn default() -> Self {
        Self { data: "[]".to_owned(), parts: Vec::new() }
    }
}

/// The body of a 2xx; everything may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    ack: List,
    join: Vec<String>,
    leave: Vec<String>,
    emit: Vec<WrittenEmit>,
    data: Option<Json>,
    disconnect: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEmit {
    #[serde(default, deserialize_with = "rooms")]
    to: Option<Vec<String>>,
    #[serde(default)]
    except: Vec<String>,
    event: String,
    #[serde(default)]
    args: List,
    #[serde(default)]
    volatile: bool,
}

/// A variable that holds nothing must not become a word to everyone.
fn rooms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let rooms = Option::deserialize(deserializer)?;
    rooms.map(Some).ok_or_else(|| D::Error::custom("to is null; leave it out for everyone"))
}

impl Written {
    /// With its arrays as packets carry them; `attachments` in each at the most. What cannot be said
    /// is told with its place.
    fn read(self, attachments: usize) -> Result<Reply, String> {
        let said = |place: &str, values: &str| {
            let (data, parts) =
                binary::extract(values, attachments).map_err(|unfit| at(place, unfit))?;
            Ok::<_, String>(Said { data, parts })
        };
        let ack = said("ack", self.ack.as_str())?;
        let emit = self.emit.into_iter().enumerate().map(|(index, emit)| {
            let WrittenEmit { to, except, event, args, volatile } = emit;
            if packet::is_reserved(&event) {
                return Err(format!(
                    "emit[{index}].event: {event:?} is a name that Socket.IO keeps for itself"
                ));
            }
            let said = said(&format!("emit[{index}].args"), &args.after(&event))?;
            Ok(Emit { to, except, said, volatile })
        });
        let emit = emit.collect::<Result<_, String>>()?;
        if let Some(data) = &self.data {
            // It goes where packets go: into questions, and to other nodes.
            binary::check_parts(data.as_str(), &[]).map_err(|unfit| at("data", unfit))?;
        }
        let Self { join, leave, data, disconnect, .. } = self;
        Ok(Reply { ack, join, leave, emit, data, disconnect })
    }
}

fn at(place: &str, unfit: Unfit) -> String {
    format!("{place}: {unfit}")
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
#[derive(Default)]
struct List(Option<Json>);

impl List {
    /// With its brackets.
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("[]", Json::as_str)
    }

    /// An array that begins with the text `first`, and goes on with these.
    fn after(&self, first: &str) -> String {
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

impl Outcome {
    fn bad_reply(message: &str) -> Self {
        Self::Failed(json!({ "code": BAD_REPLY, "message": message }))
    }

    /// What is wrong with an answer that means nothing: the application's own mistake.
    pub fn mistake(&self) -> Option<String> {
        let Self::Failed(error) = self else { return None };
        (error.get("code")? == BAD_REPLY).then(|| error.to_string())
    }
}

/// The `code` of a reply that cannot be done.
const BAD_REPLY: &str = "bad_reply";

/// Reads an answer by its status; `attachments` may be in one packet.
pub fn read(status: u16, body: &[u8], attachments: usize) -> Result<Outcome, ServerError> {
    match status {
        204 => Ok(Outcome::Answered(Box::default())),
        200..=299 if body.is_empty() => Ok(Outcome::Answered(Box::default())),
        200..=299 => {
            let written = serde_json::from_slice(body).map_err(|error| error.to_string());
            let reply = written.and_then(|written: Written| written.read(attachments));
            Ok(match reply {
                Ok(reply) => Outcome::Answered(Box::new(reply)),
                Err(what) => Outcome::bad_reply(&what),
            })
        }
        401 | 403 => Ok(Outcome::Denied(error_of(body).unwrap_or(Value::Null))),
        400..=499 => {
            let error =
                error_of(body).unwrap_or_else(|| json!({ "code": "rejected", "status": status }));
            Ok(Outcome::Failed(error))
        }
        // A redirect answers nobody: it is the application's mistake, and told as one.
        300..=399 => Ok(Outcome::Failed(json!({ "code": BAD_REPLY, "status": status }))),
        _ => Err(ServerError(status)),
    }
}

/// The same of a body of more than `max` bytes: an answer it is all the same, as the next would be.
pub fn read_oversized(status: u16, max: usize) -> Result<Outcome, ServerError> {
    match status {
        200..=299 => Ok(Outcome::bad_reply(&format!("the reply is larger than {max} bytes"))),
        _ => read(status, b"", 0),
    }
}

fn error_of(body: &[u8]) -> Option<Value> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    body.get_mut("error").map(Value::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &[u8]) -> Result<Outcome, ServerError> {
        super::read(status, body, 10)
    }

    #[test]
    fn answers_by_status() {
        let empty = || Ok(Outcome::Answered(Box::default()));
        assert_eq!(read(204, b"anything"), empty());
        assert_eq!(read(200, b""), empty());
        assert_eq!(read(200, b"{}"), empty());
        let reply = read(201, br#"{"ack":[1],"join":["a"],"emit":[{"event":"x"}]}"#);
        let Ok(Outcome::Answered(reply)) = reply else { panic!("{reply:?}") };
        assert_eq!(
            (reply.ack.data.as_str(), &reply.join[..], reply.emit.len()),
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
        let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
        for strange in [r#""a\ud83d""#, "1e999", &deep] {
            let body = format!(
                r#"{{"ack":[ {strange} ],"data":{strange},"emit":[{{"event":"x\"","args":[{strange}]}}]}}"#
            );
            let reply = read(200, body.as_bytes());
            let Ok(Outcome::Answered(reply)) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.ack.data, format!("[ {strange} ]"));
            assert_eq!(reply.data.as_ref().map(Json::as_str), Some(strange));
            let emit = reply.emit.first().expect("an event");
            assert_eq!(emit.said.data, format!(r#"["x\"",{strange}]"#));
        }
        assert_eq!(List::default().after("x"), r#"["x"]"#);
        let empty: List = serde_json::from_str("[ ]").expect("a list");
        assert_eq!(empty.after("x"), r#"["x"]"#);
    }

    #[test]
    fn what_cannot_be_done_is_no_reply() {
        let many = [r#"{"$binary":""}"#; 11].join(",");
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        for (body, place) in [
            (
                format!(r#"{{"emit":[{{"event":"a"}},{{"event":"x","args":[{many}]}}]}}"#),
                "emit[1].args: more than 10",
            ),
            (format!(r#"{{"ack":[{many}]}}"#), "ack: more than 10"),
            (r#"{"emit":[{"event":"disconnect"}]}"#.to_owned(), r#"emit[0].event: "disconnect""#),
            (r#"{"emit":[{"event":"x","args":[{"$binary":"!"}]}]}"#.to_owned(), "emit[0].args: "),
            (r#"{"emit":[{"event":"x","to":null}]}"#.to_owned(), "to is null"),
            (format!(r#"{{"ack":{deep}}}"#), "ack: more than 128 levels"),
            (
                format!(r#"{{"emit":[{{"event":"x","args":{deep}}}]}}"#),
                "emit[0].args: more than 128 levels",
            ),
            (format!(r#"{{"data":{deep}}}"#), "data: more than 128 levels"),
        ] {
            let failed = read(200, body.as_bytes());
            let Ok(Outcome::Failed(error)) = &failed else { panic!("{body}: {failed:?}") };
            let message = error["message"].as_str().expect("a text");
            assert!(error["code"] == "bad_reply" && message.starts_with(place), "{error}");
        }
        let nobody = read(200, br#"{"emit":[{"event":"x","to":[]}]}"#);
        let Ok(Outcome::Answered(reply)) = nobody else { panic!("{nobody:?}") };
        assert_eq!(reply.emit.first().and_then(|emit| emit.to.as_deref()), Some(&[][..]));
    }

    #[test]
    fn too_large_an_answer_is_one() {
        let large = |status| read_oversized(status, 1 << 20);
        let Ok(bad) = large(200) else { panic!("it is no outage") };
        assert!(bad.mistake().is_some_and(|what| what.contains("larger than 1048576 bytes")));
        assert_eq!(large(403), Ok(Outcome::Denied(Value::Null)));
        assert!(matches!(large(404), Ok(Outcome::Failed(error)) if error["code"] == "rejected"));
        assert_eq!(large(500), Err(ServerError(500)));
    }
}

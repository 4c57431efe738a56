//! The hub API: `/hub/…` on the private listener.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exchange::{Body, BodyError, Response};
use crate::hub::{Heads, Hub, Listed, Operation, Outcome, Policy, Reach, Seen, Unanswered};

use super::fields::{Fields, Wrong};
use super::json;
use super::operations::{ASKED, Known, POSTED, read, read_batch};

/// How the hub is reached.
pub struct Door {
    pub hub: Arc<Hub>,
    /// The rules in force; `None` while no hub is configured.
    pub policy: Box<dyn Fn() -> Option<Arc<Policy>>>,
}

/// Why a request did nothing.
enum Refusal {
    NoHub,
    NoSuch,
    /// Its path takes another method.
    Method(&'static str),
    TooLarge,
    NotRead,
    BadJson(serde_json::Error),
    Wrong(Wrong),
    Unanswered(Unanswered),
}

const BODY_MAX: usize = 1 << 20;
/// Between two pieces of a body.
const BODY_IDLE: Duration = Duration::from_secs(10);

const ALL: &str = "POST /hub/emit, /hub/join, /hub/leave, /hub/disconnect, /hub/batch; \
    GET /hub/sockets, /hub/rooms, /hub/count";

/// Answers a request of somebody who may ask.
pub async fn answer(request: http::Request<Incoming>, door: &Door) -> Response {
    serve(request, door).await.unwrap_or_else(Refusal::response)
}

pub fn unauthorized() -> Response {
    let message = "listen.admin is a TCP address: send its token, Authorization: Bearer TOKEN";
    let mut response = refuse(StatusCode::UNAUTHORIZED, "unauthorized", None, message);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn serve(request: http::Request<Incoming>, door: &Door) -> Result<Response, Refusal> {
    let policy = (door.policy)().ok_or(Refusal::NoHub)?;
    let mut namespaces: Vec<&str> = policy.names().collect();
    namespaces.sort_unstable();
    let providers: Vec<_> = namespaces.iter().map(|name| policy.providers(name)).collect();
    let attachments = policy.attachments;
    let known = Known { namespaces: &namespaces, providers: &providers, attachments };
    let (head, body) = request.into_parts();
    let op = head.uri.path().strip_prefix("/hub/").unwrap_or_default();
    if ASKED.contains(&op) {
        if head.method != Method::GET {
            return Err(Refusal::Method("GET"));
        }
        let mut fields = Fields::of_query(head.uri.query().unwrap_or_default());
        let reach = if fields.flag("here")? { Reach::Here } else { Reach::Everywhere };
        return one(read(op, fields, &known)?, reach, &door.hub).await;
    }
    if !POSTED.contains(&op) && op != "batch" {
        return Err(Refusal::NoSuch);
    }
    if head.method != Method::POST {
        return Err(Refusal::Method("POST"));
    }
    let body = Body::incoming(body, BODY_MAX as u64, BODY_IDLE).read_all(BODY_MAX).await?;
    let body: &RawValue = serde_json::from_slice(&body).map_err(Refusal::BadJson)?;
    if op == "batch" {
        return many(read_batch(body, &known)?, &door.hub).await;
    }
    one(read(op, Fields::of(body, "")?, &known)?, Reach::Everywhere, &door.hub).await
}

async fn one(operation: Operation, reach: Reach, hub: &Hub) -> Result<Response, Refusal> {
    let outcomes = hub.operate_everywhere(vec![operation], reach).await?;
    Ok(json(StatusCode::OK, &outcomes.into_iter().map(Shown::new).next()))
}

async fn many(operations: Vec<Operation>, hub: &Hub) -> Result<Response, Refusal> {
    let outcomes = hub.operate_everywhere(operations, Reach::Everywhere).await?;
    Ok(json(StatusCode::OK, &outcomes.into_iter().map(Shown::new).collect::<Vec<_>>()))
}

/// An outcome as JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Done { sockets: usize },
    Heads(ShownHeads),
    Sockets { sockets: Vec<ShownSocket>, more: bool },
    Rooms { rooms: Vec<ShownRoom>, more: bool },
}

#[derive(Serialize)]
struct ShownHeads {
    sockets: usize,
    /// How many different ones; nobody is identified where everybody may connect.
    users: Option<usize>,
}

#[derive(Serialize)]
struct ShownSocket {
    id: String,
    rooms: Vec<String>,
    /// As above.
    user: Option<String>,
    address: Option<IpAddr>,
    transport: Option<&'static str>,
}

#[derive(Serialize)]
struct ShownRoom {
    room: String,
    #[serde(flatten)]
    heads: ShownHeads,
}

impl From<Heads> for ShownHeads {
    fn from(Heads { sockets, users, .. }: Heads) -> Self {
        Self { sockets, users }
    }
}

impl Shown {
    fn new(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Count(sockets) => Self::Done { sockets },
            Outcome::Heads(heads) => Self::Heads(heads.into()),
            Outcome::Sockets(Listed { items, more }) => {
                let sockets = items.into_iter().map(|(id, seen)| {
                    let Seen { rooms, user, address, transport } = seen;
                    ShownSocket { id, rooms, user, address, transport }
                });
                Self::Sockets { sockets: sockets.collect(), more }
            }
            // For other nodes.
            Outcome::Described(remotes) => Self::Done { sockets: remotes.len() },
            Outcome::Rooms(Listed { items, more }) => {
                let room = |(room, heads): (_, Heads)| ShownRoom { room, heads: heads.into() };
                Self::Rooms { rooms: items.into_iter().map(room).collect(), more }
            }
        }
    }
}

impl Refusal {
    fn response(self) -> Response {
        match self {
            Self::NoHub => {
                let message = "no hub is configured; write hub: in the configuration";
                refuse(StatusCode::NOT_FOUND, "no_hub", None, message)
            }
            Self::NoSuch => refuse(StatusCode::NOT_FOUND, "not_found", None, ALL),
            Self::Method(method) => {
                let message = format!("takes {method} only");
                let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "method", None, &message);
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
                response
            }
            Self::TooLarge => {
                let message =
                    format!("the body is larger than {BODY_MAX} bytes; send less at once");
                refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", None, &message)
            }
            Self::NotRead => {
                let message = "the body did not come as announced";
                refuse(StatusCode::BAD_REQUEST, "body", None, message)
            }
            Self::BadJson(error) => {
                let message = format!("the body is no JSON: {error}");
                refuse(StatusCode::BAD_REQUEST, "bad_json", None, &message)
            }
            Self::Wrong(Wrong { field, message }) => {
                refuse(StatusCode::BAD_REQUEST, "bad_request", Some(&field), &message)
            }
            Self::Unanswered(unanswered) => {
                let message = unanswered.to_string();
                let (status, code) = match unanswered {
                    Unanswered::Here | Unanswered::Alone => (StatusCode::BAD_GATEWAY, "here_alone"),
                    _ => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
                };
                refuse(status, code, None, &message)
            }
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        if matches!(error, BodyError::TooLarge { .. }) { Self::TooLarge } else { Self::NotRead }
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unanswered(unanswered)
    }
}

#[derive(Serialize)]
struct Refused<'a> {
    error: Why<'a>,
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    message: &'a str,
}

fn refuse(status: StatusCode, code: &'static str, field: Option<&str>, message: &str) -> Response {
    json(status, &Refused { error: Why { code, field, message } })
}

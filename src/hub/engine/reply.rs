//! Responses of long polling and to WebSocket handshakes, and what CORS adds to them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::exchange::{self, Body, Response};

use super::packet::Form;
use super::polling::Answer;
use super::request::Refusal;

const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What a poll or a POST comes to, as its client reads it; with `jsonp` as a script.
pub fn respond(answer: Answer, jsonp: Option<&str>) -> Result<Response, Refusal> {
    let (body, kind) = match (answer, jsonp) {
        (Answer::Refused(refusal), _) => return Err(refusal),
        (Answer::Taken, _) => (Body::from("ok"), "text/html"),
        (Answer::Payload(payload, _), Some(index)) => {
            (Body::from(script(index, &payload)), "text/javascript; charset=UTF-8")
        }
        (Answer::Payload(payload, Form::V3Binary), None) => {
            (payload.into(), "application/octet-stream")
        }
        (Answer::Payload(payload, _), None) => (payload.into(), "text/plain; charset=UTF-8"),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A payload as the call of a page's function.
fn script(index: &str, payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    // A string has no keys that JSON could refuse.
    let text = serde_json::to_string(&text).unwrap_or_default();
    let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    format!("___eio[{index}]({text});")
}

/// The answer to a CORS preflight, as Node's `cors` gives it.
pub fn preflighted(asked: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(asked) = asked {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        headers.append(header::VARY, HeaderValue::from(header::ACCESS_CONTROL_REQUEST_HEADERS));
    }
    response
}

/// Says that pages of this origin may read the answer.
pub fn permit(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let yes = HeaderValue::from_static("true");
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// The field `d` of a form, in which `\\n` stands for a newline.
pub fn form_field(body: &[u8]) -> Result<Bytes, Refusal> {
    let body = std::str::from_utf8(body).map_err(|_error| Refusal::Broken)?;
    let field = body.split('&').find_map(|field| field.strip_prefix("d="));
    let text = exchange::query::decode(field.ok_or(Refusal::Broken)?).into_owned();
    Ok(text.replace("\\\\n", "\u{0}").replace("\\n", "\n").replace('\u{0}', "\\n").into())
}

pub fn is_websocket(headers: &HeaderMap) -> bool {
    exchange::headers::upgrade(headers).is_some_and(|protocol| protocol == "websocket")
}

/// The 101 to a WebSocket handshake (RFC 6455 §4.2).
pub fn switch(headers: &HeaderMap) -> Result<Response, Refusal> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(Refusal::BadRequest)?;
    if version.is_none_or(|version| version.as_bytes() != b"13") || key.len() != 24 {
        return Err(Refusal::BadRequest);
    }
    let accept = exchange::websocket::accept(key);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    exchange::headers::set_upgrade(response.headers_mut(), "websocket");
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

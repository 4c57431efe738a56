//! A route's door whose keeper is another server: it is asked about every request.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use tokio::time::timeout;
use tracing::debug;

use crate::config;
use crate::exchange::{Body, Client, Fault, Peer, Request, Response, Side, cookies, headers};
use crate::next;
use crate::upstream::{CompileError, Pools, Registry, SendError, Upstream};

/// Whom to ask, and what of the answer the application is told.
pub struct Keeper {
    upstream: Upstream,
    place: String,
    uri: Uri,
    host: Option<HeaderValue>,
    told: Vec<HeaderName>,
    told_client: Vec<HeaderName>,
    timeout: Duration,
}

/// Nobody comes in because it is silent.
const SILENT: Fault = Fault::new(503, Side::Edge, "auth_unavailable");

/// Bytes of a body that nobody wants, and still is read.
const BODY_MAX: usize = 16 << 10;

/// What belongs to the body, which is not sent, or asks for a part of an answer.
const NOT_ASKED: [HeaderName; 14] = [
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
];

impl Keeper {
    pub fn compile(
        words: &config::Forward,
        timeouts: &config::Timeouts,
        registry: &Arc<Registry>,
    ) -> Result<Self, CompileError> {
        let authority = words.target.to_string();
        let authority = authority.split_once("://").map(|(_, authority)| authority);
        let upstream =
            Upstream::compile(&words.upstream(), timeouts, Some(words.timeout), registry)?;
        Ok(Self {
            upstream,
            place: format!("{}{}", words.target, words.path),
            uri: words.path.parse().unwrap_or_default(),
            host: authority.and_then(|authority| HeaderValue::from_str(authority).ok()),
            told: names(&words.headers),
            told_client: names(&words.client_headers),
            timeout: words.timeout,
        })
    }

    /// Headers that are its own to write.
    pub fn told(&self) -> &[HeaderName] {
        &self.told
    }

    /// Who is asked, in words.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Lets the request pass, with what the answer says of it, and gives what the client is told in
    /// any case; or gives the client's answer.
    pub async fn ask(
        &self,
        request: &mut Request,
        client: &Client,
        peer: &Peer,
        pools: &Rc<Pools>,
    ) -> Result<HeaderMap, Result<Response, Fault>> {
        let question = self.question(request, client, peer);
        let asking = async {
            let mut answer = self.upstream.send(question, pools).await?;
            if answer.status().is_success() {
                // Nobody wants it, but what has been read to its end can be used again.
                let body = std::mem::replace(answer.body_mut(), Body::empty());
                let _read = body.read_all(BODY_MAX).await;
            }
            Ok::<_, SendError>(answer)
        };
        let mut answer = match timeout(self.timeout, Box::pin(asking)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                debug!(%error, "the server that decides cannot be asked");
                return Err(Err(SILENT));
            }
            Err(_elapsed) => {
                debug!("the server that decides does not answer");
                return Err(Err(SILENT));
            }
        };
        match answer.status().as_u16() {
            200..=299 => {
                for name in &self.told {
                    for value in answer.headers().get_all(name) {
                        request.headers_mut().append(name, value.clone());
                    }
                }
                Ok(chosen(&self.told_client, answer.headers()))
            }
            300..=399 | 401 | 403 => {
                headers::strip_hop_by_hop(answer.headers_mut());
                let no_store = HeaderValue::from_static("no-store");
                answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
                Err(Ok(answer))
            }
            status => {
                debug!(status, "the server that decides says what is no decision");
                Err(Err(SILENT))
            }
        }
    }

    fn question(&self, request: &Request, client: &Client, peer: &Peer) -> Request {
        let mut fields: HeaderMap = request.headers().clone();
        headers::strip_hop_by_hop(&mut fields);
        headers::strip_look_alikes(&mut fields);
        next::strip_request(&mut fields, false, next::Mode::Production);
        cookies::join(&mut fields);
        NOT_ASKED.iter().for_each(|name| drop(fields.remove(name)));
        headers::set_forwarded(&mut fields, client, peer);
        headers::set_original(&mut fields, client, request.method(), request.uri());
        if let Some(host) = &self.host {
            fields.insert(header::HOST, host.clone());
        }
        let mut question = Request::new(Body::empty());
        *question.method_mut() = Method::GET;
        *question.uri_mut() = self.uri.clone();
        *question.headers_mut() = fields;
        question
    }
}

fn names(words: &[String]) -> Vec<HeaderName> {
    words.iter().flat_map(|name| name.parse()).collect()
}

/// Those of these names, all their lines.
fn chosen(names: &[HeaderName], of: &HeaderMap) -> HeaderMap {
    let mut all = HeaderMap::new();
    for name in names {
        all.extend(of.get_all(name).iter().map(|value| (name.clone(), value.clone())));
    }
    all
}

/// Puts what a client is told into its answer, in place of what the application says of the same:
/// the cookies of one name, and all lines of any other header.
pub fn tell(told: &HeaderMap, answer: &mut HeaderMap) {
    for name in told.keys() {
        let kept = match answer.entry(name) {
            Entry::Occupied(lines) if *name == header::SET_COOKIE => {
                let (_, lines) = lines.remove_entry_mult();
                lines
                    .filter(|line| !told.get_all(name).iter().any(|told| same(told, line)))
                    .collect()
            }
            Entry::Occupied(lines) => {
                lines.remove();
                Vec::new()
            }
            Entry::Vacant(_) => Vec::new(),
        };
        let all = kept.into_iter().chain(told.get_all(name).iter().cloned());
        answer.extend(all.map(|value| (name.clone(), value)));
    }
}

/// True if two lines set cookies of one name.
fn same(one: &HeaderValue, other: &HeaderValue) -> bool {
    let name = |line: &HeaderValue| {
        let name = line.as_bytes().split(|byte| *byte == b'=').next();
        name.unwrap_or_default().trim_ascii().to_vec()
    };
    name(one) == name(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_told_stands_once() {
        let headers = |lines: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            lines.iter().map(pair).collect::<HeaderMap>()
        };
        let told = headers(&[("set-cookie", "s=new; Path=/"), ("set-cookie", "t=1"), ("x-a", "k")]);
        let mut answer = headers(&[
            ("set-cookie", "s=old"),
            ("set-cookie", "app=1"),
            ("x-a", "app"),
            ("x-a", "app 2"),
            ("x-b", "app"),
        ]);
        tell(&told, &mut answer);
        let all = |name: &str| answer.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all("set-cookie"), ["app=1", "s=new; Path=/", "t=1"]);
        assert_eq!(
            (all("x-a"), all("x-b")),
            (vec!["k".parse().unwrap()], vec!["app".parse().unwrap()])
        );
        let before = answer.clone();
        tell(&HeaderMap::new(), &mut answer);
        assert_eq!(answer, before);
    }
}

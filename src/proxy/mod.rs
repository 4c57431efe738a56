//! Answers with what the application answers.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod request;
mod response;
mod upgrade;

use std::borrow::Cow;
use std::rc::Rc;

use http::Method;

use crate::config;
use crate::drain::Drain;
use crate::exchange::headers::{Lines, Seen, Witness};
use crate::exchange::{
    BodyError, Client, Fault, HeaderRules, Peer, Request, Response, Side, headers,
};
use crate::next;
use crate::observe::access::Sent;
use crate::upstream::{Pools, SendError, Upstream};

/// One route to the application; part of the snapshot.
#[derive(Debug)]
pub struct Proxy {
    upstream: Upstream,
    rewrite: config::Rewrite,
    /// What the operator changes, after everything else.
    rules: HeaderRules,
    /// Bytes of a head that the application takes, as Node counts them.
    head_max: usize,
    /// Bytes of a response's body.
    response_max: Option<u64>,
    /// The targets as written, for `explain`.
    targets: String,
    /// WebSockets are tunnelled.
    upgrade: bool,
    /// Hot reload sockets are tunnelled.
    mode: next::Mode,
}

/// Why forwarding headers are as they are.
pub const FORWARDED: &str = "says who asks, and for what";

/// Why there is no answer of the application's.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("WebSockets are not tunnelled here")]
    UpgradeRefused,
    #[error("a request for another protocol has a body")]
    UpgradeBody,
    #[error("the application switched to another protocol than was asked for")]
    OtherProtocol,
    #[error("the application's answer is not one to this WebSocket's key")]
    WrongAccept,
    #[error("no path is left to ask for")]
    Target,
    #[error("the head has more bytes than the application takes")]
    HeadTooLarge,
    #[error("the response's body is larger than {0} bytes")]
    ResponseTooLarge(u64),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Proxy {
    /// `route` is `None` for what no route is written for; `response_max` holds where it says nothing.
    pub fn compile(
        upstream: Upstream,
        words: &config::Upstream,
        route: Option<&config::Route>,
        dev: bool,
        response_max: Option<u64>,
    ) -> Self {
        let targets: Vec<_> = words.targets.iter().map(ToString::to_string).collect();
        let mode = if dev { next::Mode::Development } else { next::Mode::Production };
        let rules = route.map(|route| &route.request_headers);
        let rules = rules.map(|words| HeaderRules::new(&words.remove, &words.set, &words.add));
        Self {
            upstream,
            rewrite: route.map(|route| route.rewrite.clone()).unwrap_or_default(),
            rules: rules.unwrap_or_default(),
            upgrade: route.is_some_and(|route| route.upgrade),
            mode,
            head_max: words.head,
            // Whoever develops limits nobody.
            response_max: route
                .and_then(|route| route.response_body)
                .or(response_max)
                .filter(|_| !dev),
            targets: targets.join(", "),
        }
    }

    pub fn targets(&self) -> &str {
        &self.targets
    }

    /// Bytes of a response's body, where they are bounded.
    pub fn response_max(&self) -> Option<u64> {
        self.response_max.filter(|max| *max < u64::MAX)
    }

    /// True if another path is asked for than the one that came.
    pub fn rewrites(&self) -> bool {
        self.rewrite != config::Rewrite::default()
    }

    /// The path that is asked for in place of this one.
    pub fn asked_for<'a>(&self, path: &'a str) -> Cow<'a, str> {
        request::asked_for(path, &self.rewrite)
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Forwards the request, and its response, as each side must see them; `seen` is what names it
    /// has, or had.
    pub async fn answer(
        &self,
        mut request: Request,
        (client, peer): (&Client, &Peer),
        seen: &Seen,
        (pools, drain): (&Rc<Pools>, &Drain),
        sent: &mut Sent,
    ) -> Result<Response, ForwardError> {
        let (websocket, lines) = self.prepare(&mut request, (client, peer), seen, &mut ())?;
        if let Some(protocol) = websocket {
            let to = (&self.upstream, &self.rewrite);
            let asked = (request, lines);
            let answer = upgrade::answer(asked, &protocol, client, to, (pools, drain), sent);
            return Box::pin(answer).await;
        }
        let mut response =
            self.upstream.forward((request, lines), client.address, pools, sent).await?;
        response::rewrite(response.headers_mut(), client, &self.upstream, &self.rewrite);
        match self.response_max {
            Some(max) => response::limit(response, max).ok_or(ForwardError::ResponseTooLarge(max)),
            None => Ok(response),
        }
    }

    /// Makes a client's request the one that is sent, with lines beside its headers; returns the
    /// protocol that it asks for, too. The witness hears of all but the lines.
    pub fn prepare(
        &self,
        request: &mut Request,
        (client, peer): (&Client, &Peer),
        seen: &Seen,
        witness: &mut impl Witness,
    ) -> Result<(Option<String>, Lines), ForwardError> {
        // Other protocols are not spoken: their requests are ordinary ones.
        let asked = seen.may_have("upgrade").then(|| headers::upgrade(request.headers()));
        let websocket = asked.flatten().filter(|protocol| protocol == "websocket");
        if websocket.is_some() {
            self.admit_upgrade(request)?;
        }
        request::rewrite(request, seen, &self.rewrite, self.mode, witness)?;
        let fields = request.headers_mut();
        if seen.may_have("origin") {
            headers::settle_origin(fields, client);
            witness.see("is the site's own, as host has it", fields);
        }
        let lines = if self.rules.is_empty() {
            Lines::forwarded(fields, client, peer, seen)
        } else {
            headers::set_forwarded(fields, client, peer);
            witness.see(FORWARDED, fields);
            self.rules.apply(fields);
            witness.see("request_headers", fields);
            Lines::default()
        };
        if let Some(protocol) = &websocket {
            headers::set_upgrade(fields, protocol);
            witness.see("asks for the tunnel", fields);
        }
        if request::head_size(request) + lines.as_bytes().len() >= self.head_max {
            return Err(ForwardError::HeadTooLarge);
        }
        Ok((websocket, lines))
    }

    fn admit_upgrade(&self, request: &Request) -> Result<(), ForwardError> {
        let declared = self.upgrade
            || (self.mode == next::Mode::Development && next::is_dev_socket(request.uri().path()));
        if !declared {
            return Err(ForwardError::UpgradeRefused);
        }
        // What follows the head would reach the application as a request of its own.
        let bodiless = http_body::Body::is_end_stream(request.body());
        if !bodiless || request.method() != Method::GET {
            return Err(ForwardError::UpgradeBody);
        }
        Ok(())
    }
}

impl From<ForwardError> for Fault {
    fn from(error: ForwardError) -> Self {
        let upstream = |status, reason| Self::new(status, Side::Upstream, reason);
        let client = |status, reason| Self::new(status, Side::Client, reason);
        let error = match error {
            ForwardError::UpgradeRefused => return Self::UPGRADE_REFUSED,
            ForwardError::UpgradeBody => return client(400, "upgrade_with_body"),
            ForwardError::OtherProtocol => return upstream(502, "upstream_bad_response"),
            ForwardError::WrongAccept => return upstream(502, "upstream_bad_accept"),
            ForwardError::Target => return Self::BAD_TARGET,
            ForwardError::HeadTooLarge => return client(431, "head_too_large"),
            ForwardError::ResponseTooLarge(_) => return upstream(502, "upstream_too_large"),
            ForwardError::Send(error) => error,
        };
        match error {
            SendError::NoTarget | SendError::Down { .. } => upstream(503, "upstream_down"),
            SendError::HeldDown { .. } => upstream(503, "upstream_down"),
            SendError::Busy | SendError::HeldBusy { .. } => upstream(503, "upstream_busy"),
            SendError::HoldFull => upstream(503, "hold_full"),
            SendError::Refused { .. } => upstream(502, "upstream_refused"),
            SendError::Closed { .. } | SendError::Cut { .. } => upstream(502, "upstream_closed"),
            SendError::BadResponse { .. } => upstream(502, "upstream_bad_response"),
            SendError::ConnectDeadline { .. } => upstream(504, "upstream_unreachable"),
            SendError::HeadDeadline { .. } => upstream(504, "upstream_slow"),
            SendError::UploadDeadline { .. } => upstream(504, "upstream_stuck"),
            SendError::Tls { .. } => upstream(502, "upstream_tls"),
            SendError::NoSocket { .. } => Self::new(503, Side::Edge, "out_of_sockets"),
            SendError::Body { source } => match source {
                BodyError::TooLarge { .. } => Self::BODY_TOO_LARGE,
                BodyError::Idle(_) | BodyError::Slow(_) => client(408, "body_slow"),
                BodyError::Cut(_) => client(400, "body_cut"),
                BodyError::Malformed(_) => client(400, "body_malformed"),
                BodyError::Own(_) => Self::new(500, Side::Edge, "body_failed"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::Duration;

    fn check(error: SendError, status: u16, side: Side, reason: &str) {
        let fault = Fault::from(ForwardError::Send(error));
        assert_eq!((fault.status, fault.side, fault.reason), (status, side, reason));
    }

    #[test]
    fn every_failure_has_a_status_a_side_and_a_word() {
        let target = || "http://a".into();
        let after = Duration::ZERO;
        let source = || io::Error::other("x");
        check(SendError::NoTarget, 503, Side::Upstream, "upstream_down");
        check(
            SendError::Refused { target: target(), source: source() },
            502,
            Side::Upstream,
            "upstream_refused",
        );
        check(SendError::HeldDown { after }, 503, Side::Upstream, "upstream_down");
        check(SendError::HeldBusy { after }, 503, Side::Upstream, "upstream_busy");
        check(SendError::HoldFull, 503, Side::Upstream, "hold_full");
        let closed = SendError::Closed { target: target(), reused: true, unsent: true };
        check(closed, 502, Side::Upstream, "upstream_closed");
        check(
            SendError::HeadDeadline { target: target(), after, silent: true },
            504,
            Side::Upstream,
            "upstream_slow",
        );
        let unknown = SendError::Tls { target: target(), source: source() };
        check(unknown, 502, Side::Upstream, "upstream_tls");
        let full = SendError::NoSocket { target: target(), source: source() };
        check(full, 503, Side::Edge, "out_of_sockets");
        let large = SendError::Body { source: BodyError::TooLarge { max: 1 } };
        check(large, 413, Side::Client, "body_too_large");
        let slow = SendError::Body { source: BodyError::Idle(after) };
        check(slow, 408, Side::Client, "body_slow");
        let slow = SendError::Body { source: BodyError::Slow(240) };
        check(slow, 408, Side::Client, "body_slow");
    }
}

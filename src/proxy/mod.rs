//! Answers with what the application answers.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod request;
mod response;
mod upgrade;

use std::rc::Rc;

use http::Method;

use crate::drain::Drain;
use crate::exchange::{BodyError, Client, Fault, Peer, Request, Response, Side, headers};
use crate::next;
use crate::upstream::{Pools, SendError, Upstream};

/// One route to the application; part of the snapshot.
#[derive(Debug)]
pub struct Proxy {
    upstream: Upstream,
    /// Removed from the front of the path.
    strip: Option<String>,
    /// WebSockets are tunnelled.
    upgrade: bool,
    /// Hot reload sockets are tunnelled.
    mode: next::Mode,
}

/// Why there is no answer of the application's.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("WebSockets are not tunnelled here")]
    UpgradeRefused,
    #[error("a request for another protocol has a body")]
    UpgradeBody,
    #[error("the application switched to another protocol than was asked for")]
    OtherProtocol,
    #[error("no path is left to ask for")]
    Target,
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Proxy {
    pub fn compile(upstream: Upstream, strip: Option<String>, upgrade: bool, dev: bool) -> Self {
        let mode = if dev { next::Mode::Development } else { next::Mode::Production };
        Self { upstream, strip, upgrade, mode }
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Forwards the request, and its response, as each side must see them.
    pub async fn answer(
        &self,
        mut request: Request,
        client: &Client,
        peer: &Peer,
        pools: &Rc<Pools>,
        drain: &Drain,
    ) -> Result<Response, ForwardError> {
        // Other protocols are not spoken: their requests are ordinary ones.
        let websocket =
            headers::upgrade(request.headers()).filter(|protocol| protocol == "websocket");
        if websocket.is_some() {
            self.admit_upgrade(&request)?;
        }
        request::rewrite(&mut request, client, peer, self.strip.as_deref(), self.mode)?;
        if let Some(protocol) = websocket {
            let answer = upgrade::answer(request, &protocol, client, &self.upstream, pools, drain);
            return Box::pin(answer).await;
        }
        let mut response = self.upstream.forward(request, client.address, pools).await?;
        response::rewrite(response.headers_mut(), client, &self.upstream);
        Ok(response)
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
            ForwardError::Target => return Self::BAD_TARGET,
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
            SendError::NoSocket { .. } => Self::new(503, Side::Edge, "out_of_sockets"),
            SendError::Body { source } => match source {
                BodyError::TooLarge { .. } => Self::BODY_TOO_LARGE,
                BodyError::Idle(_) => client(408, "body_slow"),
                BodyError::Cut(_) => client(400, "body_cut"),
                BodyError::Malformed(_) => client(400, "body_malformed"),
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
            SendError::HeadDeadline { target: target(), after },
            504,
            Side::Upstream,
            "upstream_slow",
        );
        let full = SendError::NoSocket { target: target(), source: source() };
        check(full, 503, Side::Edge, "out_of_sockets");
        let large = SendError::Body { source: BodyError::TooLarge { max: 1 } };
        check(large, 413, Side::Client, "body_too_large");
        let slow = SendError::Body { source: BodyError::Idle(after) };
        check(slow, 408, Side::Client, "body_slow");
    }
}

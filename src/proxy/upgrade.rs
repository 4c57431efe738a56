//! A request that becomes a tunnel to the application.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Version, header};
use tracing::debug;

use crate::config::Rewrite;
use crate::drain::Drain;
use crate::exchange::headers::Lines;
use crate::exchange::{Client, Request, Response, Taking, headers, take_back, taking, websocket};
use crate::observe::access::Sent;
use crate::upstream::{Pools, Tunnel, Upgrade, Upstream};

use super::{ForwardError, response};

/// Asks the application for `protocol`; when it agrees the two sockets become a pipe.
///
/// No byte of the client's goes on before the application's 101: it would be read as a request.
pub async fn answer(
    (mut request, lines): (Request, Lines),
    protocol: &str,
    client: &Client,
    (upstream, paths): (&Upstream, &Rewrite),
    (pools, drain): (&Rc<Pools>, &Drain),
    sent: &mut Sent,
) -> Result<Response, ForwardError> {
    let upgrade = taking(&mut request);
    // A client of HTTP/1.1 looks at the answer to its key itself; here it is the edge's own.
    let key = (request.version() == Version::HTTP_2)
        .then(|| request.headers().get(header::SEC_WEBSOCKET_KEY).cloned());
    match upstream.upgrade((request, lines), client.address, pools, sent).await? {
        Upgrade::Accepted(accepted, _) if !agrees(accepted.headers(), protocol) => {
            Err(ForwardError::OtherProtocol)
        }
        Upgrade::Accepted(accepted, _)
            if key.is_some_and(|key| !is_answer(accepted.headers(), key.as_ref())) =>
        {
            Err(ForwardError::WrongAccept)
        }
        Upgrade::Accepted(mut accepted, tunnel) => {
            response::rewrite(accepted.headers_mut(), client, upstream, paths);
            headers::set_upgrade(accepted.headers_mut(), protocol);
            drain.spawn("tunnel", carry(upgrade, tunnel, drain.clone()));
            Ok(accepted)
        }
        Upgrade::Refused(mut refused) => {
            response::rewrite(refused.headers_mut(), client, upstream, paths);
            // What the client may have sent early is no request.
            headers::set_close(refused.headers_mut());
            Ok(refused)
        }
    }
}

fn agrees(fields: &HeaderMap, protocol: &str) -> bool {
    headers::upgrade(fields).is_some_and(|agreed| agreed == protocol)
}

/// True if whoever answered has read this key, and speaks WebSocket (RFC 6455 §4.1).
fn is_answer(fields: &HeaderMap, key: Option<&HeaderValue>) -> bool {
    let mut told = fields.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
    let told = told.next().filter(|_| told.next().is_none());
    told.is_some_and(|told| key.is_some_and(|key| *told == websocket::accept(key)))
}

async fn carry(upgrade: Taking, tunnel: Tunnel, drain: Drain) {
    let (client, early) = match take_back(upgrade).await {
        Ok(taken) => taken,
        Err(error) => return debug!(%error, "no tunnel"),
    };
    tokio::select! {
        // A tunnel has no end of its own: when the process leaves, what is under way is cut.
        ended = tunnel.join(client, early) => if let Err(error) = ended {
            debug!(%error, "tunnel ended");
        },
        () = drain.leaving() => (),
    }
}

//! What hyper refuses by itself, since it is no request: it has its line all the same.

use http::{HeaderMap, Method, Uri, Version};

use crate::exchange::{Cut, Fault, Peer, Side};
use crate::observe::Access;
use crate::snapshot::Current;

/// Writes the line of a request that could not be read, if that is why a connection of HTTP/1.1 has
/// ended; `cut` is what its socket says.
pub fn note(current: &Current, peer: &Peer, error: &hyper::Error, cut: Option<Cut>) {
    let Some(fault) = fault(error, cut) else { return };
    let snapshot = current.load();
    // nginx's word for what is not known.
    let method = Method::from_bytes(b"-").unwrap_or_default();
    let mut access = Access::begin(method, Version::HTTP_11);
    access.client = Some(peer.address.ip().to_canonical());
    access.tls = peer.tls.as_ref().map(|tls| tls.version);
    if let Some(lines) = snapshot.lines() {
        access.log(lines, &Uri::default(), &HeaderMap::new());
        access.path.clear();
    }
    access.status = Some(fault.status);
    access.complete = true;
    snapshot.router().refused(fault, &mut access);
}

/// As hyper answers it.
fn fault(error: &hyper::Error, cut: Option<Cut>) -> Option<Fault> {
    if !error.is_parse() || error.is_parse_version_h2() {
        return None;
    }
    let (status, reason) = match error.is_parse_too_large() {
        true if error.to_string().contains("URI") => (414, "target_too_long"),
        true => (431, "head_too_large"),
        false if cut == Some(Cut::Ambiguous) => (400, "ambiguous"),
        false => (400, "malformed"),
    };
    Some(Fault::new(status, Side::Client, reason))
}

//! Tells the log and the counters who came, who left, what was sent and what was refused.

use crate::observe::events::{Kind, Line};
use crate::observe::metrics;

use super::engine::Session;
use super::rules::Denial;
use super::socket::Socket;

pub fn connected(socket: &Socket) {
    if Kind::Connect.is_wanted() {
        line(Kind::Connect, socket).write();
    }
}

/// `reason` is a stable word, not a client's.
pub fn disconnected(socket: &Socket, reason: &'static str) {
    if Kind::Disconnect.is_wanted() {
        Line { reason: Some(reason), ..line(Kind::Disconnect, socket) }.write();
    }
}

/// An event that comes to something.
pub fn taken(socket: &Socket, event: &str) {
    if Kind::Event.is_wanted() {
        Line { event: Some(event), ..line(Kind::Event, socket) }.write();
    }
}

/// An event that comes to nothing; without its name if it was not even read.
pub fn denied(socket: &Socket, event: Option<&str>, denial: Denial) {
    metrics::count(&metrics::HUB_DENIED, denial.code());
    if Kind::Deny.is_wanted() {
        Line { event, reason: Some(denial.code()), ..line(Kind::Deny, socket) }.write();
    }
}

/// A CONNECT that is refused.
pub fn refused(session: &Session, namespace: &str, reason: &'static str) {
    metrics::count(&metrics::HUB_DENIED, reason);
    if Kind::Deny.is_wanted() {
        let reason = Some(reason);
        Line { reason, ..Line::new(Kind::Deny, namespace, session.address, session.transport()) }
            .write();
    }
}

fn line(kind: Kind, socket: &Socket) -> Line<'_> {
    let session = &socket.session;
    let sid = Some(socket.id.as_str());
    Line { sid, ..Line::new(kind, &socket.namespace.name, session.address, session.transport()) }
}

//! Events on their way out: to the sockets of this worker, to the other workers, to other nodes.

use std::sync::Arc;

use bytes::Bytes;

use super::clients::Clients;
use super::cluster::Payload;
use super::engine::{Delivery, Message, Outgoing};
use super::namespace::{Namespace, Target};
use super::outbox::Notice;
use super::packet;
use super::recovery::Stamp;

impl Clients {
    pub(super) fn deliver(
        &self,
        namespace: &Namespace,
        target: Arc<Target>,
        message: Arc<Message>,
        delivery: Delivery,
        stamp: Option<Stamp>,
    ) {
        let message = Outgoing::new(message);
        if self.recovery.is_ordered() {
            // What has a place is kept by the main thread, for all workers.
            stamp.inspect(|_| namespace.place.set(stamp));
            namespace.deliver(&target, &message, delivery, stamp);
            return;
        }
        namespace.deliver(&target, &message, delivery, stamp);
        self.recovery.note(&namespace.log, stamp, target, &message, delivery);
    }

    /// An event to everybody meant, on all nodes; `data` is an array that begins with its name.
    pub(super) fn emit(
        &self,
        namespace: &Namespace,
        target: Target,
        data: &str,
        parts: Vec<Bytes>,
        delivery: Delivery,
    ) {
        if target.rooms.as_ref().is_some_and(Vec::is_empty) {
            // Nobody. In the wire's words an empty list is everybody.
            return;
        }
        if let Some(uplink) = &self.outbox.uplink {
            let packet = Payload { data: data.into(), parts: parts.clone() };
            let is_volatile = delivery == Delivery::Volatile;
            if uplink.emit(&namespace.name, target.audience(), packet, is_volatile) {
                // It comes back in its place, to this worker too.
                return;
            }
        }
        self.emit_here(namespace, target, data, parts, delivery);
    }

    /// The same to those of this node.
    pub(super) fn emit_here(
        &self,
        namespace: &Namespace,
        target: Target,
        data: &str,
        parts: Vec<Bytes>,
        delivery: Delivery,
    ) {
        let (data, stamp) = self.recovery.stamp(namespace, data, delivery);
        if stamp.is_none() && self.outbox.is_alone() && !namespace.has_any(&target) {
            // What nobody hears, and nobody can come back for, is not built.
            return;
        }
        let text = packet::event(&namespace.name, &data, parts.len());
        let (message, target) = (Arc::new(Message::with_parts(text, parts)), Arc::new(target));
        self.deliver(namespace, Arc::clone(&target), Arc::clone(&message), delivery, stamp);
        let namespace = Arc::clone(&namespace.name);
        self.outbox.tell_all(&Notice::Emit { namespace, target, message, delivery, stamp });
    }
}

//! A socket that leaves its namespace, while its connection may stay.

use std::rc::Rc;
use std::sync::Arc;

use super::client::Client;
use super::clients::Clients;
use super::journal;
use super::packet;
use super::socket::Socket;

impl Clients {
    /// The server's own disconnect of one socket; its client does not come back by itself.
    pub(super) fn expel(&self, socket: &Rc<Socket>) {
        // What it has sent and nobody has looked at yet comes to nothing.
        socket.backlog.take();
        socket.session.say(&[&packet::disconnect(&socket.namespace.name)]);
        if let Some(client) = self.client(&socket.session) {
            client.left.borrow_mut().push(Arc::clone(&socket.namespace.name));
            client.remove(socket);
        }
        journal::disconnected(socket, "server_namespace_disconnect");
        self.part(socket, "server namespace disconnect");
    }

    /// The client's own disconnect of one socket.
    pub(super) fn leave(&self, client: &Client, socket: &Rc<Socket>) {
        client.remove(socket);
        journal::disconnected(socket, "client_namespace_disconnect");
        self.part(socket, "client namespace disconnect");
    }

    /// The socket has left its namespace.
    pub(super) fn part(&self, socket: &Socket, reason: &str) {
        self.recovery.forget(socket);
        self.keep_backlog(socket);
        self.farewell(socket, reason);
        socket.namespace.remove(socket);
    }
}

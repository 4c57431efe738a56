//! A socket as other nodes see it: what Node's `fetchSockets` gives of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use serde_json::{Map, Value, json};

use crate::exchange::Scheme;
use crate::exchange::query;

use super::cluster::Remote;
use super::socket::Socket;

/// What other nodes are told of the socket.
pub fn remote(socket: &Socket) -> Remote {
    Remote {
        id: socket.id.as_str().into(),
        rooms: std::iter::once(socket.id.as_str().to_owned()).chain(socket.rooms()).collect(),
        handshake: handshake(socket).to_string().into(),
        // An object, as in Node.
        data: socket.data.borrow().clone().unwrap_or_else(|| "{}".into()),
    }
}

/// With what is remembered of it; headers are those that hooks may see. Node tells all of them, and
/// what the page gave as `auth`; what opens a session goes no further than the hook here.
fn handshake(socket: &Socket) -> Value {
    let session = &socket.session;
    // Unknown where nothing of the handshake is kept, which most sockets can do without.
    let mut came = SystemTime::now();
    let (mut headers, mut fields) = (Map::new(), Map::new());
    let (mut secure, mut xdomain, mut url) = (false, false, "/socket.io/".to_owned());
    if let Some(known) = &session.handshake {
        let told = |name: &HeaderName| ![AUTHORIZATION, COOKIE].contains(name);
        for (name, value) in known.headers.iter().filter(|(name, _)| told(name)) {
            headers
                .insert(name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into());
        }
        for (name, value) in query::fields(known.query()) {
            fields.insert(name.into_owned(), value.into());
        }
        came = known.issued;
        secure = known.client.scheme == Scheme::Https;
        (url, xdomain) = (known.url.clone().into(), known.has_origin);
    }
    let issued = came.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut words = json!({
        "headers": headers,
        "time": humantime::format_rfc3339_millis(UNIX_EPOCH + issued).to_string(),
        "address": session.address.to_string(),
        "xdomain": xdomain,
        "secure": secure,
        "issued": u64::try_from(issued.as_millis()).unwrap_or_default(),
        "url": url,
        "query": fields,
        "auth": {},
    });
    // Nodes of this program count users by it.
    if let (Some(user), Some(words)) = (socket.user(), words.as_object_mut()) {
        let user = json!({ "provider": *user.provider.name, "id": user.identity.user });
        words.insert("user".to_owned(), user);
    }
    words
}

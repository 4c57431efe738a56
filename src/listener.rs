//! Accept sockets; refuse when full; hand each to tls and connection.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::connection;
use crate::exchange::{Guard, Peer, Scheme, Stream};
use crate::limits::{self, Counters};
use crate::observe::metrics::{self, Series};
use crate::router::Local;
use crate::snapshot::Current;
use crate::tls::HandshakeError;

/// How long to wait before the next accept when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What is open in the whole process, against `limits.connections`; and by address, against
/// `limits.per_ip.connections`.
#[derive(Clone, Default)]
pub struct Open {
    all: Arc<AtomicUsize>,
    each: Arc<Counters>,
}

/// One connection's place; given back when it ends, also long after its upgrade.
struct Place {
    open: Open,
    /// `None` if its address is not counted.
    key: Option<u64>,
    gauge: Arc<Series>,
}

/// Why there is no place.
#[derive(Clone, Copy)]
enum Full {
    All,
    Address,
}

impl Open {
    /// A place, if the process has one, and the address too where it is limited.
    fn take(
        &self,
        max: usize,
        address: Option<(IpAddr, u64)>,
        gauge: &Arc<Series>,
    ) -> Result<Place, Full> {
        let key = address.map(|(address, _)| limits::key_of(address));
        if let (Some(key), Some((_, max))) = (key, address)
            && !self.each.take(key, max)
        {
            return Err(Full::Address);
        }
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        gauge.increment();
        // Gives back what was taken if there is none.
        let place = Place { open: self.clone(), key, gauge: Arc::clone(gauge) };
        if before >= max { Err(Full::All) } else { Ok(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.key {
            self.open.each.give(key);
        }
        self.gauge.decrement();
    }
}

/// Accepts until the process leaves or the task is aborted; what was accepted goes on.
pub async fn serve(
    socket: TcpListener,
    scheme: Scheme,
    current: Current,
    local: Rc<Local>,
    open: Open,
) {
    let accepted = metrics::series(&metrics::CONNECTIONS, &[scheme.as_str()]);
    let gauge = metrics::series(&metrics::CONNECTIONS_OPEN, &[scheme.as_str()]);
    let refused =
        ["full", "per_ip"].map(|reason| metrics::series(&metrics::CONNECTIONS_REFUSED, &[reason]));
    let port = socket.local_addr().map_or(0, |address| address.port());
    loop {
        let next = tokio::select! {
            // Nothing is lost when this arm is dropped: the socket stays in the kernel's queue.
            next = socket.accept() => next,
            () = local.drain.leaving() => return,
        };
        let (stream, address) = match next {
            Ok(next) => next,
            Err(error) => {
                warn!(%error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        accepted.increment();
        let snapshot = current.load();
        let ip = address.ip().to_canonical();
        let each = snapshot.connections_per_ip(ip).map(|max| (ip, max));
        let place = match open.take(snapshot.connections_max(), each, &gauge) {
            Ok(place) => place,
            Err(full) => {
                let [all, address] = &refused;
                match full {
                    Full::All => all.increment(),
                    Full::Address => address.increment(),
                }
                continue;
            }
        };
        drop(snapshot);
        let peer = Peer { address, local_port: port, tls: None };
        let (current, local) = (current.clone(), Rc::clone(&local));
        let drain = local.drain.clone();
        let place: Guard = Some(Box::new(place));
        drain.spawn("connection", begin(stream, peer, scheme, current, local, place));
    }
}

async fn begin(
    stream: TcpStream,
    mut peer: Peer,
    scheme: Scheme,
    current: Current,
    local: Rc<Local>,
    place: Guard,
) {
    // Only a closed socket refuses this, and the first read will say so.
    let _set = stream.set_nodelay(true);
    if scheme == Scheme::Http {
        let stream = Stream::Plain(stream);
        return Box::pin(connection::serve(stream, peer, current, local, place)).await;
    }
    let Some(acceptor) = current.load().tls().cloned() else { return };
    match acceptor.accept(stream).await {
        Ok((stream, facts)) => {
            peer.tls = Some(facts);
            let stream = Stream::Tls(stream);
            Box::pin(connection::serve(stream, peer, current, local, place)).await;
        }
        Err(proof @ HandshakeError::Proof) => debug!(peer = %peer.address, "{proof}"),
        Err(error) => {
            metrics::count(&metrics::CONNECTIONS_REFUSED, "handshake");
            debug!(peer = %peer.address, %error, "no handshake");
        }
    }
}

/// Binds `address` for one worker; every worker binds its own, the kernel spreads connections.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

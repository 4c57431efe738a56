//! The listening sockets: handed over by systemd or bound here, compared by address on reload.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::admin;
use crate::config::{AdminAddress, Listen};
use crate::exchange::Scheme;
use crate::listener;

use super::handover::Socket;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{hint}")]
pub struct ListenError {
    address: String,
    hint: &'static str,
    #[source]
    source: io::Error,
}

impl ListenError {
    fn new(address: impl fmt::Display, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need systemd's socket or CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrInUse => "; another process has it",
            io::ErrorKind::NotFound => "; its folder does not exist",
            _ => "",
        };
        Self { address: address.to_string(), hint, source }
    }
}

/// One address, open: a socket for each worker, or some more.
pub struct Opened {
    pub scheme: Scheme,
    pub address: SocketAddr,
    pub sockets: Vec<StdListener>,
}

impl Opened {
    /// The same sockets once more, for the next process.
    fn keep(&self, configured: SocketAddr) -> io::Result<Open> {
        let sockets = self.sockets.iter().map(StdListener::try_clone);
        let sockets = sockets.collect::<io::Result<_>>()?;
        Ok(Open { scheme: self.scheme, configured, actual: self.address, sockets })
    }
}

/// What the workers listen on.
struct Open {
    scheme: Scheme,
    /// As the configuration writes it.
    configured: SocketAddr,
    actual: SocketAddr,
    /// For the next process.
    sockets: Vec<StdListener>,
}

/// What is open and what was not handed out yet.
pub struct Listeners {
    open: Vec<Open>,
    fresh: Vec<Opened>,
    workers: usize,
}

impl Listeners {
    /// Takes what the process before or systemd handed over, and binds the rest.
    pub fn open(
        words: &Listen,
        workers: usize,
        mut handed: Vec<Socket>,
    ) -> Result<Self, ListenError> {
        let mut activated = activated();
        let mut listeners = Self { open: Vec::new(), fresh: Vec::new(), workers };
        for (scheme, address) in wanted(words) {
            let (mine, others): (Vec<_>, Vec<_>) = handed
                .into_iter()
                .partition(|socket| (socket.scheme, socket.configured) == (scheme, address));
            handed = others;
            let given = activated
                .iter()
                .position(|socket| socket.local_addr().is_ok_and(|local| serves(local, address)));
            let opened = match given.map(|index| activated.swap_remove(index)) {
                _ if !mine.is_empty() => {
                    let mine = mine.into_iter().map(|handed| handed.socket);
                    adopt(scheme, mine.collect(), workers)
                }
                Some(socket) => share(scheme, &socket, workers),
                None => bind(scheme, address, workers),
            };
            let opened = opened.and_then(|opened| Ok((opened.keep(address)?, opened)));
            let (open, opened) = opened.map_err(|error| ListenError::new(address, error))?;
            listeners.open.push(open);
            listeners.fresh.push(opened);
        }
        Ok(listeners)
    }

    /// Binds what `words` add; what they drop is returned and stays open until told otherwise. If
    /// something of it fails, nothing has changed.
    pub fn change(&mut self, words: &Listen) -> Result<Vec<(Scheme, SocketAddr)>, ListenError> {
        let wanted: Vec<_> = wanted(words).collect();
        let mut added = Vec::new();
        for (scheme, address) in &wanted {
            let is_it = |open: &Open| (open.scheme, open.configured) == (*scheme, *address);
            if !self.open.iter().any(is_it) {
                let opened = bind(*scheme, *address, self.workers);
                let opened = opened.and_then(|opened| Ok((opened.keep(*address)?, opened)));
                added.push(opened.map_err(|error| ListenError::new(address, error))?);
            }
        }
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open: &Open| wanted.contains(&(open.scheme, open.configured)));
        self.open = kept;
        for (open, opened) in added {
            self.open.push(open);
            self.fresh.push(opened);
        }
        Ok(gone.into_iter().map(|open| (open.scheme, open.actual)).collect())
    }

    /// Every socket, with the address as it is configured, for the next process.
    pub fn kept(&self) -> impl Iterator<Item = (Scheme, SocketAddr, &StdListener)> {
        self.open.iter().flat_map(|open| {
            open.sockets.iter().map(move |socket| (open.scheme, open.configured, socket))
        })
    }

    /// What is open and was not taken before.
    pub fn take_new(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.fresh)
    }

    pub fn any_https(&self) -> bool {
        self.open.iter().any(|open| open.scheme == Scheme::Https)
    }
}

impl Listeners {
    /// As they are now: `https://0.0.0.0:443`.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.open.iter().map(|open| format!("{}://{}", open.scheme.as_str(), open.actual))
    }
}

impl fmt::Display for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.open.is_empty() {
            return formatter.write_str("nothing");
        }
        formatter.write_str(&self.urls().collect::<Vec<_>>().join(", "))
    }
}

fn wanted(words: &Listen) -> impl Iterator<Item = (Scheme, SocketAddr)> {
    let http = words.http.iter().map(|address| (Scheme::Http, *address));
    http.chain(words.https.iter().map(|address| (Scheme::Https, *address)))
}

/// Every TCP socket that systemd handed over.
fn activated() -> Vec<StdListener> {
    let mut given = ListenFd::from_env();
    (0..given.len()).filter_map(|index| given.take_tcp_listener(index).ok().flatten()).collect()
}

/// True if a socket on `local` is what `address` asks for: same port, same or any address.
fn serves(local: SocketAddr, address: SocketAddr) -> bool {
    let any = local.ip().is_unspecified() && address.ip().is_unspecified();
    local.port() == address.port() && (any || local.ip() == address.ip())
}

/// One socket, accepted on by every worker.
fn share(scheme: Scheme, socket: &StdListener, workers: usize) -> io::Result<Opened> {
    socket.set_nonblocking(true)?;
    let sockets = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
    Ok(Opened { scheme, address: socket.local_addr()?, sockets })
}

/// The sockets of the process before: all of them, or what waits in one would wait for ever.
fn adopt(scheme: Scheme, mut sockets: Vec<StdListener>, workers: usize) -> io::Result<Opened> {
    let had = sockets.len();
    for index in had..workers {
        // More workers than before: some share one.
        let shared = sockets.get(index % had).map(StdListener::try_clone).transpose()?;
        sockets.extend(shared);
    }
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    let first = sockets.first().ok_or(io::ErrorKind::NotFound)?;
    Ok(Opened { scheme, address: first.local_addr()?, sockets })
}

/// Where the other process at this address brings what is for this one.
pub fn bind_door(workers: usize) -> io::Result<Opened> {
    let address = |ip: IpAddr| SocketAddr::new(ip, 0);
    // A machine may have either kind alone.
    bind(Scheme::Http, address(Ipv4Addr::LOCALHOST.into()), workers)
        .or_else(|_none| bind(Scheme::Http, address(Ipv6Addr::LOCALHOST.into()), workers))
}

/// A socket of its own for every worker.
fn bind(scheme: Scheme, address: SocketAddr, workers: usize) -> io::Result<Opened> {
    let first = listener::bind(address)?;
    // Port 0 is chosen once; the other workers join the first.
    let actual = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(listener::bind(actual)?);
    }
    Ok(Opened { scheme, address: actual, sockets })
}

/// One address that other nodes come to: what the process before handed over, or a socket for each
/// worker.
pub fn open_nodes(
    address: SocketAddr,
    workers: usize,
    handed: Vec<(SocketAddr, StdListener)>,
) -> Result<Opened, ListenError> {
    let handed = handed.into_iter().filter(|(configured, _)| *configured == address);
    let handed: Vec<_> = handed.map(|(_, socket)| socket).collect();
    let opened = match handed.is_empty() {
        true => bind(Scheme::Http, address, workers),
        false => adopt(Scheme::Http, handed, workers),
    };
    opened.map_err(|error| ListenError::new(address, error))
}

/// The private listener, and its socket for the next process. One that the process before handed
/// over is taken; a socket file left by a process that is gone is replaced.
pub fn open_admin(
    address: &AdminAddress,
    handed: Option<(String, OwnedFd)>,
) -> Result<(admin::Listener, OwnedFd), ListenError> {
    let name = admin_name(address);
    let fail = |error| ListenError::new(&name, error);
    let listener = match handed.filter(|(handed, _)| *handed == name) {
        Some((_, socket)) => adopt_admin(address, socket).map_err(fail)?,
        None => bind_admin(address)?,
    };
    let kept = match &listener {
        admin::Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
        admin::Listener::Unix(listener) => listener.as_fd().try_clone_to_owned(),
    };
    Ok((listener, kept.map_err(fail)?))
}

/// The private listener's address in one word.
pub fn admin_name(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn adopt_admin(address: &AdminAddress, socket: OwnedFd) -> io::Result<admin::Listener> {
    if let AdminAddress::Tcp(_) = address {
        let socket = StdListener::from(socket);
        socket.set_nonblocking(true)?;
        return TcpListener::from_std(socket).map(admin::Listener::Tcp);
    }
    let socket = std::os::unix::net::UnixListener::from(socket);
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket).map(admin::Listener::Unix)
}

fn bind_admin(address: &AdminAddress) -> Result<admin::Listener, ListenError> {
    match address {
        AdminAddress::Tcp(address) => {
            let socket = listener::bind(*address).and_then(TcpListener::from_std);
            socket.map(admin::Listener::Tcp).map_err(|error| ListenError::new(address, error))
        }
        AdminAddress::Unix(path) => {
            let fail = |error| ListenError::new(format_args!("unix:{}", path.display()), error);
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(fail(io::ErrorKind::AddrInUse.into()));
            }
            if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
                fs::create_dir_all(folder).map_err(fail)?;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => (),
            }
            let socket = UnixListener::bind(path).map_err(fail)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
            Ok(admin::Listener::Unix(socket))
        }
    }
}

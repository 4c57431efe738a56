//! The listening sockets: handed over by systemd or bound here, compared by address on reload.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt as _;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::admin;
use crate::config::{AdminAddress, Listen};
use crate::exchange::Scheme;
use crate::listener;

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

/// One address, open: a socket for each worker.
pub struct Opened {
    pub scheme: Scheme,
    pub address: SocketAddr,
    pub sockets: Vec<StdListener>,
}

/// What is open and what was not handed out yet.
pub struct Listeners {
    /// As configured, with the address that the socket really has.
    open: Vec<(Scheme, SocketAddr, SocketAddr)>,
    fresh: Vec<Opened>,
    workers: usize,
}

impl Listeners {
    /// Takes what systemd handed over and binds the rest.
    pub fn open(words: &Listen, workers: usize) -> Result<Self, ListenError> {
        let mut activated = activated();
        let mut listeners = Self { open: Vec::new(), fresh: Vec::new(), workers };
        for (scheme, address) in wanted(words) {
            let given = activated
                .iter()
                .position(|socket| socket.local_addr().is_ok_and(|local| serves(local, address)));
            let opened = match given.map(|index| activated.swap_remove(index)) {
                Some(socket) => share(scheme, &socket, workers),
                None => bind(scheme, address, workers),
            };
            listeners.add(address, opened.map_err(|error| ListenError::new(address, error))?);
        }
        Ok(listeners)
    }

    /// Binds what `words` add; what they drop is returned and stays open until told otherwise.
    pub fn change(&mut self, words: &Listen) -> Result<Vec<SocketAddr>, ListenError> {
        let wanted: Vec<_> = wanted(words).collect();
        let mut added = Vec::new();
        for (scheme, address) in &wanted {
            if !self.open.iter().any(|(had, configured, _)| (had, configured) == (scheme, address))
            {
                let opened = bind(*scheme, *address, self.workers)
                    .map_err(|error| ListenError::new(address, error))?;
                added.push((*address, opened));
            }
        }
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|(scheme, configured, _)| wanted.contains(&(*scheme, *configured)));
        self.open = kept;
        for (address, opened) in added {
            self.add(address, opened);
        }
        Ok(gone.into_iter().map(|(_, _, actual)| actual).collect())
    }

    fn add(&mut self, configured: SocketAddr, opened: Opened) {
        self.open.push((opened.scheme, configured, opened.address));
        self.fresh.push(opened);
    }

    /// What is open and was not taken before.
    pub fn take_new(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.fresh)
    }

    pub fn any_https(&self) -> bool {
        self.open.iter().any(|(scheme, ..)| *scheme == Scheme::Https)
    }
}

impl fmt::Display for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.open.is_empty() {
            return formatter.write_str("nothing");
        }
        for (index, (scheme, _, actual)) in self.open.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(formatter, "{comma}{}://{actual}", scheme.as_str())?;
        }
        Ok(())
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

/// One address that other nodes come to: a socket for each worker.
pub fn bind_all(address: SocketAddr, workers: usize) -> Result<Opened, ListenError> {
    bind(Scheme::Http, address, workers).map_err(|error| ListenError::new(address, error))
}

/// The private listener. A socket file left by a process that is gone is replaced.
pub fn open_admin(address: &AdminAddress) -> Result<admin::Listener, ListenError> {
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

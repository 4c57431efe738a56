//! A non-blocking connection to the server, plain or over TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket as RawSocket, Type};

/// Each has its own 28,000 ports, and 10,000 clients come and go several times a minute.
const SOURCES: usize = 32;

pub struct Socket {
    stream: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Written by us, not yet taken by the kernel.
    unsent: Vec<u8>,
}

/// What a read brought.
pub enum Got {
    Bytes(usize),
    Nothing,
    End,
}

impl Socket {
    /// Begins to connect from the loopback address that is `number`'s.
    pub fn open(
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        number: usize,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let last = u8::try_from(2 + number % SOURCES).expect("few addresses");
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        match socket.connect(&address.into()) {
            Err(error) if !in_progress(&error) => return Err(error),
            _ => {}
        }
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = tls.map(begin_tls).transpose()?;
        Ok(Self { stream, tls, unsent: Vec::new() })
    }

    /// A short read means that there is no more, which TLS hides.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.unsent.extend_from_slice(bytes),
        }
        self.flush()
    }

    /// Its events are not told any more; the server sees nothing of that.
    pub fn silence(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }

    /// Hands to the kernel what it takes; the rest waits for the next event.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent)?;
            }
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // 10,000 clients keep nothing while they are idle.
        self.unsent = Vec::new();
        Ok(())
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Got> {
        let Some(tls) = &mut self.tls else { return got(self.stream.read(buffer)) };
        loop {
            match got(tls.reader().read(buffer))? {
                Got::Nothing => {}
                found => return Ok(found),
            }
            match got(tls.read_tls(&mut self.stream))? {
                Got::Bytes(_) => {}
                nothing => return Ok(nothing),
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
    }
}

fn begin_tls(words: &Arc<ClientConfig>) -> io::Result<Box<ClientConnection>> {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(words), name).map(Box::new).map_err(io::Error::other)
}

fn got(read: io::Result<usize>) -> io::Result<Got> {
    match read {
        Ok(0) => Ok(Got::End),
        Ok(length) => Ok(Got::Bytes(length)),
        Err(error) if waits(&error) => Ok(Got::Nothing),
        Err(error) => Err(error),
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

fn in_progress(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.raw_os_error() == Some(EINPROGRESS) || waits(error)
}

//! A client's connection after its upgrade: bytes in, bytes out, and the move to another thread.
//!
//! Unlike `Stream` it can be written from any task of its thread, and holds no buffers of its own.

use std::any::Any;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::bridge::bridge;
use super::{Stream, Taken};

/// What is given back when the connection ends: its place among the open ones.
pub type Guard = Option<Box<dyn Any + Send>>;

/// An upgraded connection on the thread that drives it.
pub struct Socket {
    kind: Kind,
    guard: Guard,
}

enum Kind {
    Plain(TcpStream),
    Tls(Box<Tls>),
    /// One stream of a connection, at the end of a bridge.
    Bridged(UnixStream),
}

struct Tls {
    stream: TcpStream,
    session: ServerConnection,
}

/// Who says whether the socket takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The runtime, which remembers a refusal until it next looks.
    Runtime,
    /// The kernel, and of a refusal the runtime: less work for a socket that has refused nothing.
    KernelFirst,
    /// The kernel: in the middle of a turn the runtime does not look.
    Kernel,
}

/// A socket between two threads.
pub struct Detached {
    kind: Loose,
    guard: Guard,
}

enum Loose {
    Plain(StdStream),
    Tls(StdStream, Box<ServerConnection>),
    Bridged(StdUnixStream),
}

/// What has to run for as long as a socket is open, on the thread where its client is.
pub type Bridge = Pin<Box<dyn Future<Output = ()>>>;

/// Says whether the other side hears of a reset when this one closes, rather than of an end.
pub fn set_resets(stream: &TcpStream, resets: bool) {
    // One that is gone already has no more to be told.
    let _set = SockRef::from(stream).set_linger(resets.then_some(Duration::ZERO));
}

/// Asks the kernel whether there is something to read; an end is nothing.
pub fn has_bytes(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    SockRef::from(stream).peek(&mut byte).is_ok_and(|count| count > 0)
}

impl Socket {
    pub fn plain(stream: TcpStream, guard: Guard) -> Self {
        Self { kind: Kind::Plain(stream), guard }
    }

    pub fn tls(stream: TcpStream, session: ServerConnection, guard: Guard) -> Self {
        Self { kind: Kind::Tls(Box::new(Tls { stream, session })), guard }
    }

    /// What was taken back of a client's, driven from here on.
    pub fn of(taken: Taken) -> io::Result<(Self, Option<Bridge>)> {
        let watched = match taken {
            Taken::Connection(watched) => watched,
            Taken::Stream(stream, told) => {
                let (near, carried) = bridge(stream, told)?;
                let socket = Self { kind: Kind::Bridged(near), guard: None };
                return Ok((socket, Some(Box::pin(carried))));
            }
        };
        let socket = match watched.into_parts() {
            (Stream::Plain(stream), guard) => Self::plain(stream, guard),
            (Stream::Tls(stream), guard) => {
                let (stream, session) = stream.into_inner();
                Self::tls(stream, session, guard)
            }
        };
        Ok((socket, None))
    }

    /// Reads what is there; 0 is the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Plain(stream) => poll_plain(stream, cx, buffer),
            Kind::Tls(tls) => tls.poll_read(cx, buffer),
            Kind::Bridged(stream) => poll_plain(stream, cx, buffer),
        }
    }

    /// Writes as much as the socket takes now; `WouldBlock` if that is nothing.
    ///
    /// With TLS, bytes count as written once encrypted; `is_flushed` tells when they have left.
    pub fn try_write(&mut self, slices: &[IoSlice<'_>], asks: Asks) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Plain(stream) => write_plain(stream, slices, asks),
            Kind::Tls(tls) => tls.try_write(slices, asks),
            Kind::Bridged(stream) => write_bridged(stream, slices, asks),
        }
    }

    /// True once nothing written waits in this process.
    pub fn is_flushed(&mut self) -> bool {
        match &mut self.kind {
            Kind::Plain(_) | Kind::Bridged(_) => true,
            Kind::Tls(tls) => {
                !matches!(tls.flush(Asks::Runtime), Ok(())) || !tls.session.wants_write()
            }
        }
    }

    /// Resolves when the socket may take more.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.kind {
            Kind::Plain(stream) => stream.poll_write_ready(cx),
            Kind::Tls(tls) => tls.stream.poll_write_ready(cx),
            Kind::Bridged(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        // The peer may be gone, or will see the end of the stream anyway.
        let _shut = match &mut self.kind {
            Kind::Plain(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Kind::Tls(tls) => {
                tls.session.send_close_notify();
                // As above.
                let _flushed = tls.flush(Asks::Runtime);
                SockRef::from(&tls.stream).shutdown(Shutdown::Write)
            }
            Kind::Bridged(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
        };
    }

    /// Takes the socket from this thread's runtime.
    pub fn detach(self) -> io::Result<Detached> {
        let kind = match self.kind {
            Kind::Plain(stream) => Loose::Plain(stream.into_std()?),
            Kind::Tls(tls) => Loose::Tls(tls.stream.into_std()?, Box::new(tls.session)),
            Kind::Bridged(stream) => Loose::Bridged(stream.into_std()?),
        };
        Ok(Detached { kind, guard: self.guard })
    }
}

impl Detached {
    /// Gives the socket to this thread's runtime.
    pub fn attach(self) -> io::Result<Socket> {
        let kind = match self.kind {
            Loose::Plain(stream) => Kind::Plain(TcpStream::from_std(stream)?),
            Loose::Tls(stream, session) => {
                let stream = TcpStream::from_std(stream)?;
                Kind::Tls(Box::new(Tls { stream, session: *session }))
            }
            Loose::Bridged(stream) => Kind::Bridged(UnixStream::from_std(stream)?),
        };
        Ok(Socket { kind, guard: self.guard })
    }
}

fn write_plain(stream: &TcpStream, slices: &[IoSlice<'_>], asks: Asks) -> io::Result<usize> {
    match (asks, slices) {
        (Asks::KernelFirst, [one]) => match SockRef::from(stream).send(one) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.try_write(one),
            done => done,
        },
        (Asks::Runtime, [one]) => stream.try_write(one),
        (Asks::Runtime | Asks::KernelFirst, many) => stream.try_write_vectored(many),
        (Asks::Kernel, many) => SockRef::from(stream).send_vectored(many),
    }
}

fn write_bridged(stream: &UnixStream, slices: &[IoSlice<'_>], asks: Asks) -> io::Result<usize> {
    match asks {
        Asks::Runtime | Asks::KernelFirst => stream.try_write_vectored(slices),
        Asks::Kernel => SockRef::from(stream).send_vectored(slices),
    }
}

fn poll_plain(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut into = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut into))?;
    Poll::Ready(Ok(into.filled().len()))
}

impl Tls {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                done => return Poll::Ready(done),
            }
            let read = self.session.read_tls(&mut Polled { stream: &mut self.stream, cx });
            match read {
                Ok(0) => return Poll::Ready(Ok(0)),
                Ok(_) => {
                    let state = self.session.process_new_packets();
                    // An alert, or new keys, are sent before the error is told.
                    let _flushed = self.flush(Asks::Runtime);
                    state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>], asks: Asks) -> io::Result<usize> {
        self.flush(asks)?;
        if self.session.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write_vectored(slices)?;
        self.flush(asks)?;
        Ok(taken)
    }

    /// Sends what is encrypted, as far as the socket takes it.
    fn flush(&mut self, asks: Asks) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Trying { stream: &self.stream, asks }) {
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A socket as `rustls` reads it; `WouldBlock` has left a waker behind.
struct Polled<'a, 'b> {
    stream: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match poll_plain(self.stream, self.cx, buffer) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// A socket as `rustls` writes it.
struct Trying<'a> {
    stream: &'a TcpStream,
    asks: Asks,
}

impl Write for Trying<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_plain(self.stream, &[IoSlice::new(bytes)], self.asks)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        write_plain(self.stream, slices, self.asks)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

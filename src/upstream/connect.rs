//! From a target to a socket: names, TCP, TLS, unix sockets; one deadline over all.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::error::SendError;
use super::target::{Address, Target};
use super::tls::{self, Secured};

/// The bytes of one connection to a target.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Tls(Box<Secured>),
    Unix(UnixStream),
}

/// Opens a connection to `target`, its handshake included; a target that refuses is marked down.
pub async fn connect(target: &Target, deadline: Duration) -> Result<Socket, SendError> {
    target.connecting();
    let name = || Arc::clone(&target.name);
    match timeout(deadline, open(target)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(source)) if is_ours(&source) => Err(SendError::NoSocket { target: name(), source }),
        Ok(Err(source)) if tls::is_distrust(&source) => {
            Err(SendError::Tls { target: name(), source })
        }
        Ok(Err(source)) => {
            target.mark_down(&source);
            Err(SendError::Refused { target: name(), source })
        }
        Err(_elapsed) => Err(SendError::ConnectDeadline { target: name(), after: deadline }),
    }
}

pub async fn open(target: &Target) -> io::Result<Socket> {
    let stream = match &target.address {
        Address::Unix(path) => return open_unix(path).await.map(Socket::Unix),
        Address::Socket(socket) => TcpStream::connect(socket).await?,
        Address::Name(host, port, names) => {
            let found = names.look_up(host, *port).await?;
            first_of(found.into_iter()).await?
        }
    };
    stream.set_nodelay(true)?;
    match &target.tls {
        None => Ok(Socket::Tcp(stream)),
        Some(client) => Ok(Socket::Tls(Box::new(Box::pin(client.greet(stream)).await?))),
    }
}

/// How soon a unix socket is asked again whose queue was full.
const AGAIN: Duration = Duration::from_millis(5);

/// A server that is busy takes no connection just now, which the kernel says at once, and it is not
/// gone: over TCP the same connection would wait.
async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(AGAIN).await,
            opened => return opened,
        }
    }
}

/// How long an address of a name is waited for before the next one is tried too (RFC 8305 §5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The first address that takes a connection, in their order but without waiting for each; the last
/// error if none does.
async fn first_of(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    let mut tried: Vec<Connecting<TcpStream>> = Vec::new();
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        tried.extend(next.map(|address| Box::pin(TcpStream::connect(address)) as Connecting<_>));
        if tried.is_empty() {
            return Err(last);
        }
        let any = poll_fn(|cx| poll_any(&mut tried, cx));
        let ended = if is_last { Some(any.await) } else { timeout(NEXT_ADDRESS, any).await.ok() };
        match ended {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = error,
            None => (),
        }
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

/// The first of them that has succeeded, or else one that has failed; it is taken out.
fn poll_any<T>(tried: &mut Vec<Connecting<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
    let mut done = None;
    tried.retain_mut(|connecting| {
        if matches!(done, Some(Ok(_))) {
            return true;
        }
        match connecting.as_mut().poll(cx) {
            Poll::Ready(ended) => {
                done = Some(ended);
                false
            }
            Poll::Pending => true,
        }
    });
    done.map_or(Poll::Pending, Poll::Ready)
}

/// True if this process or machine is at its limits: nothing that the target did.
pub fn is_ours(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory)
}

impl Socket {
    /// Readable now, as far as the runtime knows: no system call, but with TLS to read what is not
    /// for us, as tickets are.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            // A byte that nobody asked for is lost, and the connection is not used again.
            Self::Tls(stream) => {
                Pin::new(stream.as_mut()).poll_read(cx, &mut ReadBuf::new(&mut [0]))
            }
        }
    }

    /// Asks the kernel whether the other side has closed or said something.
    pub fn is_silent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Self::Tls(stream) => socket2::SockRef::from(stream.get_ref().0).peek(&mut byte),
            Self::Unix(stream) => socket2::SockRef::from(stream).peek(&mut byte),
        };
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_refusal_hides_no_success_of_the_same_moment() {
        let ready = |ended: Result<u8, ErrorKind>| {
            Box::pin(std::future::ready(ended.map_err(io::Error::from))) as Connecting<u8>
        };
        let refused = || ready(Err(ErrorKind::ConnectionRefused));
        for mut tried in [vec![ready(Ok(1)), refused()], vec![refused(), ready(Ok(1)), refused()]] {
            let any = poll_fn(|cx| poll_any(&mut tried, cx)).await;
            assert_eq!(any.expect("a connection"), 1);
        }
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_holds_up_no_other() {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let full = full.expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        full.bind(&any.into()).expect("bound");
        full.listen(0).expect("listening");
        let silent = full.local_addr().expect("an address").as_socket().expect("of TCP");
        let mut queued = Vec::new();
        let soon = Duration::from_millis(200);
        while let Ok(stream) = timeout(soon, TcpStream::connect(silent)).await {
            queued.push(stream);
            assert!(queued.len() < 100, "no queue is full");
        }
        let well = TcpListener::bind(any).await.expect("bound");
        let well = well.local_addr().map(|address| (well, address)).expect("an address");
        let closed = TcpListener::bind(any).await.and_then(|listener| listener.local_addr());
        let closed = closed.expect("an address");
        let begun = Instant::now();
        let order = [silent, silent, closed, well.1];
        let stream = first_of(order.into_iter()).await.expect("a connection");
        assert_eq!(stream.peer_addr().expect("an address"), well.1);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let refused = first_of([closed, closed].into_iter()).await;
        assert_eq!(refused.expect_err("nobody").kind(), ErrorKind::ConnectionRefused);
        let none = first_of(std::iter::empty()).await;
        assert_eq!(none.expect_err("nobody").kind(), ErrorKind::NotFound);
    }
}

//! The bytes of one client connection, with or without TLS.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::frames::{Flood, Frames};
use super::interim::Interims;
use super::lingering::{Lingering, Over};
use super::requests::{Ambiguous, Requests};
use super::signs::{Cut, Signs};
use super::socket::{Guard, has_bytes, set_resets};

/// What the listener accepted, the connection serves, and an upgrade takes back whole.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => poll_write_joined(stream, slices, cx),
            Self::Tls(stream) => poll_write_joined(stream.as_mut(), slices, cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Slices up to this size in all are copied into one: that costs less than writing several.
const JOINED_MAX: usize = 16 * 1024;

thread_local! {
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes a head with its small body as one piece, large ones where they are.
fn poll_write_joined(
    stream: &mut (impl AsyncWrite + Unpin),
    slices: &[IoSlice<'_>],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > JOINED_MAX {
        return Pin::new(stream).poll_write_vectored(cx, slices);
    }
    JOINED.with_borrow_mut(|joined| {
        joined.clear();
        for slice in slices {
            joined.extend_from_slice(slice);
        }
        Pin::new(stream).poll_write(cx, joined)
    })
}

/// A client's stream under watch: it tells whether bytes came, refuses what is ambiguous or a
/// flood, writes interim responses, and ends when the client does not read. It holds the
/// connection's place among the open ones for as long as it is open itself.
pub struct Watched {
    stream: Stream,
    guard: Guard,
    signs: Arc<Signs>,
    watch: Watch,
    /// Read already, and looked at, but not used.
    early: Bytes,
    interims: Interims,
    /// What is left of interim responses that have begun to go out.
    interim: Bytes,
    /// How long the client may take nothing of what it is sent.
    patience: Option<Duration>,
    stuck: Option<Pin<Box<Sleep>>>,
    /// Closed now, the socket would be reset.
    resets: bool,
    /// Nothing more is said.
    lingering: Option<Box<Lingering>>,
    /// hyper waits for the next bytes, and so for an end, since it flushed last.
    waits: bool,
    /// When to look again whether the client has gone, where bytes that nobody reads hide it.
    again: Option<Pin<Box<Sleep>>>,
}

/// What is made of the client's bytes on their way to hyper.
enum Watch {
    Nothing,
    Http1(Box<Requests>),
    Http2(Box<Frames>, Instant),
    /// Nothing more is read.
    Refused,
}

/// Makes a parser of HTTP/1.1 refuse, wherever it stands but in a body's data.
const POISON: u8 = 0;

/// How often a client that has sent more than is read is looked at. An end behind more than the kernel
/// takes is seen by nobody before that is read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Watched {
    pub fn new(stream: Stream, guard: Guard) -> Self {
        Self {
            stream,
            guard,
            signs: Arc::default(),
            watch: Watch::Nothing,
            early: Bytes::new(),
            interims: Interims::default(),
            interim: Bytes::new(),
            patience: None,
            stuck: None,
            resets: false,
            lingering: None,
            waits: false,
            again: None,
        }
    }

    /// For a client of HTTP/1.1, which may be sent interim responses.
    pub fn http1(self, signs: Arc<Signs>, interims: Interims, patience: Duration) -> Self {
        let watch = Watch::Http1(Box::default());
        Self { signs, interims, watch, patience: Some(patience), ..self }
    }

    /// For a client of HTTP/2.
    pub fn http2(self, signs: Arc<Signs>, patience: Duration) -> Self {
        let watch = Watch::Http2(Box::default(), Instant::now());
        Self { signs, watch, patience: Some(patience), ..self }
    }

    /// From now on the bytes are another protocol's.
    fn unwatched(self) -> Self {
        Self { watch: Watch::Nothing, patience: None, stuck: None, ..self }
    }

    pub(super) fn into_parts(self) -> (Stream, Guard) {
        (self.stream, self.guard)
    }

    /// Puts back what was read too much.
    pub fn put_back(&mut self, early: Bytes) {
        self.early = early;
    }

    /// Resolves when the client has sent something, or has gone. Only for a stream whose last read
    /// found nothing.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.socket().poll_read_ready(cx)
    }

    /// Asks the kernel whether the client has sent something that was not read; the runtime may not
    /// have looked yet.
    pub fn has_bytes(&self) -> bool {
        has_bytes(self.stream.socket())
    }

    /// Fails once a client of HTTP/1.1 has gone that is being answered. hyper finds that out only where
    /// it reads, and it does not while there are bytes that it has no use for yet: those of the next
    /// request, or a body that nobody has asked for. Half a close is one, as it is everywhere else.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let waits = std::mem::take(&mut self.waits);
        let requests = matches!(self.watch, Watch::Http1(_) | Watch::Refused);
        if waits || !requests || !self.signs.is_at_work() {
            return Ok(());
        }
        loop {
            if is_read_closed(self.stream.socket()) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // What comes next, if only an end, wakes this task; but not behind what waits already.
            if self.poll_readable(cx).is_pending() {
                return Ok(());
            }
            let at = Instant::now() + LOOK_AGAIN;
            let again = self.again.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if again.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.again = None;
        }
    }

    /// Looks at what was read after `before`.
    fn look(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        self.signs.note_bytes();
        match &mut self.watch {
            Watch::Nothing | Watch::Refused => (),
            Watch::Http1(requests) => {
                if let Err(Ambiguous { at }) = requests.follow(new) {
                    buffer.set_filled(before + at);
                    buffer.put_slice(&[POISON]);
                    self.watch = Watch::Refused;
                    self.signs.set_cut(Cut::Ambiguous);
                }
            }
            Watch::Http2(frames, began) => {
                let flood = frames.follow(new, || began.elapsed());
                self.signs.set_head(frames.in_head());
                if let Err(flood) = flood {
                    self.watch = Watch::Refused;
                    let cut = match flood {
                        Flood::Idle => Cut::Flood,
                        Flood::Reset => Cut::Resets,
                    };
                    self.signs.set_cut(cut);
                    return Err(io::Error::other("the client floods"));
                }
            }
        }
        Ok(())
    }

    /// Writes what has begun of interim responses.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.interim);
            let written = ready!(self.patiently(written, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.signs.set_unflushed(true);
        if let (Poll::Ready(Ok(count)), Watch::Http2(frames, _)) = (&written, &mut self.watch) {
            frames.sent(*count);
        }
        self.patiently(written, cx)
    }

    /// An answer that ends with the connection looks whole however that ends, unless it is reset.
    /// It is so from the answer's first byte on: nobody has to be there to do it.
    /// It is so up to the end, too: its last piece may be given and not taken.
    fn arm(&mut self) {
        if !self.resets && self.signs.is_unended() {
            self.resets = true;
            set_resets(self.stream.socket(), true);
        }
    }

    /// All of an answer that ends so is out.
    fn disarm(&mut self) {
        if self.resets && !self.signs.is_unended() {
            self.resets = false;
            set_resets(self.stream.socket(), false);
        }
    }

    /// True if the client may be sending what nobody will read.
    fn is_amid(&self) -> bool {
        match &self.watch {
            Watch::Http1(requests) => requests.is_amid(),
            Watch::Refused => true,
            Watch::Nothing | Watch::Http2(..) => false,
        }
    }

    /// A write that waits for the client; it does so only for a time.
    fn patiently<T>(
        &mut self,
        done: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let Some(patience) = self.patience else { return done };
        if done.is_ready() {
            self.stuck = None;
            return done;
        }
        let at = Instant::now() + patience;
        ready!(self.stuck.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx));
        self.signs.set_cut(Cut::Stuck);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// True once the other side has said that it sends no more, whether or not all that it has sent was
/// read. Urgent data is not waited for, so that the interest in it is one in the end alone.
fn is_read_closed(stream: &TcpStream) -> bool {
    let end = pin!(stream.ready(Interest::PRIORITY));
    let end = end.poll(&mut Context::from_waker(Waker::noop()));
    matches!(end, Poll::Ready(Ok(end)) if end.is_read_closed())
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = false;
        if matches!(self.watch, Watch::Refused) {
            return Poll::Ready(Ok(()));
        }
        if !self.early.is_empty() {
            let here = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(here));
            self.signs.note_bytes();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.waits = read.is_pending();
        ready!(read)?;
        Poll::Ready(self.look(buffer, before))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.arm();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.arm();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all that it had: here an answer has ended, and none
        // has begun.
        if self.interim.is_empty() {
            self.interim = self.interims.take().into();
        }
        ready!(self.poll_interim(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.signs.set_unflushed(flushed.is_pending());
        ready!(self.patiently(flushed, cx))?;
        Poll::Ready(self.poll_gone(cx))
    }

    /// What the client has not sent to its end is taken and thrown away, for a time: a socket that is
    /// closed with bytes unread is reset, which may take the answer from the client again
    /// (RFC 9112 §9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.patiently(shut, cx))?;
            this.disarm();
            if !this.is_amid() {
                return Poll::Ready(Ok(()));
            }
            this.signs.set_lingers();
        }
        let lingering = this.lingering.get_or_insert_with(|| Box::new(Lingering::begin()));
        let over = ready!(lingering.poll(this.stream.socket_mut(), cx));
        if over == Over::Crowded {
            this.signs.set_crowded();
        }
        Poll::Ready(Ok(()))
    }
}

/// What a client speaks another protocol on: its connection, or one stream of it (RFC 8441).
pub enum Taken {
    Connection(Box<Watched>),
    Stream(TokioIo<Upgraded>, Near),
}

/// Tells who carries a tunnel's bytes to its client that nobody writes any more.
#[derive(Debug, Clone, Default)]
pub struct Left(Arc<Notify>);

impl Left {
    /// Resolves once the near end is gone.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// The near end of a tunnel through one stream; its end is told.
#[derive(Debug)]
pub struct Near(Option<Left>);

impl Drop for Near {
    fn drop(&mut self) {
        if let Some(left) = &self.0 {
            left.0.notify_one();
        }
    }
}

/// What a request that asks for another protocol becomes, once that is granted.
#[derive(Debug)]
pub struct Taking {
    upgrade: OnUpgrade,
    near: Near,
}

/// What `request` may become.
pub fn taking<B>(request: &mut http::Request<B>) -> Taking {
    let near = Near(request.extensions_mut().remove());
    Taking { upgrade: hyper::upgrade::on(request), near }
}

/// Takes back from hyper what was upgraded, with the bytes that came early.
pub async fn take_back(taking: Taking) -> Result<(Taken, Bytes), hyper::Error> {
    let Taking { upgrade, near } = taking;
    Ok(match upgrade.await?.downcast::<TokioIo<Watched>>() {
        Ok(parts) => {
            (Taken::Connection(Box::new(parts.io.into_inner().unwatched())), parts.read_buf)
        }
        Err(stream) => (Taken::Stream(TokioIo::new(stream), near), Bytes::new()),
    })
}

impl AsyncRead for Taken {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(watched) => Pin::new(&mut **watched).poll_read(cx, buffer),
            Self::Stream(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(watched) => Pin::new(&mut **watched).poll_write(cx, bytes),
            Self::Stream(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(watched) => Pin::new(&mut **watched).poll_flush(cx),
            Self::Stream(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(watched) => Pin::new(&mut **watched).poll_shutdown(cx),
            Self::Stream(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_ends_with_the_connection_is_unended_until_all_of_it_is_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a client");
        let signs = Arc::<Signs>::default();
        let watched = Watched::new(Stream::Plain(stream), None);
        let mut watched =
            watched.http1(Arc::clone(&signs), Interims::default(), Duration::from_secs(60));
        let linger = |watched: &Watched| SockRef::from(watched.stream.socket()).linger();
        signs.set_unended(true);
        watched.write_all(b"one").await.expect("sent");
        assert_eq!(linger(&watched).expect("known"), Some(Duration::ZERO));
        // The last piece is given, and may not be taken.
        signs.set_unended(false);
        watched.write_all(b"two").await.expect("sent");
        assert_eq!(linger(&watched).expect("known"), Some(Duration::ZERO));
        watched.shutdown().await.expect("over");
        assert_eq!(linger(&watched).expect("known"), None);
    }
}

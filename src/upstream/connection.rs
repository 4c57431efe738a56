//! One connection to a target, and what was read from it but not yet used.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

use super::connect::Socket;

/// What is read at once, at most.
const READ: usize = 64 * 1024;
/// Below this the worker's buffer is renewed: a read that is cut short costs a system call.
const READ_LEAST: usize = 16 * 1024;

thread_local! {
    /// Read into by all connections of the worker; what was read is split off its front, so an
    /// idle connection holds no memory and a small response no buffer of its own.
    static BUFFER: RefCell<BytesMut> = RefCell::default();
}

/// A connection between responses, or during one.
#[derive(Debug)]
pub struct Connection {
    pub socket: Socket,
    pub buffer: BytesMut,
    /// It has carried a response before.
    pub reused: bool,
}

impl Connection {
    pub fn new(socket: Socket) -> Self {
        Self { socket, buffer: BytesMut::new(), reused: false }
    }

    /// Appends to the buffer what is there to be read; zero bytes are the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|shared| {
            if shared.capacity() < READ_LEAST {
                shared.reserve(READ);
            }
            let read = ready!(pin!(self.socket.read_buf(shared)).poll(cx))?;
            let came = shared.split();
            if self.buffer.is_empty() {
                self.buffer = came;
            } else {
                self.buffer.unsplit(came);
            }
            Poll::Ready(Ok(read))
        })
    }

    /// Writes the pieces of `bytes` until they are out, as far as the kernel.
    pub fn poll_write_all(
        &mut self,
        bytes: &mut impl Buf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while bytes.has_remaining() {
            let written = ready!(pin!(self.socket.write_buf(bytes)).poll(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        self.poll_flush(cx)
    }

    /// TLS holds what it was given until the kernel takes it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Writes `bytes` once and returns how much was taken; nothing if the socket is full.
    pub fn try_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<usize> {
        match Pin::new(&mut self.socket).poll_write(cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(0),
        }
    }

    /// False if the target has closed it or said what it was not asked. Costs no system call, so
    /// it may be late by one turn of the loop.
    pub fn is_fresh(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.socket.poll_read_ready(&mut nobody).is_pending()
    }
}

//! WebSocket: frames ↔ packets, straight into the socket and out of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::exchange::{Asks, Socket};

use super::deflate::{self, Deflate};
use super::frame::{self, Frame, FrameError, Opcode};
use super::outgoing::Wire;
use super::packet::{self, Version};
use super::queue::{Item, Queue};
use super::session::{Phase, Session, Transport};
use super::timers::Kind;
use super::{Close, Engine};

/// Read at once by whichever session has something; one buffer per worker.
const READ_BUFFER: usize = 64 * 1024;
/// Reads of one session before others have their turn.
const READS_PER_TURN: usize = 8;
/// Messages in one write.
const WRITE_AT_ONCE: usize = 32;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = Cell::new(vec![0; READ_BUFFER]);
}

/// A session's WebSocket transport.
pub(super) struct WebSocket {
    pub(super) socket: Socket,
    /// The beginning of a frame whose rest has not come yet.
    pub(super) partial: Vec<u8>,
    fragments: Option<Box<Fragments>>,
    pub(super) deflate: Option<Deflate>,
    /// Bytes of the queue's first item that have left already.
    written: usize,
    waker: Option<Waker>,
}

/// A message of which not all frames have come.
struct Fragments {
    opcode: Opcode,
    compressed: bool,
    data: Vec<u8>,
}

impl WebSocket {
    pub(super) fn new(socket: Socket, early: &Bytes, deflate: Option<Deflate>) -> Self {
        let partial = early.to_vec();
        Self { socket, partial, fragments: None, deflate, written: 0, waker: None }
    }

    /// Fixed for as long as it lives: a message may have left in part.
    fn wire(&self, session: &Session) -> Wire {
        match (self.deflate, session.base64) {
            (_, true) => Wire::Base64Frames(session.version),
            (Some(deflate), false) => Wire::Deflated(session.version, deflate),
            (None, false) => Wire::Frames(session.version),
        }
    }

    fn keep_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Writes the queue as far as the socket takes it; true if all of it has left.
    fn write(&mut self, queue: &mut Queue, wire: Wire, asks: Asks) -> io::Result<bool> {
        while let Some(first) = queue.front() {
            let first = bytes_of(first, wire).get(self.written..).unwrap_or_default();
            let written = if queue.len() == 1 {
                self.socket.try_write(&[IoSlice::new(first)], asks)
            } else {
                let mut slices = [IoSlice::new(first); WRITE_AT_ONCE];
                let mut count = 1;
                for (slice, item) in slices.iter_mut().zip(queue.iter()).skip(1) {
                    *slice = IoSlice::new(bytes_of(item, wire));
                    count += 1;
                }
                self.socket.try_write(slices.get(..count).unwrap_or_default(), asks)
            };
            match written {
                Ok(written) => self.advance(queue, wire, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        queue.give_back();
        Ok(self.socket.is_flushed())
    }

    fn advance(&mut self, queue: &mut Queue, wire: Wire, written: usize) {
        self.written += written;
        while let Some(item) = queue.front() {
            let length = bytes_of(item, wire).len();
            if self.written < length {
                break;
            }
            self.written -= length;
            queue.pop();
        }
    }
}

fn bytes_of(item: &Item, wire: Wire) -> &[u8] {
    match item {
        Item::Message(message, _) => message.bytes(wire),
        Item::Control(control) => control.frame(),
        Item::Said(frame) | Item::Frame(frame) => frame,
    }
}

impl Session {
    /// Drives the socket: everything that came is taken, everything queued is written.
    pub(super) fn drive(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Transport::WebSocket(websocket) = &mut *self.transport.borrow_mut() {
            websocket.keep_waker(cx.waker());
        }
        let congested = self.engine.above.is_congested(cx.waker());
        if congested || self.poll_carried(cx).is_pending() || self.poll_rest(cx).is_pending() {
            return self.write_all(cx);
        }
        self.begin_turn();
        // What came with the request's head, or with the upgrade, or was too early.
        self.take_partial();
        for _ in 0..READS_PER_TURN {
            if self.poll_rest(cx).is_pending() {
                return self.write_all(cx);
            }
            if self.has_stopped() {
                self.take_partial();
                continue;
            }
            match self.read(cx) {
                Poll::Ready(()) if self.phase.get() == Phase::Closed => return Poll::Ready(()),
                Poll::Ready(()) => (),
                Poll::Pending => {
                    self.catch_up();
                    return self.write_all(cx);
                }
            }
        }
        cx.waker().wake_by_ref();
        self.write_all(cx)
    }

    /// Reads once, and takes every frame that is whole.
    fn read(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = BUFFER.take();
        let read = match &mut *self.transport.borrow_mut() {
            Transport::WebSocket(websocket) => websocket.socket.poll_read(cx, &mut buffer),
            _ => Poll::Ready(Ok(0)),
        };
        let done = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                self.lose(Close::TransportClose);
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => {
                self.lose(Close::TransportError);
                Poll::Ready(())
            }
            Poll::Ready(Ok(read)) => {
                self.take_bytes(buffer.get_mut(..read).unwrap_or_default());
                Poll::Ready(())
            }
        };
        BUFFER.set(buffer);
        done
    }

    fn take_bytes(self: &Rc<Self>, came: &mut [u8]) {
        let mut partial = self.swap_partial(Vec::new());
        if partial.is_empty() {
            let taken = self.take_frames(came);
            let rest = came.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                self.swap_partial(rest.to_vec());
            }
        } else {
            partial.extend_from_slice(came);
            let taken = self.take_frames(&mut partial);
            partial.drain(..taken);
            if !partial.is_empty() {
                self.swap_partial(partial);
            }
        }
    }

    fn take_partial(self: &Rc<Self>) {
        let mut early = self.swap_partial(Vec::new());
        if !early.is_empty() {
            self.take_bytes(&mut early);
        }
    }

    fn swap_partial(&self, partial: Vec<u8>) -> Vec<u8> {
        match &mut *self.transport.borrow_mut() {
            Transport::WebSocket(websocket) => mem::replace(&mut websocket.partial, partial),
            _ => Vec::new(),
        }
    }

    /// Takes the whole frames at the front of `bytes`; returns how many bytes that were.
    fn take_frames(self: &Rc<Self>, bytes: &mut [u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get_mut(taken..) {
            if self.phase.get() != Phase::Open {
                // What comes after the end is read and forgotten.
                return taken + rest.len();
            }
            if self.stops() {
                break;
            }
            match frame::parse(rest, self.engine.message_max()) {
                Ok(Some(frame)) => {
                    let payload = rest.get(frame.payload.clone()).unwrap_or_default();
                    if let Err(error) = self.take_frame(&frame, payload) {
                        self.close(Close::BadFrame(error));
                    }
                    taken += frame.payload.end;
                }
                Ok(None) => break,
                Err(error) => self.close(Close::BadFrame(error)),
            }
        }
        taken
    }

    fn take_frame(self: &Rc<Self>, frame: &Frame, payload: &[u8]) -> Result<(), FrameError> {
        if !frame.is_substantial() && self.is_chatty() {
            self.lose(Close::Flood);
            return Ok(());
        }
        match frame.opcode {
            Opcode::Text | Opcode::Binary if frame.last => {
                if self.take_fragments().is_some() {
                    return Err(FrameError::Protocol);
                }
                self.take_message(frame.opcode, payload, frame.compressed)
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.take_fragment(frame, payload)
            }
            Opcode::Ping => {
                let mut pong = Vec::new();
                frame::write(&mut pong, Opcode::Pong, &[payload]);
                self.queue_frame(pong);
                Ok(())
            }
            Opcode::Pong => Ok(()),
            Opcode::Close => {
                self.close(Close::TransportClose);
                Ok(())
            }
        }
    }

    fn take_fragments(&self) -> Option<Box<Fragments>> {
        match &mut *self.transport.borrow_mut() {
            Transport::WebSocket(websocket) => websocket.fragments.take(),
            _ => None,
        }
    }

    fn take_fragment(self: &Rc<Self>, frame: &Frame, payload: &[u8]) -> Result<(), FrameError> {
        let mut begun = match (self.take_fragments(), frame.opcode) {
            (Some(begun), Opcode::Continuation) => begun,
            (None, opcode @ (Opcode::Text | Opcode::Binary)) => {
                Box::new(Fragments { opcode, compressed: frame.compressed, data: Vec::new() })
            }
            _ => return Err(FrameError::Protocol),
        };
        if begun.data.len() + payload.len() > self.engine.message_max() {
            return Err(FrameError::TooLarge);
        }
        begun.data.extend_from_slice(payload);
        if frame.last {
            return self.take_message(begun.opcode, &begun.data, begun.compressed);
        }
        if let Transport::WebSocket(websocket) = &mut *self.transport.borrow_mut() {
            websocket.fragments = Some(begun);
        }
        Ok(())
    }

    fn take_message(
        self: &Rc<Self>,
        opcode: Opcode,
        data: &[u8],
        compressed: bool,
    ) -> Result<(), FrameError> {
        let agreed = match &*self.transport.borrow() {
            Transport::WebSocket(websocket) => websocket.deflate,
            _ => None,
        };
        let data = deflate::unpack(data, compressed, agreed, self.engine.message_max())?;
        let packet = if opcode == Opcode::Binary {
            packet::parse_binary(self.version, &data)
        } else {
            let text = std::str::from_utf8(&data).map_err(|_error| FrameError::NotText)?;
            packet::parse_text(self.version, text)
        };
        match packet {
            Ok(packet) => self.receive(packet),
            Err(packet::Malformed) => self.close(Close::ParseError),
        }
        Ok(())
    }

    fn queue_frame(self: &Rc<Self>, frame: Vec<u8>) {
        // A client that floods with control frames fills its own queue.
        let full = self.queue.borrow().len() > 1024;
        if full {
            return self.close_later(Close::TooSlow);
        }
        self.queue.borrow_mut().push_frame(frame);
        self.engine.touch(self);
    }

    /// Writes what is queued, from the worker's own task; the session's task does the rest.
    pub(super) fn flush_from_outside(self: &Rc<Self>) {
        if self.queue.borrow().is_empty() && !self.blocked.get() && self.is_open() {
            // Its own task was here before.
            return;
        }
        self.flush_frames();
        if self.blocked.get() || self.phase.get() != Phase::Open {
            self.wake();
        }
    }

    /// True on a WebSocket whose messages leave as they do for nearly every client.
    pub(super) fn takes_plain_frames(&self) -> bool {
        match &*self.transport.borrow() {
            Transport::WebSocket(websocket) => websocket.wire(self) == Wire::Frames(Version::V4),
            _ => false,
        }
    }

    /// Looks at what a flush will need, for nothing but that it is at hand then.
    pub(super) fn fetch_transport(&self) {
        self.fetch();
        if let Transport::WebSocket(websocket) = &*self.transport.borrow() {
            black_box(websocket.written);
        }
    }

    /// Lets the session's task have a look.
    pub(super) fn wake(&self) {
        if let Transport::WebSocket(WebSocket { waker: Some(waker), .. }) =
            &*self.transport.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Writes what is queued as far as the socket takes it.
    fn write_queue(&self, asks: Asks) -> io::Result<()> {
        let done = match &mut *self.transport.borrow_mut() {
            Transport::WebSocket(websocket) => {
                let mut queue = self.queue.borrow_mut();
                let before = queue.bytes();
                let wire = websocket.wire(self);
                let done = websocket.write(&mut queue, wire, asks);
                self.engine.count_out(before - queue.bytes());
                done
            }
            _ => return Ok(()),
        };
        self.blocked.set(!matches!(done, Ok(true)));
        done.map(drop)
    }

    fn flush_frames(self: &Rc<Self>) {
        let asks = if self.blocked.get() { Asks::Runtime } else { Asks::KernelFirst };
        if self.write_queue(asks).is_err() {
            self.lose(Close::TransportError);
        }
    }

    /// The same for callers that iterate over sessions, and whatever was refused in this turn.
    pub(super) fn flush_at_once(self: &Rc<Self>) {
        if self.write_queue(Asks::Kernel).is_err() {
            self.close_later(Close::TransportError);
        }
    }

    /// Some bytes of the first item that is queued have left.
    pub(super) fn has_begun(&self) -> bool {
        matches!(&*self.transport.borrow(), Transport::WebSocket(websocket) if websocket.written > 0)
    }

    /// The same from this session's own task, which is woken when the socket takes more.
    fn write_all(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.touched.get() && !self.blocked.get() && self.is_open() {
            // At the turn's end, with what others are sent: who waits at the other end is woken once
            // for all that was heard in this turn, not once for each of it.
            return Poll::Pending;
        }
        loop {
            self.flush_frames();
            if self.phase.get() == Phase::Closed {
                return Poll::Ready(());
            }
            let Transport::WebSocket(websocket) = &mut *self.transport.borrow_mut() else {
                return Poll::Ready(());
            };
            if !self.blocked.get() {
                if self.phase.get() == Phase::Closing {
                    websocket.socket.finish();
                }
                return Poll::Pending;
            }
            // An error shows at the next write.
            if websocket.socket.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    pub(super) fn close_websocket(self: &Rc<Self>, code: Option<u16>) {
        let mut frame = Vec::new();
        let code = code.map(u16::to_be_bytes);
        frame::write(&mut frame, Opcode::Close, &[code.as_ref().map_or(&[], <[u8; 2]>::as_slice)]);
        self.queue.borrow_mut().push_frame(frame);
        self.engine.arm(self, Kind::Linger);
        self.engine.touch(self);
    }
}

impl Engine {
    /// Starts a session over a WebSocket of its own.
    pub(super) fn run(self: &Rc<Self>, session: Rc<Session>) {
        self.drain.spawn("session", poll_fn(move |cx| session.drive(cx)));
    }

    /// The first thing said on a WebSocket without a session before it.
    pub(super) fn send_open(&self, session: &Rc<Session>) {
        let mut open = Vec::new();
        let words = self.open_words(session.id, "");
        frame::write(&mut open, Opcode::Text, &[b"0", words.as_bytes()]);
        session.queue.borrow_mut().push_frame(open);
        self.touch(session);
    }
}

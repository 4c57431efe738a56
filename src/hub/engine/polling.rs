//! Long polling: a GET waits for messages, a POST brings them.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::outgoing::Wire;
use super::packet::{self, Form, Packet, Payload, Version};
use super::queue::{Item, Queue};
use super::request::Refusal;
use super::session::{Phase, Session, Transport};
use super::timers::Kind;
use super::{Close, Engine};

/// What a request of a polling session is answered.
#[derive(Debug)]
pub enum Answer {
    Payload(Bytes, Form),
    /// A POST was taken.
    Taken,
    Refused(Refusal),
}

/// How a POST ends that is not answered by its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostEnd {
    /// Its body was cut off: its client is gone, and with it the session.
    Cut,
    /// It was too large, say: the session goes on without it.
    Refused,
    /// All of it had come, and its client has gone before all was taken.
    Left,
}

/// A session's polling transport.
#[derive(Default)]
pub(super) struct Polling {
    get: Option<Waiting>,
    post: Option<Post>,
    /// Waits until there is none: see `Session::posted`.
    upgrade: Option<Waker>,
    /// A WebSocket was probed and may take over any moment.
    probed: bool,
    /// What the last answer of a session that has ended closes with.
    goodbye: u8,
}

/// The POST whose body is on its way, or that is not answered yet.
struct Post {
    ticket: u64,
    /// It is to be answered whether all of it is taken or not: see `Session::release_post`.
    released: bool,
    holder: Option<Waker>,
}

struct Waiting {
    reply: oneshot::Sender<Answer>,
    /// Tells this request from others, should its client go.
    ticket: u64,
}

impl Session {
    /// Answers a GET now or when there is something to say.
    pub(super) fn poll(self: &Rc<Self>, ticket: u64, reply: oneshot::Sender<Answer>) {
        let mut transport = self.transport.borrow_mut();
        let Transport::Polling(polling) = &mut *transport else {
            drop(transport);
            let _sent = reply.send(Answer::Refused(Refusal::BadRequest));
            return;
        };
        if self.phase.get() == Phase::Closing {
            let goodbye = polling.goodbye;
            drop(transport);
            let queue = self.queue.take();
            // The client asks once more to hear that it is over.
            let _sent = reply.send(self.payload(&queue, goodbye));
            return self.engine.forget(self);
        }
        if polling.get.is_some() {
            drop(transport);
            let _sent = reply.send(Answer::Refused(Refusal::Broken));
            return self.close(Close::TransportError);
        }
        polling.get = Some(Waiting { reply, ticket });
        let probed = polling.probed;
        drop(transport);
        self.blocked.set(false);
        if probed {
            // The upgrade comes at once, or waits for this answer.
            self.engine.arm(self, Kind::Noop);
        }
        self.flush_poll();
    }

    /// A POST's body is on its way, or is there if nobody said so before. False if it is not taken:
    /// the session has another transport, or a POST already, since with a second one at the same time
    /// their order would be a guess.
    pub(super) fn begin_post(self: &Rc<Self>, ticket: u64) -> bool {
        let is_first = match &mut *self.transport.borrow_mut() {
            Transport::Polling(polling) => {
                let first = Post { ticket, released: false, holder: None };
                polling.post.get_or_insert(first).ticket == ticket
            }
            _ => return false,
        };
        if !is_first {
            self.close(Close::TransportError);
        }
        is_first
    }

    /// It will not be answered.
    pub(super) fn end_post(self: &Rc<Self>, ticket: u64, end: PostEnd) {
        match end {
            PostEnd::Left if self.has_post(ticket) => self.abandon_rest(),
            PostEnd::Left => (),
            PostEnd::Cut if self.leave_post(ticket) => self.lose(Close::TransportError),
            PostEnd::Cut | PostEnd::Refused => {
                self.leave_post(ticket);
            }
        }
    }

    fn has_post(&self, ticket: u64) -> bool {
        matches!(&*self.transport.borrow(), Transport::Polling(Polling { post: Some(post), .. })
            if post.ticket == ticket)
    }

    /// The POST has been answered. False if there was no such one.
    pub(super) fn leave_post(&self, ticket: u64) -> bool {
        let left = match &mut *self.transport.borrow_mut() {
            Transport::Polling(polling) => {
                polling.post.take_if(|post| post.ticket == ticket).is_some()
            }
            _ => false,
        };
        if left {
            self.wake_upgrade();
        }
        left
    }

    /// A client that is about to upgrade says nothing and asks for nothing more until its POST is
    /// answered, and would hear no ping for as long as the session rests. It is answered now, and what
    /// is left of it is taken before anything that comes over the WebSocket.
    pub(super) fn release_post(&self) {
        if let Transport::Polling(polling) = &mut *self.transport.borrow_mut()
            && let Some(post) = &mut polling.post
            && let Some(holder) = post.holder.take()
        {
            post.released = true;
            holder.wake();
        }
    }

    /// Ready when the POST that waits here has been released.
    pub(super) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut transport = self.transport.borrow_mut();
        let Transport::Polling(polling) = &mut *transport else { return Poll::Pending };
        let Some(post) = &mut polling.post else { return Poll::Pending };
        if post.released {
            return Poll::Ready(());
        }
        let begins = post.holder.replace(cx.waker().clone()).is_none();
        if polling.probed && begins {
            self.engine.arm(self, Kind::Noop);
        }
        Poll::Pending
    }

    /// Ready when no POST is under way, or when the session has ended. What a client says over
    /// another transport then was said after all that its POSTs have brought.
    pub(super) async fn posted(&self) {
        poll_fn(|cx| match &mut *self.transport.borrow_mut() {
            Transport::Polling(polling) if polling.post.is_some() && self.is_open() => {
                polling.upgrade = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Whoever waits for `posted` looks again.
    pub(super) fn wake_upgrade(&self) {
        if let Transport::Polling(polling) = &mut *self.transport.borrow_mut()
            && let Some(waker) = polling.upgrade.take()
        {
            waker.wake();
        }
    }

    /// Takes what is left of what a POST brought; `None` if the session has to rest before it takes
    /// more.
    pub(super) fn post(self: &Rc<Self>, binary: bool, left: &mut Option<Bytes>) -> Option<Answer> {
        let answer = self.take_packets(binary, left);
        if answer.is_some() {
            self.catch_up();
        }
        answer
    }

    fn take_packets(self: &Rc<Self>, binary: bool, left: &mut Option<Bytes>) -> Option<Answer> {
        let polls = matches!(&*self.transport.borrow(), Transport::Polling(_));
        if !self.is_open() || !polls && !self.carries() {
            return Some(Answer::Refused(Refusal::BadRequest));
        }
        if binary && self.version == Version::V4 {
            self.close(Close::TransportError);
            return Some(Answer::Refused(Refusal::Broken));
        }
        self.begin_turn();
        while let Some(body) = left.take() {
            if self.is_resting() {
                *left = Some(body);
                return None;
            }
            let mut payload = Payload::new(self.version, binary, &body);
            let packet = payload.next();
            *left = payload.rest().map(|rest| body.slice_ref(rest));
            match packet {
                Some(Ok(packet)) => self.receive(packet),
                None => (),
                Some(Err(packet::Malformed)) => {
                    self.close(Close::ParseError);
                    return Some(Answer::Refused(Refusal::Broken));
                }
            }
        }
        // As long as the last of them has the session rest, the next POST does not come.
        (!self.is_resting()).then_some(Answer::Taken)
    }

    /// The client of a waiting GET is gone, and with it the session.
    pub(super) fn abort_poll(self: &Rc<Self>, ticket: u64) {
        let waits = match &*self.transport.borrow() {
            Transport::Polling(polling) => {
                polling.get.as_ref().is_some_and(|get| get.ticket == ticket)
            }
            _ => false,
        };
        if waits {
            self.lose(Close::TransportError);
        }
    }

    /// Answers the waiting GET with all that is queued, if there is both.
    pub(super) fn flush_poll(self: &Rc<Self>) {
        if self.queue.borrow().is_empty() {
            return;
        }
        let Some(get) = self.take_get() else { return };
        let queue = self.queue.take();
        let answer = self.payload(&queue, 0);
        // Lost with its client, which ends the session as soon as the connection's end is seen.
        let _sent = get.send(answer);
    }

    /// An empty answer, so that the client can go on with its upgrade.
    pub(super) fn release_poll(&self) {
        if let Some(get) = self.take_get() {
            let _sent = get.send(self.payload(&Queue::default(), b'6'));
        }
    }

    /// A WebSocket was probed; or was not, after all.
    pub(super) fn set_probed(self: &Rc<Self>, probed: bool) {
        let mut transport = self.transport.borrow_mut();
        let Transport::Polling(polling) = &mut *transport else { return };
        polling.probed = probed;
        let waits = polling.get.is_some() || polling.post.is_some();
        drop(transport);
        if probed && waits {
            self.engine.arm(self, Kind::Noop);
        }
    }

    /// A WebSocket may take over, and none is about to.
    pub(super) fn may_upgrade(&self) -> bool {
        matches!(&*self.transport.borrow(), Transport::Polling(polling) if !polling.probed)
            && self.phase.get() == Phase::Open
    }

    /// Closed by its client, whose GET was on the way then.
    pub(super) fn lingers_for_its_get(&self) -> bool {
        let waits = match &*self.transport.borrow() {
            Transport::Polling(polling) => polling.goodbye == b'6',
            _ => false,
        };
        waits && !self.is_open()
    }

    pub(super) fn is_probed(&self) -> bool {
        matches!(&*self.transport.borrow(), Transport::Polling(polling) if polling.probed)
    }

    /// The waiting GET is refused: the session has left this transport.
    pub(super) fn leave_polling(&self) {
        if let Some(get) = self.take_get() {
            let _sent = get.send(Answer::Refused(Refusal::BadRequest));
        }
    }

    pub(super) fn close_polling(self: &Rc<Self>, why: Close) {
        let goodbye = if why == Close::TransportClose { b'6' } else { b'1' };
        if let Some(get) = self.take_get() {
            let queue = self.queue.take();
            let _sent = get.send(self.payload(&queue, goodbye));
        } else if why.is_told() {
            // The next GET hears of it.
            if let Transport::Polling(polling) = &mut *self.transport.borrow_mut() {
                polling.goodbye = goodbye;
            }
            let ours = why != Close::TransportClose;
            return self.engine.arm(self, if ours { Kind::Linger } else { Kind::Noop });
        }
        self.engine.forget(self);
    }

    fn take_get(&self) -> Option<oneshot::Sender<Answer>> {
        match &mut *self.transport.borrow_mut() {
            Transport::Polling(polling) => {
                let get = polling.get.take()?;
                self.blocked.set(true);
                Some(get.reply)
            }
            _ => None,
        }
    }

    /// One answer of everything in `queue`, and a packet of the kind `last` unless that is 0.
    fn payload(&self, queue: &Queue, last: u8) -> Answer {
        let form = self.form(queue);
        let mut body = Vec::with_capacity(queue.bytes() + 16);
        for item in queue.iter() {
            match item {
                // Alone in its answer a message needs no copy.
                Item::Message(message, _) if queue.len() == 1 && last == 0 => {
                    let bytes = message.bytes(Wire::Payload(form)).clone();
                    self.engine.count_out(bytes.len());
                    return Answer::Payload(bytes, form);
                }
                Item::Message(message, _) => {
                    if form == Form::V4 && !body.is_empty() {
                        body.push(0x1e);
                    }
                    body.extend_from_slice(message.bytes(Wire::Payload(form)));
                }
                Item::Control(control) => packet::write_text(&mut body, form, control.digit(), ""),
                // Of a WebSocket, which a session does not leave for this.
                Item::Said(_) | Item::Frame(_) => (),
            }
        }
        if last != 0 {
            packet::write_text(&mut body, form, last, "");
        }
        self.engine.count_out(body.len());
        Answer::Payload(body.into(), form)
    }

    fn form(&self, queue: &Queue) -> Form {
        let binary =
            |item: &Item| matches!(item, Item::Message(message, _) if message.has_binary());
        match self.version {
            Version::V4 => Form::V4,
            Version::V3 if !self.base64 && queue.iter().any(binary) => Form::V3Binary,
            Version::V3 => Form::V3Text,
        }
    }
}

impl Engine {
    /// The open packet as the answer to a handshake.
    pub(super) fn open_payload(&self, session: &Session) -> Answer {
        let form = match session.version {
            Version::V4 => Form::V4,
            Version::V3 => Form::V3Text,
        };
        let mut body = Vec::with_capacity(128);
        packet::write_text(&mut body, form, b'0', &self.open_words(session.id, r#""websocket""#));
        Answer::Payload(body.into(), form)
    }
}

/// Packets of a WebSocket frame and of a payload mean the same once parsed.
pub(super) fn is_probe(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Ping("probe"))
}

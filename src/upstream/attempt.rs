//! One request on one connection, up to the head of its response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, StatusCode, header, request};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::exchange::BodyError;
use crate::exchange::headers::Lines;

use super::Deadlines;
use super::connection::Connection;
use super::http1::{self, BadResponse, Framing, Head, HeadReader, Names};
use super::upload::{Upload, UploadError};

/// How long a client that asks "Expect: 100-continue" waits for a target that says nothing.
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    /// Where heads are written before they are sent.
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Names in the heads of responses.
    static NAMES: RefCell<Names> = RefCell::default();
}

/// A request that may be sent again.
pub struct Outgoing {
    pub parts: request::Parts,
    /// Go out beside the headers.
    lines: Lines,
    pub upload: Upload,
    /// True if the client waits for the target's word before it sends the body.
    expects: bool,
}

impl Outgoing {
    pub fn new(mut parts: request::Parts, lines: Lines, upload: Upload) -> Self {
        let expects = parts.headers.contains_key(header::EXPECT);
        if upload.framing() == Framing::None {
            parts.headers.remove(header::EXPECT);
        }
        Self { expects: expects && upload.framing() != Framing::None, parts, lines, upload }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let headers = &self.parts.headers;
        // A body's length of nothing is said where the method lets one expect a body.
        let framing = match self.upload.framing() {
            Framing::None if says_length(&self.parts.method) => Framing::Length(0),
            framing => framing,
        };
        let uri = &self.parts.uri;
        let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
        let lines = self.lines.as_bytes();
        http1::encode_head((&self.parts.method, target), lines, headers, framing, out);
    }
}

pub fn says_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// `unsent` if the target took no byte of the request.
    Closed {
        unsent: bool,
    },
    /// Closed within the head.
    Cut,
    BadResponse(BadResponse),
    /// `silent` if not a byte of a response came.
    HeadDeadline {
        silent: bool,
    },
    UploadDeadline,
    Body(BodyError),
}

/// A response's head, and whether the request was out whole when it came.
pub struct Answered {
    pub head: Head,
    pub sent: bool,
}

/// Sends `request` and reads until the response's head is whole; 1xx heads are passed on to clients
/// that may be sent some.
///
/// A 101 is a response only to a request that asks for an upgrade.
pub async fn exchange(
    connection: &mut Connection,
    request: &mut Outgoing,
    deadlines: &Deadlines,
) -> Result<Answered, Failure> {
    let now = Instant::now();
    let waits_until = request.expects.then(|| now + CONTINUE_AFTER);
    let mut alarm = pin!(sleep_until(waits_until.unwrap_or(now + deadlines.first_byte)));
    let progress = Progress::Unbegun;
    let reader = HeadReader::default();
    let (written, before, moved, answering) = (0, 0, 0, false);
    let mut attempt = Attempt {
        connection,
        request,
        deadlines,
        progress,
        written,
        before,
        moved,
        waits_until,
        reader,
        answering,
    };
    poll_fn(|cx| attempt.poll(alarm.as_mut(), cx)).await
}

struct Attempt<'a> {
    connection: &'a mut Connection,
    request: &'a mut Outgoing,
    deadlines: &'a Deadlines,
    progress: Progress,
    /// Bytes that the first write took.
    written: usize,
    /// What the upload had moved by then, for an attempt before this one too.
    before: u64,
    /// What the upload had moved when the alarm was set.
    moved: u64,
    /// Until when the body waits for a 100.
    waits_until: Option<Instant>,
    reader: HeadReader,
    /// Bytes of a response came, if only of an interim one.
    answering: bool,
}

/// How far the request is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unbegun,
    Sending,
    Sent,
    /// The target reads no more, but may have answered before it stopped.
    Broken,
}

impl Attempt<'_> {
    fn poll(
        &mut self,
        mut alarm: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answered, Failure>> {
        // The alarm is set for a request that goes out whole at once.
        let mut is_set = false;
        if self.progress == Progress::Unbegun {
            self.begin(cx)?;
            is_set = true;
        }
        loop {
            if self.progress == Progress::Sending && self.waits_until.is_none() {
                self.send(cx)?;
                let moved = self.request.upload.moved();
                let sent = self.progress != Progress::Sending;
                if (sent && !is_set) || self.moved != moved {
                    self.moved = moved;
                    self.rearm(alarm.as_mut());
                }
            }
            is_set = false;
            if self.waits_until.is_some()
                && let Poll::Ready(Err(_broken)) = self.connection.poll_flush(cx)
            {
                return Poll::Ready(Err(self.closed()));
            }
            match self.receive(cx) {
                Poll::Ready(Ok(Some(answered))) => return Poll::Ready(Ok(answered)),
                Poll::Ready(Ok(None)) => continue,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => ready!(alarm.as_mut().poll(cx)),
            }
            self.ring()?;
            self.rearm(alarm.as_mut());
        }
    }

    /// Writes the head, and the body's first piece if it is here.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.progress = Progress::Sending;
        self.request.upload.begin();
        HEAD.with_borrow_mut(|head| {
            head.clear();
            self.request.encode(head);
            if self.waits_until.is_none() {
                self.request.upload.join(head, cx).map_err(Failure::Body)?;
            }
            self.before = self.request.upload.moved();
            let Ok(written) = self.connection.try_write(head, cx) else {
                return Err(self.closed());
            };
            self.written = written;
            self.request.upload.put_first(head.get(written..).unwrap_or_default());
            Ok(())
        })
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.request.upload.poll(self.connection, cx) {
            Poll::Ready(Ok(())) => self.progress = Progress::Sent,
            Poll::Ready(Err(UploadError::Write)) => self.progress = Progress::Broken,
            Poll::Ready(Err(UploadError::Body(error))) => return Err(Failure::Body(error)),
            Poll::Pending => (),
        }
        Ok(())
    }

    /// Reads up to the head; `None` after an interim one that lets the body begin.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Answered>, Failure>> {
        loop {
            let request::Parts { method, headers, .. } = &mut self.request.parts;
            let buffer = &mut self.connection.buffer;
            let read =
                NAMES.with_borrow_mut(|names| self.reader.read(buffer, method, headers, names));
            match read.map_err(Failure::BadResponse)? {
                None => match ready!(self.connection.poll_fill(cx)) {
                    Ok(1..) => self.answering = true,
                    Ok(0) | Err(_) => return Poll::Ready(Err(self.closed())),
                },
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    let asked = self.request.parts.headers.contains_key(header::UPGRADE);
                    let switched = Failure::BadResponse(BadResponse::Switched);
                    return Poll::Ready(if asked { self.answered(head) } else { Err(switched) });
                }
                Some(head) if !head.status.is_informational() => {
                    return Poll::Ready(self.answered(head));
                }
                Some(interim) if interim.status == StatusCode::CONTINUE => {
                    if self.waits_until.take().is_some() {
                        return Poll::Ready(Ok(None));
                    }
                }
                Some(interim) => {
                    if let Some(interims) = self.request.upload.interims() {
                        interims.pass(interim.status, interim.headers);
                    }
                }
            }
        }
    }

    fn answered(&self, head: Head) -> Result<Option<Answered>, Failure> {
        Ok(Some(Answered { head, sent: self.progress == Progress::Sent }))
    }

    fn closed(&self) -> Failure {
        // What the first write did not take went out later.
        let unsent = self.written == 0 && self.request.upload.moved() == self.before;
        if self.answering { Failure::Cut } else { Failure::Closed { unsent } }
    }

    /// The alarm for what is waited for now.
    fn rearm(&self, alarm: Pin<&mut Sleep>) {
        let sending = self.progress == Progress::Sending;
        let patience = if sending { self.deadlines.body_idle } else { self.deadlines.first_byte };
        alarm.reset(Instant::now() + patience);
    }

    /// The alarm rang: who is late?
    fn ring(&mut self) -> Result<(), Failure> {
        if self.waits_until.take().is_some() {
            return Ok(());
        }
        if self.progress != Progress::Sending {
            return Err(Failure::HeadDeadline { silent: !self.answering });
        }
        // A client that is late is judged by its body.
        if self.request.upload.is_blocked() { Err(Failure::UploadDeadline) } else { Ok(()) }
    }
}

//! POSTs: from the request to the packets that it brings, and to its answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use http::header;
use tokio::sync::oneshot;

use crate::auth::Credentials;
use crate::exchange::{BodyError, Client, Request, Response};

use super::Engine;
use super::http::Ask;
use super::polling::{Answer, PostEnd};
use super::reply::{form_field, respond};
use super::request::{Query, Refusal};
use super::session::Session;
use super::sid::Id;

impl Engine {
    /// On the worker that has the request.
    pub(super) async fn take_post(
        self: &Rc<Self>,
        id: Id,
        query: &Query,
        request: Request,
        from: (&Client, &Credentials),
    ) -> Result<Response, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let binary = kind.is_some_and(|kind| kind.as_bytes() == b"application/octet-stream");
        let ticket = self.ticket();
        self.ask(id, Ask::BeginPost { id, shown: query.shown(), ticket })?;
        let mut watch = PostWatch { engine: self, id, ticket, end: Some(PostEnd::Cut) };
        let body = match request.into_body().read_all(self.message_max()).await {
            Ok(body) => body,
            Err(BodyError::TooLarge { .. }) => {
                watch.end = Some(PostEnd::Refused);
                return Err(Refusal::TooLarge);
            }
            Err(_) => return Err(Refusal::Broken),
        };
        let body = if query.jsonp.is_some() { form_field(&body)? } else { body };
        let post = |body| {
            let (reply, answer) = oneshot::channel();
            self.ask(id, Ask::Post { id, shown: query.shown(), ticket, binary, body, reply })?;
            Ok::<_, Refusal>(answer)
        };
        let answer = post(body.clone())?;
        watch.end = Some(PostEnd::Left);
        let mut answer = answer.await.map_err(|_gone| Refusal::UnknownSession)?;
        if matches!(answer, Answer::Refused(Refusal::Stranger)) && self.renew(id, from).await {
            answer = post(body)?.await.map_err(|_gone| Refusal::UnknownSession)?;
        }
        watch.end = None;
        respond(answer, None)
    }

    /// Takes what a POST brought, and says so when more of the kind may come, or when the client
    /// needs the answer to go on with its upgrade.
    pub(super) fn take_post_of(
        self: &Rc<Self>,
        session: Rc<Session>,
        ticket: u64,
        (binary, body): (bool, Bytes),
        reply: oneshot::Sender<Answer>,
    ) {
        if session.carries() {
            let engine = Rc::clone(self);
            self.drain.spawn("post", async move {
                poll_fn(|cx| session.poll_carried(cx)).await;
                engine.take_post_of(session, ticket, (binary, body), reply);
            });
            return;
        }
        let mut left = Some(body);
        let answer = session.post(binary, &mut left);
        let done = move |session: &Session, answer| {
            session.leave_post(ticket);
            drop(reply.send(answer));
        };
        let congested = self.above.is_congested(Waker::noop());
        let mut answer = match answer {
            Some(answer) if !congested => return done(&session, answer),
            answer => answer,
        };
        let (above, mut done) = (Rc::clone(&self.above), Some(done));
        self.drain.spawn("post", async move {
            loop {
                let released = poll_fn(|cx| {
                    if done.is_some() && session.poll_released(cx).is_ready() {
                        return Poll::Ready(true);
                    }
                    if above.is_congested(cx.waker()) || session.poll_rest(cx).is_pending() {
                        return Poll::Pending;
                    }
                    Poll::Ready(false)
                })
                .await;
                let all_taken = answer.is_some();
                if released && !all_taken {
                    session.carry();
                }
                if (released || all_taken)
                    && let Some(done) = done.take()
                {
                    done(&session, answer.take().unwrap_or(Answer::Taken));
                }
                if all_taken {
                    return;
                }
                if !released {
                    answer = session.post(binary, &mut left);
                }
            }
        });
    }
}

/// Tells the session when nobody waits for the answer to a POST any more.
struct PostWatch<'a> {
    engine: &'a Rc<Engine>,
    id: Id,
    ticket: u64,
    /// What it would mean now.
    end: Option<PostEnd>,
}

impl Drop for PostWatch<'_> {
    fn drop(&mut self) {
        if let Self { id, ticket, end: Some(end), .. } = *self {
            // A full mailbox only means that the session ends by its heartbeat.
            let _asked = self.engine.ask(id, Ask::EndPost { id, ticket, end });
        }
    }
}

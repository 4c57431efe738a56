//! Requests in: which session, on which worker, over which transport.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::auth::Credentials;
use crate::exchange::{self, Client, Detached, Request, Response, Socket, Taken};

use super::deflate::{self, Deflate};
use super::origin::{Verdict, is_ambient};
use super::packet::Version;
use super::polling::{Answer, Polling, PostEnd};
use super::reply::{is_websocket, permit, preflighted, respond, switch};
use super::request::{Query, Refusal, Shown, Transport as Asked};
use super::session::{Arrival, Session, Transport};
use super::sid::{Id, random};
use super::websocket::WebSocket;
use super::{Engine, Handshake, Owner, Settings};

/// What one worker asks of the one on which a session lives.
pub enum Ask {
    Poll {
        id: Id,
        shown: Shown,
        ticket: u64,
        reply: oneshot::Sender<Answer>,
    },
    /// A POST has begun; its body is still to come.
    BeginPost {
        id: Id,
        shown: Shown,
        ticket: u64,
    },
    Post {
        id: Id,
        shown: Shown,
        ticket: u64,
        binary: bool,
        body: Bytes,
        reply: oneshot::Sender<Answer>,
    },
    /// The client of a poll is gone.
    Aborted {
        id: Id,
        ticket: u64,
    },
    /// A POST is not waited for any more.
    EndPost {
        id: Id,
        ticket: u64,
        end: PostEnd,
    },
    /// May a WebSocket take over? Asked before the 101.
    MayUpgrade {
        id: Id,
        shown: Shown,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Is the session of one of these? Then it goes on with what was shown.
    Renew {
        id: Id,
        owners: Vec<Owner>,
        credentials: Box<Credentials>,
        reply: oneshot::Sender<bool>,
    },
    /// It came; both sides have changed protocols.
    Upgrade {
        id: Id,
        socket: Detached,
        early: Bytes,
        deflate: Option<Deflate>,
    },
}

/// Asks a worker has not come to yet. Full: the request is refused with 503.
pub const MAILBOX: usize = 4096;

/// Between the 101 and the open packet of Engine.IO 3. Its clients may begin to listen only once
/// their WebSocket has opened, and lose what came together with the 101.
const OLD_CLIENTS_LISTEN: Duration = Duration::from_millis(20);

/// A response, and why it is a refusal if it is one.
pub type Answered = (Response, Option<&'static str>);

impl Engine {
    /// Answers one request below the hub's path.
    pub async fn answer(self: &Rc<Self>, request: Request, client: &Client) -> Answered {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let text = origin.as_ref().map(|origin| origin.to_str().unwrap_or("null"));
        let settings = self.settings();
        let verdict = settings.origins.judge(text, client);
        let refuse: fn(Refusal) -> Answered =
            if is_websocket(request.headers()) { abort } else { refuse };
        let preflight = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let shown = credentials(&settings, &request);
        let by_itself = shown.as_ref().is_ok_and(Credentials::has_cookies)
            || is_ambient(request.headers(), settings.remember.as_deref().unwrap_or_default());
        let (mut response, reason) = if verdict == Verdict::Foreign
            || by_itself && !settings.origins.is_sure(text, client, request.headers())
            || is_script(&request)
                && !settings.origins.admits_script(text, client, request.headers())
        {
            refuse(Refusal::Forbidden)
        } else if verdict == Verdict::Allowed && request.method() == Method::OPTIONS {
            (preflighted(preflight), None)
        } else {
            let served = async { self.serve(request, client, shown?).await };
            match Box::pin(served).await {
                Ok(response) => (response, None),
                Err(refusal) => refuse(refusal),
            }
        };
        if let (Verdict::Allowed, Some(origin)) = (verdict, origin) {
            permit(response.headers_mut(), origin);
        }
        (response, reason)
    }

    /// The answer to a request for a session that nobody has any more; whether it came for a
    /// WebSocket.
    pub fn answer_unknown(
        &self,
        (origin, upgrade): (Option<HeaderValue>, bool),
        client: &Client,
    ) -> Answered {
        let refuse: fn(Refusal) -> Answered = if upgrade { abort } else { refuse };
        let (mut response, reason) = refuse(Refusal::UnknownSession);
        let text = origin.as_ref().map(|origin| origin.to_str().unwrap_or("null"));
        let verdict = self.settings().origins.judge(text, client);
        if let (Verdict::Allowed, Some(origin)) = (verdict, origin) {
            permit(response.headers_mut(), origin);
        }
        (response, reason)
    }

    async fn serve(
        self: &Rc<Self>,
        request: Request,
        client: &Client,
        credentials: Credentials,
    ) -> Result<Response, Refusal> {
        let mut query = Query::parse(request.uri().query().unwrap_or_default());
        // Whoever opens a session has none to be told apart from.
        let counts = query.id.is_some() && self.settings.borrow().credentials.is_some();
        query.credentials = counts.then(|| credentials.digest());
        let transport = query.transport.ok_or(Refusal::UnknownTransport)?;
        let upgrade = is_websocket(request.headers());
        match query.id {
            Some(id) => {
                let id = id?;
                if id.node() != self.node || id.worker() >= self.workers.len() {
                    return Err(Refusal::UnknownSession);
                }
                match (request.method(), transport, upgrade) {
                    (&Method::GET, Asked::WebSocket, true) => {
                        let from = (client, &credentials);
                        self.begin_upgrade(id, &query, request, from).await
                    }
                    (&Method::GET, Asked::Polling, false) => {
                        let gzip = self.settings.borrow().deflate;
                        let gzip = gzip.filter(|_| deflate::takes_gzip(request.headers()));
                        self.get(id, &query, gzip, (client, &credentials)).await
                    }
                    (&Method::POST, Asked::Polling, false) => {
                        self.take_post(id, &query, request, (client, &credentials)).await
                    }
                    (&Method::GET | &Method::POST, ..) => Err(Refusal::BadRequest),
                    _ => Err(Refusal::Broken),
                }
            }
            None if request.method() != Method::GET => Err(Refusal::BadMethod),
            None if (transport == Asked::WebSocket) != upgrade => Err(Refusal::BadRequest),
            None => self.handshake(&query, transport, request, client, credentials),
        }
    }

    fn handshake(
        self: &Rc<Self>,
        query: &Query,
        transport: Asked,
        mut request: Request,
        client: &Client,
        credentials: Credentials,
    ) -> Result<Response, Refusal> {
        let version = query.version.ok_or(Refusal::UnsupportedProtocol)?;
        if self.drain.is_leaving() {
            return Err(Refusal::Busy);
        }
        if !self.above.may_open(&credentials, client) {
            // Spread, so that not all who wait come back in the same second.
            let [byte] = random();
            return Err(Refusal::AuthAway(1 + byte % 3));
        }
        let arrival = self.arrival(version, query, &request, client, credentials)?;
        if transport == Asked::Polling {
            let session = self.open(arrival, Transport::Polling(Polling::default()));
            let answer = self.open_payload(&session);
            self.above.opened(&session);
            return respond(answer, query.jsonp.as_deref());
        }
        let (response, deflate) = self.switch(request.headers())?;
        let taken = exchange::taking(&mut request);
        let (engine, limit) = (Rc::clone(self), self.upgrade_timeout());
        self.drain.spawn("upgrade", async move {
            let taken = timeout(limit, Box::pin(exchange::take_back(taken))).await;
            let Ok(Ok((taken, early))) = taken else { return };
            let Some(socket) = engine.socket(taken) else { return };
            if arrival.version == Version::V3 {
                sleep(OLD_CLIENTS_LISTEN).await;
            }
            let websocket = WebSocket::new(socket, &early, deflate);
            let session = engine.open(arrival, Transport::WebSocket(websocket));
            engine.send_open(&session);
            engine.above.opened(&session);
            engine.run(session);
        });
        Ok(response)
    }

    fn arrival(
        &self,
        version: Version,
        query: &Query,
        request: &Request,
        client: &Client,
        credentials: Credentials,
    ) -> Result<Arrival, Refusal> {
        let settings = self.settings();
        let seat = self.admission.admit(client.address, &settings.bounds)?;
        let remember = settings.remember.as_deref();
        let kept = remember.is_some() || settings.credentials.is_some();
        let handshake = kept.then(|| {
            let url = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
            let (fields, remember) = (request.headers(), remember.unwrap_or_default());
            let shown = (credentials, self.wants.get());
            Rc::new(Handshake::of(client, url, fields, remember, shown))
        });
        // A script's text has no room for bytes.
        let base64 = query.base64 || query.jsonp.is_some();
        Ok(Arrival { version, address: client.address, base64, handshake, seat })
    }

    async fn get(
        self: &Rc<Self>,
        id: Id,
        query: &Query,
        gzip: Option<Deflate>,
        from: (&Client, &Credentials),
    ) -> Result<Response, Refusal> {
        let mut answer = self.poll(id, query).await?;
        if matches!(answer, Answer::Refused(Refusal::Stranger)) && self.renew(id, from).await {
            answer = self.poll(id, query).await?;
        }
        let packed = match &answer {
            Answer::Payload(payload, _) if query.jsonp.is_none() => {
                gzip.and_then(|gzip| gzip.gzip(payload))
            }
            _ => None,
        };
        let mut response = respond(answer, query.jsonp.as_deref())?;
        if let Some(body) = packed {
            *response.body_mut() = Bytes::from(body).into();
            let gzip = HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        Ok(response)
    }

    async fn poll(self: &Rc<Self>, id: Id, query: &Query) -> Result<Answer, Refusal> {
        let ticket = self.ticket();
        let (reply, answer) = oneshot::channel();
        self.ask(id, Ask::Poll { id, shown: query.shown(), ticket, reply })?;
        let mut watch = PollWatch { engine: self, id, ticket, answered: false };
        // Answered at the latest by the next ping or, as clients of Engine.IO 3 ping by themselves,
        // when one of those has not in time: its session ends then.
        let answer = answer.await;
        watch.answered = true;
        answer.map_err(|_gone| Refusal::UnknownSession)
    }

    /// The cookie may have been renewed meanwhile: then whoever shows it is who it was.
    pub(super) async fn renew(
        self: &Rc<Self>,
        id: Id,
        (client, shown): (&Client, &Credentials),
    ) -> bool {
        let owners = self.above.owners(shown, client).await;
        if owners.is_empty() {
            return false;
        }
        let (reply, renewed) = oneshot::channel();
        let credentials = Box::new(shown.clone());
        let asked = self.ask(id, Ask::Renew { id, owners, credentials, reply });
        asked.is_ok() && renewed.await.unwrap_or(false)
    }

    async fn begin_upgrade(
        self: &Rc<Self>,
        id: Id,
        query: &Query,
        mut request: Request,
        from: (&Client, &Credentials),
    ) -> Result<Response, Refusal> {
        let (response, deflate) = self.switch(request.headers())?;
        let may = async || {
            let (reply, answer) = oneshot::channel();
            self.ask(id, Ask::MayUpgrade { id, shown: query.shown(), reply })?;
            answer.await.map_err(|_gone| Refusal::UnknownSession)?
        };
        match may().await {
            Err(Refusal::Stranger) if self.renew(id, from).await => may().await?,
            verdict => verdict?,
        }
        let taken = exchange::taking(&mut request);
        let (engine, limit) = (Rc::clone(self), self.upgrade_timeout());
        self.drain.spawn("upgrade", async move {
            let taken = timeout(limit, Box::pin(exchange::take_back(taken))).await;
            let Ok(Ok((taken, early))) = taken else { return };
            let Some(socket) = engine.socket(taken) else { return };
            if id.worker() == engine.worker {
                return engine.take_upgrade(&id, WebSocket::new(socket, &early, deflate));
            }
            // Lost with its worker's mailbox full: the client stays on polling.
            match socket.detach() {
                Ok(socket) => drop(engine.ask(id, Ask::Upgrade { id, socket, early, deflate })),
                Err(error) => debug!(%error, "a socket could not change its thread"),
            }
        });
        Ok(response)
    }

    /// The 101, and what was agreed about compressed messages.
    fn switch(&self, asked: &HeaderMap) -> Result<(Response, Option<Deflate>), Refusal> {
        let mut response = switch(asked)?;
        let wanted = self.settings.borrow().deflate;
        let deflate = deflate::negotiate(wanted, asked, response.headers_mut());
        Ok((response, deflate))
    }

    /// The client's socket; what carries it, if it is one stream of a connection, runs here.
    fn socket(&self, taken: Taken) -> Option<Socket> {
        let socket = Socket::of(taken);
        let socket = socket.inspect_err(|error| debug!(%error, "no socket for a stream"));
        let (socket, bridge) = socket.ok()?;
        if let Some(bridge) = bridge {
            self.drain.spawn("bridge", bridge);
        }
        Some(socket)
    }

    fn take_upgrade(self: &Rc<Self>, id: &Id, websocket: WebSocket) {
        // Gone meanwhile: the socket closes, and the client's next poll says why.
        let Some(session) = self.find(id) else { return };
        self.drain.spawn("probe", Rc::clone(self).probe(session, websocket));
    }

    /// Has the session's own worker do it: this one, or another by its mailbox.
    pub(super) fn ask(self: &Rc<Self>, id: Id, ask: Ask) -> Result<(), Refusal> {
        if id.worker() == self.worker {
            self.heed(ask);
            return Ok(());
        }
        let mailbox = self.workers.get(id.worker()).ok_or(Refusal::UnknownSession)?;
        mailbox.try_send(ask).map_err(|_full| Refusal::Busy)
    }

    fn heed(self: &Rc<Self>, ask: Ask) {
        match ask {
            Ask::Poll { id, shown, ticket, reply } => match self.known(&id, shown) {
                Ok(session) => session.poll(ticket, reply),
                Err(refusal) => drop(reply.send(Answer::Refused(refusal))),
            },
            Ask::BeginPost { id, shown, ticket } => {
                if let Ok(session) = self.known(&id, shown) {
                    // If it is not taken, that is said when all of it has come.
                    let _first = session.begin_post(ticket);
                }
            }
            Ask::Post { id, shown, ticket, binary, body, reply } => match self.known(&id, shown) {
                Ok(session) => {
                    // Not known yet if it came with a cookie that was renewed meanwhile.
                    if session.begin_post(ticket) {
                        self.take_post_of(session, ticket, (binary, body), reply);
                    } else {
                        drop(reply.send(Answer::Refused(Refusal::BadRequest)));
                    }
                }
                Err(refusal) => {
                    self.find(&id).inspect(|session| session.end_post(ticket, PostEnd::Refused));
                    drop(reply.send(Answer::Refused(refusal)));
                }
            },
            Ask::Aborted { id, ticket } => {
                self.find(&id).inspect(|session| session.abort_poll(ticket));
            }
            Ask::EndPost { id, ticket, end } => {
                self.find(&id).inspect(|session| session.end_post(ticket, end));
            }
            Ask::MayUpgrade { id, shown, reply } => {
                // Its client may have gone.
                let _sent = reply.send(self.known(&id, shown).map(drop));
            }
            Ask::Renew { id, owners, credentials, reply } => {
                let session = self.find(&id);
                let adopts = |session| self.above.adopt(&session, &owners, &credentials);
                let _sent = reply.send(session.is_some_and(adopts));
            }
            Ask::Upgrade { id, socket, early, deflate } => match socket.attach() {
                Ok(socket) => self.take_upgrade(&id, WebSocket::new(socket, &early, deflate)),
                Err(error) => debug!(%error, "a socket could not change its thread"),
            },
        }
    }

    fn known(&self, id: &Id, shown: Shown) -> Result<Rc<Session>, Refusal> {
        let session = self.find(id).ok_or(Refusal::UnknownSession)?;
        let handshake = session.handshake.as_ref().filter(|_| shown.credentials.is_some());
        // Who knows the id of another's session is not the other.
        if handshake.is_some_and(|one| Some(one.digest()) != shown.credentials) {
            return Err(Refusal::Stranger);
        }
        if shown.version == Some(session.version) { Ok(session) } else { Err(Refusal::BadRequest) }
    }

    /// Another number for each poll that any worker of this process takes.
    pub(super) fn ticket(&self) -> u64 {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        (self.worker as u64) << 48 | ticket
    }
}

/// Whether the answer is to be a script, which is no matter of CORS.
fn is_script(request: &Request) -> bool {
    let mut fields = request.uri().query().unwrap_or_default().split('&');
    fields.any(|field| field == "j" || field.starts_with("j="))
}

/// What a request shows of who sends it.
fn credentials(settings: &Settings, request: &Request) -> Result<Credentials, Refusal> {
    let Some(wanted) = &settings.credentials else { return Ok(Credentials::default()) };
    Credentials::read(request.headers(), wanted).map_err(|_many| Refusal::BadRequest)
}

/// Works off the mailbox for as long as the worker lives.
pub(super) async fn heed(engine: Rc<Engine>, mut mailbox: mpsc::Receiver<Ask>) {
    while let Some(ask) = mailbox.recv().await {
        engine.heed(ask);
    }
}

/// Tells the session when the client of a waiting GET has gone.
struct PollWatch<'a> {
    engine: &'a Rc<Engine>,
    id: Id,
    ticket: u64,
    answered: bool,
}

impl Drop for PollWatch<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let ask = Ask::Aborted { id: self.id, ticket: self.ticket };
            // A full mailbox only means that the session ends by its heartbeat.
            let _asked = self.engine.ask(self.id, ask);
        }
    }
}

fn refuse(refusal: Refusal) -> Answered {
    (refusal.response(), Some(refusal.reason()))
}

/// The same where a WebSocket was asked for.
fn abort(refusal: Refusal) -> Answered {
    (refusal.aborted(), Some(refusal.reason()))
}

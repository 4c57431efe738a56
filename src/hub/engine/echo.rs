//! An engine whose sessions hear what they say: what the official Engine.IO suites test.
//!
//! No part of the product; `tests/conformance` gives it a socket.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::auth::Credentials;
use crate::drain::Drain;
use crate::exchange::{Body, Client, Scheme, Stream, Watched};

use super::{
    Above, Close, Delivery, Engine, MAILBOX, Message, Node, Outgoing, Owner, Owners, Place,
    Session, Settings,
};

struct Echo;

impl Echo {
    fn back(session: &Rc<Session>, message: Message) {
        session.send(&Outgoing::new(Arc::new(message)), Delivery::Kept);
    }
}

impl Above for Echo {
    fn opened(&self, session: &Rc<Session>) {
        session.settle();
    }

    fn text(&self, session: &Rc<Session>, text: &str) {
        Self::back(session, Message::text(text.to_owned()));
    }

    fn binary(&self, session: &Rc<Session>, data: &[u8]) {
        Self::back(session, Message::binary(Bytes::copy_from_slice(data)));
    }

    fn closed(&self, _session: &Rc<Session>, _why: Close) {}

    fn remind(&self, _session: &Rc<Session>) {}

    fn translate(&self, _text: &str, _parts: &[Bytes]) -> Option<Vec<u8>> {
        None
    }

    fn may_open(&self, _shown: &Credentials, _client: &Client) -> bool {
        true
    }

    fn owners<'a>(&'a self, _shown: &'a Credentials, _client: &'a Client) -> Owners<'a> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn adopt(&self, _session: &Rc<Session>, _owners: &[Owner], _shown: &Credentials) -> bool {
        false
    }

    fn is_congested(&self, _waker: &Waker) -> bool {
        false
    }
}

/// One without a way in.
pub(super) fn engine(settings: Settings, drain: &Drain) -> Rc<Engine> {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let (node, workers) = (Node::random(), [sender].into());
    let place = Place { node, worker: 0, workers, mailbox, admission: Arc::default() };
    Engine::start(place, settings, Rc::new(Echo), drain)
}

/// Serves `/engine.io/` with the timing that the suites expect, for ever.
pub fn serve(listener: StdListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let drain = Drain::default();
        let settings = Settings {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            ..Settings::default()
        };
        let engine = engine(settings, &drain);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, address) = listener.accept().await?;
            let client = Client {
                address: address.ip(),
                host: "localhost".to_owned(),
                port: 80,
                scheme: Scheme::Http,
                chain: None,
            };
            let engine = Rc::clone(&engine);
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (engine, client) = (Rc::clone(&engine), client.clone());
                async move {
                    let request =
                        request.map(|body| Body::incoming(body, u64::MAX, Duration::from_secs(30)));
                    Ok::<_, Infallible>(engine.answer(request, &client).await.0)
                }
            });
            let io = TokioIo::new(Watched::new(Stream::Plain(stream), None));
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service);
            drain.spawn("connection", async move {
                // A client that breaks off is part of the suites.
                let _ended = connection.with_upgrades().await;
            });
        }
    })
}

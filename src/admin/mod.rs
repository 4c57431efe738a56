//! The private listener: live, ready, metrics, reload, the hub API, the page for people.

mod dashboard;
mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod guard;
pub mod history;
pub mod hub;
mod operations;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::config::Secret;
use crate::drain::Drain;
use crate::exchange::{Body, Response};
use crate::observe::metrics;

use history::History;

/// What came of a reload, or of an upgrade.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub installed: bool,
    /// The generation in force.
    pub generation: u64,
    /// Why nothing was installed, or what takes a restart, one line each.
    pub notes: Vec<String>,
    /// What is different now, or would be: `+` new, `-` gone, `~` changed; one line each.
    pub changes: Vec<String>,
}

/// What is asked of the process as a whole, and who waits for the verdict.
pub enum Ask {
    Reload(oneshot::Sender<Verdict>),
    Upgrade(oneshot::Sender<Verdict>),
    /// What a reload would change; nothing is installed.
    Diff(oneshot::Sender<Verdict>),
}

/// Why the process should not get traffic.
#[derive(Debug, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub reasons: Vec<String>,
    /// What does not work as it should; traffic is served all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

/// What the admin listener can tell and do; the service knows how.
pub struct Admin {
    pub readiness: Box<dyn Fn() -> Readiness>,
    /// Full: the request waits.
    pub asks: mpsc::Sender<Ask>,
    pub metrics: bool,
    pub hub: hub::Door,
    pub history: Rc<History>,
    /// The public listeners, as they are now.
    pub listening: Rc<RefCell<Vec<String>>>,
    /// Required for what changes something; over a unix socket the file's rights are enough.
    pub token: Option<Secret>,
    pub open: bool,
}

/// The private listener's socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How long a request may take to come, and a reload to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long an upgrade may take to answer: the next process has half a minute to serve.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(50);

/// Serves until the thread ends.
pub async fn serve(listener: Listener, admin: Rc<Admin>, drain: Drain) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => {
                let stream = listener.accept().await;
                stream.map(|(stream, _)| connection(stream, &admin, &drain))
            }
            Listener::Unix(listener) => {
                let stream = listener.accept().await;
                stream.map(|(stream, _)| connection(stream, &admin, &drain))
            }
        };
        if let Err(error) = accepted {
            debug!(%error, "cannot accept on the admin listener");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    admin: &Rc<Admin>,
    drain: &Drain,
) {
    let admin = Rc::clone(admin);
    let service = service_fn(move |request| answer(request, Rc::clone(&admin)));
    drain.spawn_background(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DEADLINE)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            debug!(%error, "admin connection ended");
        }
    });
}

async fn answer(
    request: http::Request<Incoming>,
    admin: Rc<Admin>,
) -> Result<Response, Infallible> {
    let path = request.uri().path();
    // Whoever must show a token is nobody whom a stranger's page sends.
    let told_to_all = matches!(path, "/health/live" | "/health/ready" | "/metrics");
    if admin.open
        && !told_to_all
        && let Err(strange) = guard::judge(request.headers())
    {
        return Ok(text(StatusCode::FORBIDDEN, strange.message()));
    }
    Ok(match (request.method(), path) {
        (&Method::GET, "/") => dashboard::page(),
        (&Method::GET, "/overview") if may(&request, &admin) => dashboard::overview(&admin),
        (&Method::GET, "/overview") => hub::unauthorized(),
        (&Method::GET, "/health/live") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/health/ready") => {
            let readiness = (admin.readiness)();
            let ready = readiness.ready;
            json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness)
        }
        (&Method::GET, "/metrics") if admin.metrics => {
            let mut page = Response::new(Body::from(metrics::render()));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            page.headers_mut().insert(header::CONTENT_TYPE, kind);
            page
        }
        (&Method::POST, "/reload") if may(&request, &admin) => {
            ask(&admin, Ask::Reload, DEADLINE).await
        }
        (&Method::POST, "/upgrade") if may(&request, &admin) => {
            ask(&admin, Ask::Upgrade, UPGRADE_DEADLINE).await
        }
        (&Method::POST, "/diff") if may(&request, &admin) => ask(&admin, Ask::Diff, DEADLINE).await,
        (&Method::POST, "/reload" | "/upgrade" | "/diff") => text(
            StatusCode::UNAUTHORIZED,
            "listen.admin is a TCP address: send its token, Authorization: Bearer TOKEN\n",
        ),
        (_, path) if path.starts_with("/hub/") => {
            if may(&request, &admin) {
                hub::answer(request, &admin.hub).await
            } else {
                hub::unauthorized()
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "GET /, GET /overview, GET /health/live, GET /health/ready, GET /metrics, POST /reload, POST /diff, POST /upgrade, /hub/…\n",
        ),
    })
}

fn may(request: &http::Request<Incoming>, admin: &Admin) -> bool {
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match (&admin.token, shown) {
        (Some(token), Some(shown)) => token.matches(shown),
        (Some(_), None) => false,
        (None, _) => admin.open,
    }
}

async fn ask(
    admin: &Admin,
    what: fn(oneshot::Sender<Verdict>) -> Ask,
    deadline: Duration,
) -> Response {
    let asking = async {
        let (answer, verdict) = oneshot::channel();
        admin.asks.send(what(answer)).await.ok()?;
        verdict.await.ok()
    };
    match tokio::time::timeout(deadline, asking).await {
        Ok(Some(verdict)) => {
            let status = if verdict.installed { StatusCode::OK } else { StatusCode::CONFLICT };
            json(status, &verdict)
        }
        Ok(None) => text(StatusCode::SERVICE_UNAVAILABLE, "the process is stopping\n"),
        Err(_elapsed) => text(
            StatusCode::GATEWAY_TIMEOUT,
            "no answer yet; it may still be under way: the log and GET / say what came of it\n",
        ),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // The types above have no map keys or floats that JSON could refuse.
    let body = serde_json::to_string(value).unwrap_or_default();
    let mut response = Response::new(Body::from(body + "\n"));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

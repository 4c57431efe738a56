//! Pictures that the application makes when they are asked for: so many at once, and one that many
//! ask for at the same time once for all of them.
//!
//! Each size of a picture takes seconds of a processor. Next.js joins those who ask one process for
//! the same, and bounds nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body as HttpBody;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::config;
use crate::exchange::headers::Seen;
use crate::exchange::{Body, Client, Fault, Peer, Request, Response, Side};
use crate::next;
use crate::observe::access::Sent;
use crate::observe::metrics::{self, Series};
use crate::proxy::Proxy;

use super::Local;

/// How one site's pictures are asked for.
pub struct Images {
    places: Arc<Places>,
    wait: Duration,
    queue: usize,
    share: bool,
}

/// Who makes pictures, of all sites; outlives a reload.
#[derive(Default)]
pub struct Optimizers(Mutex<Vec<Weak<Places>>>);

/// How many pictures a group of targets makes at once, for all workers.
struct Places {
    targets: Vec<config::Target>,
    at_once: usize,
    free: Semaphore,
    waiting: AtomicUsize,
    gauge: Arc<Series>,
}

/// The pictures that this worker's clients ask for now.
pub struct Flights {
    under_way: RefCell<HashMap<Key, Rc<Flight>>>,
    /// Bytes of pictures that went to several, and that some have not taken yet.
    held: Arc<AtomicU64>,
    waiting: Arc<Series>,
}

impl Default for Flights {
    fn default() -> Self {
        let waiting = metrics::series(&metrics::IMAGES_WAITING, &["same"]);
        Self { under_way: RefCell::default(), held: Arc::default(), waiting }
    }
}

/// What a picture is the same by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Of the route, which lives for as long as somebody asks by it.
    proxy: usize,
    host: String,
    target: String,
    /// What of the headers decides: the format, the coding, what is known already.
    headers: [Option<HeaderValue>; 3],
}

/// One request that others may wait for.
#[derive(Default)]
struct Flight {
    outcome: RefCell<Option<Outcome>>,
    settled: Notify,
    followers: Cell<usize>,
}

/// What comes of it, for those who wait.
#[derive(Clone)]
enum Outcome {
    Picture(Rc<Picture>),
    Failed(Fault),
    /// Each is to ask by itself.
    Alone,
    /// The client that asked has left: another one must.
    Lost,
}

/// An answer that goes to several.
struct Picture {
    status: StatusCode,
    headers: HeaderMap,
    /// Counted for as long as anybody has them, hyper for a slow client too.
    bytes: Bytes,
}

/// A place for so many bytes, until they are dropped.
struct Held {
    all: Arc<AtomicU64>,
    bytes: u64,
}

/// Bytes with the place that they take.
struct Counted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The pictures of a page are smaller; what is larger is passed on to one.
const PICTURE_MAX: u64 = 8 << 20;
/// Of one worker, for clients that are slow to take them.
const HELD_MAX: u64 = 64 << 20;
/// For the bytes of a picture that is made, from the application to here.
const COLLECTED_WITHIN: Duration = Duration::from_secs(10);

const BUSY: Fault = Fault::new(503, Side::Upstream, "image_busy").after(1);

/// What makes a request for a picture one of its own.
const SINGULAR: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::UPGRADE,
    HeaderName::from_static("rsc"),
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

impl Images {
    pub fn compile(
        words: &config::Images,
        targets: &[config::Target],
        optimizers: &Optimizers,
    ) -> Self {
        let places = optimizers.places(targets, words.at_once);
        Self { places, wait: words.wait, queue: words.queue, share: words.share }
    }

    /// In words, for `explain`.
    pub fn words(&self) -> String {
        let share = if self.share { ", the same one once for all who ask" } else { "" };
        format!("{} at once for each target{share}", self.places.at_once)
    }

    /// The application's answer, or that of the same question of somebody else's.
    ///
    /// `alike`: it is the same for whoever asks. 503 `image_busy` if its turn does not come in time.
    pub async fn answer(
        &self,
        mut request: Request,
        alike: bool,
        (proxy, sent): (&Proxy, &mut Sent),
        (client, peer): (&Client, &Peer),
        local: &Local,
    ) -> Result<Response, Fault> {
        if alike {
            next::normalize(request.headers_mut());
        }
        let mut leader = None;
        if let Some(key) = (alike && self.share).then(|| key(&request, proxy, client)).flatten() {
            match local.flights.join(key).await {
                Joined::Leads(begun) => leader = Some(begun),
                Joined::Follows(Outcome::Picture(picture)) => {
                    metrics::count(&metrics::IMAGES, "shared");
                    return Ok(picture.response());
                }
                Joined::Follows(Outcome::Failed(fault)) => return Err(fault),
                Joined::Follows(Outcome::Alone | Outcome::Lost) => (),
            }
        }
        let asked = self.ask(request, (proxy, sent), (client, peer), local);
        let (response, place) = match asked.await {
            Ok(asked) => asked,
            Err(fault) => {
                // What one client did wrong is nobody else's.
                let others = fault.side != Side::Client;
                let leader = leader.filter(|_| others);
                leader.inspect(|leader| leader.settle(Outcome::Failed(fault)));
                return Err(fault);
            }
        };
        let Some(leader) = leader else { return Ok(response) };
        let Some(held) = leader.shares(&response) else {
            leader.settle(Outcome::Alone);
            return Ok(response);
        };
        let collected = Picture::collect(response, held).await;
        drop(place);
        match collected {
            Ok(picture) => {
                leader.settle(Outcome::Picture(Rc::clone(&picture)));
                Ok(picture.response())
            }
            Err(fault) => {
                leader.settle(Outcome::Failed(fault));
                Err(fault)
            }
        }
    }

    /// Asks the application when it is this one's turn. The place is held until the picture is made:
    /// who takes it slowly keeps nobody from theirs.
    async fn ask(
        &self,
        request: Request,
        (proxy, sent): (&Proxy, &mut Sent),
        (client, peer): (&Client, &Peer),
        local: &Local,
    ) -> Result<(Response, SemaphorePermit<'_>), Fault> {
        let Ok(place) = self.place().await else {
            metrics::count(&metrics::IMAGES, "busy");
            return Err(BUSY);
        };
        metrics::count(&metrics::IMAGES, "asked");
        let (seen, by) = (Seen::of(request.headers()), (&local.pools, &local.drain));
        let answered = proxy.answer(request, (client, peer), &seen, by, sent);
        Ok((answered.await.map_err(Fault::from)?, place))
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, Full> {
        if let Ok(place) = self.places.free.try_acquire() {
            return Ok(place);
        }
        let _waiting = Waiting::begin(&self.places, self.queue)?;
        match timeout(self.wait, self.places.free.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }
}

/// No turn came, or too many wait for theirs.
struct Full;

/// One that waits for its turn.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn begin(places: &'a Places, queue: usize) -> Result<Self, Full> {
        let more = |count: usize| (count < queue).then(|| count.saturating_add(1));
        let entered = places.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if entered.is_err() {
            return Err(Full);
        }
        places.gauge.increment();
        Ok(Self(places))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.decrement();
    }
}

impl Optimizers {
    /// The same places for the same targets, also when several sites, or generations, ask them.
    fn places(&self, targets: &[config::Target], at_once: usize) -> Arc<Places> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|places| places.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        if let Some(places) =
            known.find(|known| known.targets == targets && known.at_once == at_once)
        {
            return places;
        }
        let count = at_once.saturating_mul(targets.len()).clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Places {
            targets: targets.to_vec(),
            at_once,
            free: Semaphore::new(count),
            waiting: AtomicUsize::new(0),
            gauge: metrics::series(&metrics::IMAGES_WAITING, &["turn"]),
        });
        all.push(Arc::downgrade(&places));
        places
    }
}

/// `None` for what is asked in a way of its own.
fn key(request: &Request, proxy: &Proxy, client: &Client) -> Option<Key> {
    let (headers, body) = (request.headers(), request.body());
    let is_plain = *request.method() == Method::GET
        && HttpBody::is_end_stream(body)
        && !SINGULAR.iter().any(|name| headers.contains_key(name));
    let one = |name: HeaderName| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next().cloned();
        if lines.next().is_some() { Err(()) } else { Ok(first) }
    };
    let decisive = [
        one(header::ACCEPT).ok()?,
        one(header::ACCEPT_ENCODING).ok()?,
        one(header::IF_NONE_MATCH).ok()?,
    ];
    is_plain.then(|| Key {
        proxy: std::ptr::from_ref(proxy).addr(),
        host: format!("{}://{}", client.scheme.as_str(), client.authority()),
        target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: decisive,
    })
}

/// How one comes to a picture.
enum Joined {
    /// By asking for it, and for all who wait then.
    Leads(Leader),
    Follows(Outcome),
}

impl Flights {
    /// Waits for the one who asks for the same, or is that one.
    async fn join(self: &Rc<Self>, key: Key) -> Joined {
        loop {
            let known = self.under_way.borrow().get(&key).cloned();
            let Some(flight) = known else {
                let flight = Rc::<Flight>::default();
                self.under_way.borrow_mut().insert(key.clone(), Rc::clone(&flight));
                return Joined::Leads(Leader { flights: Rc::clone(self), key, flight });
            };
            match flight.outcome(&self.waiting).await {
                Outcome::Lost => (),
                outcome => return Joined::Follows(outcome),
            }
        }
    }
}

impl Flight {
    async fn outcome(&self, waiting: &Series) -> Outcome {
        let _follower = Follower::begin(self, waiting);
        loop {
            let mut settled = pin!(self.settled.notified());
            // It must not settle between a look and the wait.
            settled.as_mut().enable();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone();
            }
            settled.await;
        }
    }
}

/// One that waits for another's answer.
struct Follower<'a> {
    flight: &'a Flight,
    waiting: &'a Series,
}

impl<'a> Follower<'a> {
    fn begin(flight: &'a Flight, waiting: &'a Series) -> Self {
        flight.followers.set(flight.followers.get() + 1);
        waiting.increment();
        Self { flight, waiting }
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.flight.followers.set(self.flight.followers.get() - 1);
        self.waiting.decrement();
    }
}

/// Who asks; dropped without an outcome, it leaves the others to themselves.
struct Leader {
    flights: Rc<Flights>,
    key: Key,
    flight: Rc<Flight>,
}

impl Leader {
    /// The bytes that the answer takes here, if others wait for it and may have it.
    fn shares(&self, response: &Response) -> Option<Held> {
        let length = HttpBody::size_hint(response.body()).exact()?;
        let held = self.flights.held.load(Ordering::Relaxed).saturating_add(length);
        // What fails for one may have to do with it alone.
        let may = [StatusCode::OK, StatusCode::NOT_MODIFIED].contains(&response.status())
            && !response.headers().contains_key(header::SET_COOKIE)
            && length <= PICTURE_MAX
            && held <= HELD_MAX;
        if self.flight.followers.get() == 0 || !may {
            return None;
        }
        self.flights.held.fetch_add(length, Ordering::Relaxed);
        Some(Held { all: Arc::clone(&self.flights.held), bytes: length })
    }

    fn settle(&self, outcome: Outcome) {
        self.flight.outcome.borrow_mut().get_or_insert(outcome);
        let flights = &self.flights.under_way;
        // Who comes from now on asks anew.
        flights.borrow_mut().remove(&self.key);
        self.flight.settled.notify_waiters();
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.flight.outcome.borrow().is_none() {
            self.settle(Outcome::Lost);
        }
    }
}

impl Picture {
    async fn collect(mut response: Response, held: Held) -> Result<Rc<Self>, Fault> {
        let body = std::mem::replace(response.body_mut(), Body::empty());
        let max = usize::try_from(held.bytes).unwrap_or(usize::MAX);
        let upstream = |status, reason| Fault::new(status, Side::Upstream, reason);
        let bytes = match timeout(COLLECTED_WITHIN, body.read_all(max)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_cut)) => return Err(upstream(502, "upstream_closed")),
            Err(_late) => return Err(upstream(504, "upstream_slow")),
        };
        let (parts, _) = response.into_parts();
        let bytes = Bytes::from_owner(Counted { bytes, _held: held });
        Ok(Rc::new(Self { status: parts.status, headers: parts.headers, bytes }))
    }

    fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.bytes.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

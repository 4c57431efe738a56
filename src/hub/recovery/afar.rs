//! Where all nodes share an order: what a socket leaves is kept in Redis while it is here, so that its
//! client can go on at any node, also when this one has died.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hub::auth_data::AuthData;
use crate::hub::cluster::with_offset;
use crate::hub::cluster::{NOWHERE, PORTABLE, Replay, Session as Kept, Uplink, id_of, number_of};
use crate::hub::engine::{Close, Id, Outgoing};
use crate::hub::namespace::Namespace;
use crate::hub::socket::Socket;

use super::claim::{Missed, OUTGROWN, Returned, shown};
use super::offset::{self, Stamp};
use super::table::Standing;
use super::ticket::Ticket;
use super::{Miss, Recovery, RecoveryPolicy};

/// Between two looks at where this worker is.
const PAUSE: Duration = Duration::from_millis(20);

/// What a client that comes back says, and what becomes of it.
#[derive(Clone)]
pub struct Afar {
    /// The entry up to which it has everything.
    pub have: u64,
    /// The one that it shows, if it has heard something since it came for the first time.
    pub news: Option<u64>,
    pub begun: Begun,
    /// Known when its worker has delivered all that came before.
    missed: Arc<OnceLock<Option<Replay>>>,
}

/// Where a socket stood when it came for the first time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Begun {
    /// The last entry before it came, if that is known.
    pub floor: Option<u64>,
    /// A later one that its client showed then, and goes on to show until it has heard something: as
    /// whom it heard that, it could not go on.
    pub outgrown: Option<u64>,
}

/// A client wants to go on.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub pid: Id,
    /// `None`: it has heard nothing yet.
    pub offset: Option<u64>,
}

impl Wish {
    /// What the client's CONNECT says of an earlier connection, taken out of `auth`. An error if it
    /// says what cannot be.
    pub fn read(auth: &mut AuthData) -> Option<Result<Self, Miss>> {
        let shown = shown(auth, number_of)?;
        Some(shown.map(|(pid, offset)| Self { pid, offset }))
    }

    /// Together with what Redis kept.
    pub fn returned(
        self,
        kept: Kept,
        namespace: &Arc<str>,
        user: Option<Arc<str>>,
    ) -> Result<Returned, Miss> {
        let id = Id::parse(&kept.id).ok_or(Miss::Unknown)?;
        // What it had before it came says nothing of what it was sent since.
        let news = self.offset.filter(|offset| kept.outgrown != Some(*offset));
        let shown = news.max(kept.floor).ok_or(Miss::Unknown)?;
        // Who has the last that it was sent lacks nothing of what was told by then.
        let told = kept.upto.filter(|_| kept.last <= news);
        let have = told.map_or(shown, |told| told.max(shown));
        let begun = Begun { floor: kept.floor, outgrown: kept.outgrown };
        let afar = Afar { have, news, begun, missed: Arc::default() };
        let rooms = kept.rooms.into_iter().filter(|room| *room != *kept.id).collect();
        let data = Some(kept.data).filter(|data| &**data != "{}");
        Ok(Returned::from_afar((self.pid, id), Arc::clone(namespace), user, (rooms, data), afar))
    }
}

impl Afar {
    /// Notes what it missed; `None` if that is not known any more.
    pub fn set_missed(&self, missed: Option<Replay>) {
        // It is asked about once.
        let _set = self.missed.set(missed);
    }

    pub(super) fn missed(&self) -> Result<Vec<Missed>, Miss> {
        let missed = self.missed.get().and_then(Option::as_ref).ok_or(Miss::TooMuch)?;
        let missed = missed.iter().map(|(number, message)| {
            (Stamp { origin: PORTABLE, number: *number }, Outgoing::new(Arc::clone(message)))
        });
        Ok(missed.collect())
    }
}

impl fmt::Debug for Afar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Afar").field("have", &self.have).finish_non_exhaustive()
    }
}

impl Recovery {
    /// To other nodes, if all of them share an order.
    pub fn ordered(&self) -> Option<&Rc<Uplink>> {
        let uplink = self.outbox.uplink.as_ref()?;
        (self.is_on() && uplink.is_ordered()).then_some(uplink)
    }

    pub fn is_ordered(&self) -> bool {
        self.ordered().is_some()
    }

    /// The array of an event that has no place in the order, but that clients would read one out of.
    pub(super) fn placed<'a>(&self, namespace: &Namespace, data: &'a str) -> Cow<'a, str> {
        if !offset::ends_in_text(data) {
            return Cow::Borrowed(data);
        }
        let place = self.place_of(namespace).map(id_of);
        Cow::Owned(with_offset(data, place.as_deref().unwrap_or(NOWHERE)))
    }

    /// The entry up to which all was delivered here, if it says what clients have.
    fn place_of(&self, namespace: &Namespace) -> Option<u64> {
        match namespace.place.get() {
            Some(Stamp { origin: PORTABLE, number }) => Some(number),
            Some(_) => None,
            None => self.ordered()?.begin_of(&namespace.name),
        }
    }

    pub(super) fn admit_afar(
        &self,
        socket: &Rc<Socket>,
        pid: Option<Id>,
        afar: Option<(&Afar, Option<Stamp>)>,
        shown: Option<u64>,
    ) -> Id {
        let (begun, last) = match afar {
            // Who was sent nothing now goes on to show what it did.
            Some((afar, missed)) => {
                let news = afar.news.map(|number| Stamp { origin: PORTABLE, number });
                (afar.begun, missed.or(news))
            }
            None => {
                let floor = self.place_of(&socket.namespace);
                let outgrown = shown.filter(|shown| floor < Some(*shown));
                (Begun { floor, outgrown }, None)
            }
        };
        let pid = pid.unwrap_or_else(|| Id::of_session(self.node, self.worker));
        let ticket = Ticket::new(pid, &socket.namespace.log).with_begun(begun, last);
        // It was made a moment ago.
        let _set = socket.ticket.set(Rc::new(ticket));
        self.table.borrow_mut().put(pid, Standing::Here(Rc::clone(socket)));
        self.keep_afar(socket);
        pid
    }

    /// The client begins anew, and goes on to show the place where it was: that must lie before the
    /// one where it comes, or what is told in between would not be its.
    pub async fn outgrow_afar(&self, namespace: &Namespace, shown: u64) {
        let until = Instant::now() + OUTGROWN;
        while self.place_of(namespace) < Some(shown) && Instant::now() < until {
            sleep(PAUSE).await;
        }
    }

    /// Keeps what the socket would leave, as it is now.
    pub fn keep_afar(&self, socket: &Socket) {
        // Renewed in time, and as long as somebody may return after a crash.
        self.policy.get().inspect(|policy| self.keep_for(socket, policy.keeps().lasts * 2));
    }

    fn keep_for(&self, socket: &Socket, lasts: Duration) {
        let Some(uplink) = self.ordered() else { return };
        let Some(ticket) = socket.ticket.get() else { return };
        let mut rooms = socket.rooms();
        rooms.push(socket.id.as_str().to_owned());
        let (last, upto) = noted(ticket.last(), self.place_of(&socket.namespace));
        let kept = Kept {
            id: socket.id.as_str().into(),
            pid: ticket.pid.as_str().into(),
            rooms,
            data: socket.data.borrow().clone().unwrap_or_else(|| "{}".into()),
            namespace: Some((*socket.namespace.name).into()),
            user: socket.user_key().map(|user| (*user).into()),
            node: Some(uplink.uid().into()),
            floor: ticket.begun_afar.floor,
            outgrown: ticket.begun_afar.outgrown,
            last,
            upto,
        };
        let Some(kept) = kept.write() else { return };
        ticket.kept_at.set(Instant::now());
        let key = uplink.session_key(ticket.pid.as_str());
        let lasts = lasts.as_millis().to_string();
        uplink.command(&[b"SET", key.as_bytes(), kept.as_bytes(), b"PX", lasts.as_bytes()]);
    }

    /// Its client may come back within the time for that. If it is elsewhere, or may be without a word
    /// of it having come here, what is kept of it there is not written over.
    pub(super) fn leave_afar(&self, socket: &Socket, why: Close) {
        let (Some(uplink), Some(policy)) = (self.ordered(), self.policy.get()) else { return };
        if why != Close::Replaced && uplink.is_up() {
            return self.keep_for(socket, policy.lasts);
        }
        let Some(ticket) = socket.ticket.get() else { return };
        let key = uplink.session_key(ticket.pid.as_str());
        let lasts = policy.lasts.as_millis().to_string();
        uplink.command(&[b"PEXPIRE", key.as_bytes(), lasts.as_bytes()]);
    }

    /// Its client will not.
    pub(super) fn forget_afar(&self, pid: Id) {
        let Some(uplink) = self.ordered() else { return };
        uplink.command(&[b"DEL", uplink.session_key(pid.as_str()).as_bytes()]);
    }

    /// Those who are here stay known. Not all are kept again at once, who may have come together.
    pub(super) fn renew_afar(&self, now: Instant, policy: &RecoveryPolicy) {
        if self.ordered().is_none() {
            return;
        }
        let (here, every) = (self.table.borrow().here(), policy.keeps().lasts / 2);
        let is_due = |socket: &&Rc<Socket>| {
            let ticket = socket.ticket.get();
            ticket
                .is_some_and(|ticket| now.saturating_duration_since(ticket.kept_at.get()) >= every)
        };
        let due = here.iter().filter(is_due).take(share(here.len(), policy.pause(), every));
        due.for_each(|socket| self.keep_afar(socket));
    }

    /// The client has come elsewhere: what is here of it is not its any more.
    pub fn taken(&self, pid: Id) {
        let standing = self.table.borrow_mut().take(&pid);
        if let Some(Standing::Here(socket)) = standing {
            socket.session.close(Close::Replaced);
        }
    }
}

/// The last entry that a socket was sent, and the one up to which it was sent everything, where all
/// up to `place` was delivered; nothing of either if it was sent what has no place.
pub fn noted(last: Option<Stamp>, place: Option<u64>) -> (Option<u64>, Option<u64>) {
    match last {
        None => (None, place),
        Some(Stamp { origin: PORTABLE, number }) => (Some(number), place),
        Some(_) => (None, None),
    }
}

/// How many of so many are looked after each time, so that all are within `every`.
fn share(all: usize, pause: Duration, every: Duration) -> usize {
    let (pause, every) = (pause.as_millis(), every.max(pause).as_millis().max(1));
    usize::try_from((all as u128 * pause).div_ceil(every)).unwrap_or(all)
}

#[cfg(test)]
mod tests {
    use crate::hub::cluster::AHEAD;

    use super::*;

    #[test]
    fn who_shows_the_last_that_it_was_sent_has_all_that_was_told_by_then() {
        let at = |number| Some(Stamp { origin: PORTABLE, number });
        let ahead = Some(Stamp { origin: AHEAD, number: 0 });
        // What it was sent last, what it shows, and up to where it has everything. It came behind
        // the second entry; the ninth was the last that was told; it had the fifth in another life.
        for (sent, shown, have) in [
            (None, None, 9),
            (None, Some(1), 9),
            (None, Some(5), 9),
            (at(7), Some(7), 9),
            // An event without a place, which comes with that of the last that was told.
            (at(7), Some(8), 9),
            // Sent after it was noted.
            (at(7), Some(12), 12),
            // The last that it was sent never came.
            (at(7), Some(6), 6),
            (at(7), Some(5), 2),
            (at(7), None, 2),
            // Nobody knows what it should have been sent.
            (ahead, Some(7), 7),
            (ahead, None, 2),
        ] {
            let (last, upto) = noted(sent, Some(9));
            let id = Id::random();
            let kept = Kept {
                id: id.as_str().into(),
                floor: Some(2),
                outgrown: Some(5),
                last,
                upto,
                ..Kept::default()
            };
            let returned = Wish { pid: id, offset: shown }.returned(kept, &"/".into(), None);
            let afar = returned.expect("known").afar.expect("afar");
            assert_eq!(afar.have, have, "{sent:?}, {shown:?}");
        }
    }

    #[test]
    fn nobody_who_came_at_an_unknown_place_has_what_it_was_not_sent() {
        let id = Id::random();
        let (last, upto) = noted(None, Some(9));
        let kept = Kept { id: id.as_str().into(), last, upto, ..Kept::default() };
        let returned = Wish { pid: id, offset: None }.returned(kept, &"/".into(), None);
        assert!(returned.is_err());
    }

    #[test]
    fn all_have_their_turn_in_time_but_not_at_once() {
        for (all, pause, every, wanted) in
            [(0, 5, 92, 0), (1, 5, 92, 1), (40_000, 5, 92, 2174), (100, 9, 9, 100), (7, 2, 1, 7)]
        {
            let (pause, every) = (Duration::from_secs(pause), Duration::from_secs(every));
            assert_eq!(share(all, pause, every), wanted, "{all} every {every:?}");
        }
    }
}

//! What the operator wants of the other process' clients, and what comes of it there; pure.
//!
//! What is read is written the same: what has an order of its own is refused in another.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::hub::crowds::{Step, User};
use crate::hub::engine::Delivery;
use crate::hub::namespace::Target;
use crate::hub::operation::{Deed, Heads, Listed, Operation, Outcome, Page, Seen};

use super::frame::{Eye, Malformed, Pen};

/// As listed sockets are carried; 0 is one whose carrier is unknown.
const TRANSPORTS: [&str; 2] = ["polling", "websocket"];

impl Pen {
    pub fn operation(&mut self, operation: &Operation) {
        let kind = match &operation.deed {
            Deed::Emit { .. } => 0,
            Deed::Join { .. } => 1,
            Deed::Leave { .. } => 2,
            Deed::Disconnect { .. } => 3,
            Deed::Sockets { .. } => 4,
            Deed::Rooms { .. } => 5,
            Deed::Count { .. } => 6,
            Deed::Describe { .. } => 7,
        };
        self.text(&operation.namespace);
        self.byte(kind);
        match &operation.deed {
            // The event itself goes with what this process' clients say.
            Deed::Emit { target, .. } | Deed::Describe { target } => self.target(target),
            Deed::Join { target, rooms } | Deed::Leave { target, rooms } => {
                self.target(target);
                self.texts(rooms);
            }
            Deed::Disconnect { target, close } => {
                self.target(target);
                self.byte(u8::from(*close));
            }
            Deed::Sockets { target, page } => {
                self.target(target);
                self.page(page);
            }
            Deed::Rooms { page } => self.page(page),
            Deed::Count { room } => self.option(room.as_ref(), |to, room| to.text(room)),
        }
    }

    fn target(&mut self, target: &Target) {
        self.option(target.rooms.as_ref(), |to, rooms| to.texts(rooms));
        self.texts(&target.except);
        self.option(target.but.as_ref(), |to, id| to.text(id.as_str()));
    }

    fn page(&mut self, page: &Page) {
        self.text(&page.after);
        self.number(page.most as u64);
    }

    /// What other nodes want to know of each other is asked over Redis.
    pub fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Described(_) => self.byte(0),
            Outcome::Count(count) => {
                self.byte(1);
                self.number(*count as u64);
            }
            Outcome::Heads(heads) => {
                self.byte(2);
                self.heads(heads);
            }
            Outcome::Sockets(listed) => {
                self.byte(3);
                self.listed(listed, Self::seen);
            }
            Outcome::Rooms(listed) => {
                self.byte(4);
                self.listed(listed, Self::heads);
            }
        }
    }

    fn heads(&mut self, heads: &Heads) {
        self.number(heads.sockets as u64);
        self.option(heads.users.as_ref(), |to, users| to.number(*users as u64));
        let elsewhere: Vec<u64> = heads.elsewhere.iter().copied().collect();
        self.many(&elsewhere, |to, user| to.number(*user));
    }

    fn listed<T>(&mut self, listed: &Listed<T>, one: impl Fn(&mut Self, &T)) {
        self.byte(u8::from(listed.more));
        let items: Vec<_> = listed.items.iter().collect();
        self.many(&items, |to, (name, item)| {
            to.text(name);
            one(to, item);
        });
    }

    fn seen(&mut self, seen: &Seen) {
        self.texts(&seen.rooms);
        self.option(seen.user.as_ref(), |to, user| to.text(user));
        self.option(seen.address.as_ref(), |to, address| to.text(&address.to_string()));
        let place = TRANSPORTS.iter().position(|name| Some(*name) == seen.transport);
        self.byte(place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or_default());
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Went => self.byte(0),
            Step::Came(None) => self.byte(1),
            Step::Came(Some(user)) => {
                self.byte(2);
                self.number(user.number);
                self.text(&user.id);
            }
        }
    }
}

impl Eye {
    pub fn operation(&mut self) -> Result<Operation, Malformed> {
        let namespace = self.text()?.into();
        let deed = match self.byte()? {
            0 => Deed::Emit {
                target: self.target()?,
                data: "".into(),
                parts: Vec::new(),
                delivery: Delivery::Kept,
            },
            1 => Deed::Join { target: self.target()?, rooms: self.texts()? },
            2 => Deed::Leave { target: self.target()?, rooms: self.texts()? },
            3 => Deed::Disconnect { target: self.target()?, close: self.flag()? },
            4 => Deed::Sockets { target: self.target()?, page: self.page()? },
            5 => Deed::Rooms { page: self.page()? },
            6 => Deed::Count { room: self.option(Self::text)? },
            7 => Deed::Describe { target: self.target()? },
            _ => return Err(Malformed),
        };
        Ok(Operation { namespace, deed })
    }

    fn target(&mut self) -> Result<Target, Malformed> {
        let (rooms, except) = (self.option(Self::texts)?, self.texts()?);
        Ok(Target { rooms, except, but: self.option(Self::id)? })
    }

    fn page(&mut self) -> Result<Page, Malformed> {
        Ok(Page { after: self.text()?, most: self.size()? })
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.number()?).map_err(|_large| Malformed)
    }

    pub fn outcome(&mut self) -> Result<Outcome, Malformed> {
        Ok(match self.byte()? {
            0 => Outcome::Described(Vec::new()),
            1 => Outcome::Count(self.size()?),
            2 => Outcome::Heads(self.heads()?),
            3 => Outcome::Sockets(self.listed(Self::seen)?),
            4 => Outcome::Rooms(self.listed(Self::heads)?),
            _ => return Err(Malformed),
        })
    }

    fn heads(&mut self) -> Result<Heads, Malformed> {
        let sockets = self.size()?;
        let (users, elsewhere) = (self.option(Self::size)?, self.many(Self::number)?);
        if !elsewhere.is_sorted_by(|one, next| one < next) {
            return Err(Malformed);
        }
        Ok(Heads { sockets, users, elsewhere: elsewhere.into_iter().collect() })
    }

    fn listed<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Listed<T>, Malformed> {
        let more = self.flag()?;
        let items = self.many(|from| Ok((from.text()?, one(from)?)))?;
        if !items.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(Malformed);
        }
        Ok(Listed { items: BTreeMap::from_iter(items), more })
    }

    fn seen(&mut self) -> Result<Seen, Malformed> {
        let (rooms, user) = (self.texts()?, self.option(Self::text)?);
        let address = self.option(|from| {
            let text = from.text()?;
            let address: IpAddr = text.parse().map_err(|_error| Malformed)?;
            if address.to_string() == text { Ok(address) } else { Err(Malformed) }
        })?;
        let transport = match usize::from(self.byte()?).checked_sub(1) {
            None => None,
            Some(place) => Some(*TRANSPORTS.get(place).ok_or(Malformed)?),
        };
        Ok(Seen { rooms, user, address, transport })
    }

    pub fn step(&mut self) -> Result<Step, Malformed> {
        Ok(match self.byte()? {
            0 => Step::Went,
            1 => Step::Came(None),
            2 => Step::Came(Some(User { number: self.number()?, id: self.text()?.into() })),
            _ => return Err(Malformed),
        })
    }
}

//! What must hold when all is well again.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use crate::hub::recovery::is_for;

use super::{CLIENTS, NODES, State, World};

impl World {
    /// All is well again, and everybody comes and takes what there is.
    pub fn settle(&mut self) {
        (0..NODES).for_each(|node| self.close(node));
        for _ in 0..3 {
            for node in 0..NODES {
                self.go_ahead(node, false);
                while !self.nodes[node].flights.is_empty() {
                    self.perform(node);
                    self.hear_answers(node);
                }
                self.say_again(node);
            }
        }
        for node in 0..NODES {
            (0..self.stream.len()).for_each(|_| self.read(node));
            self.place(node);
        }
        for client in 0..CLIENTS {
            if matches!(self.clients[client].state, State::Away) {
                self.come(client, client % NODES);
            }
            (0..8).for_each(|_| self.enter(client));
            if let State::Entering(_, enter) = &mut self.clients[client].state {
                // Nobody has what it has.
                assert!(self.rules.loses, "{client} still waits");
                enter.until = Instant::now();
                self.enter(client);
            }
            let is_here = matches!(self.clients[client].state, State::Here(_));
            assert!(is_here, "{client} still waits");
            while !self.clients[client].wire.is_empty() {
                self.take(client);
            }
        }
    }

    /// Who knows since when it is here has all that was said since.
    pub fn expect_all(&self) {
        let mut places: HashMap<usize, u64> = HashMap::new();
        for entry in &self.stream {
            let index = std::str::from_utf8(&entry.fields[2].1).expect("text");
            let index = index.parse().expect("an index");
            places.entry(index).or_insert(entry.number().expect("an id"));
        }
        for (number, client) in self.clients.iter().enumerate() {
            let Some(floor) = client.kept.floor else { continue };
            let got: HashSet<usize> = client.got.iter().map(|(index, _)| *index).collect();
            for (index, place) in &places {
                let inside = |room: &str| client.rooms.iter().any(|known| known == room);
                let is_due = *place > floor && is_for(&self.targets[*index], client.id, inside);
                assert!(!is_due || got.contains(index), "{index} never came to {number}");
            }
        }
    }
}

//! Where a Redis Cluster keeps what: a key's slot, and which server has it; pure.
//!
//! Source: the Redis Cluster specification, "Key distribution model" and "Hash tags".

use super::line::Address;
use super::resp::Value;

/// Slots of every cluster.
pub const SLOTS: u16 = 16384;

/// Which servers have which slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(Vec<(u16, u16, Address)>);

impl Slots {
    /// The answer to CLUSTER SLOTS; a server without a host is the one that was asked.
    pub fn read(answer: &Value, asked: &Address) -> Self {
        let range = |range: &Value| {
            let [first, last, master, ..] = range.items() else { return None };
            let slot = |value: &Value| u16::try_from(value.number()?).ok();
            let [host, port, ..] = master.items() else { return None };
            let host = host.text().filter(|host| !host.is_empty() && *host != "?");
            let host = host.unwrap_or(&asked.host).to_owned();
            let port = u16::try_from(port.number()?).ok()?;
            Some((slot(first)?, slot(last)?, Address { host, port }))
        };
        Self(answer.items().iter().filter_map(range).collect())
    }

    pub fn of(&self, slot: u16) -> Option<&Address> {
        let found = self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        found.map(|(_, _, address)| address)
    }

    /// Each server once.
    pub fn servers(&self) -> Vec<Address> {
        let mut servers: Vec<Address> = Vec::new();
        for (_, _, address) in &self.0 {
            if !servers.contains(address) {
                servers.push(address.clone());
            }
        }
        servers
    }
}

/// The slot of a key or of a channel: of what stands in its first braces, if something does.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn keys_have_the_slots_that_redis_gives_them() {
        // As CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("123456789", 0x31c3 % SLOTS),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{}foo"), crc16(b"{}foo") % SLOTS);
        assert_eq!(slot_of(b"{socket.io}-nodes"), slot_of(b"socket.io"));
    }

    #[test]
    fn servers_are_read_and_found() {
        let text = |text: &str| Value::Text(Bytes::copy_from_slice(text.as_bytes()));
        let server = |host: &str, port| {
            Value::List(vec![text(host), Value::Number(port), text("id"), Value::List(Vec::new())])
        };
        let range = |first, last, server| {
            Value::List(vec![Value::Number(first), Value::Number(last), server])
        };
        let answer = Value::List(vec![
            range(0, 5460, server("10.0.0.1", 7000)),
            range(5461, 16383, server("", 7001)),
            text("x"),
        ]);
        let asked = Address { host: "seed".to_owned(), port: 1 };
        let slots = Slots::read(&answer, &asked);
        let address = |host: &str, port| Address { host: host.to_owned(), port };
        assert_eq!(slots.of(5460), Some(&address("10.0.0.1", 7000)));
        assert_eq!(slots.of(5461), Some(&address("seed", 7001)));
        assert_eq!(slots.servers().len(), 2);
        assert_eq!(Slots::read(&Value::Nothing, &asked).of(0), None);
    }
}

//! From polling to WebSocket: the probe, then the upgrade itself.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use crate::exchange::Asks;

use super::Engine;
use super::deflate;
use super::frame::{self, Opcode};
use super::packet::{self, Packet, Version};
use super::polling::is_probe;
use super::session::Session;
use super::websocket::WebSocket;

impl Engine {
    /// A WebSocket wants to take over a polling session. It has `Settings::upgrade_timeout` for all
    /// that it says; after that, as after anything else than what it must say, it is closed, and
    /// polling goes on.
    pub(super) async fn probe(self: Rc<Self>, session: Rc<Session>, websocket: WebSocket) {
        let until = Instant::now() + self.upgrade_timeout();
        let mut probe = Probe { websocket, version: session.version, until };
        let probed = session.may_upgrade() && self.heard(&mut probe, is_probe).await;
        if !probed || !session.may_upgrade() || !probe.says(b"\x81\x063probe").await {
            return probe.end();
        }
        session.set_probed(true);
        let mut said = false;
        let upgraded = loop {
            said = said || self.heard(&mut probe, |packet| *packet == Packet::Upgrade).await;
            if said && self.in_time(probe.until, session.posted()).await == Some(()) {
                break true;
            }
            if !session.is_behind() || !probe.is_late() || self.drain.is_leaving() {
                break false;
            }
            // Its last POST is answered when what was too early in it is taken. Most clients say only
            // then that they upgrade; for others, the POST comes before what they say next.
            probe.until = Instant::now() + self.upgrade_timeout();
        };
        if upgraded && session.is_open() {
            self.upgrade(&session, probe.websocket);
        } else {
            session.set_probed(false);
            probe.end();
        }
    }

    /// True if the wanted packet came, in time and before the process leaves.
    async fn heard(&self, probe: &mut Probe, wanted: fn(&Packet<'_>) -> bool) -> bool {
        let until = probe.until;
        self.in_time(until, probe.expect(wanted)).await == Some(true)
    }

    /// What comes until then and before the process leaves.
    async fn in_time<T>(&self, until: Instant, wanted: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // What is lost with either arm is only the probe; polling goes on.
            came = timeout_at(until, wanted) => came.ok(),
            () = self.drain.leaving() => None,
        }
    }
}

/// Nothing that a client says before is longer.
const PROBE_MAX: usize = 256;

/// A WebSocket before it is a session's.
struct Probe {
    websocket: WebSocket,
    version: Version,
    until: Instant,
}

impl Probe {
    /// True if the next packet is the one that is wanted; what follows it is kept.
    async fn expect(&mut self, wanted: fn(&Packet<'_>) -> bool) -> bool {
        loop {
            match frame::parse(&mut self.websocket.partial, PROBE_MAX) {
                Ok(Some(frame)) => {
                    let payload = self.websocket.partial.get(frame.payload.clone());
                    let text = payload.and_then(|payload| {
                        let agreed = self.websocket.deflate;
                        deflate::unpack(payload, frame.compressed, agreed, PROBE_MAX).ok()
                    });
                    let packet = text.as_deref().and_then(|text| {
                        packet::parse_text(self.version, std::str::from_utf8(text).ok()?).ok()
                    });
                    let right = frame.last
                        && frame.opcode == Opcode::Text
                        && packet.is_some_and(|packet| wanted(&packet));
                    self.websocket.partial.drain(..frame.payload.end);
                    return right;
                }
                Ok(None) => (),
                Err(_) => return false,
            }
            let mut buffer = [0; 512];
            let read = poll_fn(|cx| self.websocket.socket.poll_read(cx, &mut buffer)).await;
            let Ok(read @ 1..) = read else { return false };
            self.websocket.partial.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// True if it was taken in time.
    async fn says(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout_at(self.until, self.say(bytes)).await, Ok(Ok(())))
    }

    async fn say(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.websocket.socket.try_write(&[IoSlice::new(bytes)], Asks::Runtime) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.websocket.socket.poll_write_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes it as Node does, without a code.
    fn end(mut self) {
        // Who takes no more sees the end of the stream.
        let _written = self.websocket.socket.try_write(&[IoSlice::new(b"\x88\x00")], Asks::Runtime);
        self.websocket.socket.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::sleep_until;

    use crate::drain::Drain;
    use crate::exchange::Socket;

    use super::super::polling::Polling;
    use super::super::session::{Arrival, Transport};
    use super::super::{Settings, echo};
    use super::*;

    /// For the whole of it.
    const LIMIT: Duration = Duration::from_millis(400);

    /// `probe`, `upgrade` and a close, as frames of a client whose mask is nothing.
    const PROBE: &[u8] = b"\x81\x86\0\0\0\x002probe";
    const UPGRADE: &[u8] = b"\x81\x81\0\0\0\x005";

    struct Bench {
        engine: Rc<Engine>,
        listener: TcpListener,
    }

    impl Bench {
        async fn new() -> Self {
            let settings = Settings { upgrade_timeout: LIMIT, ..Settings::default() };
            let engine = echo::engine(settings, &Drain::default());
            Self { engine, listener: TcpListener::bind("127.0.0.1:0").await.expect("a port") }
        }

        fn session(&self) -> Rc<Session> {
            let (version, address) = (Version::V4, IpAddr::from(Ipv4Addr::LOCALHOST));
            let bounds = &self.engine.settings().bounds;
            let seat = self.engine.admission.admit(address, bounds).expect("a seat");
            let arrival = Arrival { version, address, base64: false, handshake: None, seat };
            self.engine.open(arrival, Transport::Polling(Polling::default()))
        }

        /// The client's end of a WebSocket that wants to take the session over, from now on.
        async fn begin(&self, session: &Rc<Session>) -> TcpStream {
            let address = self.listener.local_addr().expect("an address");
            let (client, server) =
                tokio::join!(TcpStream::connect(address), self.listener.accept());
            let socket = Socket::plain(server.expect("a connection").0, None);
            let websocket = WebSocket::new(socket, &Bytes::new(), None);
            let probe = Rc::clone(&self.engine).probe(Rc::clone(session), websocket);
            self.engine.drain.spawn("probe", probe);
            client.expect("a connection")
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(test);
    }

    /// What the client hears to the end.
    async fn rest(client: &mut TcpStream) -> Vec<u8> {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("an end");
        heard
    }

    /// Its own end comes no sooner than its time, and it harms nobody.
    #[test]
    fn a_probe_that_is_never_finished_ends_and_polling_goes_on() {
        run(async {
            let bench = Bench::new().await;
            for said in [&b""[..], &PROBE[..3], PROBE] {
                let (session, begun) = (bench.session(), Instant::now());
                let mut client = bench.begin(&session).await;
                client.write_all(said).await.expect("taken");
                let heard = rest(&mut client).await;
                assert!(begun.elapsed() >= LIMIT, "{said:?}");
                let answer: &[u8] =
                    if said == PROBE { b"\x81\x063probe\x88\x00" } else { b"\x88\x00" };
                assert_eq!(heard, answer, "{said:?}");
                assert_eq!((session.is_open(), session.transport()), (true, "polling"));
                // Nor is it in the way of the next.
                let mut client = bench.begin(&session).await;
                client.write_all(&[PROBE, UPGRADE].concat()).await.expect("taken");
                let mut heard = [0; 8];
                client.read_exact(&mut heard).await.expect("an answer");
                assert_eq!(&heard, b"\x81\x063probe");
                client.write_all(b"\x81\x82\0\0\0\x004a").await.expect("taken");
                let mut heard = [0; 4];
                client.read_exact(&mut heard).await.expect("an echo");
                assert_eq!((&heard, session.transport()), (b"\x81\x024a", "websocket"));
            }
        });
    }

    /// One limit for all of it, as with Node: who says a little is not given as long again.
    #[test]
    fn what_a_probe_says_gives_it_no_more_time() {
        run(async {
            let bench = Bench::new().await;
            let (early, late) = (bench.session(), bench.session());
            let begun = Instant::now();
            let mut first = bench.begin(&early).await;
            sleep_until(begun + LIMIT / 4).await;
            let mut second = bench.begin(&late).await;
            sleep_until(begun + LIMIT / 2).await;
            // Too late, if the machine had no time for it.
            let _taken = first.write_all(PROBE).await;
            tokio::select! {
                biased;
                _ = rest(&mut first) => (),
                _ = rest(&mut second) => panic!("who came later had to leave first"),
            }
        });
    }
}

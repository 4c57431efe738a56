//! Listening sockets and a few words, from one process to the next over a pair of sockets.
//!
//! The old process says `socket SCHEME ADDRESS`, `nodes ADDRESS`, `admin ADDRESS` and `hub NAME`, each
//! with a socket, `door NODE ADDRESS` where it takes requests of other nodes, then `end`. The new one
//! says where its own door is, and goes on once the old one answers `heard`; it says `ready` when it
//! serves, and the old one answers `go` when the service manager knows which of them is the main one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::exchange::Scheme;

/// The other process answers at once, or it is gone.
const WORD_WITHIN: Duration = Duration::from_secs(10);
/// A word and an address.
const WORD_MAX: usize = 4096;

/// One end of the pair.
pub struct Line(OwnedFd);

/// What the process before this one hands over.
pub struct Handed {
    pub sockets: Vec<Socket>,
    /// To which other nodes bring requests, and the address as it is configured.
    pub nodes: Vec<(SocketAddr, StdListener)>,
    /// Where it takes those that come here and are for its own sessions.
    pub door: Option<Door>,
    /// The private listener, and where it listens.
    pub admin: Option<(String, OwnedFd)>,
    /// Over which the hubs of both speak while clients move, and what the other is called on Redis.
    pub hub: Option<(OwnedFd, Option<String>)>,
    line: Line,
}

/// Where one of two processes at one address takes what came to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The name of its node.
    pub node: String,
    pub address: String,
}

impl Door {
    pub fn word(&self) -> String {
        format!("door {} {}", self.node, self.address)
    }

    pub fn parse(word: &str) -> Option<Self> {
        let (node, address) = word.strip_prefix("door ")?.split_once(' ')?;
        Some(Self { node: node.to_owned(), address: address.to_owned() })
    }
}

/// One listening socket.
pub struct Socket {
    pub scheme: Scheme,
    /// As the configuration writes it.
    pub configured: SocketAddr,
    pub socket: StdListener,
}

/// Two ends of what the hubs of both processes say to each other.
pub fn hub_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    Ok(socketpair(family, SocketType::STREAM, flags, None)?)
}

/// Our end, and the one that becomes the new process' standard input.
pub fn pair() -> io::Result<(Line, OwnedFd)> {
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(family, SocketType::SEQPACKET, flags, None)?;
    Ok((Line(ours), theirs))
}

impl Line {
    /// The old process' side: a word, perhaps with a socket.
    pub fn say(&self, word: &str, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Send, Some(WORD_WITHIN))?;
        let sockets: Vec<_> = socket.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !with.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("no room for a socket"));
        }
        let word = [IoSlice::new(word.as_bytes())];
        retry_on_intr(|| sendmsg(&self.0, &word, &mut with, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// The next word; `None` when the other process is gone.
    pub fn hear(&self, within: Duration) -> io::Result<Option<(String, Option<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(within))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let mut word = vec![0; WORD_MAX];
        let came = {
            let mut into = [IoSliceMut::new(&mut word)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            retry_on_intr(|| recvmsg(&self.0, &mut into, &mut with, flags))?.bytes
        };
        if came == 0 {
            return Ok(None);
        }
        word.truncate(came);
        let mut socket = None;
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                // One comes with each word.
                for came in sockets {
                    socket = Some(came);
                }
            }
        }
        Ok(Some((String::from_utf8_lossy(&word).into_owned(), socket)))
    }
}

impl Handed {
    /// Takes everything from the process before, which is at standard input.
    pub fn take() -> io::Result<Self> {
        let line = Line(io::stdin().as_fd().try_clone_to_owned()?);
        let (mut sockets, mut nodes) = (Vec::new(), Vec::new());
        let (mut admin, mut hub, mut door) = (None, None, None);
        loop {
            let Some((word, socket)) = line.hear(WORD_WITHIN)? else {
                return Err(io::Error::other("the process before is gone"));
            };
            let (what, rest) = word.split_once(' ').unwrap_or((&word, ""));
            match (what, socket) {
                ("end", _) => return Ok(Self { sockets, nodes, door, admin, hub, line }),
                ("door", _) => door = Door::parse(&word),
                ("nodes", Some(socket)) => {
                    nodes.push((rest.parse().map_err(io::Error::other)?, socket.into()));
                }
                ("admin", Some(socket)) => admin = Some((rest.to_owned(), socket)),
                ("hub", Some(socket)) => {
                    hub = Some((socket, Some(rest.to_owned()).filter(|name| !name.is_empty())));
                }
                ("socket", Some(socket)) => {
                    let (scheme, address) = rest.split_once(' ').unwrap_or_default();
                    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
                    let configured = address.parse().map_err(io::Error::other)?;
                    sockets.push(Socket { scheme, configured, socket: socket.into() });
                }
                // A later version may say more than this one understands.
                _ => (),
            }
        }
    }

    /// Says where this process takes what comes to the one before; that one knows when it returns.
    pub fn tell(&self, door: &Door) -> io::Result<()> {
        self.line.say(&door.word(), None)?;
        match self.line.hear(WORD_WITHIN)? {
            Some((word, _)) if word == "heard" => Ok(()),
            _ => Err(io::Error::other("the process before is gone")),
        }
    }

    /// Says that this process serves, and waits until the one before knows.
    pub fn ready(self) -> io::Result<()> {
        self.line.say("ready", None)?;
        // One that is gone meanwhile has nothing to say any more.
        let _go = self.line.hear(WORD_WITHIN)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_with_its_word() {
        let (ours, theirs) = pair().expect("a pair");
        let theirs = Line(theirs);
        let socket = StdListener::bind("127.0.0.1:0").expect("a port");
        ours.say("socket http 127.0.0.1:0", Some(socket.as_fd())).expect("said");
        ours.say("end", None).expect("said");
        let address = socket.local_addr().expect("bound");
        drop(socket);
        let (word, came) = theirs.hear(WORD_WITHIN).expect("heard").expect("a word");
        assert_eq!(word, "socket http 127.0.0.1:0");
        let came = StdListener::from(came.expect("a socket"));
        assert_eq!(came.local_addr().expect("bound"), address);
        let door = Door { node: "aB-".to_owned(), address: "127.0.0.1:7421".to_owned() };
        assert_eq!(Door::parse(&door.word()), Some(door));
        assert_eq!((Door::parse("door aB-"), Door::parse("ready")), (None, None));
        assert!(std::net::TcpStream::connect(address).is_ok(), "it never closed");
        let (word, none) = theirs.hear(WORD_WITHIN).expect("heard").expect("a word");
        assert!(word == "end" && none.is_none());
        assert!(theirs.hear(Duration::from_millis(1)).is_err(), "nothing more in time");
        drop(ours);
        assert!(theirs.hear(WORD_WITHIN).expect("heard").is_none());
    }
}

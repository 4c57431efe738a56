//! The accept queues of the listeners, as the kernel counts them: for each socket, by sock_diag(7).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

use super::super::figures::Figures;
use super::{Finding, Note, Right, Wrong};

/// All sockets of one port.
#[derive(Debug, Default, PartialEq, Eq)]
struct Queue {
    waiting: u32,
    /// Of the smallest.
    most: u32,
    dropped: u32,
}

/// A queue that holds fewer is full when a few hundred clients come back at once.
const MOST_MIN: u32 = 1024;
const MEND: &str = "sysctl net.core.somaxconn=4096 and a restart; more workers if it goes on";

pub fn look(listening: impl Iterator<Item = SocketAddr>, figures: &Figures) -> Vec<Finding> {
    let mut ports: Vec<u16> = listening.map(|address| address.port()).collect();
    ports.dedup();
    if ports.is_empty() {
        return Vec::new();
    }
    match queues() {
        Ok(queues) => {
            let known = ports.iter().filter_map(|port| Some((*port, queues.get(port)?)));
            known.map(|(port, queue)| judge(port, queue)).collect()
        }
        // All that is left is a figure of the whole machine, since it started.
        Err(error) => {
            let dropped = figures.total("vestibule_listen_overflows_total");
            vec![Note(
                format!("the kernel does not tell of single accept queues: {error}"),
                format!(
                    "all programs of this machine together have lost {dropped:.0} connections in full ones"
                ),
            )]
        }
    }
}

fn judge(port: u16, Queue { waiting, most, dropped }: &Queue) -> Finding {
    if *dropped > 0 {
        let what = format!(
            "the kernel has dropped {dropped} connections to port {port}, whose accept queue was full, since it listens"
        );
        return Wrong(what, MEND.to_owned());
    }
    if *most < MOST_MIN {
        let what = format!("only {most} connections to port {port} may wait to be accepted");
        return Wrong(what, MEND.to_owned());
    }
    Right(format!("port {port}: none dropped, {waiting} of {most} wait to be accepted"))
}

/// The kind of a question about sockets, and of what answers it.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// By port; sockets of IPv4 and of IPv6.
fn queues() -> io::Result<BTreeMap<u16, Queue>> {
    const INET: u8 = 2;
    const INET6: u8 = 10;
    let mut queues = BTreeMap::new();
    for family in [INET, INET6] {
        let asked = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG))?;
        socket2::SockRef::from(&asked).set_read_timeout(Some(Duration::from_secs(2)))?;
        send(&asked, &question(family), SendFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let (length, _) = recv(&asked, &mut buffer[..], RecvFlags::empty())?;
            if take(buffer.get(..length).unwrap_or_default(), &mut queues)? {
                break;
            }
        }
    }
    Ok(queues)
}

/// A dump of all sockets that listen, with what they have in memory: `nlmsghdr` and
/// `inet_diag_req_v2` of linux/netlink.h and linux/inet_diag.h.
fn question(family: u8) -> Vec<u8> {
    const REQUEST_DUMP: u16 = 0x301;
    const TCP: u8 = 6;
    const SKMEMINFO: u8 = 7;
    const LISTEN: u32 = 1 << 10;
    const LENGTH: u32 = 16 + 56;
    let mut words = Vec::with_capacity(LENGTH as usize);
    words.extend(LENGTH.to_ne_bytes());
    words.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    words.extend(REQUEST_DUMP.to_ne_bytes());
    words.extend([0; 8]);
    words.extend([family, TCP, 1 << (SKMEMINFO - 1), 0]);
    words.extend(LISTEN.to_ne_bytes());
    words.resize(LENGTH as usize, 0);
    words
}

/// Adds what one datagram tells; true if it is the last.
fn take(mut bytes: &[u8], queues: &mut BTreeMap<u16, Queue>) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = (length as usize).clamp(16, bytes.len().max(16));
        let body = bytes.get(16..length).unwrap_or_default();
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => add(body, queues),
            _ => (),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg`: its port is at 4, how many wait at 56, how many may at 60; then attributes.
fn add(body: &[u8], queues: &mut BTreeMap<u16, Queue>) {
    const SKMEMINFO: u16 = 7;
    /// `SK_MEMINFO_DROPS` of linux/sock_diag.h.
    const DROPS: usize = 8;
    let (Some(port), Some(waiting), Some(most)) =
        (u16_at(body, 4), u32_at(body, 56), u32_at(body, 60))
    else {
        return;
    };
    let mut dropped = 0;
    let mut rest = body.get(72..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length).max(4);
        if kind == SKMEMINFO {
            dropped = u32_at(rest, 4 + 4 * DROPS).unwrap_or_default();
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let queue = queues.entry(u16::from_be(port)).or_insert(Queue { most, ..Queue::default() });
    queue.waiting += waiting;
    queue.most = queue.most.min(most);
    queue.dropped += dropped;
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_has_a_queue_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let first = std::net::TcpStream::connect(address).expect("the kernel takes it");
        let queues = queues().expect("sock_diag");
        let queue = queues.get(&address.port()).expect("the port");
        assert_eq!((queue.waiting, queue.dropped), (1, 0));
        drop(first);
    }

    #[test]
    fn what_is_full_is_told() {
        let queue = |most, dropped| Queue { waiting: 0, most, dropped };
        assert!(matches!(judge(443, &queue(4096, 0)), Right(_)));
        assert!(matches!(judge(443, &queue(128, 0)), Wrong(what, _) if what.contains("only 128")));
        assert!(
            matches!(judge(443, &queue(4096, 7)), Wrong(what, _) if what.contains("dropped 7"))
        );
    }

    #[test]
    fn what_the_kernel_never_said_is_no_queue() {
        for bytes in [&[][..], &[1; 3], &[0; 64], &[255; 200]] {
            let mut queues = BTreeMap::new();
            let _read = take(bytes, &mut queues);
            assert!(queues.is_empty(), "{bytes:?}");
        }
    }
}

//! A plain TCP balancer without memory: each connection goes to the next server in turn.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Runs until it is dropped; connections end with it.
pub struct Balancer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    ended: AtomicBool,
    /// Both ends of every connection, by its turn.
    open: Mutex<HashMap<usize, [Arc<TcpStream>; 2]>>,
}

impl Balancer {
    pub fn start(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            servers: Mutex::new(servers),
            turn: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                accepting.join(client);
            }
        });
        Self { address, shared }
    }

    /// These are the servers from now on; connections stay where they are.
    pub fn set(&self, servers: Vec<SocketAddr>) {
        *lock(&self.shared.servers) = servers;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Shared {
    /// To the next server that takes it.
    fn join(self: &Arc<Self>, client: TcpStream) {
        let servers = lock(&self.servers).clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let far = (0..servers.len())
            .find_map(|more| TcpStream::connect(servers[(turn + more) % servers.len()]).ok());
        let Some(far) = far else { return };
        for stream in [&client, &far] {
            stream.set_nodelay(true).expect("no delay");
        }
        let [client, far] = [client, far].map(Arc::new);
        lock(&self.open).insert(turn, [Arc::clone(&client), Arc::clone(&far)]);
        let shared = Arc::clone(self);
        let back = {
            let (from, to) = (Arc::clone(&far), Arc::clone(&client));
            thread::spawn(move || pipe(&from, &to))
        };
        thread::spawn(move || {
            pipe(&client, &far);
            back.join().expect("the way back");
            lock(&shared.open).remove(&turn);
        });
    }
}

fn pipe(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // One side has ended: the other hears of it.
    let _gone = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
        for stream in lock(&self.shared.open).values().flatten() {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

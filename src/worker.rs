//! One thread, one runtime: its listeners, its upstream connections, its shard of the hub.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::error;

use crate::auth;
use crate::drain::Drain;
use crate::exchange::Scheme;
use crate::hub;
use crate::listener::{self, Open};
use crate::observe::{lines, metrics};
use crate::router::Local;
use crate::snapshot::Current;
use crate::upstream::Pools;

/// What the main thread asks of a worker.
pub enum Command {
    Listen(Scheme, StdListener),
    /// Both may be at one address for a moment, when a port goes from one to the other.
    Unlisten(Scheme, SocketAddr),
    /// Here other nodes bring requests, or the other process at their address does.
    Neighbours(StdListener, hub::Entrance),
    /// Other nodes are taken by the process that takes over.
    Shut,
    /// Answered at once by a worker that is alive.
    Ping(oneshot::Sender<()>),
    /// Accept no more, let everything finish, end the thread.
    Drain,
}

/// The main thread's end of a worker.
pub struct Worker {
    commands: mpsc::Sender<Command>,
    ended: oneshot::Receiver<()>,
}

/// What all workers are started with.
#[derive(Clone)]
pub struct Shared {
    pub current: Current,
    pub hub: Arc<hub::Hub>,
    pub open: Open,
    pub desk: auth::Way,
}

/// The main thread sends few commands and waits while the queue is full.
const COMMANDS: usize = 64;

impl Worker {
    pub fn start(index: usize, inbox: hub::Inbox, shared: Shared) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread();
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            metrics::enter_worker(index);
            let mut runtime = runtime;
            match runtime.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(run(index, inbox, shared, receiver)),
                Err(error) => error!(%error, "no runtime for a worker"),
            }
            // The main thread may be gone already, after a second signal.
            let _told = end.send(());
        })?;
        Ok(Self { commands, ended })
    }

    /// False if the worker has ended.
    pub async fn tell(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Resolves when the worker's last task is done.
    pub async fn ended(&mut self) {
        // An error says that the thread is gone, which is what is waited for.
        let _gone = (&mut self.ended).await;
    }
}

async fn run(
    index: usize,
    inbox: hub::Inbox,
    shared: Shared,
    mut commands: mpsc::Receiver<Command>,
) {
    let drain = Drain::default();
    let Shared { current, hub, open, desk } = shared;
    let policy = current.load().hub().cloned();
    let pools = Pools::new(&drain);
    let users = auth::Local::new(desk);
    let local = Rc::new(Local {
        hub: hub::Shard::start(index, &hub, inbox, policy.as_deref(), (&pools, &users), &drain),
        users,
        pools,
        flights: Rc::default(),
        drain: drain.clone(),
    });
    drain.spawn_background(lines::flush_lines());
    let mut listeners: HashMap<(Scheme, SocketAddr), Vec<JoinHandle<()>>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(scheme, socket) => match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let Ok(address) = socket.local_addr() else { continue };
                    let (current, local) = (current.clone(), Rc::clone(&local));
                    let accepting = listener::serve(socket, scheme, current, local, open.clone());
                    let accepting = drain.spawn("listener", accepting);
                    listeners.entry((scheme, address)).or_default().push(accepting);
                }
                Err(error) => error!(%error, "cannot listen"),
            },
            Command::Unlisten(scheme, address) => {
                for listener in listeners.remove(&(scheme, address)).into_iter().flatten() {
                    listener.abort();
                }
            }
            Command::Shut => local.hub.shut(),
            Command::Neighbours(socket, by) => match TcpListener::from_std(socket) {
                Ok(socket) => local.hub.listen(socket, by, &drain),
                Err(error) => error!(%error, "cannot listen to other nodes"),
            },
            Command::Ping(answer) => {
                // Whoever asked may have stopped waiting.
                let _heard = answer.send(());
            }
            Command::Drain => break,
        }
    }
    drain.begin();
    local.hub.left().await;
    drain.emptied().await;
    lines::flush();
}

//! A proxy between two parts: it delays, cuts, resets, and knows enough of Kafka and PostgreSQL to stop a process
//! between two of its steps.
//!
//! So a kill between the flush of a transaction's records and its commit, or between an SQL commit and the next poll,
//! needs nothing in the program that is killed.

mod frames;
mod relay;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

pub use frames::{ApiKey, Protocol};

use crate::eventually::DEADLINE;

/// What stands between two parts.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    runtime: Handle,
}

/// How bytes pass now.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Nothing passes; connections stay, and new ones are taken.
    cut: bool,
    /// Requests to become a producer do not pass.
    no_producers: bool,
    /// Everything comes so much later, in both directions.
    delay: Duration,
    /// Requests to end a transaction come so much later.
    end_delay: Duration,
    /// So many of a hundred requests to add offsets to a transaction are refused, so that it has to be aborted.
    refused_percent: u8,
    /// Rises when all connections are reset.
    resets: u64,
}

struct Shared {
    protocol: Protocol,
    upstream: SocketAddr,
    way: watch::Sender<Way>,
    trap: Mutex<Option<Trap>>,
    random: Mutex<fastrand::Rng>,
    clients: Mutex<Clients>,
    refused: AtomicU64,
    delayed: AtomicU64,
    reset: AtomicU64,
}

/// Kafka clients, by their `client.id`.
#[derive(Default)]
struct Clients {
    seen: BTreeSet<String>,
    lost: BTreeSet<String>,
}

impl Clients {
    /// Takes down whose request this is; whether it passes.
    fn pass(&mut self, client_id: &str) -> bool {
        if !self.seen.contains(client_id) {
            self.seen.insert(client_id.to_owned());
        }
        !self.lost.contains(client_id)
    }
}

/// What is waited for, once.
struct Trap {
    step: Step,
    sprung: oneshot::Sender<oneshot::Sender<Verdict>>,
}

/// A step of a process that can be stopped in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The records of a transaction and its offsets are with the broker, its end is not; of a transactional id that
    /// contains this.
    EndsTransaction(String),
    /// The database has committed, and whoever asked has not heard of it.
    HasCommitted,
}

/// What becomes of a message that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Forward,
    Drop,
}

/// A step that was seen and is not to be.
pub struct Awaited {
    sprung: oneshot::Receiver<oneshot::Sender<Verdict>>,
    runtime: Handle,
}

/// A message on hold; it goes on when this is dropped.
pub struct Caught {
    verdict: Option<oneshot::Sender<Verdict>>,
}

impl Proxy {
    /// Listens, and takes whoever comes to `upstream`. What is random is drawn by `seed`.
    ///
    /// # Panics
    ///
    /// When it cannot listen.
    pub fn start(
        runtime: &Handle,
        listen: SocketAddr,
        upstream: SocketAddr,
        protocol: Protocol,
        seed: u64,
    ) -> Self {
        let listener = runtime
            .block_on(TcpListener::bind(listen))
            .expect("the port is free");
        let shared = Arc::new(Shared {
            protocol,
            upstream,
            way: watch::Sender::default(),
            trap: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            clients: Mutex::default(),
            refused: AtomicU64::default(),
            delayed: AtomicU64::default(),
            reset: AtomicU64::default(),
        });
        let address = listener.local_addr().expect("it is bound");
        let accepting = runtime.spawn(accept(listener, address, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
            runtime: runtime.clone(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Way)) {
        self.shared.way.send_modify(change);
    }

    /// Nothing passes in either direction until [`Proxy::heal`]; what was sent meanwhile comes then.
    pub fn cut(&self) {
        self.change(|way| way.cut = true);
    }

    /// Nobody becomes a transactional producer until [`Proxy::heal`].
    pub fn hold_producers(&self) {
        self.change(|way| way.no_producers = true);
    }

    /// All bytes pass at once, from now on.
    pub fn heal(&self) {
        self.change(|way| {
            *way = Way {
                resets: way.resets,
                ..Way::default()
            };
        });
    }

    /// Everything comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.change(|way| way.delay = delay);
    }

    /// Only requests to end a transaction come so much later, also when whoever asked has given up on them.
    pub fn delay_ends(&self, delay: Duration) {
        self.change(|way| way.end_delay = delay);
    }

    /// The broker seems to refuse so many of a hundred requests to add offsets to a transaction.
    pub fn refuse(&self, percent: u8) {
        self.change(|way| way.refused_percent = percent);
    }

    /// Breaks all connections.
    pub fn reset(&self) {
        self.change(|way| way.resets += 1);
    }

    /// The `client.id`s of all Kafka clients that have come so far.
    pub fn clients(&self) -> BTreeSet<String> {
        let clients = self.shared.clients.lock().expect("no holder panics");
        clients.seen.clone()
    }

    /// The Kafka client of this `client.id` loses the broker for good: each connection of it breaks at its first
    /// request. A client that takes its place has another `client.id`.
    pub fn lose(&self, client_id: &str) {
        let mut clients = self.shared.clients.lock().expect("no holder panics");
        clients.lost.insert(client_id.to_owned());
    }

    /// The Kafka client of this `client.id` reaches the broker again.
    pub fn let_pass(&self, client_id: &str) {
        let mut clients = self.shared.clients.lock().expect("no holder panics");
        clients.lost.remove(client_id);
    }

    /// Requests that were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends of transactions that were delayed so far.
    pub fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::Relaxed)
    }

    /// Connections that were reset so far.
    pub fn resets(&self) -> u64 {
        self.shared.reset.load(Ordering::Relaxed)
    }

    /// The next time that somebody comes to `step`, it is held there.
    pub fn catch(&self, step: Step) -> Awaited {
        let (sprung, wait) = oneshot::channel();
        *self.shared.trap.lock().expect("no holder panics") = Some(Trap { step, sprung });
        Awaited {
            sprung: wait,
            runtime: self.runtime.clone(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

impl Awaited {
    /// Waits until somebody is there.
    ///
    /// # Panics
    ///
    /// When nobody comes in time.
    pub fn seen(self) -> Caught {
        let seen = self
            .runtime
            .block_on(async { tokio::time::timeout(DEADLINE, self.sprung).await });
        let verdict = seen
            .expect("somebody comes to the step")
            .expect("the proxy runs");
        Caught {
            verdict: Some(verdict),
        }
    }
}

impl Caught {
    /// The message goes on its way.
    pub fn release(self) {}

    /// The message is lost, and so is its connection.
    pub fn lose(mut self) {
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Verdict::Drop);
        }
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Verdict::Forward);
        }
    }
}

impl Shared {
    /// The trap's sender, when this is what it waits for.
    fn springs(
        &self,
        is_it: impl FnOnce(&Step) -> bool,
    ) -> Option<oneshot::Sender<oneshot::Sender<Verdict>>> {
        let mut trap = self.trap.lock().expect("no holder panics");
        if !trap.as_ref().is_some_and(|trap| is_it(&trap.step)) {
            return None;
        }
        trap.take().map(|trap| trap.sprung)
    }

    /// Whether a percentage strikes.
    fn strikes(&self, percent: u8) -> bool {
        percent > 0 && self.random.lock().expect("no holder panics").u8(..100) < percent
    }
}

/// Takes whoever comes; where nobody listens behind it, nobody listens here either.
async fn accept(mut listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let ended = Arc::new(Notify::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (shared, ended) = (Arc::clone(&shared), Arc::clone(&ended));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(shared.upstream).await {
                        relay::relay(client, server, &shared).await;
                    }
                    ended.notify_one();
                });
            }
            () = ended.notified() => {
                if TcpStream::connect(shared.upstream).await.is_err() {
                    drop(listener);
                    listener = again(address, &shared).await;
                }
            }
        }
    }
}

/// Listens again when somebody does behind it.
async fn again(address: SocketAddr, shared: &Shared) -> TcpListener {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if TcpStream::connect(shared.upstream).await.is_ok()
            && let Ok(listener) = TcpListener::bind(address).await
        {
            return listener;
        }
    }
}

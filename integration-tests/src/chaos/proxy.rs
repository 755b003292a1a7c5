//! A TCP proxy between two parts. It delays, blocks and resets connections, and knows enough of the Kafka and
//! PostgreSQL protocols to hold a process between two of its steps.
//!
//! That allows a kill between the flush of a transaction and its commit, or between an SQL commit and the next poll,
//! without any code in the process that is killed.

mod frames;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

pub use frames::{ApiKey, Protocol};

use crate::eventually::DEADLINE;

/// A proxy in front of one upstream address.
pub struct Proxy {
    /// Address on which the proxy listens.
    pub address: SocketAddr,
    state: Arc<ProxyState>,
    accepting: JoinHandle<()>,
    runtime: Handle,
}

/// Rules that apply to the traffic.
#[derive(Clone, Copy, Debug, Default)]
struct TrafficRules {
    /// No byte passes. Connections stay open, and new ones are accepted.
    blackhole: bool,
    /// `InitProducerId` requests are held.
    blocks_producer_init: bool,
    /// Delay of every message, in both directions.
    delay: Duration,
    /// Additional delay of requests to end a transaction.
    transaction_end_delay: Duration,
    /// Percentage of requests to add offsets to a transaction that are refused, so that the transaction has to be
    /// aborted.
    refused_percent: u8,
    /// Increases with each reset of all connections.
    reset_generation: u64,
}

struct ProxyState {
    protocol: Protocol,
    upstream: SocketAddr,
    rules: watch::Sender<TrafficRules>,
    interception: Mutex<Option<Interception>>,
    random: Mutex<fastrand::Rng>,
    clients: Mutex<Clients>,
    refused: AtomicU64,
    delayed_transaction_ends: AtomicU64,
    connections_reset: AtomicU64,
}

/// Kafka clients by their `client.id`.
#[derive(Default)]
struct Clients {
    /// With the time of the last request.
    known: BTreeMap<String, Instant>,
    disconnected: BTreeSet<String>,
}

impl Clients {
    /// Records the client of a request. Returns whether the request passes.
    fn admit(&mut self, client_id: &str) -> bool {
        self.known.insert(client_id.to_owned(), Instant::now());
        !self.disconnected.contains(client_id)
    }
}

/// A requested interception, used once.
struct Interception {
    step: Step,
    intercepted: oneshot::Sender<oneshot::Sender<Verdict>>,
}

/// A step of a process at which it can be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The broker has the records and offsets of a transaction, but not its end. Matches transactional ids that contain
    /// this text.
    EndTransaction(String),
    /// The database has committed, but its client has not received the answer.
    SqlCommitted,
}

/// Whether an intercepted message is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Forward,
    Drop,
}

/// An interception that has not happened yet.
pub struct PendingInterception {
    intercepted: oneshot::Receiver<oneshot::Sender<Verdict>>,
    runtime: Handle,
}

/// A held message. It is forwarded when the value is dropped.
pub struct InterceptedMessage {
    verdict: Option<oneshot::Sender<Verdict>>,
}

impl Proxy {
    /// Listens on `listen` and forwards to `upstream`. `seed` determines everything random.
    ///
    /// # Panics
    ///
    /// When the port is taken.
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
        let state = Arc::new(ProxyState {
            protocol,
            upstream,
            rules: watch::Sender::default(),
            interception: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            clients: Mutex::default(),
            refused: AtomicU64::default(),
            delayed_transaction_ends: AtomicU64::default(),
            connections_reset: AtomicU64::default(),
        });
        let address = listener.local_addr().expect("it is bound");
        let accepting = runtime.spawn(accept(listener, address, Arc::clone(&state)));
        Self {
            address,
            state,
            accepting,
            runtime: runtime.clone(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut TrafficRules)) {
        self.state.rules.send_modify(change);
    }

    /// Lets no byte pass in either direction until [`Proxy::heal`]. What is sent meanwhile is delivered then.
    pub fn blackhole(&self) {
        self.change(|rules| rules.blackhole = true);
    }

    /// Holds requests to become a transactional producer until [`Proxy::heal`].
    pub fn block_producer_init(&self) {
        self.change(|rules| rules.blocks_producer_init = true);
    }

    /// Removes all traffic rules; disconnected clients stay disconnected.
    pub fn heal(&self) {
        self.change(|rules| {
            *rules = TrafficRules {
                reset_generation: rules.reset_generation,
                ..TrafficRules::default()
            };
        });
    }

    /// Delays all messages.
    pub fn delay(&self, delay: Duration) {
        self.change(|rules| rules.delay = delay);
    }

    /// Delays only requests to end a transaction. They are delivered even if the client has given up on them.
    pub fn delay_transaction_ends(&self, delay: Duration) {
        self.change(|rules| rules.transaction_end_delay = delay);
    }

    /// Refuses this percentage of requests to add offsets to a transaction, in the name of the broker.
    pub fn refuse_offset_adds(&self, percent: u8) {
        self.change(|rules| rules.refused_percent = percent);
    }

    /// Resets all connections.
    pub fn reset(&self) {
        self.change(|rules| rules.reset_generation += 1);
    }

    /// The `client.id`s of all Kafka clients that have connected so far.
    pub fn clients(&self) -> BTreeSet<String> {
        let clients = self.state.clients.lock();
        clients.known.keys().cloned().collect()
    }

    /// The `client.id`s of the Kafka clients that have sent a request within this time: a former client of a process
    /// sends none.
    pub fn active_clients(&self, within: Duration) -> BTreeSet<String> {
        let clients = self.state.clients.lock();
        let known = clients.known.iter();
        let active = known.filter(|(_, last_request)| last_request.elapsed() <= within);
        active.map(|(id, _)| id.clone()).collect()
    }

    /// Disconnects a Kafka client from the broker permanently: each of its connections breaks at its first request. A
    /// client that replaces it has another `client.id`.
    pub fn disconnect_client(&self, client_id: &str) {
        let mut clients = self.state.clients.lock();
        clients.disconnected.insert(client_id.to_owned());
    }

    /// Ends [`Proxy::disconnect_client`].
    pub fn reconnect_client(&self, client_id: &str) {
        let mut clients = self.state.clients.lock();
        clients.disconnected.remove(client_id);
    }

    /// Number of requests refused so far.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// Number of delayed ends of transactions so far.
    pub fn delayed_transaction_ends(&self) -> u64 {
        self.state.delayed_transaction_ends.load(Ordering::Relaxed)
    }

    /// Number of connections reset so far.
    pub fn connections_reset(&self) -> u64 {
        self.state.connections_reset.load(Ordering::Relaxed)
    }

    /// Holds the next message that matches `step`.
    pub fn intercept(&self, step: Step) -> PendingInterception {
        let (intercepted, wait) = oneshot::channel();
        *self.state.interception.lock() = Some(Interception { step, intercepted });
        PendingInterception {
            intercepted: wait,
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

impl PendingInterception {
    /// Waits until the step is intercepted.
    ///
    /// # Panics
    ///
    /// When the step is not reached in time.
    pub fn wait(self) -> InterceptedMessage {
        let intercepted = self
            .runtime
            .block_on(async { tokio::time::timeout(DEADLINE, self.intercepted).await });
        let verdict = intercepted
            .expect("the step is reached")
            .expect("the proxy runs");
        InterceptedMessage {
            verdict: Some(verdict),
        }
    }
}

impl InterceptedMessage {
    /// Forwards the message.
    pub fn release(self) {
        // Drop forwards it.
    }

    /// Drops the message and its connection.
    pub fn discard(mut self) {
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Verdict::Drop);
        }
    }
}

impl Drop for InterceptedMessage {
    fn drop(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Verdict::Forward);
        }
    }
}

impl ProxyState {
    /// Takes the requested interception if its step matches.
    fn take_interception(
        &self,
        matches: impl FnOnce(&Step) -> bool,
    ) -> Option<oneshot::Sender<oneshot::Sender<Verdict>>> {
        let mut interception = self.interception.lock();
        if !interception
            .as_ref()
            .is_some_and(|interception| matches(&interception.step))
        {
            return None;
        }
        interception
            .take()
            .map(|interception| interception.intercepted)
    }

    /// Draws whether a request is refused.
    fn draw_refusal(&self, percent: u8) -> bool {
        percent > 0 && self.random.lock().u8(..100) < percent
    }
}

/// Accepts connections. Closes the listener while the upstream does not listen.
async fn accept(mut listener: TcpListener, address: SocketAddr, state: Arc<ProxyState>) {
    let connection_ended = Arc::new(Notify::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (state, connection_ended) = (Arc::clone(&state), Arc::clone(&connection_ended));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(state.upstream).await {
                        relay::relay(client, server, &state).await;
                    }
                    connection_ended.notify_one();
                });
            }
            () = connection_ended.notified() => {
                if TcpStream::connect(state.upstream).await.is_err() {
                    drop(listener);
                    listener = rebind(address, &state).await;
                }
            }
        }
    }
}

/// Listens again once the upstream does.
async fn rebind(address: SocketAddr, state: &ProxyState) -> TcpListener {
    const PROBE_INTERVAL: Duration = Duration::from_millis(10);
    let mut probes = tokio::time::interval(PROBE_INTERVAL);
    loop {
        probes.tick().await;
        if TcpStream::connect(state.upstream).await.is_ok()
            && let Ok(listener) = TcpListener::bind(address).await
        {
            return listener;
        }
    }
}

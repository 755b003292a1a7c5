//! One proxied connection. Each direction is read, checked against the proxy's rules, and written when it is due.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::frames::{self, ApiKey, Protocol};
use super::{ProxyState, Step, Verdict};

/// Capacity of the queue between reading and writing, in messages.
const QUEUE_CAPACITY: usize = 1_024;

/// Correlation ids of the requests whose response becomes a refusal.
type Refusals = Arc<Mutex<HashSet<u32>>>;

/// Forwards a connection until both sides have closed it or it is reset.
pub async fn relay(client: TcpStream, server: TcpStream, state: &Arc<ProxyState>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut rules = state.rules.subscribe();
    let reset_generation_at_start = rules.borrow_and_update().reset_generation;
    let (mut client, mut server) = (client, server);
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let refusals = Refusals::default();
        // Waits for both directions: a message in flight is delivered even when its sender has closed.
        let both = async {
            tokio::join!(
                forward(&mut from_client, &mut to_server, state, false, &refusals),
                forward(&mut from_server, &mut to_client, state, true, &refusals),
            )
        };
        tokio::select! {
            (up, down) = both => {
                if up.is_ok() && down.is_ok() {
                    return;
                }
            }
            _ = rules.wait_for(|rules| rules.reset_generation != reset_generation_at_start) => {
                state.connections_reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let _ = client.set_zero_linger();
    let _ = server.set_zero_linger();
}

async fn forward(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    state: &ProxyState,
    from_server_side: bool,
    refusals: &Refusals,
) -> io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE_CAPACITY);
    let reading = async {
        let mut first = true;
        while let Some(mut frame) =
            frames::read(from, state.protocol, from_server_side, first).await?
        {
            first = false;
            let Some(at) = schedule(state, from_server_side, refusals, &mut frame).await else {
                return Err(io::Error::other("lost"));
            };
            if queue.send((at, frame)).await.is_err() {
                break;
            }
        }
        drop(queue);
        Ok(())
    };
    let writing = async {
        let mut rules = state.rules.subscribe();
        while let Some((at, frame)) = due.recv().await {
            sleep_until(at).await;
            if rules.wait_for(|rules| !rules.blackhole).await.is_err() {
                break;
            }
            to.write_all(&frame).await?;
        }
        let _ = rules.wait_for(|rules| !rules.blackhole).await;
        to.shutdown().await
    };
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

/// The time at which a message is due; `None` when it is dropped.
async fn schedule(
    state: &ProxyState,
    from_server_side: bool,
    refusals: &Refusals,
    frame: &mut [u8],
) -> Option<Instant> {
    let rules = *state.rules.borrow();
    let mut at = Instant::now() + rules.delay;
    let mut intercepted = None;
    match (state.protocol, from_server_side) {
        (Protocol::Kafka, false) => {
            let request = frames::request(frame)?;
            if let Some(client_id) = frames::client_id(frame) {
                let mut clients = state.clients.lock();
                if !clients.admit(client_id) {
                    return None;
                }
            }
            match request.api {
                Some(ApiKey::EndTxn) => {
                    intercepted = state.take_interception(|step| {
                        matches!(step, Step::EndTransaction(name) if frames::contains(frame, name))
                    });
                    if !rules.transaction_end_delay.is_zero() {
                        state
                            .delayed_transaction_ends
                            .fetch_add(1, Ordering::Relaxed);
                        at += rules.transaction_end_delay;
                    }
                }
                Some(ApiKey::InitProducerId) => {
                    let mut rules = state.rules.subscribe();
                    let _ = rules.wait_for(|rules| !rules.blocks_producer_init).await;
                    at = at.max(Instant::now());
                }
                Some(ApiKey::AddOffsetsToTxn) if state.draw_refusal(rules.refused_percent) => {
                    let mut refusals = refusals.lock();
                    refusals.insert(request.correlation);
                }
                _ => {}
            }
        }
        (Protocol::Kafka, true) => {
            let is_refused = frames::correlation_id(frame).is_some_and(|correlation| {
                let mut refusals = refusals.lock();
                refusals.remove(&correlation)
            });
            if is_refused {
                state.refused.fetch_add(1, Ordering::Relaxed);
                frames::refuse(frame);
            }
        }
        (Protocol::Postgres, true) if frames::is_commit(frame) => {
            intercepted = state.take_interception(|step| *step == Step::SqlCommitted);
        }
        _ => {}
    }
    if let Some(intercepted) = intercepted {
        let (verdict, decided) = oneshot::channel();
        // Without a receiver the message passes.
        if intercepted.send(verdict).is_ok() && decided.await == Ok(Verdict::Drop) {
            return None;
        }
    }
    Some(at)
}

//! One connection through a proxy: each direction is read, held against what the proxy looks for, and written when
//! its time has come.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::frames::{self, ApiKey, Protocol};
use super::{Shared, Step, Verdict};

/// Messages between reading and writing.
const UNDER_WAY: usize = 1_024;

/// Correlations of requests whose answer becomes a refusal.
type Refusals = Arc<Mutex<HashSet<u32>>>;

/// Carries a connection until both sides have ended it, or it is reset.
pub async fn relay(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut way = shared.way.subscribe();
    let born = way.borrow_and_update().resets;
    let (mut client, mut server) = (client, server);
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let refusals = Refusals::default();
        // Both ends are waited for: a message under way arrives even when its sender has gone.
        let both = async {
            tokio::join!(
                carry(&mut from_client, &mut to_server, shared, false, &refusals),
                carry(&mut from_server, &mut to_client, shared, true, &refusals),
            )
        };
        tokio::select! {
            (up, down) = both => {
                if up.is_ok() && down.is_ok() {
                    return;
                }
            }
            _ = way.wait_for(|way| way.resets != born) => {
                shared.reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let _ = client.set_zero_linger();
    let _ = server.set_zero_linger();
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    by_server: bool,
    refusals: &Refusals,
) -> io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async {
        let mut first = true;
        while let Some(mut frame) = frames::read(from, shared.protocol, by_server, first).await? {
            first = false;
            let Some(at) = take(shared, by_server, refusals, &mut frame).await else {
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
        let mut way = shared.way.subscribe();
        while let Some((at, frame)) = due.recv().await {
            sleep_until(at).await;
            if way.wait_for(|way| !way.cut).await.is_err() {
                break;
            }
            to.write_all(&frame).await?;
        }
        let _ = way.wait_for(|way| !way.cut).await;
        to.shutdown().await
    };
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

/// When a message may go on; `None` when it is lost.
async fn take(
    shared: &Shared,
    by_server: bool,
    refusals: &Refusals,
    frame: &mut [u8],
) -> Option<Instant> {
    let way = *shared.way.borrow();
    let mut at = Instant::now() + way.delay;
    let mut sprung = None;
    match (shared.protocol, by_server) {
        (Protocol::Kafka, false) => {
            let request = frames::request(frame)?;
            if let Some(client_id) = frames::client_id(frame) {
                let mut clients = shared.clients.lock().expect("no holder panics");
                if !clients.pass(client_id) {
                    return None;
                }
            }
            match request.api {
                Some(ApiKey::EndTxn) => {
                    sprung = shared.springs(|step| {
                        matches!(step, Step::EndsTransaction(name) if frames::names(frame, name))
                    });
                    if !way.end_delay.is_zero() {
                        shared.delayed.fetch_add(1, Ordering::Relaxed);
                        at += way.end_delay;
                    }
                }
                Some(ApiKey::InitProducerId) => {
                    let mut way = shared.way.subscribe();
                    let _ = way.wait_for(|way| !way.no_producers).await;
                    at = at.max(Instant::now());
                }
                Some(ApiKey::AddOffsetsToTxn) if shared.strikes(way.refused_percent) => {
                    let mut refusals = refusals.lock().expect("no holder panics");
                    refusals.insert(request.correlation);
                }
                _ => {}
            }
        }
        (Protocol::Kafka, true) => {
            let is_refused = frames::answered(frame).is_some_and(|correlation| {
                let mut refusals = refusals.lock().expect("no holder panics");
                refusals.remove(&correlation)
            });
            if is_refused {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                frames::refuse(frame);
            }
        }
        (Protocol::Postgres, true) if frames::is_commit(frame) => {
            sprung = shared.springs(|step| *step == Step::HasCommitted);
        }
        _ => {}
    }
    if let Some(sprung) = sprung {
        let (verdict, decided) = oneshot::channel();
        // Nobody waits any more: it goes on.
        if sprung.send(verdict).is_ok() && decided.await == Ok(Verdict::Drop) {
            return None;
        }
    }
    Some(at)
}

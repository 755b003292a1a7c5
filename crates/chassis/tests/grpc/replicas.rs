//! Calls among several replicas, of which some are ill, ending, or gone.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chassis::grpc::{Limits, Peer};
use chassis::{Process, metrics};
use tokio::task::JoinSet;

use crate::fake::{Fake, SOON, any_port, authority, nobody, serve, serve_on, set_behaviour, until};

/// So many calls in a row go round all replicas, however they begin.
const ROUNDS: u32 = 8;

fn calls(fake: &Fake) -> u32 {
    fake.calls.load(Ordering::Relaxed)
}

/// Calls that all succeed, and whether the fake got one of them.
async fn gets_calls(peer: &Peer, fake: &Fake) -> bool {
    let before = calls(fake);
    for _ in 0..ROUNDS {
        set_behaviour(peer.clone())
            .await
            .expect("somebody takes it");
    }
    calls(fake) > before
}

#[tokio::test]
async fn a_replica_that_does_not_serve_gets_no_call_while_another_does() {
    let (well, ill) = (Fake::default(), Fake::default());
    let (well_address, well_process) = serve(&well).await;
    let (ill_address, ill_process) = serve(&ill).await;
    let peer = Peer::connect_lazy("sandbox", &[well_address, ill_address]);
    well_process.readiness().component("log").ready();
    let log = ill_process.readiness().component("log");
    log.ready();
    until(async || gets_calls(&peer, &ill).await).await;

    log.not_ready("away");
    until(async || !gets_calls(&peer, &ill).await).await;
    log.ready();
    until(async || gets_calls(&peer, &ill).await).await;

    // When nobody serves everybody is tried.
    log.not_ready("away");
    until(async || !gets_calls(&peer, &ill).await).await;
    well_process.readiness().component("log").not_ready("away");
    until(async || gets_calls(&peer, &ill).await).await;
    assert!(gets_calls(&peer, &well).await);
}

#[tokio::test]
async fn a_replica_that_is_gone_is_the_last_choice_until_it_is_back() {
    let (stays, comes) = (Fake::default(), Fake::default());
    let (address, process) = serve(&stays).await;
    process.readiness().component("log").ready();
    let empty = nobody().await;
    let peer = Peer::connect_lazy("sandbox", &[empty.clone(), address]);
    assert!(gets_calls(&peer, &stays).await);
    let back = Process::new();
    back.readiness().component("log").ready();
    let address = empty.as_str().parse().expect("it is an address");
    serve_on(address, &comes, Limits::default(), &back).await;
    until(async || gets_calls(&peer, &comes).await).await;
}

#[tokio::test]
async fn a_replica_that_ends_in_good_order_costs_no_call() {
    let fake = Fake::default();
    let mut processes = [Process::new(), Process::new()];
    let mut addresses = Vec::new();
    for process in &processes {
        process.readiness().component("log").ready();
        addresses.push(serve_on(any_port(), &fake, Limits::default(), process).await);
    }
    let replicas = [authority(addresses[0]), authority(addresses[1])];
    let peer = Peer::connect_lazy("sandbox", &replicas);
    let over = Arc::new(AtomicBool::new(false));
    let succeeded = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (peer, over, succeeded) = (peer.clone(), Arc::clone(&over), Arc::clone(&succeeded));
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                set_behaviour(peer.clone()).await?;
                succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(())
        });
    }
    let some_more = async || {
        let before = succeeded.load(Ordering::Relaxed);
        until(async || succeeded.load(Ordering::Relaxed) > before + 500).await;
    };
    for _ in 0..10 {
        for (process, address) in processes.iter_mut().zip(&addresses) {
            some_more().await;
            assert_eq!(process.stop(SOON).await, ExitCode::SUCCESS);
            some_more().await;
            *process = Process::new();
            process.readiness().component("log").ready();
            serve_on(*address, &fake, Limits::default(), process).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    while let Some(outcome) = callers.join_next().await {
        outcome
            .expect("no caller panics")
            .expect("every call succeeds");
    }
}

#[tokio::test]
async fn health_is_watched_beside_the_calls_and_no_longer_than_the_peer_lives() {
    let (one, other) = (Fake::default(), Fake::default());
    let full = Limits {
        in_flight: 1,
        ..Limits::default()
    };
    let processes = [Process::new(), Process::new()];
    let mut addresses = Vec::new();
    for (fake, process) in [&one, &other].into_iter().zip(&processes) {
        addresses.push(authority(
            serve_on(any_port(), fake, full.clone(), process).await,
        ));
    }
    let peer = Peer::connect_lazy("sandbox", &addresses);
    assert!(gets_calls(&peer, &one).await);
    until(async || processes.iter().all(|process| in_flight(process) == 1)).await;
    // It takes no place of the one that there is.
    assert!(gets_calls(&peer, &one).await || gets_calls(&peer, &other).await);
    drop(peer);
    until(async || processes.iter().all(|process| in_flight(process) == 0)).await;
}

fn in_flight(process: &Process) -> u64 {
    let families = process.registry().gather();
    let gauge = families
        .iter()
        .find(|family| family.name() == metrics::RPC_IN_FLIGHT.name)
        .and_then(|family| family.get_metric().first());
    gauge.map_or(0, |metric| metric.get_gauge().get_value() as u64)
}

//! Calls to several replicas, some of which are not ready, shutting down or down.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chassis::grpc::{Limits, Peer};
use chassis::{Process, metrics};
use tokio::task::JoinSet;

use crate::fake::{
    Fake, TIMEOUT, any_port, authority, serve, serve_on, set_behaviour, unused_address, wait_until,
};

/// Enough calls in a row to reach every replica.
const ROUNDS: u32 = 8;

fn calls(fake: &Fake) -> u32 {
    fake.calls.load(Ordering::Relaxed)
}

/// Makes calls, which must all succeed; returns whether the fake received one of them.
async fn gets_calls(peer: &Peer, fake: &Fake) -> bool {
    let before = calls(fake);
    for _ in 0..ROUNDS {
        set_behaviour(peer.clone())
            .await
            .expect("a replica serves it");
    }
    calls(fake) > before
}

#[tokio::test]
async fn a_replica_that_is_not_ready_gets_no_call_while_another_serves() {
    let (healthy, unready) = (Fake::default(), Fake::default());
    let (healthy_address, healthy_process) = serve(&healthy).await;
    let (unready_address, unready_process) = serve(&unready).await;
    let peer = Peer::connect_lazy("sandbox", &[healthy_address, unready_address]);
    healthy_process.readiness().component("log").ready();
    let log = unready_process.readiness().component("log");
    log.ready();
    wait_until(async || gets_calls(&peer, &unready).await).await;

    log.not_ready("away");
    wait_until(async || !gets_calls(&peer, &unready).await).await;
    log.ready();
    wait_until(async || gets_calls(&peer, &unready).await).await;

    // When no replica serves, all are tried.
    log.not_ready("away");
    wait_until(async || !gets_calls(&peer, &unready).await).await;
    healthy_process
        .readiness()
        .component("log")
        .not_ready("away");
    wait_until(async || gets_calls(&peer, &unready).await).await;
    assert!(gets_calls(&peer, &healthy).await);
}

#[tokio::test]
async fn a_replica_gets_calls_again_after_its_restart() {
    let (stable, restarted) = (Fake::default(), Fake::default());
    let (address, process) = serve(&stable).await;
    process.readiness().component("log").ready();
    let unused = unused_address().await;
    let peer = Peer::connect_lazy("sandbox", &[unused.clone(), address]);
    assert!(gets_calls(&peer, &stable).await);
    let process = Process::new();
    process.readiness().component("log").ready();
    let address = unused.as_str().parse().expect("it is an address");
    serve_on(address, &restarted, Limits::default(), &process).await;
    wait_until(async || gets_calls(&peer, &restarted).await).await;
}

#[tokio::test]
async fn a_graceful_shutdown_of_a_replica_fails_no_call() {
    let fake = Fake::default();
    let mut processes = [Process::new(), Process::new()];
    let mut addresses = Vec::new();
    for process in &processes {
        process.readiness().component("log").ready();
        addresses.push(serve_on(any_port(), &fake, Limits::default(), process).await);
    }
    let replicas = [authority(addresses[0]), authority(addresses[1])];
    let peer = Peer::connect_lazy("sandbox", &replicas);
    let stopped = Arc::new(AtomicBool::new(false));
    let succeeded = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (peer, stopped, succeeded) =
            (peer.clone(), Arc::clone(&stopped), Arc::clone(&succeeded));
        callers.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                set_behaviour(peer.clone()).await?;
                succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(())
        });
    }
    let more_calls = async || {
        let before = succeeded.load(Ordering::Relaxed);
        wait_until(async || succeeded.load(Ordering::Relaxed) > before + 500).await;
    };
    for _ in 0..10 {
        for (process, address) in processes.iter_mut().zip(&addresses) {
            more_calls().await;
            assert_eq!(process.stop(TIMEOUT).await, ExitCode::SUCCESS);
            more_calls().await;
            *process = Process::new();
            process.readiness().component("log").ready();
            serve_on(*address, &fake, Limits::default(), process).await;
        }
    }
    stopped.store(true, Ordering::Relaxed);
    while let Some(outcome) = callers.join_next().await {
        outcome
            .expect("no caller panics")
            .expect("every call succeeds");
    }
}

#[tokio::test]
async fn health_streams_use_no_permit_and_end_with_the_peer() {
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
    wait_until(async || processes.iter().all(|process| in_flight(process) == 1)).await;
    // The health stream does not use the only permit.
    assert!(gets_calls(&peer, &one).await || gets_calls(&peer, &other).await);
    drop(peer);
    wait_until(async || processes.iter().all(|process| in_flight(process) == 0)).await;
}

fn in_flight(process: &Process) -> u64 {
    let families = process.registry().gather();
    let gauge = families
        .iter()
        .find(|family| family.name() == metrics::RPC_IN_FLIGHT.name)
        .and_then(|family| family.get_metric().first());
    gauge.map_or(0, |metric| metric.get_gauge().get_value() as u64)
}

//! The sandbox: a payment provider and a carrier for tests.

use anyhow::Context as _;
use chassis::Process;
use chassis::grpc::Server;
use sandbox::Sandbox;

use crate::serve::Args;

/// Opens the ledgers and serves the partners.
pub(in crate::serve) fn start(
    args: &Args,
    process: &Process,
    server: Server,
) -> anyhow::Result<()> {
    let component = process.readiness().component("sandbox");
    let sandbox = Sandbox::open(args.sandbox.clone()).context("sandbox")?;
    server
        .add_service(sandbox.provider())
        .add_service(sandbox.carrier())
        .add_service(sandbox.control())
        .serve(process)?;
    component.ready();
    let shutdown = process.shutdown();
    process.spawn("sandbox ledgers", async move {
        shutdown.cancelled().await;
        sandbox.close().await;
    });
    Ok(())
}

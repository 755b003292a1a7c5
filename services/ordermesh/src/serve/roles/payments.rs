//! Payments: the processor, which calls the payment provider.

use chassis::grpc::Peer;
use engine::worker::Settings;
use payments::Provider;

use crate::serve::Args;
use crate::serve::pending_calls::PendingCalls;
use crate::serve::shared_connections::{PARTNER_DEADLINE, SharedConnections};

/// Starts the processor.
pub(in crate::serve) fn start(
    connections: &SharedConnections,
    args: &Args,
    partners: Peer,
    pending_calls: &PendingCalls,
) -> anyhow::Result<()> {
    let provider = Provider::new(partners, PARTNER_DEADLINE);
    let rules = args.payments.rules();
    connections.run_worker(rules, provider, Settings::default(), pending_calls)
}

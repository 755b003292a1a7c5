//! Payments: the processor, which calls the payment provider.

use chassis::grpc::Peer;
use engine::worker::Settings;
use payments::Provider;

use crate::serve::Args;
use crate::serve::pending_calls::PendingCalls;
use crate::serve::runtime::{PARTNER_DEADLINE, Runtime};

/// Starts the processor.
pub(in crate::serve) fn start(
    runtime: &Runtime,
    args: &Args,
    partners: Peer,
    calls: &PendingCalls,
) -> anyhow::Result<()> {
    let provider = Provider::new(partners, PARTNER_DEADLINE);
    let rules = args.payment_times.rules();
    runtime.run_worker(rules, provider, Settings::default(), calls)
}

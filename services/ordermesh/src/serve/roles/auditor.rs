//! The auditor.

use anyhow::Context as _;
use chassis::{Process, config};
use cli::system_audit;
use platform_client::Sandbox;

use crate::serve::Args;

/// Starts the auditor with the rule books of the services.
pub(in crate::serve) fn start(
    args: &Args,
    process: &Process,
    peers: &config::Peers,
) -> anyhow::Result<()> {
    let sandbox = peers.sandbox.first().context("no sandbox is configured")?;
    let sources = system_audit::sources(&args.stack, &Sandbox::at(sandbox.clone()));
    let (orders, payments) = (args.orders, args.payments);
    let audit = move |system: &auditor::SystemEvidence| {
        audit::audit(system, &system_audit::rule_books(system, orders, payments))
    };
    auditor::serve(process, sources, Box::new(audit), args.auditor)
}

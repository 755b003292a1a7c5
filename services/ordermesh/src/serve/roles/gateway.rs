//! The gateway: the public port.

use std::collections::BTreeSet;

use chassis::{Process, config};
use gateway::Gateway;

use crate::serve::{Args, Role};

/// Binds the public port and serves it.
pub(in crate::serve) async fn start(
    args: &Args,
    process: &Process,
    peers: &config::Peers,
    roles: &BTreeSet<Role>,
) -> anyhow::Result<()> {
    let gateway = Gateway::bind(args.public.address, peers, process).await?;
    // Only the orders API is required: without the other services orders can be placed, and commands wait in the log.
    let mut remote = Vec::new();
    if !roles.contains(&Role::Orders) {
        remote.push(gateway::ORDERS);
    }
    gateway.serve(process, &remote)?;
    Ok(())
}

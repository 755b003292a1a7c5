//! The lag exporter.

use chassis::Process;

use crate::serve::Args;

/// Starts the exporter.
pub(in crate::serve) fn start(args: &Args, process: &Process) -> anyhow::Result<()> {
    lag::serve(
        process,
        platform_client::cluster(&args.stack.kafka),
        args.lag,
    )
}

//! The commands that inspect the platform and act on it: each parses its flags, calls the platform, and prints the
//! answer.

pub mod audit;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod order;
pub mod sandbox;
pub mod status;
pub mod stock;
pub mod system_audit;
pub mod topics;

/// Flags that are valid one by one but not together. The exit code is [`chassis::config::EXIT_BAD_VALUE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);
